"""Checkpoints: moving the write-ahead log into the database file.

SQLite's own checkpoints are off. Before 3.51.3 two checkpoints that overlap, with a writer beside
them, can lose an acknowledged transaction; so only the holder of a lock file checkpoints, and it
holds the write token meanwhile. PASSIVE when the log has grown by about 32 MB, which never waits
for readers; TRUNCATE when nothing happens, which leaves an empty log behind.

How far the log has grown is estimated: the file keeps its size when SQLite starts it anew, and it
must not be opened here. What verbs encoded, times a factor learnt from what checkpoints find, is
close enough; a file that grows all the same (another process writes) is seen by its size.
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


class Checkpointer:
    """Decides when to checkpoint one database, and does it if no other process is at it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._factor = _FIRST_GUESS
        self._size = 0

    def tidy(self, *, idle: bool) -> bool:
        """Checkpoint if it is time; tell whether one was made."""
        if self._database.path is None:
            return False
        if idle:
            return self._log_size() > 0 and self._checkpoint("TRUNCATE")
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
        self._size = self._log_size()
