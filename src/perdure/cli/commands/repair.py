"""Commands that make a run out of another one's history: fork, retry, export and import."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from perdure import errors
from perdure.cli import given
from perdure.cli.finding import find, serves
from perdure.cli.out import document, hint, say
from perdure.cli.session import Database, client_on, database_option

if TYPE_CHECKING:
    from perdure.client import Client
    from perdure.handle import Handle

_ARGUMENT = re.compile(r"\b(after_event|before_step|from_step)(?:=|(?=:))")


@click.command("fork")
@click.argument("id")
@click.option("--after-event", type=int, metavar="N", help="Share the history up to this event.")
@click.option("--before-step", metavar="NAME", help="Share it up to where this was scheduled.")
@click.option(
    "--input",
    "input_",
    metavar="JSON|@FILE|-",
    help="Another input; only with --after-event 0, the very start.",
)
@click.option("--id", "new_id", metavar="ID", help="Workflow id of the fork.  [default: a new one]")
@database_option
def fork_command(
    database: Database,
    id: str,
    after_event: int | None,
    before_step: str | None,
    input_: str | None,
    new_id: str | None,
) -> None:
    """Start an execution that shares a run's history up to a point; print its id.

    The shared steps are not run again; the original does not change.
    """
    options: dict[str, Any] = {"after_event": after_event, "before_step": before_step, "id": new_id}
    if input_ is not None:
        options["input"] = given.value(input_)
    asyncio.run(_fork(database, id, options))


async def _fork(database: Database, id: str, options: dict[str, Any]) -> None:
    async with client_on(database, write=True) as client:
        with _in_options():
            handle = await (await find(client, id)).fork(**options)
        await _tell(database, client, handle)


@contextmanager
def _in_options() -> Generator[None]:
    """Let errors name the options of these commands, not the arguments of the methods."""
    try:
        yield
    except errors.Invalid as exc:
        text = _ARGUMENT.sub(_option, exc.message)
        raise errors.Invalid(text) from exc


def _option(found: re.Match[str]) -> str:
    option = "--" + found[1].replace("_", "-")
    return f"{option} " if found.string[found.end() :][:1].isdigit() else option


@click.command("retry")
@click.argument("id")
@click.option("--from-step", metavar="NAME", help="Begin where this step was first scheduled.")
@click.option("--id", "new_id", metavar="ID", help="Make it an execution of its own.")
@database_option
def retry_command(database: Database, id: str, from_step: str | None, new_id: str | None) -> None:
    """Run an ended execution again, from what failed; print its id.

    Recorded outcomes of steps that succeeded are kept.
    """
    asyncio.run(_retry(database, id, from_step, new_id))


async def _retry(database: Database, id: str, from_step: str | None, new_id: str | None) -> None:
    async with client_on(database, write=True) as client:
        with _in_options():
            handle = await (await find(client, id)).retry(from_step=from_step, id=new_id)
        await _tell(database, client, handle)


@click.command("export")
@click.argument("id")
@click.option("-o", "--out", metavar="FILE", help="Write it to this file, not to stdout.")
@click.option(
    "--with-seed",
    is_flag=True,
    help="Include the run's secret seed, which an open run needs to go on elsewhere.",
)
@database_option
def export_command(database: Database, id: str, out: str | None, *, with_seed: bool) -> None:
    """Write a run as one JSON document: every event, turn by turn."""
    text = document(asyncio.run(_export(database, id, with_seed=with_seed)))
    if out is None:
        say(text)
        return
    try:
        Path(out).write_text(text + "\n", encoding="utf-8")
    except OSError as exc:
        raise errors.Invalid(f"{out}: {exc.strerror}") from exc


async def _export(database: Database, id: str, *, with_seed: bool) -> dict[str, Any]:
    async with client_on(database) as client:
        return await (await find(client, id)).export(with_seed=with_seed)


@click.command("import")
@click.argument("file", metavar="FILE|-")
@click.option("--id", metavar="ID", help="Take it in as a copy under this id.")
@database_option
def import_command(database: Database, file: str, id: str | None) -> None:
    """Take in a run that `perdure export` wrote; print its id.

    An open run goes on here if it was exported --with-seed. The database is made if there is none.
    """
    asyncio.run(_import(database, _read(file), id))


def _read(file: str) -> Any:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return msgspec.json.decode(data)
    except OSError as exc:
        raise errors.Invalid(f"{file}: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise errors.Invalid(f"{file}: not JSON: {exc}") from exc


async def _import(database: Database, data: Any, id: str | None) -> None:
    async with client_on(database, write=True, create=True) as client:
        await _tell(database, client, await client.import_run(data, id))


async def _tell(database: Database, client: Client, handle: Handle[Any]) -> None:
    execution = await handle.describe()
    say(handle.id)
    if execution.status.is_terminal:
        return
    if not any(serves(worker, execution.workflow) for worker in await client.workers()):
        hint(
            f"no worker serves {execution.workflow!r} now; it goes on when one does: "
            f"{database.line('dev', 'MODULE')}"
        )
    else:
        hint(f"follow it: {database.line('result', handle.id)}")
