"""The one place that asks what time it is, and the one that makes chance.

Everything else is handed a clock. ``now`` is microseconds since 1970; between two looks at the
wall clock it follows the monotonic clock, so that a jump of the wall clock (an operator, NTP) can
move timers by the jump once, at a lease extension, and never make time run backwards (R12).
"""

from __future__ import annotations

import os
import time
from typing import Protocol

_FAR_OFF = 1_000_000


class Clock(Protocol):
    """What the engine needs of time."""

    def now(self) -> int:
        """Return microseconds since 1970; never less than before."""
        ...

    def resync(self, now: int | None = None, within: int = 0) -> None:
        """Look at the wall clock again (called at each lease extension), or go by the store's,
        which said ``now`` at some moment of the last ``within`` microseconds.
        """
        ...


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        self._last = 0
        self._monotonic = time.monotonic_ns()
        self.resync()

    def resync(self, now: int | None = None, within: int = 0) -> None:
        if now is None:
            self._wall = time.time_ns() // 1000
        else:
            self._wall = told_by_store(now, within, self._wall + self._passed())
        if now is not None and self._last - now > _FAR_OFF:
            self._last = now  # this machine's clock was ahead of the store's
        self._monotonic = time.monotonic_ns()

    def now(self) -> int:
        now = self._wall + self._passed()
        self._last = max(self._last, now)
        return self._last

    def _passed(self) -> int:
        return (time.monotonic_ns() - self._monotonic) // 1000


def told_by_store(told: int, within: int, here: int) -> int:
    """Return what time it is, if the store said ``told`` in the last ``within`` microseconds.

    A clock that may be right stays as it is: an answer that took long must not set it back, or what
    was due by it would not be due any more.
    """
    return here if told <= here <= told + within else told


monotonic = time.monotonic
"""Seconds of the machine's monotonic clock, for how long something took."""


class Chance:
    """Bytes from the operating system, read ahead: seeds and ids of new runs.

    A child process forgets what its parent read: two must never draw the same.
    """

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._pool):
            self._pool = os.urandom(max(4096, size))
            self._at, end = 0, size
        data = self._pool[self._at : end]
        self._at = end
        return data

    def _forget(self) -> None:
        self._pool = b""
        self._at = 0


chance = Chance()
