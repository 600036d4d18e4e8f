"""Transactional activities: the user's statements and the outcome, in one commit (R7).

Each scheduled attempt has one deciding row. The user's transaction ends with taking it away; so
does a timeout, a cancel, a takeover or the end of the run, in theirs. Whoever deletes it decides.
It is taken last: a transaction of a user may last, and nobody shall wait for it meanwhile.

The connection is a psycopg connection as the user knows them, but ``commit`` and ``rollback``
raise; a COMMIT that is sent as a statement cannot be hindered, but is found out. At the time limit
the server ends the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from perdure.errors import StoreError, StoreRefused, Superseded, UsageError
from perdure.store.port import Posted
from perdure.store.postgres import faults
from perdure.store.postgres.connect import Settings, connect
from perdure.store.postgres.holding import hold_executions
from perdure.store.postgres.sql import Statements, queries_in
from perdure.store.sql.database import one

R = TypeVar("R")

_NOT_YOURS = (
    "the transaction of a transactional activity belongs to Perdure: no commit, no rollback. Raise "
    "an exception to undo; savepoints are fine (connection.transaction())"
)
_LATE = "the transactional activity ran out of time; nothing of it was written"


class LentConnection(psycopg.Connection[Any]):
    """A connection whose transaction is not its user's to end."""

    is_lent = False

    def commit(self) -> None:
        """Refuse: the transaction ends with the outcome."""
        self._refuse_if_lent()
        super().commit()

    def rollback(self) -> None:
        """Refuse: raise an exception to undo."""
        self._refuse_if_lent()
        super().rollback()

    def close(self) -> None:
        """Close, unless user code holds it."""
        self._refuse_if_lent()
        super().close()

    def _refuse_if_lent(self) -> None:
        if self.is_lent:
            raise UsageError(_NOT_YOURS)


class _Own(Statements):
    """Perdure's own statements on that connection."""

    def __init__(self, connection: LentConnection, settings: Settings) -> None:
        self.connection = connection
        self.name = settings.name
        self.schema = settings.schema
        self.sql = queries_in(settings.schema)
        self.written = 0

    def execute(
        self, text: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None
    ) -> Any:
        """Run a statement."""
        cursor = psycopg.RawCursor(self.connection)
        cursor.adapters.register_dumper(int, Int8Dumper)
        return cursor.execute(text.encode(), parameters or None, binary=True, prepare=prepare)


def run_transaction(
    settings: Settings,
    key: tuple[int, int, int],
    fn: Callable[[Any], R],
    *,
    outcome: Callable[[R], bytes],
    time_limit: float,
    now: int,
) -> tuple[R, Posted]:
    """Run ``fn(connection)`` and record its outcome: see ``Store.transact``."""
    connection = connect(settings, LentConnection)
    assert isinstance(connection, LentConnection)
    own = _Own(connection, settings)
    try:
        own.execute("BEGIN")
        milliseconds = max(1, int(time_limit * 1_000))
        own.execute(f"SET LOCAL statement_timeout = {milliseconds}")
        own.execute(f"SET LOCAL lock_timeout = {milliseconds}")
        own.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}")
        execution = _check_row(own, key)
        transaction = own.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
        result = _call(settings, connection, fn, time_limit)
        if connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise StoreRefused(
                "PostgreSQL undid the activity's transaction, or the activity ended it"
            )
        if own.execute("SELECT pg_current_xact_id()::text").fetchone()[0] != transaction:
            raise UsageError(f"{_NOT_YOURS}; what it has committed stands, and the attempt failed")
        posted = _record(own, key, execution, outcome(result), now)
        own.execute("COMMIT")
    except (psycopg.Error, *faults.BAD_VALUES) as exc:
        raise faults.translate(exc, settings.name) from exc
    finally:
        connection.is_lent = False
        connection.close()  # ends what was not committed
    return result, posted


def _check_row(own: _Own, key: tuple[int, int, int]) -> int:
    run, _, _ = key
    found = own.execute(own.sql["find_open_tx"], key).fetchone()
    if found is None:
        _superseded(key)
    return int(one(own, "execution_of", run))


def _superseded(key: tuple[int, int, int]) -> NoReturn:
    run, activity, attempt = key
    raise Superseded(
        f"run {run}: attempt {attempt} of activity #{activity} was decided elsewhere (a timeout, a "
        "cancel or the end of the run); nothing was done"
    )


def _call(
    settings: Settings, connection: LentConnection, fn: Callable[[Any], R], time_limit: float
) -> R:
    watch = threading.Timer(time_limit, _end, (settings, connection.info.backend_pid))
    watch.daemon = True
    connection.is_lent = True
    watch.start()
    try:
        return fn(connection)
    except psycopg.Error as exc:
        if watch.finished.is_set() or faults.state_of(exc) in ("57014", "57P01", "25P03"):
            raise TimeoutError(_LATE) from exc
        raise
    finally:
        is_late = watch.finished.is_set()
        watch.cancel()
        connection.is_lent = False
        if is_late:
            raise TimeoutError(_LATE)


def _end(settings: Settings, pid: int) -> None:
    """Let the server end the session, whatever it is doing."""
    try:
        with connect(settings) as connection:
            connection.execute("SELECT pg_terminate_backend($1::int)", [pid])
    except (psycopg.Error, StoreError):
        pass  # the session's own time limits are left


def _record(own: _Own, key: tuple[int, int, int], execution: int, event: bytes, now: int) -> Posted:
    run = key[0]
    hold_executions(own, [execution])
    if own.run("take_open_tx", *key).rowcount != 1:
        _superseded(key)
    current = one(own, "current_run", execution)
    (id,) = own.insert("insert_inbox", 6, [execution, "", 0, event, 1, now])
    assert current == run, "a run that was continued has no deciding rows"
    return Posted("delivered", id=id, execution=execution, run=run, event=event)
