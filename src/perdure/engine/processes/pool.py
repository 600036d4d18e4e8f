"""Subprocesses for handlers: started when they are needed, used again, replaced when they are lost.

Theory of operation
-------------------
A subprocess runs one attempt at a time. Whoever wants one asks ``has_room`` first; ``run`` then
returns a future: the encoded result, or :class:`FailedElsewhere` with the failure as the subprocess
recorded it, or of the loss of the process. Cancelling the future asks the subprocess to cancel the
attempt; if that has not ended within ``kill_grace``, the subprocess is ended: SIGTERM, and after
``kill_grace`` again SIGKILL, to its process group. So is one that hangs (``watchdog.py``).

What is told of an attempt that is no longer anybody's is dropped. A subprocess that is gone is
replaced when the next attempt needs one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from perdure import places
from perdure.engine.processes import frames
from perdure.engine.processes.process import Job, Subprocess
from perdure.engine.processes.services import packed
from perdure.engine.processes.watchdog import Watchdog

_log = logging.getLogger("perdure.engine")
_CLEAN_UP_SECONDS = 1.0
_KILL_SECONDS = 5.0
_START_SECONDS = 60.0

Tell = Callable[[str, dict[str, Any]], None]


class ProcessPool:
    """See the module's text. Bound to the running loop.

    ``services``: as they were given to the engine. ``tell`` gets events for listeners; ``on_room``
    is called when an attempt may find room again.
    """

    def __init__(
        self,
        slots: int,
        *,
        kill_grace: float,
        watchdog: Watchdog,
        max_payload: int,
        services: Mapping[str, Any],
    ) -> None:
        self.slots = slots
        self.kill_grace = kill_grace
        self.watchdog = watchdog
        self.tell: Tell = lambda _name, _data: None
        self.on_room: Callable[[], None] = lambda: None
        self._max_payload = max_payload
        self._given = services
        self._packed: dict[str, frames.Service] | None = None
        self._idle: list[Subprocess] = []
        self._all: set[Subprocess] = set()
        self._tick: asyncio.TimerHandle | None = None
        self._number = 0
        starting = _START_SECONDS / watchdog.interval_seconds
        self._allowed_at_first = max(watchdog.missed, math.ceil(starting))
        self.is_closing = False

    @property
    def room(self) -> int:
        """How many attempts can begin now."""
        return len(self._idle) + max(0, self.slots - len(self._all))

    @property
    def has_room(self) -> bool:
        """Whether an attempt can begin now."""
        return bool(self._idle) or len(self._all) < self.slots

    @property
    def pids(self) -> list[int]:
        """Ids of the subprocesses that there are."""
        return sorted(each.pid for each in self._all)

    def run(self, call: frames.Call, job: Job) -> asyncio.Future[bytes]:
        """Run an attempt.

        Raises:
            UsageError: a service cannot go to a subprocess.
            Unavailable: the system starts no process.
        """
        assert self.has_room
        self._number += 1
        call.number = self._number
        child = self._idle.pop() if self._idle else self._start()
        child.take(call, job)
        job.future.add_done_callback(lambda _: child.given_up(job))
        return job.future

    async def close(self) -> None:
        """End all subprocesses; what still runs has a moment to clean up if it was cancelled."""
        self.is_closing = True
        for child in list(self._all):
            child.leave()
        await self._gone(min(self.kill_grace, _CLEAN_UP_SECONDS))
        for child in list(self._all):
            child.end("stopped")
        await self._gone(self.kill_grace + _KILL_SECONDS)
        if self._all:
            _log.error("subprocesses %s cannot be killed; they are left behind", self.pids)
        if self._tick is not None:
            self._tick.cancel()

    async def _gone(self, seconds: float) -> None:
        if self._all:
            await asyncio.wait([child.over for child in self._all], timeout=seconds)

    # -- called by subprocesses --------------------------------------------------------------

    def is_free(self, child: Subprocess) -> None:
        """A subprocess has ended its attempt."""
        self._idle.append(child)
        if not self.is_closing:
            self.on_room()

    def is_leaving(self, child: Subprocess) -> None:
        """A subprocess is being ended: it gets no attempt any more."""
        if child in self._idle:
            self._idle.remove(child)

    def is_over(self, child: Subprocess) -> None:
        """A subprocess has ended."""
        self.is_leaving(child)
        self._all.discard(child)
        if not self.is_closing:
            self.on_room()

    # -- inside ------------------------------------------------------------------------------

    def _start(self) -> Subprocess:
        if self._packed is None:
            self._packed = packed(self._given)
        child = Subprocess(self, self._setup(self._packed))
        self._all.add(child)
        if self._tick is None and self.watchdog.enabled:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(self.watchdog.interval_seconds, self._look)
        return child

    def _setup(self, services: dict[str, frames.Service]) -> frames.Setup:
        return frames.Setup(
            engine=os.getpid(),
            path=list(sys.path),
            argv=list(sys.argv),
            interval=self.watchdog.interval_seconds,
            level=logging.getLogger().getEffectiveLevel(),
            max_payload=self._max_payload,
            main=places.main_place(),
            services=services,
        )

    def _look(self) -> None:
        """Count a missed sign of life for each; what came meanwhile has set the count to 0."""
        self._tick = None
        for child in list(self._all):
            child.missed += 1
            # The first sign comes when the interpreter has started, however busy the machine is.
            allowed = self.watchdog.missed if child.has_spoken else self._allowed_at_first
            if child.missed > allowed:
                child.hangs()
        if self._all:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(self.watchdog.interval_seconds, self._look)
