"""Human tasks: what people are asked for, and what they do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from perdure import errors
from perdure.cli import given, table
from perdure.cli.out import compact, document, format_option, hint, moment, say, short
from perdure.cli.session import Database, client_on, database_option
from perdure.values.limits import LIST_DEFAULT, LIST_MAX
from perdure.values.people import HumanTaskStatus

if TYPE_CHECKING:
    from perdure.people import HumanTask, HumanTasks

_NOT_LISTED = ("form", "data", "value")


@click.group("people")
def people_command() -> None:
    """What people are asked for: list it, claim it, decide it.

    An ID is that of a human task, or a unique beginning of it. Who acts is the user of this
    computer, or --by.
    """


def _acting(command: Any) -> Any:
    command = click.option(
        "--by", metavar="WHO", help="Who does it.  [default: the user of this computer]"
    )(command)
    return format_option("line", "json")(database_option(command))


# -- looking -------------------------------------------------------------------------------------


@people_command.command("list")
@click.option(
    "-s", "--status", multiple=True, help="With this status; repeat, or separate by commas."
)
@click.option("--role", metavar="ROLE", help="Of this role (a group of people).")
@click.option("--assignee", metavar="WHO", help="Assigned to exactly this person.")
@click.option("--for", "for_person", metavar="WHO", help="Assigned to them, or to nobody.")
@click.option("--mine", is_flag=True, help="The same, for the user of this computer.")
@click.option("-w", "--workflow", metavar="NAME", help="Of this workflow.")
@click.option("--id", "workflow_id", metavar="ID", help="Of exactly this workflow id.")
@click.option("--overdue", is_flag=True, help="Only what is late.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIST_MAX),
    default=LIST_DEFAULT,
    help=f"At most this many.  [default: {LIST_DEFAULT}]",
)
@click.option("--cursor", help="Go on where the page before ended.")
@format_option("table", "json", "jsonl", "ids")
@database_option
def list_command(
    database: Database,
    output: str,
    limit: int,
    cursor: str | None,
    *,
    mine: bool,
    **filters: Any,
) -> None:
    """List what is open, by when it is due; what is closed, newest first."""
    filters["status"] = [part for text in filters["status"] for part in text.split(",")]
    if mine:
        filters["for_person"] = _user()
    asyncio.run(_list(database, output, limit, cursor, filters))


async def _list(
    database: Database, output: str, limit: int, cursor: str | None, filters: dict[str, Any]
) -> None:
    async with client_on(database) as client:
        page = await client.human_tasks.list(limit=limit, cursor=cursor, **filters)
    if output == "json":
        say(document({"items": [_listed(task) for task in page.items], "cursor": page.cursor}))
    elif output in ("jsonl", "ids"):
        for task in page.items:
            say(task.id if output == "ids" else compact(_listed(task)))
    elif page.items:
        _write_table(page.items)
    else:
        hint(f"nobody is asked for anything in {database.name}")
    if page.cursor is not None:
        hint(f"there are more: add --cursor {page.cursor}")


def _write_table(tasks: Sequence[HumanTask]) -> None:
    titles = ["ID", "TITLE", "STATUS", "FOR", "DUE", "WORKFLOW", "WORKFLOW ID"]
    rows = [
        [
            task.id,
            task.title,
            f"{task.status} by {task.claimed_by}" if task.claimed_by else str(task.status),
            task.assignee or task.role or "",
            moment(task.due_at) + (" (overdue)" if task.is_overdue else ""),
            task.workflow,
            task.workflow_id,
        ]
        for task in tasks
    ]
    say(table.render(titles, rows, elastic="TITLE"))


def _listed(task: HumanTask) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(task)
    return {key: value for key, value in fields.items() if key not in _NOT_LISTED}


@people_command.command("show")
@click.argument("id")
@format_option("table", "json")
@database_option
def show_command(database: Database, id: str, output: str) -> None:
    """Show one: the question, the form, what stands beside it, the decision."""
    asyncio.run(_show(database, id, output))


async def _show(database: Database, id: str, output: str) -> None:
    async with client_on(database) as client:
        task = await _find(client.human_tasks, id)
    fields: dict[str, Any] = msgspec.to_builtins(task)
    if output == "json":
        say(document(fields))
        return
    for key, value in fields.items():
        if value not in (None, "", False):
            text = value if isinstance(value, str) else short(value, 200)
            say(f"{key.replace('_', ' '):<14} {table.clean(text)}")
    if task.status.is_open:
        hint(f"decide it with `{database.line('people', 'complete', task.id)}` and the fields, K=V")


# -- acting --------------------------------------------------------------------------------------


@people_command.command("complete")
@click.argument("id")
@click.argument("value", nargs=-1, metavar="[VALUE] [K=V]...")
@click.option("--comment", default="", help="Goes to the run with it.")
@_acting
def complete_command(
    database: Database, id: str, output: str, by: str | None, value: tuple[str, ...], comment: str
) -> None:
    """Do what is asked; the run goes on with VALUE.

    VALUE is JSON, plain text, @FILE or - (stdin). It is checked against the form.
    """
    entered = given.payload(value)

    async def act(people: HumanTasks, task: str, who: str) -> HumanTask:
        try:
            return await people.complete(task, entered, by=who, comment=comment)
        except errors.Invalid as exc:
            raise given.hint_at_text(exc, value) from exc

    _act(database, id, output, by, act)


@people_command.command("reject")
@click.argument("id")
@click.option("--reason", default="", help="Goes to the run with it.")
@_acting
def reject_command(database: Database, id: str, output: str, by: str | None, reason: str) -> None:
    """Refuse what is asked."""
    _act(database, id, output, by, lambda people, task, who: people.reject(task, reason, by=who))


@people_command.command("claim")
@click.argument("id")
@click.option("--for", "span", default="30m", metavar="SPAN", help="How long.  [default: 30m]")
@_acting
def claim_command(database: Database, id: str, output: str, by: str | None, span: str) -> None:
    """Keep it for oneself for a while; who holds it already gets a new span."""
    _act(database, id, output, by, lambda people, task, who: people.claim(task, span, by=who))


@people_command.command("release")
@click.argument("id")
@_acting
def release_command(database: Database, id: str, output: str, by: str | None) -> None:
    """Give a claim back."""
    _act(database, id, output, by, lambda people, task, who: people.release(task, by=who))


@people_command.command("reassign")
@click.argument("id")
@click.option("--to", metavar="WHO", help="A person.")
@click.option("--group", metavar="ROLE", help="A group of people.")
@_acting
def reassign_command(
    database: Database, id: str, output: str, by: str | None, to: str | None, group: str | None
) -> None:
    """Make it somebody else's."""
    _act(
        database,
        id,
        output,
        by,
        lambda people, task, who: people.reassign(task, to, group=group, by=who),
    )


@people_command.command("cancel")
@click.argument("id")
@click.option("--reason", default="", help="Goes to the run with it.")
@_acting
def cancel_command(database: Database, id: str, output: str, by: str | None, reason: str) -> None:
    """Take it back: nobody has to do it any more."""
    _act(database, id, output, by, lambda people, task, who: people.cancel(task, reason, by=who))


def _act(
    database: Database,
    id: str,
    output: str,
    by: str | None,
    act: Callable[[HumanTasks, str, str], Awaitable[HumanTask]],
) -> None:
    async def run() -> None:
        async with client_on(database, write=True) as client:
            task = await _find(client.human_tasks, id)
            after = await act(client.human_tasks, task.id, _user() if by is None else by)
        if output == "json":
            say(document(msgspec.to_builtins(after)))
            return
        whose = after.claimed_by or after.closed_by or after.assignee or after.role
        until = f" until {moment(after.claimed_until)}" if after.claimed_until else ""
        said = f"{after.title!r} ({after.id}) is {after.status}"
        hint(f"{said}{f', by {whose}' if whose and not after.status.is_open else ''}{until}")

    asyncio.run(run())


async def _find(people: HumanTasks, text: str) -> HumanTask:
    """Return the human task with this id, or the only one whose id begins so.

    Raises:
        TaskNotFound: there is none.
        click.UsageError: several begin so; the message lists them.
    """
    if not text:
        raise errors.Invalid("an id cannot be empty")
    page = await people.list(prefix=text, status=list(HumanTaskStatus), limit=10)
    if not page.items:
        raise errors.TaskNotFound(f"there is no human task {text!r}; see `perdure people list`")
    if len(page.items) > 1:
        lines = [f"{text!r} fits several; write more of the id:"]
        lines += [f"  {task.id}  {task.title}  {task.status}" for task in page.items]
        raise click.UsageError("\n".join(lines))
    return page.items[0]


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:
        raise errors.UsageError("this user has no name here; say who acts with --by") from exc
