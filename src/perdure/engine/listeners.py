"""Listeners of what workflows ``emit``: called after the commit, best effort, in this process."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from perdure.engine.runs import Run
from perdure.kernel.people import PendingHumanTask
from perdure.values import payload
from perdure.views import to_datetime

_log = logging.getLogger("perdure.engine")


class EngineEvent(msgspec.Struct, frozen=True):
    """What a listener gets."""

    name: str
    data: dict[str, Any]


class Listeners:
    """``engine.events``."""

    def __init__(self) -> None:
        self._handlers: list[tuple[str, Callable[[EngineEvent], Any]]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def on(self, pattern: str, handler: Callable[[EngineEvent], Any]) -> Callable[[], None]:
        """Call ``handler(event)`` for events whose name matches; return a function that ends it.

        ``*`` matches the rest, dots included.
        """
        entry = (pattern, handler)
        self._handlers.append(entry)
        return lambda: self._handlers.remove(entry)

    def emit(self, run: Run, name: str, value: Any) -> None:
        """Tell the listeners of ``workflow.event`` what a run emitted."""
        event, data = value
        self.tell(
            "workflow.event",
            {
                "instance_id": run.workflow_id,
                "workflow_name": run.workflow,
                "event": event,
                "data": payload.decode(data),
            },
        )

    def remind(self, run: Run, asked: PendingHumanTask) -> None:
        """Tell the listeners of ``workflow.task.reminder`` that somebody is still waited for."""
        event = asked.event
        self.tell(
            "workflow.task.reminder",
            {
                "instance_id": run.workflow_id,
                "workflow_name": run.workflow,
                "task_id": asked.id,
                "title": event.title,
                "role": event.role,
                "assignee": event.assignee,
                "due_at": to_datetime(event.due) if event.due else None,
            },
        )

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Call the handlers whose pattern matches; their errors are logged."""
        for pattern, handler in list(self._handlers):
            if not fnmatchcase(name, pattern):
                continue
            try:
                result = handler(EngineEvent(name, data))
            except Exception:  # noqa: BLE001 - a listener is user code; its error is logged
                _log.exception("a listener of %r failed", pattern)
                continue
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
