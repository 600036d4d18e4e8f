"""The write token: writers of one process take turns at a database, first come, first served.

SQLite's own lock is not fair: beside a busy committer another writer may wait for seconds. Inside a
process nobody needs to try: the committer, transactional activities and checkpoints pass one token
per database file. It is held from before BEGIN until after COMMIT.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from perdure.errors import UsageError


class WriteToken:
    """A fair lock. A thread that asks for it twice would wait for itself and is told so."""

    __slots__ = ("_holder", "_mutex", "_waiting")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[threading.Lock, int]] = deque()
        self._holder = 0

    @property
    def is_wanted(self) -> bool:
        """Whether another thread waits for the token."""
        return bool(self._waiting)

    def acquire(self, timeout: float) -> bool:
        """Wait for a turn, at most ``timeout`` seconds; tell whether it came.

        Raises:
            UsageError: this thread already holds the token.
        """
        me = threading.get_ident()
        with self._mutex:
            if not self._holder:
                self._holder = me
                return True
            if self._holder == me:
                raise UsageError(
                    "a write to the database from inside a transactional activity would wait for "
                    "itself; use the connection that the activity was given"
                )
            ticket = threading.Lock()
            ticket.acquire()  # released by whoever passes the token on
            self._waiting.append((ticket, me))
        if ticket.acquire(timeout=timeout):
            return True
        with self._mutex:
            if (ticket, me) in self._waiting:
                self._waiting.remove((ticket, me))
                return False
        return True  # it was passed to us while we gave up

    def release(self) -> None:
        """Pass the token to the thread that has waited longest."""
        with self._mutex:
            assert self._holder, "released a token that nobody holds"
            if self._waiting:
                ticket, self._holder = self._waiting.popleft()
                ticket.release()
            else:
                self._holder = 0


_tokens: dict[tuple[int, str], WriteToken] = {}
_registry = threading.Lock()


def token_for(path: str) -> WriteToken:
    """Return this process's token for a database file (its real path)."""
    # Keyed by process: a fork copies the registry, and perhaps a token whose holder is not there.
    with _registry:
        return _tokens.setdefault((os.getpid(), path), WriteToken())


def _forget_lock() -> None:
    global _registry  # noqa: PLW0603 - a forked child may have copied it locked
    _registry = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
