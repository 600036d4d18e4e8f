"""``perdure db``: the tables of a database, and how far it is."""

from __future__ import annotations

import time

import click

from perdure import errors
from perdure.cli import exits, table
from perdure.cli.out import document, format_option, hint, say
from perdure.cli.session import VARIABLE, Database, database_option
from perdure.store import ddl, migrate
from perdure.store.opening import open_store


@click.group("db")
def db_command() -> None:
    """Bring a database to this version, or print the SQL for it; see how far it is."""


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
