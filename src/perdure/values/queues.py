"""Task queues as workers declare them, and what holds of them over all workers."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.values.limits import COUNTED
from perdure.values.rates import Rate, parse_rate


class QueueLimit(msgspec.Struct, frozen=True, gc=False):
    """Limits of a task queue that hold over all workers; 0 means none.

    ``max_open``: attempts under way; ``max_per_key``: of those of one lane; ``interval`` and
    ``burst`` as in :class:`perdure.values.rates.Rate`.
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
    def rate(self) -> Rate | None:
        """The rate, if there is one."""
        return Rate("", self.interval, self.burst) if self.interval else None


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
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNTED:
                raise Invalid(f"{where}: {what}={value!r} must be a number of 0 (no limit) or more")
        rate: Any = self.rate
        if not isinstance(rate, str):
            raise Invalid(f"{where}: rate: {rate!r} is not text such as '100/minute'")
        if rate:
            parse_rate(rate, what=f"{where}: rate")

    @property
    def limit(self) -> QueueLimit:
        """What holds over all workers."""
        rate = parse_rate(self.rate) if self.rate else None
        return QueueLimit(
            self.name,
            self.max_concurrent,
            self.max_per_key,
            rate.interval if rate is not None else 0,
            rate.burst if rate is not None else 1,
        )
