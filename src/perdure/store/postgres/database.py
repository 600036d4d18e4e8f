"""One connection and the rules of writing on it.

* A write is BEGIN, statements, COMMIT, with READ COMMITTED: each statement sees what was committed
  before it. What must not change between two statements is locked (``holding.py``).
* A transaction that stood in another's way has left no trace, and is repeated.
* A COMMIT that is not acknowledged may nevertheless stand. Then the connection is given up, the
  caller hears ``Unavailable``, and the next verb begins with a fresh connection and the question
  what was committed (I12), which waits for the one in doubt.
* Whoever is in the way for seconds stands still, perhaps for ever. Then what he has begun is ended.
* After a fork the child must not touch the connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TypeVar

import psycopg

from perdure.errors import Unavailable, UsageError
from perdure.store.postgres import faults
from perdure.store.postgres.connect import SILENT_SECONDS, Settings, connect, local_settings
from perdure.store.postgres.holding import Overtaken
from perdure.store.postgres.sql import Statements, queries_in

_TRIES = 20
_TRIES_IF_BLOCKED = 3
_PAUSE_SECONDS = 0.002

R = TypeVar("R")


class Database(Statements):
    """A connection, and what is known about its health. ``written``: bytes that verbs encoded."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seal = settings.seal
        self.name = settings.name
        self.schema = settings.schema
        self.sql = queries_in(settings.schema)
        self.connection = connect(settings)
        self.written = 0
        self._pid = os.getpid()
        self._closed = False
        self.pipeline = None
        self._settings_of_writes, self._begins_reading = (
            local_settings(settings) if settings.pooler else ("", "")
        )

    def check(self) -> None:
        """Make sure that the connection may be used, opening it again after it was lost.

        Raises:
            UsageError: closed, or used in a forked process.
            Unavailable: it cannot be opened again yet.
        """
        if self._pid != os.getpid():
            raise UsageError(
                f"{self.name} was opened in process {self._pid} and is used in its fork "
                f"{os.getpid()}; open it again after the fork"
            )
        if self._closed:
            raise UsageError(f"{self.name} was closed")
        if self.connection.closed:
            self.connection = connect(self.settings)

    def read(self, call: Callable[[], R]) -> R:
        """Call something that reads; a connection that was lost while idle is opened again."""
        self.check()
        for is_last in (False, True):
            try:
                return self._within(call) if self._begins_reading else call()
            except (psycopg.Error, *faults.BAD_VALUES) as exc:
                self.roll_back()
                is_blocked = faults.is_blocked(exc)
                if is_last or not (self.connection.closed or is_blocked):
                    raise faults.translate(exc, self.name) from exc
                self.check()
                if is_blocked:
                    self._end_silent()
        raise AssertionError

    def _within(self, call: Callable[[], R]) -> R:
        """Read in one transaction, which has the settings that a session would have."""
        if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return call()  # within another verb
        self.connection.cursor().execute(self._begins_reading.encode(), prepare=False)
        result = call()
        self.execute("COMMIT")
        return result

    def write(self, call: Callable[[], R], *, is_script: bool = False) -> R:
        """Call something that writes in one short transaction, again if it was in another's way.

        The statements go in a pipeline: nothing waits but for answers that are asked for.
        ``is_script``: several come as one text, which a pipeline cannot take.
        """
        trouble: Exception | None = None
        was_lost = False
        blocked = 0
        for attempt in range(_TRIES):
            if attempt:  # jitter keeps two from meeting again and again
                time.sleep(_PAUSE_SECONDS * attempt * os.urandom(1)[0] / 256)
            self.check()
            if trouble is not None and faults.is_blocked(trouble):
                self._end_silent()
            is_committing = False
            try:
                with self._pipeline(is_script) as self.pipeline:
                    self.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                    if self._settings_of_writes:
                        self.execute(self._settings_of_writes)
                    result = call()
                    is_committing = True
                    self.execute("COMMIT")
                return result
            except Overtaken as exc:
                trouble = exc
            except (psycopg.Error, *faults.BAD_VALUES) as exc:
                if self._is_lost(exc):
                    self.abandon()
                    if is_committing:
                        raise self._doubt(exc) from exc
                    if was_lost:
                        raise faults.translate(exc, self.name) from exc
                    was_lost = True  # while it was idle: nothing of this has happened
                elif faults.is_blocked(exc):
                    blocked += 1
                    if blocked == _TRIES_IF_BLOCKED:
                        raise faults.translate(exc, self.name) from exc
                elif not faults.is_conflict(exc):
                    raise faults.translate(exc, self.name) from exc
                trouble = exc
            except BaseException:
                if is_committing:
                    self.abandon()
                raise
            finally:
                self.pipeline = None
                self.roll_back()
        raise Unavailable(
            f"{self.name}: {_TRIES} times another transaction was in the way; nothing was written",
            cause=trouble,
        )

    def _pipeline(self, is_script: bool) -> AbstractContextManager[psycopg.Pipeline | None]:
        return nullcontext() if is_script else self._quiet_pipeline()

    @contextmanager
    def _quiet_pipeline(self) -> Generator[psycopg.Pipeline]:
        """Send a block's statements in a pipeline. What fails in it passes by the driver's own
        pipeline, which would print on stderr that it cannot end it in order.
        """
        failed: Exception | None = None
        try:
            with self.connection.pipeline() as pipeline:
                try:
                    yield pipeline
                except Exception as exc:  # noqa: BLE001 - it is raised below
                    failed = exc
        except psycopg.Error:
            if failed is None:
                raise
        if failed is not None:
            raise failed

    def _is_lost(self, exc: BaseException) -> bool:
        return self.connection.closed or faults.state_of(exc)[:2] in ("08", "57")

    def _end_silent(self) -> None:
        """End the transactions of processes that stand still within one."""
        with suppress(psycopg.Error):  # whoever comes next meets the same trouble
            self.execute(self.sql["end_silent"], [SILENT_SECONDS])

    def _doubt(self, exc: BaseException) -> Unavailable:
        return Unavailable(
            f"{self.name} failed to acknowledge a commit ({str(exc).strip()}); it may or may not "
            "have been written",
            cause=exc,
        )

    def abandon(self) -> None:
        """Give the connection up: the next verb opens a new one."""
        self.connection.close()

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Let the queries of a ``with`` block see one state of the database."""
        if self._begins_reading:
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
            return
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield
        self.execute("COMMIT")  # after an error ``read`` rolls back

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            self.connection.close()

    def roll_back(self) -> None:
        """Undo the transaction, whatever state it is in."""
        if self.connection.closed:
            return
        try:
            if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.execute("ROLLBACK")
        except psycopg.Error:
            self.abandon()
