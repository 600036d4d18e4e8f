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
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import msgspec

from perdure.errors import StoreRefused, Superseded, UsageError
from perdure.store.port import Posted
from perdure.store.sql.database import one
from perdure.store.sqlite import faults
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.database import Database

R = TypeVar("R")

_NOT_YOURS = (
    "the transaction of a transactional activity belongs to Perdure: no COMMIT, ROLLBACK, ATTACH, "
    "DETACH and no PRAGMA that changes something. Raise an exception to undo; savepoints are fine"
)
_OURS = "perdure_"
_OUR_TABLE = (
    "{} is Perdure's: names that begin with perdure_ may be read here, and not written, altered or "
    "made; a run is changed through workflow and client calls only"
)
# What names a table it changes: as the first argument of the authorizer, or as the second where
# the first is a database (ALTER) or an index or trigger on the table.
_CHANGES = frozenset(
    {
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_DROP_VIEW,
    }
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
_LATE = "the transactional activity ran out of time; nothing of it was written"


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
        """Return a gated cursor."""
        return super().cursor(factory or GatedCursor)

    # The driver's own shortcuts make a plain cursor.

    def execute(self, *args: Any) -> Any:
        """Run a statement on a new cursor."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        """Run a statement for many rows on a new cursor."""
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        """Refuse: the driver commits before it runs a script."""
        return self.cursor().executescript(*args)

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
    """Lets one call at a time through, and none after the time limit.

    ``is_due``: the time limit has passed. ``has_ended``: and the transaction was undone for it.
    """

    def __init__(self, connection: GatedConnection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._denied = _NOT_YOURS
        self.is_lent = False
        self.is_due = False
        self.has_ended = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.has_ended:
            self._lock.release()
            raise TimeoutError(_LATE)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        self._lock.release()
        if exc is None or not self.is_lent:
            return
        if self.is_due:
            raise TimeoutError(_LATE) from exc
        if faults.code_of(exc) == sqlite3.SQLITE_AUTH:
            raise UsageError(self._denied, cause=exc) from exc

    def lend(self) -> None:
        """Begin a user's turn."""
        self._connection.set_authorizer(self._authorize)
        self.is_lent = True

    def take_back(self) -> bool:
        """End the user's turn; tell whether it ended in time."""
        with self._lock:
            self.is_lent = False
            self._connection.set_authorizer(None)
            return not self.is_due

    @contextmanager
    def own(self) -> Generator[None]:
        """Let Perdure write in the middle of the user's turn."""
        with self._lock:
            if self.has_ended:
                raise TimeoutError(_LATE)
            was_lent, self.is_lent = self.is_lent, False
            self._connection.set_authorizer(None)
            try:
                yield
            finally:
                if was_lent:
                    self.lend()

    def _authorize(
        self,
        action: int,
        first: str | None,
        second: str | None,
        schema: str | None,
        trigger: str | None,
    ) -> int:
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return self._deny(_NOT_YOURS)
        if action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            if name in _READ_PRAGMAS or (second is None and name not in _WRITE_PRAGMAS):
                return sqlite3.SQLITE_OK
            return self._deny(_NOT_YOURS)
        if action in _CHANGES:
            # The second argument of an update is a column: its name is the user's.
            for name in (first,) if action == sqlite3.SQLITE_UPDATE else (first, second):
                if name and name.lower().startswith(_OURS):
                    return self._deny(_OUR_TABLE.format(name))
        return sqlite3.SQLITE_OK

    def _deny(self, why: str) -> int:
        self._denied = why
        return sqlite3.SQLITE_DENY

    def reset(self) -> None:
        """Open the gate for the next user of a shared connection."""
        self.is_due = self.has_ended = False

    def expire(self, database: Database) -> None:
        """Undo the user's turn from another thread and let others write, if it still goes on."""
        self.is_due = self.is_lent
        # A statement that runs holds the lock; it is told to stop until it has.
        while not self._lock.acquire(timeout=_INTERRUPT_EVERY):
            self._connection.interrupt()
        try:
            if self.is_lent:
                self._connection.set_authorizer(None)
                database.rollback()
                self.has_ended = True
        finally:
            self._lock.release()


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
        try:
            execution = _take_row(database, key)
            result = _call(database, connection, fn, time_limit)
            connection.row_factory, connection.text_factory = factories
            posted = _record(database, key[0], execution, outcome(result), now)
        except BaseException as exc:
            if not connection.gate.has_ended:
                database.undo(exc)
            raise
        finally:
            connection.gate.reset()
            connection.row_factory, connection.text_factory = factories
        database.commit()
    finally:
        if shared is None:
            database.close()
    return result, posted


def _take_row(database: Database, key: tuple[int, int, int]) -> int:
    run, activity, attempt = key
    try:
        if database.run("take_open_tx", *key).rowcount != 1:
            raise Superseded(
                f"run {run}: attempt {attempt} of activity #{activity} was decided elsewhere "
                "(a timeout, a cancel or the end of the run); nothing was done"
            )
        return int(one(database, "execution_of", run))
    except sqlite3.Error as exc:
        raise faults.translate(exc, database.name) from exc


def _call(
    database: Database, connection: GatedConnection, fn: Callable[[Any], R], time_limit: float
) -> R:
    gate = connection.gate
    watch = threading.Timer(time_limit, gate.expire, (database,))
    watch.daemon = True
    gate.lend()
    watch.start()
    try:
        result = fn(connection)
    except Exception as exc:
        if not gate.take_back():
            raise TimeoutError(_LATE) from exc
        raise
    finally:
        watch.cancel()
        in_time = gate.take_back()
    if not in_time:
        raise TimeoutError(_LATE)
    if not connection.in_transaction:
        raise StoreRefused("SQLite undid the activity's transaction; nothing of it was written")
    return result


def _record(database: Database, run: int, execution: int, event: bytes, now: int) -> Posted:
    try:
        current = one(database, "current_run", execution)
        sealed = database.seal.seal(event)
        (id,) = database.insert("insert_inbox", 6, [execution, "", 0, sealed, 1, now])
    except sqlite3.Error as exc:
        raise faults.translate(exc, database.name) from exc
    assert current == run, "a run that was continued has no deciding rows"
    return Posted("delivered", id=id, execution=execution, run=run, event=event)
