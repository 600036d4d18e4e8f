"""Task queues as workers declare them, and how often their activities may begin.

A rate is judged by the generic cell rate algorithm, as virtual scheduling (ATM Forum, Traffic
Management Specification 4.0, 1996; ITU-T I.371): one stored time, the *theoretical arrival time*,
says all that a bucket of tokens would, and there is nothing to refill.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.values.duration import SECOND

_PERIODS = {
    "second": SECOND,
    "sec": SECOND,
    "s": SECOND,
    "minute": 60 * SECOND,
    "min": 60 * SECOND,
    "m": 60 * SECOND,
    "hour": 3_600 * SECOND,
    "h": 3_600 * SECOND,
    "day": 86_400 * SECOND,
    "d": 86_400 * SECOND,
}
_RATE = re.compile(r"(\d+)\s*/\s*([a-z]+)(?:\s+burst\s+(\d+))?")
_MOST = 1_000_000_000


class Pace(msgspec.Struct, frozen=True, gc=False):
    """A rate: one every ``interval`` microseconds, and up to ``burst`` at once after a pause."""

    interval: int
    burst: int = 1

    def room(self, arrival: int, now: int) -> int:
        """Return how many may begin at ``now``; ``arrival``: the theoretical arrival time."""
        left = now + self._tolerance - max(arrival, now)
        return left // self.interval + 1 if left >= 0 else 0

    def after(self, arrival: int, now: int, count: int) -> int:
        """Return the theoretical arrival time once ``count`` have begun at ``now``."""
        return max(arrival, now) + count * self.interval

    def next(self, arrival: int) -> int:
        """Return when the next one may begin."""
        return arrival - self._tolerance

    @property
    def _tolerance(self) -> int:
        return (self.burst - 1) * self.interval


def parse_rate(text: object, *, what: str = "rate") -> Pace:
    """Read ``"100/minute"``: a number, and ``second``, ``minute``, ``hour`` or ``day`` (``s``,
    ``m``, ``h``, ``d``). They are spread evenly; ``"100/minute burst 10"`` lets ten begin at once.

    Raises:
        Invalid: it is none.
    """
    found = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    period = _PERIODS.get(found[2]) if found is not None else None
    if found is None or period is None:
        raise Invalid(
            f"{what}: {text!r} is no rate; write '100/minute', '10/s' or '100/minute burst 10' "
            "(second, minute, hour or day)"
        )
    count, burst = int(found[1]), int(found[3] or 1)
    if not 0 < count <= period or not 0 < burst <= count:
        raise Invalid(f"{what}: {text!r} must allow at least one, and no larger burst than that")
    return Pace(-(-period // count), burst)


class QueueLimit(msgspec.Struct, frozen=True, gc=False):
    """Limits of a task queue that hold over all workers; 0 means none.

    ``max_open``: attempts under way; ``max_per_key``: of those of one lane; ``interval`` and
    ``burst`` as in :class:`Pace`.
    """

    queue: str
    max_open: int = 0
    max_per_key: int = 0
    interval: int = 0
    burst: int = 1

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return bool(self.max_open or self.max_per_key or self.interval)

    @property
    def pace(self) -> Pace | None:
        """The rate, if there is one."""
        return Pace(self.interval, self.burst) if self.interval else None


class TaskQueue(msgspec.Struct, frozen=True):
    """A task queue that a worker serves: ``Engine(task_queues=[TaskQueue("stripe", slots=4)])``.

    Args:
        name: the queue.
        slots: how many of its activities this worker carries out at a time; 0: as many as
            ``activity_slots`` says.
        max_concurrent: how many all workers together carry out at a time; 0 is no limit.
        rate: how many attempts may begin in a time, on all workers together: ``"100/minute"``, or
            ``"100/minute burst 10"``.
        max_per_key: how many of one tenant (of executions without one: of one concurrency key) all
            workers together carry out at a time.

    Raises:
        Invalid: no name, a number below 0, or a rate that is none.
    """

    name: str
    slots: int = 0
    max_concurrent: int = 0
    rate: str = ""
    max_per_key: int = 0

    def __post_init__(self) -> None:
        where = f"task queue {self.name!r}"
        name: Any = self.name
        if not isinstance(name, str) or not name.strip():
            raise Invalid(f"task_queues: {self.name!r} is no name of a queue")
        for what in ("slots", "max_concurrent", "max_per_key"):
            value: Any = getattr(self, what)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
                raise Invalid(f"{where}: {what}={value!r} must be a number of 0 (no limit) or more")
        if self.rate != "":
            parse_rate(self.rate, what=f"{where}: rate")

    @property
    def limit(self) -> QueueLimit:
        """What holds over all workers."""
        pace = parse_rate(self.rate) if self.rate else None
        return QueueLimit(
            self.name,
            self.max_concurrent,
            self.max_per_key,
            pace.interval if pace is not None else 0,
            pace.burst if pace is not None else 1,
        )
