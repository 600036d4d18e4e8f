"""``perdure db``: care of the database."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

import click

from perdure import errors
from perdure.cli.out import hint, say
from perdure.cli.session import Database, client_on, database_option
from perdure.store import tending
from perdure.store.port import Resealed


@click.group("db")
def db_command() -> None:
    """Care of the database: what is stored, and how."""


@db_command.command("reseal")
@click.option(
    "--page",
    type=click.IntRange(1, 10_000),
    default=500,
    metavar="N",
    help="Rows to look at in one go.  [default: 500]",
)
@database_option
def reseal_command(database: Database, page: int) -> None:
    """Seal anew what was stored without the codec, or with an old key of it.

    Workers may run meanwhile. First give all of them the new codec or key; afterwards the old key
    can go. What is done stays done: stopped half way, it is called again.
    """
    asyncio.run(_reseal(database, page))


async def _reseal(database: Database, page: int) -> None:
    changed, seen = Counter[str](), Counter[str]()

    def told(done: Resealed) -> None:
        seen[done.table] += done.seen
        changed[done.table] += done.changed
        if done.changed:
            hint(f"  {done.table}: {changed[done.table]} of {seen[done.table]} rows sealed anew")

    async with client_on(database, write=True) as client:
        await client.door.write(lambda store: store.unlock())
        total = await tending.reseal(client.door.write, told, limit=page)
    say(f"{total} rows sealed anew, none are left" if total else "nothing to do")


@db_command.command("sweep-blobs")
@database_option
def sweep_blobs_command(database: Database) -> None:
    """Delete blobs that are older than a day and that nothing refers to.

    Workers do that once an hour. Only blobs of this database are looked at.
    """
    asyncio.run(_sweep(database))


async def _sweep(database: Database) -> None:
    async with client_on(database, write=True) as client:
        seal = client.seal
        if seal.blobs is None:
            raise errors.UsageError(
                "which blob store? Give --blobs file:///path (or MODULE:NAME), or PERDURE_BLOBS"
            )
        now = datetime.fromtimestamp(client.door.now() / 1_000_000, UTC)
        seen, deleted = await tending.sweep_blobs(client.door.write, seal, now)
    say(f"{deleted} of {seen} blobs deleted")
