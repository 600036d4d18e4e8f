"""Who did what: list it, check that nobody has changed it, archive it and cut it off."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from perdure import errors, views
from perdure.cli import exits, table
from perdure.cli.out import document, format_option, hint, moment, say, short
from perdure.cli.pages import page_options, say_page
from perdure.cli.session import Database, client_on, database_option, user
from perdure.engine.clock import SystemClock
from perdure.store.blobs import sync_folder
from perdure.values.duration import microseconds

if TYPE_CHECKING:
    from perdure.audit import AuditEntry
    from perdure.client import Client


@click.group("audit")
def audit_command() -> None:
    """Who did what to which run, record or human task (docs/audit.md)."""


@audit_command.command("list")
@click.option("--principal", metavar="WHO", help="Of what they did.")
@click.option("--action", metavar="NAME", help="start, send, people.*: all that begin so.")
@click.option("--id", "workflow_id", metavar="ID", help="To exactly this workflow id, or target.")
@click.option("--run-id", metavar="ID", help="To exactly this run.")
@click.option("--since", metavar="SPAN", help="In the last 2h, 30d.")
@click.option("--until", metavar="SPAN", help="At least 2h, 30d ago.")
@page_options
@format_option("table", "json", "jsonl")
@database_option
def list_command(
    database: Database,
    output: str,
    limit: int,
    cursor: str | None,
    since: str | None,
    until: str | None,
    **filters: Any,
) -> None:
    """List lines, newest first."""
    for name, span in (("since", since), ("until", until)):
        if span is not None:
            filters[name] = _ago(span, f"--{name}")
    asyncio.run(_list(database, output, limit, cursor, filters))


def _ago(span: str, what: str) -> datetime:
    """Return the time that was so long ago."""
    ago = timedelta(microseconds=microseconds(span, what=what))
    return views.to_datetime(SystemClock().now()) - ago


async def _list(
    database: Database, output: str, limit: int, cursor: str | None, filters: dict[str, Any]
) -> None:
    async with client_on(database) as client:
        page = await client.audit.list(limit=limit, cursor=cursor, **filters)
    nothing = f"the audit of {database.name} tells of nothing like that"
    say_page(page, output, listed=msgspec.to_builtins, table=_table, nothing=nothing)


def _table(entries: Sequence[AuditEntry]) -> str:
    return table.render(_TITLES, [_row(entry) for entry in entries], elastic="DETAIL")


_NOTED = re.compile(r"([0-9]{1,18}):([0-9a-f]+)")
_TITLES = ["NUMBER", "AT", "WHO", "ACTION", "TARGET", "DETAIL"]


def _row(entry: AuditEntry) -> list[str]:
    by = f"{entry.principal} for {entry.initiated_by}" if entry.initiated_by else entry.principal
    told = " ".join(part for part in (entry.decision, entry.rule) if part)
    if entry.is_erased:
        told = f"{told} (erased)".strip()
    elif entry.sealed:
        told = f"{told} (cannot be opened here)".strip()
    elif entry.detail is not None:
        told = f"{told} {short(entry.detail, 200)}".strip()
    return [str(entry.number), moment(entry.at), by, entry.action, entry.target, told]


@audit_command.command("verify")
@click.argument("url", required=False, metavar="[URL|FILE]")
@click.option("--noted", metavar="NUMBER:HASH", help="A row as it was noted elsewhere.")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What `audit cut` has written; repeat for all of them, oldest first.",
)
@format_option("line", "json")
@database_option
def verify_command(
    database: Database,
    output: str,
    url: str | None,
    noted: str | None,
    archives: tuple[Path, ...],
) -> int:
    """Check that no line was changed, taken out or put in; name the first that does not fit.

    Keep what is printed elsewhere: who can write to the database can make all lines anew, and
    --noted finds that. With --archive the lines that were cut off are checked, too. Exit code 1 if
    anything is found.
    """
    if url is not None:
        database = Database(url if "://" in url else f"sqlite:///{url}", url)
    found = _NOTED.fullmatch(noted) if noted is not None else None
    if noted is not None and found is None:
        raise errors.UsageError(f"--noted: {noted!r} is not NUMBER:HASH")
    number, hash = (int(found[1]), found[2]) if found is not None else (0, "")
    lines = [line for file in archives for line in file.read_bytes().splitlines()]
    archived = lines if archives else None
    return asyncio.run(_verify(database, output, number, hash, archived))


async def _verify(
    database: Database, output: str, number: int, hash: str, archived: Sequence[bytes] | None
) -> int:
    async with client_on(database) as client:
        found = await client.audit.verify(number=number, hash=hash, archived=archived)
    if output == "json":
        say(document({**msgspec.to_builtins(found), "holds": found.holds}))
    elif found.holds:
        say(f"{found.rows} rows hold; the last is {found.head}:{found.hash}")
    else:
        say(f"row {found.broken} does not fit: {found.fault}")
    if found.unopened:
        hint(
            f"{found.unopened} details cannot be opened here (a codec or key is missing): of them "
            "only the chain was checked"
        )
    return exits.OK if found.holds else exits.FAILED


@audit_command.command("cut")
@click.option("--older-than", required=True, metavar="SPAN", help="From so long ago: 365d.")
@click.option(
    "--archive",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A new file for these lines, one JSON document each.",
)
@database_option
def cut_command(database: Database, older_than: str, archive: Path) -> int:
    """Write old lines into a file, and delete them.

    They are deleted when the file is on the disk. A new line tells of it, and the rest can still be
    checked. A detail that cannot be opened here, for want of a codec, would be in no file: then
    nothing is deleted.
    """
    return asyncio.run(_cut(database, _ago(older_than, "--older-than"), archive))


async def _cut(database: Database, until: datetime, archive: Path) -> int:
    async with client_on(database, write=True) as client:
        last = await _archive(client, until, archive)
        head = await client.door.read(lambda store: store.audit_head())
        if last <= head.cut:
            os.unlink(archive)  # noqa: PTH108 - not in the way of anything
            hint(f"no line is from before {until.isoformat(timespec='seconds')}")
            return exits.OK
        count = await client.as_(user()).audit.cut(last)
    hint(f"{count} lines are in {archive} and no longer in {database.name}")
    return exits.OK


async def _archive(client: Client, until: datetime, archive: Path) -> int:
    """Write lines into a new file, and see it on the disk; return the number of the last."""
    try:
        # Details stand in it in the clear.
        await asyncio.to_thread(archive.touch, 0o600, exist_ok=False)
    except FileExistsError as exc:
        raise errors.AlreadyExists(f"{archive} is there already: name a new file") from exc
    except OSError as exc:
        raise errors.Invalid(f"{archive}: {exc.strerror}") from exc
    try:
        with archive.open("wb") as file:
            last = await client.audit.archive(until, file.write)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(archive.parent)
    except BaseException:
        os.unlink(archive)  # noqa: PTH108 - nothing is deleted yet, and it has not all
        raise
    return last


@audit_command.command("erase")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@database_option
def erase_command(database: Database, targets: tuple[str, ...], *, is_sure: bool) -> int:
    """Erase, for ever, the details of what was done to workflow ids, human tasks or records.

    Who did what to them stays, and the chain holds. Histories are not touched: `perdure erase`
    erases both.
    """
    return asyncio.run(_erase(database, targets, is_sure=is_sure))


async def _erase(database: Database, targets: Sequence[str], *, is_sure: bool) -> int:
    async with client_on(database, write=True) as client:
        question = f"erase the audit's details of {', '.join(map(repr, targets))}, for ever?"
        if not is_sure and not await asyncio.to_thread(click.confirm, question, err=True):
            raise errors.UsageError("nothing was erased")
        audit = client.as_(user()).audit
        counts = [await audit.erase(target) for target in targets]
    for target, count in zip(targets, counts, strict=True):
        hint(f"{target}: details of {count} line{'' if count == 1 else 's'} erased")
    return exits.OK if any(counts) else exits.NOT_FOUND
