"""What a run has asked for and not yet got: activities and children."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from perdure import errors
from perdure.kernel.channels import Queue
from perdure.kernel.loop import DeterministicLoop
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.payload import Decode


class PendingActivity(NamedTuple):
    """An activity without an outcome. ``definition`` is what the code called, if not a name."""

    future: asyncio.Future[Any]
    read: Decode
    event: ev.ActivityScheduled
    definition: Any


class Child:
    """A child started by this run; ``future`` is settled by its end."""

    __slots__ = ("_notices", "event", "future", "is_quiet", "number", "read")

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
        self.is_quiet = False

    def close(self, event: ev.ChildClosed) -> None:
        """Settle the child and put a notice on the run's events."""
        if not self.is_quiet:
            self._notices.offer((self, event))
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

    def _fail(self, exc: Exception) -> None:
        self.future.set_exception(exc)
        # Retrieved on purpose: a parent that only reads events() must not see a warning.
        self.future.exception()
