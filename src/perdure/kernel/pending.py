"""What a run has asked for and not yet got: activities, children, conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perdure import errors
from perdure.kernel.channels import Queue
from perdure.kernel.loop import DeterministicLoop
from perdure.kernel.watching import Notice
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.payload import Decode

Condition = tuple[Callable[[], object], asyncio.Future[None]]
"""A predicate of user code, and who waits until it is true."""


class PendingActivity(NamedTuple):
    """An activity without an outcome. ``definition`` is what the code called, if not a name."""

    future: asyncio.Future[Any]
    read: Decode
    event: ev.ActivityScheduled
    definition: Any


class Child:
    """A child started by this run; ``future`` is settled by its end."""

    __slots__ = ("_notices", "_unheard", "event", "future", "is_quiet", "number", "read")

    def __init__(
        self,
        loop: DeterministicLoop,
        notices: Queue,
        number: int,
        event: ev.ChildScheduled,
        read: Decode,
    ) -> None:
        self.number = number
        self.event = event
        self.read = read
        self.future: asyncio.Future[Any] = loop.create_future()
        self._notices = notices
        self._unheard: Notice | None = None
        self.is_quiet = False

    def close(self, event: ev.ChildClosed) -> None:
        """Settle the child and put a notice on the run's events."""
        notice = Notice(
            "exit", self.event.workflow_id, event.at, event.result, event.failure, self.read
        )
        if self.is_quiet:
            self._unheard = notice
        else:
            self._notices.offer(notice)
        if self.future.done():
            return
        name = self.event.workflow_id
        if event.failure is not None:
            message = f"child {name!r} {event.status}: {event.failure.root.message}"
            self._fail(failures.wrap(errors.ChildFailed, message, event.failure))
            return
        try:
            self.future.set_result(self.read(event.result or b"null"))
        except errors.Invalid as exc:
            message = f"child {name!r}: the result does not fit: {exc}"
            self._fail(failures.wrap(errors.ChildFailed, message, failures.from_exception(exc)))

    def heed(self) -> None:
        """Be quiet no more: a notice that was held back comes now."""
        self.is_quiet = False
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            self._notices.offer(unheard)

    def _fail(self, exc: Exception) -> None:
        self.future.set_exception(exc)
        # Retrieved on purpose: a parent that only reads events() must not see a warning.
        self.future.exception()


def wake_where_true(conditions: Sequence[Condition]) -> bool:
    """Wake waiters whose predicate holds; tell whether there was one."""
    woken = False
    for predicate, future in list(conditions):
        if future.done():
            continue
        try:
            holds = bool(predicate())
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - who waits gets it
            future.set_exception(exc)
            woken = True
            continue
        if holds:
            future.set_result(None)
            woken = True
    return woken
