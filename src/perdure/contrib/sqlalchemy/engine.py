"""Seed 4's persistent engine: Perdure's own, on the database of a SQLAlchemy session."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from perdure.contrib.sqlalchemy.database import (
    AnySession,
    acquire,
    check_writable,
    release,
    url_of,
)
from perdure.contrib.sqlalchemy.opening import open_with
from perdure.executing.carrier import Carrier
from perdure.executing.face import GraphEngine
from perdure.graph.protocols import EventBus
from perdure.graph.registry import WorkflowRegistry


class PersistentExecutionEngine(GraphEngine):
    """Runs workflows on the database of a session; what it started outlives the process.

    It opens on first use, and takes up what is due: human tasks, timers and instances of earlier
    processes go on. All engines of one database in an event loop share one worker, which stops when
    the last of them is closed: one per request is cheap, and one that is open as long as the
    application (``async with``) keeps the instances going between requests.

    Perdure writes on a connection of its own, at once: nothing of it waits for the session's commit
    or is undone by its rollback. On SQLite a session that has written and not committed yet holds
    the lock that this needs, and is refused.

    Args:
        registry: the definitions it carries; also those that are registered later.
        session: an ``AsyncSession`` (or a ``Session``), which names the database.
        event_bus: is told of starts, waits and ends, best effort.
        **options: those of :class:`~perdure.Engine`, such as ``services``, or ``definitions``:
            activities and workflows that steps call by name. All engines that share a worker give
            the same, or none.
    """

    def __init__(
        self,
        registry: WorkflowRegistry,
        session: AnySession,
        event_bus: EventBus | None = None,
        **options: Any,
    ) -> None:
        super().__init__(registry, None, event_bus)
        self._options = options
        if options.get("codec") is not None or options.get("blobs") is not None:
            open_with(options.get("codec"), options.get("blobs"))
        self.session = session
        self.url = url_of(session)

    def get_running_instances(self) -> list[UUID]:
        """Return the ids of instances at hand here that have not ended, oldest first.

        ``WorkflowInstanceRepository.find_running`` finds all that the database has.
        """
        if self._carrier is None:
            return []
        return [one.id for one in self._carrier.instances() if not one.is_ended]

    async def _acquire(self) -> Carrier:
        return await acquire(self.url, self._options, lambda it: it.add_all(self.registry))

    async def _release(self, carrier: Carrier) -> None:
        await release(carrier)

    async def _writing(self) -> Carrier:
        await check_writable(self.session)
        return await self._open()
