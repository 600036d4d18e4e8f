"""One connection and the rules of writing on it.

* A write is BEGIN IMMEDIATE, statements, COMMIT, with the process's write token around it. A
  deferred BEGIN could fail half-way in a way that no waiting cures.
* Another process's lock is waited for here: ``timeout=0`` and a jittered retry, since SQLite's own
  busy handler lets a newcomer starve. Nobody ever sees "locked". A committer that is busy without a
  pause leaves 1 ms free every 20 ms, so that the others get in.
* A COMMIT that fails may nevertheless stand on the disk. Then the connection is closed, the caller
  hears ``Unavailable``, and the next verb begins with a fresh connection and the question what was
  committed (I12).
* After a fork the child must not touch the connection: its locks belong to the parent.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from perdure.errors import StoreError, StoreGone, Unavailable, UsageError
from perdure.store.sqlite import faults
from perdure.store.sqlite.connect import Settings, connect
from perdure.store.sqlite.contention import describe_lock_holder
from perdure.store.sqlite.sql import Statements
from perdure.store.sqlite.token import WriteToken, token_for

log = logging.getLogger("perdure.store")

_GAP = 0.001
_BUSY_FOR = 0.020
_PER_COMMIT = 8192

R = TypeVar("R")


class Database(Statements):
    """A connection, its token, and what is known about its health.

    ``written`` is an estimate, in bytes, of what this process added to the write-ahead log since
    the last checkpoint; verbs add what they encoded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seal = settings.seal
        self.path = settings.path
        self.name = settings.name
        self.connection = connect_patiently(settings)
        self._file = _identity(self.path)
        self._is_gone = False
        self.token = WriteToken() if self.path is None else token_for(self.path)
        self.written = 0
        self._pid = os.getpid()
        self._closed = False
        self._doubtful = False
        self._released = 0.0
        self._busy_since = 0.0

    def check(self) -> None:
        """Make sure that the connection may be used, opening it again after a failed commit.

        Raises:
            UsageError: closed, or used in a forked process.
            Unavailable: it cannot be opened again yet.
            StoreGone: its file was deleted, moved or replaced.
        """
        if self._pid != os.getpid():
            raise UsageError(
                f"{self.name} was opened in process {self._pid} and is used in its fork "
                f"{os.getpid()}; open it again after the fork"
            )
        if self._closed:
            raise UsageError(f"{self.name} was closed")
        self._check_file()
        if self._doubtful:
            self.connection = connect_patiently(self.settings)
            self._doubtful = False

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> sqlite3.Cursor:
        """Run a statement."""
        return self.connection.execute(sql, parameters)

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Let the queries of a ``with`` block see one state of the database."""
        self.execute("BEGIN")
        yield
        self.execute("COMMIT")  # after an error ``read`` rolls back

    def read(self, call: Callable[[], R]) -> R:
        """Call something that reads: translated errors, and patience while a log is recovered."""
        self.check()
        patience: Patience | None = None
        while True:
            try:
                return call()
            except (sqlite3.Error, *faults.BAD_VALUES) as exc:
                if self.connection.in_transaction:
                    self.execute("ROLLBACK")
                if not faults.is_busy(exc):
                    raise self.failed(exc) from exc
                patience = patience or Patience(self.settings)
                patience.wait()

    def write(self, call: Callable[[], R]) -> R:
        """Call something that writes in one short transaction."""
        self.begin()
        try:
            result = call()
        except BaseException as exc:
            error = exc
            if isinstance(exc, (sqlite3.Error, *faults.BAD_VALUES)):
                error = faults.translate(exc, self.name)
            self.undo(exc)
            if error is exc:
                raise
            raise error from exc
        self.commit()
        return result

    def begin(self) -> None:
        """Take the token and the write lock.

        Raises:
            Unavailable: another process kept the lock for too long, or the disk failed.
        """
        self.check()
        if not self.token.acquire(self.settings.give_up_after):
            raise Unavailable(f"{self.name} is being written by another thread of this process")
        try:
            if self.path is not None:
                self._leave_gap()
            self._begin_immediate()
        except sqlite3.Error as exc:
            self.token.release()
            raise self.failed(exc) from exc
        except BaseException:
            self.token.release()
            raise

    def commit(self) -> None:
        """End the transaction durably.

        Raises:
            Unavailable: it is not known whether it was written.
        """
        try:
            self.execute("COMMIT")
        except sqlite3.Error as exc:
            self.abandon()
            raise Unavailable(
                f"{self.name} failed to acknowledge a commit ({exc}); it may or may not have been "
                "written",
                cause=exc,
            ) from exc
        finally:
            self._release()
        self.written += _PER_COMMIT
        # What went into a file without a name is in no database: it must not be acknowledged.
        self._check_file()

    def rollback(self) -> None:
        """Undo the transaction, whatever state it is in."""
        try:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
        except sqlite3.Error:
            self.abandon()
        finally:
            self._release()

    def undo(self, exc: BaseException) -> None:
        """Roll back because of ``exc``; after a disk's error the connection is not used again."""
        self.rollback()
        self.distrust(exc)

    def distrust(self, exc: BaseException) -> None:
        """Do not use the connection again if ``exc`` is a disk's error."""
        if faults.is_io(exc):
            self.abandon()

    def abandon(self) -> None:
        """Distrust the connection: the next verb opens a new one. A memory database has only it."""
        if self.path is None:
            if self.connection.in_transaction:
                self.execute("ROLLBACK")
            return
        self._doubtful = True
        try:
            self.connection.close()
        except sqlite3.Error:
            log.exception("closing a connection to %s failed", self.name)

    def failed(self, exc: BaseException) -> StoreError:
        """Return the store's error for one that came up before COMMIT, and note a failing disk."""
        self.distrust(exc)
        return faults.translate(exc, self.name)

    @contextmanager
    def token_held(self) -> Generator[None]:
        """Keep this process's other writers out.

        Raises:
            Unavailable: the token did not come in time.
        """
        self.check()
        if not self.token.acquire(self.settings.give_up_after):
            raise Unavailable(f"{self.name} is being written by another thread of this process")
        try:
            yield
        finally:
            self.token.release()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._closed and self._pid == os.getpid():
            self._closed = True
            self.connection.close()

    def _check_file(self) -> None:
        """Make sure that the path still leads to the file that was opened.

        Asked of the path only: opening and closing the file would drop the locks on it.
        """
        if self._file is None or _identity(self.path) == self._file:
            self._is_gone = False
            return
        message = (
            f"{self.name} was deleted, moved or replaced while it was open; nothing is written any "
            "more. Stop this process, put the right file with its -wal in place, and start again"
        )
        if not self._is_gone:
            self._is_gone = True
            log.critical(message)
        raise StoreGone(message)

    def _begin_immediate(self) -> None:
        patience = Patience(self.settings)
        while True:
            try:
                self.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not faults.is_busy(exc):
                    raise
                patience.wait()
            else:
                return

    def _leave_gap(self) -> None:
        now = time.monotonic()
        if now - self._released > _GAP:
            self._busy_since = now
        elif now - self._busy_since > _BUSY_FOR:
            time.sleep(_GAP)
            self._busy_since = time.monotonic()

    def _release(self) -> None:
        self._released = time.monotonic()
        self.token.release()


def _identity(path: str | None) -> tuple[int, int] | None:
    """Return what tells one file from another; ``None`` in memory, or if there is none."""
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - twice a commit, and five times as fast
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Patience:
    """Waits for another process's lock: a little at a time, with a warning, and not for ever."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began = 0.0
        self._warned = False

    def wait(self) -> None:
        """Wait 0.5 to 1.5 ms.

        Raises:
            Unavailable: it has taken too long in all; the message names the holder.
        """
        now = time.monotonic()
        self._began = self._began or now
        waited = now - self._began
        path = self._settings.path
        if waited > self._settings.give_up_after:
            raise Unavailable(
                f"{self._settings.name} was locked for {waited:.0f} s, "
                f"{describe_lock_holder(path or '')}"
            )
        if waited > self._settings.warn_after and not self._warned:
            self._warned = True
            log.warning(
                "waiting for the write lock of %s, %s",
                self._settings.name,
                describe_lock_holder(path or ""),
            )
        # Jitter only keeps two waiters from meeting again and again; it decides nothing.
        time.sleep(0.0005 + os.urandom(1)[0] / 256_000)


def connect_patiently(settings: Settings) -> sqlite3.Connection:
    """Connect; opening a write-ahead log waits for its turn like any write."""
    patience = Patience(settings)
    while True:
        try:
            return connect(settings)
        except Unavailable as exc:
            if exc.cause is None or not faults.is_busy(exc.cause):
                raise
            patience.wait()
