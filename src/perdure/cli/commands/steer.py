"""Commands that stop runs and let them go on: ``pause``, ``resume``, ``unpark``, ``move``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from perdure import errors
from perdure.cli import exits
from perdure.cli.finding import find
from perdure.cli.out import hint
from perdure.cli.session import Database, client_on, database_option
from perdure.values.limits import LIST_MAX
from perdure.values.states import ParkReason

if TYPE_CHECKING:
    from perdure.client import Client
    from perdure.handle import Handle

Change = Callable[["Handle[Any]"], Awaitable[bool]]


@click.command("pause")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@database_option
def pause_command(database: Database, ids: tuple[str, ...]) -> int:
    """Let runs take no turns until they are resumed; what is under way goes on.

    A deadline still ends a paused run, and a cancel resumes it.
    """
    return asyncio.run(_each(database, ids, lambda handle: handle.pause(), "asked to pause"))


@click.command("resume")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@database_option
def resume_command(database: Database, ids: tuple[str, ...]) -> int:
    """Let paused runs go on, and parked ones try again (as `perdure unpark` does)."""
    return asyncio.run(_each(database, ids, _go_on, "resumed"))


async def _go_on(handle: Handle[Any]) -> bool:
    return await handle.resume() or await handle.unpark()


@click.command("unpark")
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "is_all", is_flag=True, help="Every parked run.")
@click.option("-w", "--workflow", metavar="NAME", help="With --all: of this workflow.")
@click.option(
    "--reason",
    type=click.Choice([str(reason) for reason in ParkReason]),
    help="With --all: parked for this reason.",
)
@database_option
def unpark_command(
    database: Database,
    ids: tuple[str, ...],
    workflow: str | None,
    reason: str | None,
    *,
    is_all: bool,
) -> int:
    """Let parked runs try again.

    A run whose code still does not fit is parked again.
    """
    if is_all is bool(ids):
        raise errors.UsageError("name the runs to unpark, or say --all")
    if not is_all and (workflow or reason):
        raise errors.UsageError("--workflow and --reason go with --all")
    if is_all:
        return asyncio.run(_unpark_all(database, workflow, reason))
    return asyncio.run(_each(database, ids, lambda handle: handle.unpark(), "unparked"))


@click.command("move")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--to", "version", metavar="VERSION", help="A version that a worker defines.")
@click.option("--code", "is_newest", is_flag=True, help="The highest version of the worker.")
@click.option(
    "--timeout",
    default="10s",
    metavar="SPAN",
    help="How long to wait for a worker, for each run.  [default: 10s]",
)
@database_option
def move_command(
    database: Database, ids: tuple[str, ...], version: str | None, timeout: str, *, is_newest: bool
) -> int:
    """Let parked or waiting runs go on under another version of their definition.

    A worker that defines the version replays the run first, and refuses what does not fit. The
    version of a run changes for good.
    """
    if is_newest is bool(version):
        raise errors.UsageError("say --to VERSION or --code")

    async def change(handle: Handle[Any]) -> bool:
        return await handle.move(version or "", timeout=timeout)

    return asyncio.run(_each(database, ids, change, "moved"))


async def _each(database: Database, ids: Sequence[str], change: Change, done: str) -> int:
    """Change runs one after the other; the worst outcome is the exit code."""
    codes: list[int] = []
    async with client_on(database, write=True) as client:
        for text in ids:
            try:
                handle = await find(client, text)
                codes.append(await _change(handle, change, done))
            except errors.PerdureError as exc:
                if len(ids) == 1:
                    raise
                hint(f"error: {text}: {exits.line_of(exc)}")
                codes.append(exits.code_of(exc))
    return max(codes)


async def _change(handle: Handle[Any], change: Change, done: str) -> int:
    if await change(handle):
        hint(f"{handle.id}: {done}")
        return exits.OK
    row = await handle.describe()
    hint(f"error: {handle.id!r} is {row.status}, version {row.version}; nothing was changed")
    return exits.CONFLICT


async def _unpark_all(database: Database, workflow: str | None, reason: str | None) -> int:
    count = 0
    async with client_on(database, write=True) as client:
        async for handle in _parked(client, workflow, reason):
            count += await handle.unpark()
    hint(f"{count} run{'' if count == 1 else 's'} unparked")
    return exits.OK


async def _parked(
    client: Client, workflow: str | None, reason: str | None
) -> AsyncGenerator[Handle[Any]]:
    cursor: str | None = None
    filters = {"workflow": workflow} if workflow else {}
    while True:
        page = await client.list(status="parked", limit=LIST_MAX, cursor=cursor, **filters)
        for item in page.items:
            if reason in (None, item.reason):
                yield client.get(item.id)
        cursor = page.cursor
        if cursor is None:
            return
