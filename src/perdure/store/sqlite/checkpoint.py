"""Checkpoints: moving the write-ahead log into the database file.

SQLite's own checkpoints are off. Before 3.51.3 two checkpoints that overlap, with a writer beside
them, can lose an acknowledged transaction; so only the holder of a lock file checkpoints, and it
holds the write token meanwhile. PASSIVE when the log has grown by about 32 MB, which never waits
for readers; RESTART when nothing happens, so that the next commit begins the log anew.

The file keeps its size, and has one from the start (:meth:`Checkpointer.lay_out`): a commit that
overwrites takes the disk a third less time than one that makes the file grow. Only a log that
became very long, since somebody read for long, is cut.

How far the log has grown is estimated, because it must not be opened here. What verbs encoded,
times a factor learnt from what checkpoints find, is close enough; a file that grows all the same
(another process writes) is seen by its size.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from perdure.store.sqlite import faults
from perdure.store.sqlite.database import Database
from perdure.store.sqlite.locks import try_lock

log = logging.getLogger("perdure.store")

_LIMIT = 32 * 1024 * 1024
_FIRST_GUESS = 4.0
_WORKING_SIZE = 4 * 1024 * 1024
_NEVER_READ = -1
"""Stands for the number of a run that does not exist."""


class Checkpointer:
    """Decides when to checkpoint one database, and does it if no other process is at it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._factor = _FIRST_GUESS
        self._size = 0
        """Of the log, after the last checkpoint."""
        self._is_left = False
        """Whether that checkpoint could not move everything."""

    def lay_out(self) -> None:
        """Give the log its working size; the next commit makes it last.

        A transaction that outgrows the cache leaves its pages in the log, and rolled back they mean
        nothing.
        """
        if self._database.path is None or self._log_size() >= _WORKING_SIZE:
            return
        run = self._database.execute
        self._database.begin()
        try:
            pages = run("PRAGMA cache_size").fetchone()[0]
            run("PRAGMA cache_size=16")
            try:
                row = (_NEVER_READ, _WORKING_SIZE)
                run("INSERT INTO perdure_memo VALUES (?, zeroblob(?))", row)
            finally:
                run(f"PRAGMA cache_size={pages}")
        except sqlite3.Error as exc:
            log.warning("the log of %s could not be laid out: %s", self._database.name, exc)
        finally:
            self._database.rollback()

    def tidy(self, *, idle: bool) -> bool:
        """Checkpoint if it is time; tell whether one was made."""
        if self._database.path is None:
            return False
        if idle:
            size = self._log_size()
            if size == self._size and not self._database.written and not self._is_left:
                return False
            return self._checkpoint("TRUNCATE" if size > 2 * _LIMIT else "RESTART")
        if self._database.written * self._factor < _LIMIT:
            return False
        return self._checkpoint("PASSIVE")

    def watch_size(self) -> bool:
        """Checkpoint if the file grew by more than this process wrote; cheap enough for 1/s."""
        return self._log_size() - self._size > 2 * _LIMIT and self._checkpoint("PASSIVE")

    def _log_size(self) -> int:
        try:
            return Path(f"{self._database.path}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _checkpoint(self, mode: str) -> bool:
        self._database.written //= 2  # if nothing comes of it, look again soon
        try:
            lock = try_lock(f"{self._database.path}-checkpoint")
        except OSError as exc:
            log.warning("no lock file for checkpoints of %s: %s", self._database.name, exc)
            return False
        if lock is None:
            return False
        try:
            with self._database.token_held():
                row = self._database.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as exc:
            if not faults.is_busy(exc):
                log.warning("a checkpoint of %s failed: %s", self._database.name, exc)
                self._database.distrust(exc)
            return False
        finally:
            lock.release(remove=False)
        self._learn(*row)
        return not row[0]

    def _learn(self, busy: int, frames: int, moved: int) -> None:
        written = 2 * self._database.written
        if not busy and written > _LIMIT // 64 and frames == moved:
            self._factor = min(64.0, max(1.0, frames * 4096 / written))
        self._database.written = 0
        self._is_left = bool(busy) or frames != moved
        self._size = self._log_size()
