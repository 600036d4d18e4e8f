"""Seed 4's engine in this process: in memory, or on a database if it is given one."""

from __future__ import annotations

from typing import Any

from perdure.executing.carrier import Carrier
from perdure.executing.face import GraphEngine
from perdure.executing.instance import WorkflowInstanceData
from perdure.executing.state import ENDED
from perdure.graph.protocols import EventBus, WorkflowPersistence
from perdure.graph.registry import WorkflowRegistry


class LocalExecutionEngine(GraphEngine):
    """Runs workflows in this process. What it holds ends with it, unless ``url`` names a database:
    ``LocalExecutionEngine(registry, url="sqlite:///app.db")`` goes on where it was.

    Args:
        registry: the definitions it carries; also those that are registered later.
        persistence: is told of each state, best effort.
        event_bus: is told of starts, waits and ends, best effort.
        url: of Perdure's database; in memory if it is left out.
        **options: those of :class:`~perdure.Engine`, such as ``services``, or ``definitions``:
            activities and workflows that steps call by name.
    """

    def __init__(
        self,
        registry: WorkflowRegistry,
        persistence: WorkflowPersistence | None = None,
        event_bus: EventBus | None = None,
        *,
        url: str = "memory://",
        **options: Any,
    ) -> None:
        super().__init__(registry, persistence, event_bus)
        self.url = url
        self._options = options

    def get_all_instances(self) -> list[WorkflowInstanceData]:
        """Return the instances this engine has at hand, oldest first, ended ones too.

        These are the newest 10,000 and those that somebody holds; ``client.list()`` pages through
        all that the database has.
        """
        return [] if self._carrier is None else self._carrier.instances()

    def get_running_instances(self) -> list[WorkflowInstanceData]:
        """Return those of :meth:`get_all_instances` that have not ended."""
        return [one for one in self.get_all_instances() if one.status not in ENDED]

    async def _acquire(self) -> Carrier:
        carrier = Carrier(self.url, **self._options)
        carrier.add_all(self.registry)
        await carrier.start()
        return carrier

    async def _release(self, carrier: Carrier) -> None:
        await carrier.stop()
