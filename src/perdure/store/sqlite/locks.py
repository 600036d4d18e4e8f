"""Lock files beside the database: who is alive, and who checkpoints.

An ``flock`` belongs to an open file and dies with its process, at once and whatever killed it. A
worker holds one on ``<db>-worker-<id>`` from ``join`` to ``leave``; another process that gets the
lock knows that the worker is dead, a millisecond after a SIGKILL. A file that is missing tells the
same. Checkpoints happen under one on ``<db>-checkpoint``.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path


class LockFile:
    """A file that is locked while this object is open."""

    __slots__ = ("__weakref__", "_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        _open.add(self)

    def release(self, *, remove: bool) -> None:
        """Give the lock back; with ``remove``, take the file away while still holding it."""
        if self._fd < 0:
            return
        if remove:
            remove_file(self.path)
        self.forget()

    def forget(self) -> None:
        """Close the file only: a forked child must not keep its parent's lock alive."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_open: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_open):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


def try_lock(path: str) -> LockFile | None:
    """Lock ``path``, creating it; return ``None`` if somebody holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return LockFile(path, fd)


def is_locked(path: str) -> bool:
    """Tell whether some process holds the lock on ``path``."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two processes that look at the same moment do not see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_file(path: str) -> None:
    """Remove a lock file, if it is there. One that stays is free, which tells the same."""
    try:
        Path(path).unlink()
    except OSError:
        pass
