"""Begins what schedules say, when its time has come.

Any worker may, whatever it serves; the store sees to it that each tick begins once. When the next
look is due comes with the news that workers ask for anyway (``intake.py``), and what is near waits
in a timer of the event loop, so that schedules cost an idle worker no query of their own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.store.complaints import Complaints
from perdure.store.port import Happened, ScheduleSteer
from perdure.values.duration import SECOND
from perdure.values.firing import Passed
from perdure.values.schedules import stamp
from perdure.views import to_datetime

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_NEAR = 5 * SECOND
"""What is due later is heard of again before: the news come every second."""
_LEAST_SECONDS = 0.001
_AGAIN_SECONDS = 0.05
"""When somebody else is at what is due, or the store could not be reached."""


class Schedules:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._at: int | None = None
        self._call: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_asked = False
        self.is_stopping = False
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def hear(self, at: int | None) -> None:
        """Look when ``at`` has come, if that is soon; ``None``: no schedule is due ever."""
        now = self._core.clock.now()
        if at is None or at > now + _NEAR or self.is_stopping:
            return
        if self._call is None or self._at is None or at < self._at:
            self._wait(at, max(_LEAST_SECONDS, (at - now) / SECOND))

    def look(self) -> None:
        """Find out soon whether something is due: an execution of a schedule has ended."""
        self._is_asked = True
        self._begin()

    def steered(self, steer: ScheduleSteer, happened: Happened) -> None:
        """A client of this process did something to a schedule."""
        if steer.verb == "pause":
            told = self._facts(happened)
            self._core.listeners.tell("schedule.paused", told | {"note": happened.row.note})
        if happened.started:
            self._core.intake.look()
        self._tell(happened)
        self.look()

    # -- inside ------------------------------------------------------------------------------

    def _wait(self, at: int, seconds: float) -> None:
        if self._call is not None:
            self._call.cancel()
        self._at = at
        self._call = asyncio.get_running_loop().call_later(seconds, self._due)

    def _due(self) -> None:
        self._call = self._at = None
        self._begin()

    def _begin(self) -> None:
        if self.is_stopping or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(self._fire())
        self._task.add_done_callback(_report)

    async def _fire(self) -> None:
        core = self._core
        try:
            while not self.is_stopping:
                if self._is_asked:  # by an end, which concerns few schedules: reading is cheaper
                    self._is_asked = False
                    at = await core.desk.read(lambda store: store.next_look())
                    if at is None or at > core.clock.now():
                        self.hear(at)
                        if not self._is_asked:
                            break
                        continue
                now, chance = core.clock.now(), core.chance(32)
                fired = await core.desk.write(
                    lambda store, now=now, chance=chance: store.fire(now, chance)
                )
                for text in fired.broken:
                    _log.error("%s; it begins nothing until it is replaced or deleted", text)
                for happened in fired.happened:
                    self._tell(happened)
                if any(happened.started for happened in fired.happened):
                    core.intake.look()
                at = fired.next_at
                if at is None or at > core.clock.now():
                    self.hear(at)
                    if not self._is_asked:
                        break
                elif not fired.happened:
                    self._wait(at, _AGAIN_SECONDS)
                    break
        except errors.Sealed as error:
            core.on_sealed(error)
        except errors.StoreError as error:
            self._trouble.add("schedules could not be looked at, will try again: %s", error)
            if not self.is_stopping:
                self._wait(core.clock.now(), _AGAIN_SECONDS)
        else:
            self._trouble.over("schedules can be looked at again")

    def _tell(self, happened: Happened) -> None:
        row = happened.row
        for passed in happened.passed:
            if passed.what == "missed":
                _log.warning(
                    "schedule %r: %s of workflow %r did not begin: %s",
                    row.id,
                    _ticks(passed),
                    row.template.workflow,
                    passed.why,
                )
        listeners = self._core.listeners
        if not listeners.has_any:
            return
        facts = self._facts(happened)
        begun = {one.run_id: one for one in row.standing.last}
        for started in happened.started:
            which = begun.get(started.run_id)
            told: dict[str, Any] = {"instance_id": started.workflow_id, "run_id": started.run_id}
            if which is not None:
                told |= {"scheduled_at": to_datetime(which.tick), "by": which.by}
            listeners.tell("schedule.fired", facts | told)
        for passed in happened.passed:
            span = {"first": to_datetime(passed.first), "last": to_datetime(passed.last)}
            told = {"count": passed.number, "reason": passed.why, **span}
            listeners.tell(f"schedule.{passed.what}", facts | told)

    def _facts(self, happened: Happened) -> dict[str, Any]:
        row = happened.row
        return {
            "schedule_id": row.id,
            "workflow_name": row.template.workflow,
            "namespace": row.namespace,
        }


def _ticks(passed: Passed) -> str:
    if passed.number == 1:
        return f"the run of {stamp(passed.first)}"
    return f"{passed.number:,} runs from {stamp(passed.first)} to {stamp(passed.last)}"


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("schedules could not be looked at", exc_info=error)
