"""Commands that only read: they open the database read-only and need no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from perdure import errors, views
from perdure.cli import given, table
from perdure.cli.finding import find
from perdure.cli.out import compact, document, format_option, hint, moment, say, short, took
from perdure.cli.pages import page_options
from perdure.cli.session import Database, client_on, database_option
from perdure.cli.story import Story
from perdure.engine.clock import SystemClock
from perdure.values import failures
from perdure.values.budgets import Budget
from perdure.values.duration import microseconds
from perdure.values.limits import LIST_MAX
from perdure.values.states import Status
from perdure.views import Execution, HistoryEvent, Kin

if TYPE_CHECKING:
    from perdure.client import Client

_NOT_LISTED = (
    "input",
    "output",
    "error",
    "step_results",
    "metadata",
    "search",
    "origin",
    "forks",
    "retention_seconds",
    "deleted_at",
    "budgets",
)

# -- list ----------------------------------------------------------------------------------------


@click.command("list")
@click.option("-w", "--workflow", metavar="NAME", help="Of this workflow.")
@click.option(
    "-s", "--status", multiple=True, help="With this status; repeat, or separate by commas."
)
@click.option("--id", "workflow_id", metavar="ID", help="Runs of exactly this workflow id.")
@click.option("--search", multiple=True, metavar="K=V", help="With this search attribute; repeat.")
@click.option("--tag", "tags", multiple=True, help="With this tag; repeat for several.")
@click.option("--correlation-id", metavar="ID", help="With this correlation id.")
@click.option("--tenant", help="Of this tenant.")
@click.option("--created-by", metavar="WHO", help="Started by this principal.")
@click.option("--started-after", metavar="TIME", help="ISO time with a zone, or an age such as 2h.")
@click.option(
    "--started-before", metavar="TIME", help="ISO time with a zone, or an age such as 7d."
)
@page_options
@click.option("--all", "is_all", is_flag=True, help="Every page, not only one.")
@format_option("table", "wide", "json", "jsonl", "ids")
@database_option
def list_command(
    database: Database, output: str, limit: int, cursor: str | None, *, is_all: bool, **filters: Any
) -> None:
    """List executions, newest first."""
    filters["status"] = [part for text in filters["status"] for part in text.split(",")]
    filters["search"] = given.pairs(filters["search"], "--search")
    for key in ("started_after", "started_before"):
        filters[key] = _time(filters[key], f"--{key.replace('_', '-')}")
    asyncio.run(_list(database, output, limit, cursor, filters, is_all=is_all))


async def _list(
    database: Database,
    output: str,
    limit: int,
    cursor: str | None,
    filters: dict[str, Any],
    *,
    is_all: bool,
) -> None:
    items: list[Execution] = []
    async with client_on(database) as client:
        while True:
            page = await client.list(limit=LIST_MAX if is_all else limit, cursor=cursor, **filters)
            cursor = page.cursor
            if output in ("jsonl", "ids"):
                # These can be written page by page, however many there are.
                _write_lines(page.items, output)
            else:
                items += page.items
            if not is_all or cursor is None:
                break
    if output == "json":
        say(document({"items": [_listed(item) for item in items], "cursor": cursor}))
    elif output in ("table", "wide"):
        _write_table(items, is_wide=output == "wide")
    if cursor is not None:
        hint(f"there are more: add --all, or --cursor {cursor}")
    elif output in ("table", "wide") and not items:
        hint(f"no executions in {database.name}")


def _write_lines(items: Sequence[Execution], output: str) -> None:
    for item in items:
        say(item.id if output == "ids" else compact(_listed(item)))


def _write_table(items: Sequence[Execution], *, is_wide: bool) -> None:
    if not items:
        return
    titles = ["ID", "WORKFLOW", "STATUS", "STEP", "STARTED", "TOOK"]
    if is_wide:
        titles += ["RUN", "VERSION", "QUEUE", "EVENTS", "TAGS"]
    now = views.to_datetime(SystemClock().now())
    rows: list[list[str]] = []
    for item in items:
        span = ((item.completed_at or now) - item.started_at).total_seconds()
        step = item.reason or item.current_step or ""
        row = [item.id, item.workflow, str(item.status), step, moment(item.started_at), took(span)]
        if is_wide:
            length = str(item.history_length)
            row += [item.run_id, item.version, item.task_queue, length, ",".join(item.tags)]
        rows.append(row)
    painters = {"STATUS": table.paint_status}
    say(table.render(titles, rows, elastic="STEP" if not is_wide else "", painters=painters))


def _listed(item: Execution) -> dict[str, Any]:
    """Return what a list knows of an execution."""
    fields: dict[str, Any] = msgspec.to_builtins(item)
    return {key: value for key, value in fields.items() if key not in _NOT_LISTED}


def _time(text: str | None, what: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        age = timedelta(microseconds=microseconds(text, what=what))
        return views.to_datetime(SystemClock().now()) - age
    if found.tzinfo is None:
        raise errors.Invalid(f"{what}: {text!r} has no time zone; write {text}Z for UTC")
    return found.astimezone(UTC)


# -- one execution -------------------------------------------------------------------------------


@click.command("show")
@click.argument("id")
@format_option("table", "json", "jsonl", "ids")
@database_option
def show_command(database: Database, id: str, output: str) -> None:
    """Show one execution: status, input, output, why it waits."""
    asyncio.run(_show(database, id, output))


async def _show(database: Database, id: str, output: str) -> None:
    async with client_on(database) as client:
        handle = await find(client, id)
        execution = await handle.describe()
        why = "" if execution.status.is_terminal else await handle.why()
    if output == "table":
        _write_details(database, execution, why)
    elif output == "ids":
        say(execution.id)
    else:
        say((document if output == "json" else compact)(execution))


def _kept(shown: Execution) -> str:
    """Say for how long it is kept, or until when."""
    if shown.deleted_at is not None:
        return f"until {moment(shown.deleted_at)}"
    if shown.retention_seconds is None:
        return ""
    span = shown.retention_seconds
    return f"for {took(span)} after its end" if span else "for ever"


def _budget(budget: Budget, shown: Execution) -> str:
    """Say what a budget has of a unit."""
    reserved = f", {budget.reserved:,f} reserved" if budget.reserved else ""
    of = "" if budget.run_id == shown.run_id else f", of run {budget.run_id}"
    return f"{budget.used:,f} of {budget.amount:,f} {budget.unit} used{reserved}{of}"


def _write_details(database: Database, shown: Execution, why: str) -> None:
    now = views.to_datetime(SystemClock().now())
    span = took(((shown.completed_at or now) - shown.started_at).total_seconds())
    lines: list[tuple[str, str]] = [
        ("status", table.paint_status(str(shown.status))),
        ("why", why),
        ("step", shown.current_step or ""),
        ("progress", short(shown.progress, 200) if shown.progress else ""),
        ("input", compact(shown.input)),
        ("output", compact(shown.output) if shown.status is Status.COMPLETED else ""),
        ("error", _failure(shown.error)),
        ("reason", f"{shown.reason}: {shown.detail}" if shown.reason else ""),
        ("to go on", shown.unblock or ""),
        ("started", moment(shown.started_at)),
        ("ended", moment(shown.completed_at)),
        ("kept", _kept(shown)),
        *(("budget", _budget(it, shown)) for it in shown.budgets),
        ("took" if shown.status.is_terminal else "age", span),
        ("run", shown.run_id),
        ("version", shown.version),
        ("queue", shown.task_queue),
        ("attempt", str(shown.attempt) if shown.attempt > 1 else ""),
        ("origin", _kin(shown.origin, "of") if shown.origin is not None else ""),
        ("copies", ", ".join(_kin(kin, "as") for kin in shown.forks)),
        ("events", str(shown.history_length)),
        ("search", compact(shown.search) if shown.search else ""),
        ("memo", compact(shown.memo) if shown.memo else ""),
        ("tags", ", ".join(shown.tags)),
        ("correlation", shown.correlation_id or ""),
        ("tenant", shown.tenant or ""),
        ("created by", shown.created_by or ""),
    ]
    say(table.paint(table.clean(f"{shown.workflow} {shown.id}"), "bold"))
    for name, text in lines:
        if text:
            value = text if name == "status" else table.clean(text)
            say(f"  {table.paint(f'{name:<12}', 'dim')}{value}")
    hint(f"events: {database.line('history', shown.id)}")


def _kin(kin: Kin, word: str) -> str:
    if not kin.id:
        return f"{kin.how} {word} a run that has been deleted, after event {kin.event}"
    return f"{kin.how} {word} {kin.id} (run {kin.run_id}) after event {kin.event}"


def _failure(failure: dict[str, Any] | None) -> str:
    """Return a failure and its causes, outermost first; the wrappers by their message alone."""
    parts: list[str] = []
    while failure is not None:
        name, kind = failure.get("type", ""), failure.get("kind", errors.Kind.INTERNAL)
        text = failures.one_line(name, failure.get("message", ""), failure.get("trace", ""))
        cause = failure.get("cause")
        is_told = kind in (errors.Kind.INTERNAL, name) or (
            cause is not None and failures.is_wrapper(name)
        )
        shown = text if is_told else f"{text} ({kind})"
        if not (parts and parts[-1].endswith(shown)):  # a step's message ends with its cause's
            parts.append(shown)
        failure = cause
    return " ← ".join(parts)


@click.command("why")
@click.argument("id")
@format_option("table", "json")
@database_option
def why_command(database: Database, id: str, output: str) -> None:
    """Say in one sentence what a run waits for, or why it cannot go on."""
    asyncio.run(_why(database, id, output))


async def _why(database: Database, id: str, output: str) -> None:
    async with client_on(database) as client:
        handle = await find(client, id)
        sentence = await handle.why()
    say(document({"id": handle.id, "why": sentence}) if output == "json" else table.clean(sentence))


# -- history -------------------------------------------------------------------------------------


@click.command("history")
@click.argument("id")
@format_option("table", "wide", "json", "jsonl")
@database_option
def history_command(database: Database, id: str, output: str) -> None:
    """Show the events of a run, in order."""
    asyncio.run(_history(database, id, output))


async def _history(database: Database, id: str, output: str) -> None:
    async with client_on(database) as client:
        handle = await find(client, id)
        events = await handle.history()
        copies = (await handle.describe()).forks
        workers = {} if output not in ("table", "wide") else await _names(client, events)
    if output == "json":
        say(document(events))
    elif output == "jsonl":
        for event in events:
            say(compact(event))
    else:
        say(_events_table(events, workers, is_wide=output == "wide"))
        for kin in copies:
            hint(_kin(kin, "as"))


async def _names(client: Client, events: Sequence[HistoryEvent]) -> dict[int, str]:
    """Return pids of workers, or the names (with the pid, unless given) that the events have."""
    names: dict[int, str] = {}
    for event in events:
        name, _, number = str(event.data.get("worker", "")).rpartition("#")
        if name and number.isdecimal():
            names[int(number)] = name
    return names | {worker.id: f"pid {worker.pid}" for worker in await client.workers()}


def _events_table(events: Sequence[HistoryEvent], workers: dict[int, str], *, is_wide: bool) -> str:
    story = Story()
    titles = ["#", "TIME", "AFTER", "EVENT", "WHAT", "BY"]
    rows: list[list[str]] = []
    first = events[0].time
    for event in events:
        what = story.take(event)
        rows.append(
            [
                str(event.id),
                f"{event.time:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z",
                took((event.time - first).total_seconds()),
                event.kind,
                compact(event.data) if is_wide else what,
                _by(event.worker, workers),
            ]
        )
    return table.render(titles, rows, elastic="" if is_wide else "WHAT")


def _by(worker: int, workers: dict[int, str]) -> str:
    if not worker:
        return "client"
    name = workers.get(worker)
    return f"worker {worker}" + (f" ({name})" if name else "")


# -- workers -------------------------------------------------------------------------------------


@click.command("workers")
@format_option("table", "wide", "json", "jsonl", "ids")
@database_option
def workers_command(database: Database, output: str) -> None:
    """List the workers of the database."""
    asyncio.run(_workers(database, output))


async def _workers(database: Database, output: str) -> None:
    async with client_on(database) as client:
        workers = await client.workers()
    if output == "json":
        say(document(workers))
    elif output in ("jsonl", "ids"):
        for worker in workers:
            say(str(worker.id) if output == "ids" else compact(worker))
    elif workers:
        titles = ["ID", "PID", "STATE", "STARTED", "QUEUES", "WORKFLOWS"]
        rows = [
            [
                str(w.id),
                str(w.pid),
                w.state,
                moment(w.started_at),
                ",".join(w.queues),
                ", ".join(w.workflows),
            ]
            for w in workers
        ]
        if output == "wide":
            titles.append("NAME")
            for row, worker in zip(rows, workers, strict=True):
                row.append(worker.name)
        say(table.render(titles, rows, elastic="" if output == "wide" else "WORKFLOWS"))
    else:
        hint(f"no worker is on {database.name}; start one with `{database.line('dev', 'MODULE')}`")
