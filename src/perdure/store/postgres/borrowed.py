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
from perdure.store.postgres.connect import Connection, Settings, connect
from perdure.store.postgres.holding import Overtaken
from perdure.store.postgres.sql import Statements, queries_in

R = TypeVar("R")

_WHERE = (
    "SELECT current_database(), pg_postmaster_start_time()::text, "
    "to_regclass($1 || '.perdure_run')::oid::bigint"
)
_ISOLATION = "SHOW transaction_isolation"

Place = tuple[str, str, int | None]
"""Name of a database, when its server started, and the number of a table in it."""


class Borrowed(Statements):
    """Perdure's own statements on a connection that is somebody else's."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self.name = settings.name
        self.seal = settings.seal
        self.schema = settings.schema
        self.sql = queries_in(settings.schema)
        self.written = 0

    def execute(
        self, text: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None
    ) -> Any:
        """Run a statement. Its user's row factory, adapters and cursor class do not apply."""
        cursor = psycopg.RawCursor(self.connection, row_factory=tuple_row)
        cursor.adapters.register_dumper(int, Int8Dumper)
        return cursor.execute(text.encode(), parameters or None, binary=True, prepare=prepare)


class Borrower:
    """Takes callers' connections for starts; from any thread.

    The store's own connection belongs to another thread, and is not asked for anything.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home: Place | None = None

    def borrow(self, connection: object) -> Borrowed:
        """Return the caller's connection if a start can be written on it.

        Raises:
            Invalid: no connection of psycopg, one to another database, or one whose transaction
                cannot carry a start.
        """
        name = self._settings.name
        if isinstance(connection, psycopg.AsyncConnection):
            raise Invalid("connection: an AsyncConnection cannot be used; psycopg.Connection can")
        if not isinstance(connection, psycopg.Connection):
            raise Invalid(f"connection: {connection!r} is not a psycopg.Connection to {name}")
        borrowed = Borrowed(cast("Connection", connection), self._settings)
        status = connection.info.transaction_status
        if status is TransactionStatus.INERROR:
            raise Invalid("connection: a statement of its transaction failed; roll it back first")
        if status is not TransactionStatus.INTRANS:
            raise Invalid("connection: begin its transaction first")
        try:
            there = _place(borrowed)
            (isolation,) = borrowed.execute(_ISOLATION).fetchone()
        except psycopg.Error as exc:
            raise faults.translate(exc, name) from exc
        if not self._is_home(there):
            raise Invalid(f"connection: it is to another database, not to {name}")
        if isolation not in ("read committed", "read uncommitted"):
            # What others have started since its snapshot would be invisible: two of one id.
            raise Invalid(
                f"connection: its transaction is {isolation.upper()}; a start needs READ COMMITTED"
            )
        return borrowed

    def _is_home(self, there: Place) -> bool:
        if there == self._home:
            return True
        with connect(self._settings) as connection:  # first, or the server was started again
            self._home = _place(Borrowed(connection, self._settings))
        return there == self._home


def _place(borrowed: Borrowed) -> Place:
    return borrowed.execute(_WHERE, [borrowed.schema]).fetchone()


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
