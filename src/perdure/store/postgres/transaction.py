"""Transactional activities: the user's statements and the outcome, in one commit (R7).

Each scheduled attempt has one deciding row. The user's transaction ends with taking it away; so
does a timeout, a cancel, a takeover or the end of the run, in theirs. Whoever deletes it decides.
It is taken last: a transaction of a user may last, and nobody shall wait for it meanwhile.

The connection is a psycopg connection as the user knows them, but ``commit`` and ``rollback``
raise; a COMMIT that is sent as a statement cannot be hindered, but is found out. At the time limit
the server ends the session. What the user's code raises, it gets back as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from perdure.errors import StoreError, StoreRefused, Superseded, Unavailable, UsageError
from perdure.store.port import Posted
from perdure.store.postgres import faults
from perdure.store.postgres.borrowed import Borrowed
from perdure.store.postgres.connect import Settings, connect
from perdure.store.postgres.holding import hold_executions
from perdure.store.postgres.lending import NOT_YOURS, Lender, LentConnection
from perdure.store.sql.database import one

R = TypeVar("R")

_LATE = "the transactional activity ran out of time; nothing of it was written"
_SERVERS_OWN_MS = 1_000
"""How much later the server ends a session by itself, if it could not be told to."""
_END_MS = 2_000
# What user code may have set, and what must not go for our own statements and the commit.
_OUR_SETTINGS = b"SET LOCAL ROLE TO DEFAULT; SET LOCAL synchronous_commit TO DEFAULT"


def run_transaction(
    lender: Lender,
    key: tuple[int, int, int],
    fn: Callable[[Any], R],
    *,
    outcome: Callable[[R], bytes],
    time_limit: float,
    now: int,
) -> tuple[R, Posted]:
    """Run ``fn(connection)`` and record its outcome: see ``Store.transact``."""
    settings = lender.settings
    with lender.connection() as connection:
        own = Borrowed(connection, settings)
        with _translated(settings):
            execution = _check_row(own, key)
            pid, transaction = _begin(own, time_limit)
        result = _call(settings, connection, fn, _Watch(settings, pid, time_limit))
        _check_still_open(own, transaction)
        event = outcome(result)
        with _translated(settings):
            posted = _record(own, key, execution, event, now)
        _commit(own)
    return result, posted


@contextmanager
def _translated(settings: Settings) -> Generator[None]:
    try:
        yield
    except (psycopg.Error, *faults.BAD_VALUES) as exc:
        raise faults.translate(exc, settings.name) from exc


def _begin(own: Borrowed, time_limit: float) -> tuple[int, str]:
    """Return the server's process, and the number of the transaction."""
    milliseconds = max(1, int(time_limit * 1_000)) + _SERVERS_OWN_MS
    own.execute(f"SET LOCAL statement_timeout = {milliseconds}")
    own.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}")
    # Behind a pooler the driver does not know the process.
    pid, transaction = own.execute("SELECT pg_backend_pid(), pg_current_xact_id()::text").fetchone()
    return pid, transaction


def _check_row(own: Borrowed, key: tuple[int, int, int]) -> int:
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
    settings: Settings, connection: LentConnection, fn: Callable[[Any], R], watch: _Watch
) -> R:
    connection.is_lent = True
    watch.start()
    try:
        result = fn(connection)
    except Exception as exc:
        if watch.end():
            raise TimeoutError(_LATE) from exc
        raise
    finally:
        is_late = watch.end()
        connection.is_lent = False
    if is_late:
        raise TimeoutError(_LATE)
    return result


class _Watch:
    """Ends the session at the time limit, unless the user's turn is over by then."""

    def __init__(self, settings: Settings, pid: int, time_limit: float) -> None:
        self._settings = settings
        self._pid = pid
        self._lock = threading.Lock()
        self._is_over = False
        self._is_late = False
        self._timer = threading.Timer(time_limit, self._expire)
        self._timer.daemon = True

    def start(self) -> None:
        """Begin to count."""
        self._timer.start()

    def end(self) -> bool:
        """End the user's turn; tell whether the time limit came first."""
        self._timer.cancel()
        with self._lock:  # while the session is being ended
            self._is_over = True
            return self._is_late

    def _expire(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_late = True
            try:
                with connect(self._settings) as connection:
                    # It has gone, with its locks, when this returns.
                    end = f"SELECT pg_terminate_backend($1::int, {_END_MS})"
                    connection.execute(end.encode(), [self._pid])
            except (psycopg.Error, StoreError):
                pass  # the session's own time limits are left


def _check_still_open(own: Borrowed, transaction: str) -> None:
    """Make sure that the transaction is the one that was lent.

    Raises:
        UsageError: user code ended it.
        StoreRefused: a statement failed, and user code went on.
        Unavailable: the connection was lost.
    """
    status = own.connection.info.transaction_status
    if status is TransactionStatus.INERROR:
        raise StoreRefused(
            "a statement of the transactional activity failed, and PostgreSQL undid its "
            "transaction; nothing of it was written. To go on after an error, put what may fail "
            "into a savepoint (connection.transaction())"
        )
    with _translated_to_lost(own):
        if status is TransactionStatus.INTRANS:
            now = own.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
            if now == transaction:
                return
    if own.connection.closed:
        raise Unavailable(f"{own.name}: the connection was lost; nothing was written")
    raise UsageError(f"{NOT_YOURS}; what it has committed stands, and the attempt failed")


@contextmanager
def _translated_to_lost(own: Borrowed) -> Generator[None]:
    try:
        yield
    except psycopg.Error as exc:
        raise Unavailable(
            f"{own.name}: the connection was lost ({str(exc).strip()}); nothing was written",
            cause=exc,
        ) from exc


def _record(
    own: Borrowed, key: tuple[int, int, int], execution: int, event: bytes, now: int
) -> Posted:
    run = key[0]
    psycopg.Cursor(own.connection).execute(_OUR_SETTINGS, prepare=False)
    hold_executions(own, [execution])
    if own.run("take_open_tx", *key).rowcount != 1:
        _superseded(key)
    current = one(own, "current_run", execution)
    (id,) = own.insert("insert_inbox", 6, [execution, "", 0, own.seal.seal(event), 1, now])
    assert current == run, "a run that was continued has no deciding rows"
    return Posted("delivered", id=id, execution=execution, run=run, event=event)


def _commit(own: Borrowed) -> None:
    """Commit.

    Raises:
        Unavailable: it was not acknowledged. If it stands, another try is superseded.
        psycopg.Error: what the user's own constraints and triggers refused.
    """
    try:
        own.execute("COMMIT")
    except psycopg.Error as exc:
        if faults.state_of(exc) and not own.connection.closed:
            raise
        raise Unavailable(
            f"{own.name} failed to acknowledge a commit ({str(exc).strip()}); it may or may not "
            "have been written",
            cause=exc,
        ) from exc
