"""Starts inside a caller's own transaction: on the caller's connection and thread, never ours.

The rows stand or fall with what else the caller writes. A savepoint around them keeps a start that
is refused half way from leaving anything behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper

from perdure.errors import Invalid, Unavailable
from perdure.store.postgres import faults
from perdure.store.postgres.connect import Connection
from perdure.store.postgres.database import Database
from perdure.store.postgres.holding import Overtaken
from perdure.store.postgres.sql import Statements

R = TypeVar("R")

_WHERE = (
    "SELECT current_database(), pg_postmaster_start_time()::text, "
    "to_regclass($1 || '.perdure_run')::oid::bigint"
)


class Borrowed(Statements):
    """What the commit's code needs of a database, on a connection that is somebody else's."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self.connection = connection
        self.name = database.name
        self.schema = database.schema
        self.sql = database.sql
        self.written = 0

    def execute(
        self, text: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None
    ) -> Any:
        """Run a statement. The caller's row factory and cursor class do not apply."""
        cursor = psycopg.RawCursor(self.connection, row_factory=tuple_row)
        cursor.adapters.register_dumper(int, Int8Dumper)
        return cursor.execute(text.encode(), parameters or None, binary=True, prepare=prepare)


def borrow(connection: object, database: Database) -> Borrowed:
    """Return the caller's connection if a start can be written on it.

    Raises:
        Invalid: no connection of psycopg, one to another database, or one without a transaction.
    """
    if not isinstance(connection, psycopg.Connection):
        raise Invalid(f"connection: {connection!r} is not a psycopg.Connection to {database.name}")
    borrowed = Borrowed(cast("Connection", connection), database)
    if connection.info.transaction_status is not TransactionStatus.INTRANS:
        raise Invalid("connection: begin its transaction first")
    theirs = borrowed.execute(_WHERE, [database.schema]).fetchone()
    ours = database.read(lambda: database.execute(_WHERE, [database.schema]).fetchone())
    if theirs != ours:
        raise Invalid(f"connection: it is to another database, not to {database.name}")
    return borrowed


def written_on(borrowed: Borrowed, write: Callable[[], R]) -> R:
    """Call ``write()`` within a savepoint on the caller's connection.

    Raises:
        Unavailable: another transaction was in the way.
        StoreError: what the database refused, translated.
    """
    try:
        borrowed.execute("SAVEPOINT perdure_start")
        try:
            result = write()
        except BaseException:
            borrowed.execute("ROLLBACK TO SAVEPOINT perdure_start")
            borrowed.execute("RELEASE SAVEPOINT perdure_start")
            raise
        borrowed.execute("RELEASE SAVEPOINT perdure_start")
    except Overtaken as exc:
        raise Unavailable(
            f"{borrowed.name}: another transaction was in the way; try again", cause=exc
        ) from exc
    except (psycopg.Error, *faults.BAD_VALUES) as exc:
        raise faults.translate(exc, borrowed.name) from exc
    return result
