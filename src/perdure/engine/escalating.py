"""Moves human tasks on when their time has come: to the next role, and to their end if no run asks.

``News`` says when the next one is due, whoever of the fleet looks; a timer waits for one that is
near. Any number of workers may come at the same moment: whose transaction is first moves it, and
tells the listeners of its process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.store.complaints import Complaints
from perdure.store.port import HumanTaskRow, LogEntry
from perdure.values.duration import SECOND
from perdure.views import to_datetime

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_PAGE = 100
"""Human tasks in one transaction."""
_NEAR = 5 * SECOND
"""Later ones are heard of again before their time."""
_LEAST_SECONDS = 0.01
_TOLD = {
    "escalated": "workflow.task.escalated",
    "reminded": "workflow.task.reminder",
    "overdue": "workflow.task.overdue",
    "expired": "workflow.task.expired",
}


class Escalations:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._at: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moving: asyncio.Task[None] | None = None
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def hear(self, at: int | None) -> None:
        """Learn when the next human task is due; ``None``: none is."""
        if at is None or self._core.intake.is_stopping:
            return
        left = at - self._core.clock.now()
        if left <= 0:
            self._begin()
        elif left < _NEAR and (self._at is None or at < self._at):
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            seconds = max(_LEAST_SECONDS, left / SECOND)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._due)

    def told(self, task: HumanTaskRow, entry: LogEntry) -> None:
        """Tell the listeners what was done to a human task, if it has a name for them."""
        name = _TOLD.get(entry.verb)
        if name is None:
            return
        data: dict[str, Any] = {
            "instance_id": task.workflow_id,
            "workflow_name": task.workflow,
            "task_id": task.id,
            "title": task.title,
            "role": entry.data.get("role", task.role),
            "assignee": task.assignee,
            "due_at": None if task.due_at is None else to_datetime(task.due_at),
        }
        if entry.verb == "escalated":
            data |= {"from_role": entry.data.get("from"), "by": entry.by}
        self._core.listeners.tell(name, data)

    def _due(self) -> None:
        self._at = self._timer = None
        if not self._core.intake.is_stopping:
            self._begin()

    def _begin(self) -> None:
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(self._move())

    async def _move(self) -> None:
        core = self._core
        while not core.intake.is_stopping:
            now = core.clock.now()
            try:
                moved = await core.desk.write(
                    lambda store, now=now: store.move_human_tasks(now, limit=_PAGE)
                )
            except errors.StoreError as error:
                self._trouble.add("could not move human tasks on, will try again: %s", error)
                return
            self._trouble.over("human tasks can be moved on again")
            for one in moved:
                for entry in one.entries:
                    self.told(one.task, entry)
            if len(moved) < _PAGE:
                return
