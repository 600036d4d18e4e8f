"""Schedules: executions that begin by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from perdure.cli import given, table
from perdure.cli.out import document, format_option, hint, moment, say, short
from perdure.cli.pages import page_options, say_page
from perdure.cli.session import Database, client_on, database_option
from perdure.errors import Invalid
from perdure.values.schedules import Overlap, Upcoming

if TYPE_CHECKING:
    from perdure.schedules import Schedules
    from perdure.timetable import Schedule

T = TypeVar("T")
_TIMES = ("at", "start", "end")


@click.group("schedules")
def schedules_command() -> None:
    """What begins by the clock: create, look at, pause, trigger, backfill.

    Any worker of the database begins what is due; each tick begins one execution.
    """


def _spec(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--cron", metavar="TEXT", help="Five fields, or @daily and the like."),
            click.option("--every", metavar="SPAN", help="At multiples of it since 1970."),
            click.option("--at", metavar="TIME", help="Once: 2026-12-01T09:00+01:00."),
            click.option(
                "--timezone", metavar="ZONE", help="Of the cron text: Europe/Berlin.  [UTC]"
            ),
            click.option("--offset", metavar="SPAN", help="How much later than --every says."),
            click.option("--start", metavar="TIME", help="No tick is before."),
            click.option("--end", metavar="TIME", help="No tick is at it, or after."),
        )
    ):
        command = option(command)
    return command


# -- making --------------------------------------------------------------------------------------


@schedules_command.command("create")
@click.argument("id")
@click.argument("workflow")
@click.argument("items", nargs=-1, metavar="[INPUT] [K=V]...")
@_spec
@click.option(
    "--overlap",
    type=click.Choice([str(one) for one in Overlap]),
    help="What a tick does while an execution is open.  [default: skip]",
)
@click.option("--catch-up", metavar="SPAN", help="How late a tick may begin.  [default: 1d]")
@click.option("--jitter", metavar="SPAN", help="Begin up to so much later.")
@click.option("--max-executions", type=click.IntRange(1), metavar="N", help="Then it is finished.")
@click.option("--paused", is_flag=True, default=None, help="Begin nothing until `resume`.")
@click.option("--description", help="What it is for.")
@click.option("--note", help="Why it is as it is.")
@click.option("--replace", is_flag=True, help="Take the place of a different one with this id.")
@click.option("--version", help="Version of the definition.  [default: the highest active one]")
@click.option("--queue", "task_queue", help="Queue of the workers that run it.")
@click.option("--tag", "tags", multiple=True, help="Repeat for several.")
@click.option("--search", multiple=True, metavar="K=V", help="Search attribute; repeat.")
@click.option("--tenant", help="Whose its executions are.")
@format_option("ids", "json")
@database_option
def create_command(
    database: Database,
    id: str,
    workflow: str,
    items: tuple[str, ...],
    output: str,
    *,
    replace: bool,
    **asked: Any,
) -> None:
    """Let a workflow begin by the clock: one of --cron, --every and --at says when.

    The same again changes nothing. INPUT is JSON, plain text, @FILE or - (stdin); K=V sets fields.
    """
    value = given.payload(items)
    asked["search"] = given.pairs(asked["search"], "--search")
    chosen = _chosen(asked)

    async def create(schedules: Schedules) -> Schedule:
        return await schedules.create(id, workflow, value, replace=replace, **chosen)

    made = _run(database, create, write=True)
    say(document(_listed(made)) if output == "json" else made.id)
    _tell_next(made)


# -- looking -------------------------------------------------------------------------------------


@schedules_command.command("list")
@click.option("-w", "--workflow", default="", metavar="NAME", help="Of this workflow.")
@click.option("--prefix", default="", help="Whose id begins so.")
@click.option("--paused/--active", default=None, help="Only those.")
@page_options
@format_option("table", "json", "jsonl", "ids")
@database_option
def list_command(database: Database, output: str, **filters: Any) -> None:
    """List schedules by their ids."""
    page = _run(database, lambda schedules: schedules.list(**filters))
    nothing = f"nothing is scheduled in {database.name}"
    say_page(page, output, listed=_listed, table=_table, nothing=nothing)


@schedules_command.command("show")
@click.argument("id")
@format_option("table", "json")
@database_option
def show_command(database: Database, id: str, output: str) -> None:
    """Show one: when it begins next, what it began last, what it passed over."""
    shown = _run(database, lambda schedules: schedules.get(id))
    if output == "json":
        say(document(_listed(shown)))
        return
    for key, value in _listed(shown).items():
        if key not in ("next", "runs") and value not in (None, "", False, 0):
            text = value if isinstance(value, str) else short(value, 200)
            say(f"{key.replace('_', ' '):<14} {table.clean(text)}")
    for one in shown.next:
        say(f"{'next':<14} {_tick(one)}")
    for run in shown.runs:
        by = "" if run.by == "clock" else f"  by {run.by}"
        state = "  open" if run.is_open else ""
        say(f"{'run':<14} {run.workflow_id}{by}{state}")


@schedules_command.command("preview")
@_spec
@click.option("--count", type=click.IntRange(1, 1000), default=5, help="How many.  [default: 5]")
@format_option("table", "json")
def preview_command(output: str, count: int, **asked: Any) -> None:
    """Show when a schedule would begin, daylight saving included. No database is needed."""
    from perdure.engine.clock import SystemClock
    from perdure.timetable import read_spec
    from perdure.values.schedules import upcoming

    ticks = upcoming(read_spec(_chosen(asked)), SystemClock().now(), count)
    if output == "json":
        say(document(msgspec.to_builtins(ticks)))
    for tick in ticks if output != "json" else ():
        say(_tick(tick))
    if not ticks:
        hint("no tick is to come")


# -- steering ------------------------------------------------------------------------------------


@schedules_command.command("pause")
@click.argument("id")
@click.option("--note", help="Why.")
@format_option("line", "json")
@database_option
def pause_command(database: Database, id: str, output: str, note: str | None) -> None:
    """Let it begin nothing until `resume`; what runs goes on."""
    _tell(output, _run(database, lambda schedules: schedules.pause(id, note), write=True))


@schedules_command.command("resume")
@click.argument("id")
@click.option("--note", help="Why.")
@format_option("line", "json")
@database_option
def resume_command(database: Database, id: str, output: str, note: str | None) -> None:
    """Go on with the next tick; those of the pause are not made up for."""
    _tell(output, _run(database, lambda schedules: schedules.resume(id, note), write=True))


@schedules_command.command("trigger")
@click.argument("id")
@click.option(
    "--overlap",
    type=click.Choice([str(one) for one in Overlap]),
    help="If an execution is open.  [default: the schedule's own]",
)
@format_option("ids", "json")
@database_option
def trigger_command(database: Database, id: str, output: str, overlap: str | None) -> None:
    """Begin an execution now; prints its id."""
    done = _run(database, lambda schedules: schedules.trigger(id, overlap=overlap), write=True)
    if output == "json":
        say(document(msgspec.to_builtins(done)))
    elif done.workflow_id:
        say(done.workflow_id)
    if done.outcome != "fired":
        hint(f"{done.outcome}: {done.reason}")


@schedules_command.command("backfill")
@click.argument("id")
@click.option("--after", required=True, metavar="TIME", help="The first tick is at it, or later.")
@click.option("--before", required=True, metavar="TIME", help="The last tick is before it.")
@click.option(
    "--overlap",
    type=click.Choice(["buffer_all", "allow", "skip"]),
    help="One after the other, all at once, or what finds none open.  [default: buffer_all]",
)
@format_option("line", "json")
@database_option
def backfill_command(
    database: Database, id: str, after: str, before: str, output: str, overlap: str | None
) -> None:
    """Begin executions for ticks of the past; those that are there already begin no other."""
    first, end = _moment("--after", after), _moment("--before", before)

    async def backfill(schedules: Schedules) -> int:
        return await schedules.backfill(id, first, end, overlap=overlap)

    count = _run(database, backfill, write=True)
    if output == "json":
        say(document({"ticks": count}))
    else:
        hint(f"{count} ticks of schedule {id!r} are made up for by the workers")


@schedules_command.command("delete")
@click.argument("id")
@format_option("line", "json")
@database_option
def delete_command(database: Database, id: str, output: str) -> None:
    """Delete it; executions that it has begun go on."""
    _run(database, lambda schedules: schedules.delete(id), write=True)
    if output == "json":
        say(document({"id": id, "deleted": True}))
    else:
        hint(f"schedule {id!r} is deleted")


# -- inside --------------------------------------------------------------------------------------


def _run(
    database: Database, call: Callable[[Schedules], Awaitable[T]], *, write: bool = False
) -> T:
    async def run() -> T:
        async with client_on(database, write=write) as client:
            return await call(client.schedules)

    return asyncio.run(run())


def _chosen(asked: dict[str, Any]) -> dict[str, Any]:
    chosen = {key: value for key, value in asked.items() if value not in (None, (), {})}
    for name in _TIMES:
        if name in chosen:
            chosen[name] = _moment(f"--{name}", chosen[name])
    return chosen


def _moment(option: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Invalid(f"{option}: {text!r} is no time such as 2026-12-01T09:00+01:00") from exc
    if found.tzinfo is None:
        raise Invalid(f"{option}: {text!r} says no time zone; write {text}Z for UTC")
    return found


def _listed(one: Schedule) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(one)
    return fields


def _table(schedules: Sequence[Schedule]) -> str:
    titles = ["ID", "WORKFLOW", "SPEC", "NEXT", "FIRED", "SKIPPED", "MISSED", "OPEN"]
    rows = [
        [
            one.id,
            one.workflow,
            one.spec,
            _stands(one),
            str(one.fired),
            str(one.skipped),
            str(one.missed),
            str(one.running),
        ]
        for one in schedules
    ]
    return table.render(titles, rows, elastic="SPEC")


def _stands(one: Schedule) -> str:
    if one.paused:
        return "paused"
    return f"finished ({one.finished})" if one.finished else moment(_first(one))


def _first(one: Schedule) -> datetime | None:
    return one.next[0].at if one.next else None


def _tick(one: Upcoming) -> str:
    local = (
        "" if one.local.utcoffset() == one.at.utcoffset() else f"  {one.local:%a %d %b %H:%M %z}"
    )
    return f"{moment(one.at)}{local}{'  ' + one.note if one.note else ''}"


def _tell(output: str, one: Schedule) -> None:
    if output == "json":
        say(document(_listed(one)))
        return
    note = f" ({one.note})" if one.note else ""
    if one.paused:
        hint(f"schedule {one.id!r} is paused{note}")
    else:
        _tell_next(one)


def _tell_next(one: Schedule) -> None:
    stands = _stands(one)
    hint(f"schedule {one.id!r} of {one.workflow!r}: {'next at ' if one.next else ''}{stands}")
