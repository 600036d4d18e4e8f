"""Who is told of instances: seed 4's ``persistence`` and ``event_bus``.

In the order of the commits, after them, and best effort: what one of them raises is logged, and no
run waits for it. Perdure's own store is the truth.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from perdure.executing.instance import WorkflowInstanceData
from perdure.executing.state import ENDED
from perdure.graph.protocols import EventBus, WorkflowPersistence
from perdure.graph.states import WorkflowStatus

_log = logging.getLogger("perdure.graph")
_DRAIN_SECONDS = 5.0


class Teller:
    """Tells one pair of listeners."""

    def __init__(self, persistence: WorkflowPersistence | None, bus: EventBus | None) -> None:
        self.persistence, self.bus = persistence, bus
        self.holders = 0
        self._waiting: asyncio.Queue[tuple[WorkflowInstanceData, str, dict[str, Any]]] = (
            asyncio.Queue()
        )
        self._task: asyncio.Task[None] | None = None

    def tell(self, instance: WorkflowInstanceData, event: str = "", **data: Any) -> None:
        """Let the listeners know an instance as it is now, and an event, if one is named."""
        as_it_is = instance if self.persistence is None else instance.still()
        self._waiting.put_nowait((as_it_is, event, data))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Tell what is left; a listener that does not return is left behind after 5 seconds."""
        if self._task is None:
            return
        _, late = await asyncio.wait([self._task], timeout=_DRAIN_SECONDS)
        for task in late:
            task.cancel()
            _log.warning("%r and %r do not take note in time", self.persistence, self.bus)

    async def _run(self) -> None:
        while not self._waiting.empty():
            instance, event, data = self._waiting.get_nowait()
            if self.persistence is not None:
                await _try(self.persistence.save_instance(instance), self.persistence)
            if self.bus is not None and event:
                told = self.bus.emit(event, instance_id=instance.id, **data)
                await _try(told, self.bus)


def event_of(
    before: WorkflowStatus | None, instance: WorkflowInstanceData
) -> tuple[str, dict[str, Any]]:
    """Return the event that a change of status means, and its data; ``""`` if none."""
    status = instance.status
    if status is before:
        return "", {}
    if status is WorkflowStatus.WAITING:
        return "workflow.waiting", {"step_name": instance.current_step}
    if status is WorkflowStatus.CANCELED:
        reason = (instance.error or "").removeprefix("Canceled").removeprefix(": ")
        return "workflow.canceled", {"reason": reason}
    if status in ENDED:
        return f"workflow.{status}", {"status": status}
    return "", {}


async def _try(told: Any, listener: object) -> None:
    try:
        await told
    except Exception:  # noqa: BLE001 - a listener is user code; its error is logged
        _log.exception("%r could not take note of an instance", listener)
