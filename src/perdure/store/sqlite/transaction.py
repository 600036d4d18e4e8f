"""Transactional activities: the user's statements and the outcome, in one commit (R7).

Each scheduled attempt has one deciding row. Its transaction takes that row away; so does a timeout,
a cancel or the end of the run, in theirs. Whoever deletes it decides, and since the write lock is
held from the start, it is deleted first: code that was superseded does not even run.

The user gets a real connection, fenced in three ways: an authorizer refuses to end the transaction
or to leave it, the connection's own ``commit`` and ``rollback`` raise, and a gate around every call
lets a time limit end the transaction while the user's code sleeps between two statements. (Doing
that from SQLite's side could deadlock: another thread's call would wait for SQLite's mutex while it
holds the interpreter.) User code that hangs outside of SQLite keeps its thread, but not the lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import msgspec

from perdure.errors import StoreRefused, Superseded, UsageError
from perdure.store.port import Posted
from perdure.store.sqlite import faults
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.database import Database, one
from perdure.store.sqlite.sql import SQL

R = TypeVar("R")

_NOT_YOURS = (
    "the transaction of a transactional activity belongs to Perdure: no COMMIT, ROLLBACK, ATTACH, "
    "DETACH and no PRAGMA that changes something. Raise an exception to undo; savepoints are fine"
)
_READ_PRAGMAS = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
_WRITE_PRAGMAS = frozenset({"incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"})
_INTERRUPT_EVERY = 0.01


class GatedCursor(sqlite3.Cursor):
    """A cursor whose every step passes its connection's gate."""

    @property
    def _gate(self) -> Gate:
        connection = self.connection
        assert isinstance(connection, GatedConnection)
        return connection.gate

    def execute(self, *args: Any) -> Self:
        with self._gate:
            return super().execute(*args)

    def executemany(self, *args: Any) -> Self:
        with self._gate:
            return super().executemany(*args)

    def executescript(self, *args: Any) -> NoReturn:
        # The driver commits before it runs a script.
        raise UsageError(f"executescript would end the transaction; {_NOT_YOURS}")

    def fetchone(self) -> Any:
        with self._gate:
            return super().fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> list[Any]:
        with self._gate:
            return super().fetchmany(*args, **kwargs)

    def fetchall(self) -> list[Any]:
        with self._gate:
            return super().fetchall()

    def __next__(self) -> Any:
        with self._gate:
            return super().__next__()


class GatedConnection(sqlite3.Connection):
    """A connection that can be shut while its user does something else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = Gate(self)

    def cursor(self, factory: Any = None) -> Any:
        """Return a gated cursor; the driver's own shortcuts come through here as well."""
        return super().cursor(factory or GatedCursor)

    def commit(self) -> None:
        """Refuse: the transaction ends with the outcome."""
        self._refuse_if_lent()

    def rollback(self) -> None:
        """Refuse: raise an exception to undo."""
        self._refuse_if_lent()

    def __enter__(self) -> Self:
        self._refuse_if_lent()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        return super().__exit__(kind, value, trace)

    def close(self) -> None:
        """Close, unless user code holds it."""
        self._refuse_if_lent()
        super().close()

    def _refuse_if_lent(self) -> None:
        if self.gate.is_lent:
            raise UsageError(_NOT_YOURS)


class Gate:
    """Lets one call at a time through, and none after the time limit."""

    def __init__(self, connection: GatedConnection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self.is_lent = False
        self.is_expired = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.is_expired:
            self._lock.release()
            raise TimeoutError("the transactional activity ran out of time")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        self._lock.release()
        if exc is None or not self.is_lent:
            return
        if self.is_expired:
            raise TimeoutError("the transactional activity ran out of time") from exc
        if faults.code_of(exc) == sqlite3.SQLITE_AUTH:
            raise UsageError(_NOT_YOURS, cause=exc) from exc

    def lend(self) -> None:
        """Begin a user's turn."""
        self.is_lent, self.is_expired = True, False
        self._connection.set_authorizer(_authorize)

    def take_back(self) -> bool:
        """End the user's turn; tell whether it ended in time."""
        with self._lock:
            self.is_lent = False
            if not self.is_expired:
                self._connection.set_authorizer(None)
            return not self.is_expired

    def expire(self) -> bool:
        """End the user's turn from another thread; tell whether it was still going on."""
        if not self.is_lent:
            return False
        self._connection.interrupt()
        while not self._lock.acquire(timeout=_INTERRUPT_EVERY):
            self._connection.interrupt()
        try:
            if not self.is_lent:
                return False
            self.is_expired = True
            self._connection.set_authorizer(None)
            if self._connection.in_transaction:
                # Not through the gate, which is shut from now on.
                sqlite3.Cursor(self._connection).execute("ROLLBACK")
            return True
        finally:
            self._lock.release()


def _authorize(
    action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
) -> int:
    if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        if name in _READ_PRAGMAS or (second is None and name not in _WRITE_PRAGMAS):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


class _Turn:
    """One transaction. Holds the token until the commit, the rollback or the time limit."""

    def __init__(self, database: Database, connection: GatedConnection) -> None:
        self._database = database
        self._connection = connection
        self._ended = threading.Lock()
        self._has_token = True

    def expire(self) -> None:
        """Undo everything because the time is up, and let others write."""
        if self._connection.gate.expire():
            self.give_token()

    def give_token(self) -> None:
        """Pass the token on, once."""
        with self._ended:
            if self._has_token:
                self._has_token = False
                self._database.release()


def run_transaction(
    settings: Settings,
    shared: Database | None,
    key: tuple[int, int, int],
    fn: Callable[[Any], R],
    *,
    outcome: Callable[[R], bytes],
    time_limit: float,
    now: int,
) -> tuple[R, Posted]:
    """Run ``fn(connection)`` and record its outcome: see ``Store.transact``.

    ``shared``: the only connection of a database in memory; else a fresh one is opened, so that
    what user code sets on it (row factories, functions) ends with it.
    """
    database = shared or Database(msgspec.structs.replace(settings, factory=GatedConnection))
    connection = database.connection
    assert isinstance(connection, GatedConnection)
    factories = connection.row_factory, connection.text_factory
    try:
        database.begin()
        turn = _Turn(database, connection)
        watch = threading.Timer(time_limit, turn.expire)
        watch.daemon = True
        try:
            result, posted = _decide(database, connection, key, fn, outcome, watch, now)
        except BaseException as exc:
            if not connection.gate.is_expired:
                database.undo_held(exc)
                turn.give_token()
            raise _outward(exc, database.name) from None if exc.__cause__ is None else exc.__cause__
        finally:
            watch.cancel()
            connection.gate.is_expired = False
            connection.row_factory, connection.text_factory = factories
        database.commit()
    finally:
        if shared is None:
            database.close()
    return result, posted
