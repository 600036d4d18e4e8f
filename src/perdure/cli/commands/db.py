"""``perdure db``: the tables of a database, how far it is, and what is stored in it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime

import click

from perdure import errors
from perdure.cli import exits, table
from perdure.cli.out import document, format_option, hint, say
from perdure.cli.session import VARIABLE, Database, client_on, database_option
from perdure.store import ddl, migrate, tending
from perdure.store.opening import open_store
from perdure.store.port import Resealed


@click.group("db")
def db_command() -> None:
    """Care of a database: its tables, how far it is, and how data is stored."""


@db_command.command("migrate")
@click.option("--sql", "is_sql", is_flag=True, help="Print the SQL, and leave the database alone.")
@click.option("--pending", is_flag=True, help="With --sql: only what the database does not have.")
@click.option(
    "--role",
    metavar="ROLE",
    default="",
    help="With --sql, on PostgreSQL: who is to work with the tables, for its GRANTs.",
)
@database_option
def migrate_command(database: Database, role: str, *, is_sql: bool, pending: bool) -> None:
    """Make the tables of this version, or change those of an older one.

    A worker does that when it starts, if it may. Where it may not, --sql gives the text for
    somebody who may: all of it goes in one transaction, and says in the database what was done.
    """
    if not is_sql:
        if pending or role:
            raise click.UsageError("--pending and --role go with --sql")
        _migrate(database)
        return
    if pending:
        _check(database)
    text = ddl.script(database.url, pending=pending, role=role)
    if text:
        say(text)
    else:
        hint(f"{database.name} has everything")


@db_command.command("status")
@format_option("text", "json")
@database_option
def status_command(database: Database, output: str) -> int:
    """Say how far a database is; the exit code is 1 if migrations are missing.

    Of PostgreSQL's tables the rows are what the server believes they are; nothing is counted.
    """
    _check(database)
    found = ddl.state(database.url)
    if output == "json":
        say(
            document(
                {
                    "database": found.name,
                    "dialect": found.dialect,
                    "schema": found.schema or None,
                    "applied": [_said(one.number, one.name, one.version) for one in found.applied],
                    "pending": [_said(one.number, one.name) for one in found.pending],
                    "tables": found.tables,
                }
            )
        )
    else:
        say(f"{found.name}: {found.dialect}")
        for one in found.applied:
            say(f"  {one.number:04} {one.name}, applied by Perdure {one.version}")
        for one in found.pending:
            say(f"  {one.number:04} {one.name}: pending")
        if found.tables:
            rows = [(name, str(count)) for name, count in found.tables.items()]
            say(table.render(("TABLE", "ROWS"), rows))
    if found.pending:
        hint(f"a worker makes what is missing, or `{database.line('db', 'migrate')}` does")
    return exits.FAILED if found.pending else exits.OK


def _said(number: int, name: str, by: str = "") -> dict[str, object]:
    return {"number": number, "name": name, **({"perdure": by} if by else {})}


def _check(database: Database) -> None:
    if not database.exists:
        raise errors.Unavailable(
            f"there is no database at {database.name}; name another with --db or {VARIABLE}"
        )


def _migrate(database: Database) -> None:
    store = open_store(database.url)
    try:
        before = {one.number for one in store.ledger().applied()}
        store.migrate(time.time_ns() // 1000)  # noqa: TID251 - no engine's clock is at hand
        done = [one for one in store.migrations if one.number not in before]
    finally:
        store.close()
    hint(f"{database.name}: {migrate.listed(done) or 'has everything'}")


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

    One of the workers does that once an hour. Only blobs of this database are looked at.
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
