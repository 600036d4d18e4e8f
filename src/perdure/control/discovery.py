"""Which workflow types there are: of live workers, of runs, and of configurations."""

from __future__ import annotations

from typing import Any

from perdure.client import Client
from perdure.control.configs import WorkflowConfig
from perdure.control.results import Refused

SYSTEM = "perdure."


class Discovery:
    """Looks at workers, definitions, histories and configurations."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def queue_of(self, type: str) -> str:
        """Return the queue on which live workers serve a type that nobody has configured.

        Raises:
            Refused: no live worker does.
        """
        served = await self._served()
        queues = served.get(type)
        if not queues:
            raise Refused(404, "not_found", "Workflow not found (no config and no active worker)")
        return min(queues)

    async def workers(
        self, known: dict[str, WorkflowConfig], *, include_system: bool
    ) -> list[dict[str, Any]]:
        """Return what live workers serve."""
        served = await self._served()
        return [
            {
                "name": name,
                "task_queue": queue,
                "registered": name in known,
                "system": name.startswith(SYSTEM),
            }
            for name in sorted(served)
            for queue in sorted(served[name])
            if include_system or not name.startswith(SYSTEM)
        ]

    async def discovered(
        self, known: dict[str, WorkflowConfig], *, include_system: bool
    ) -> list[dict[str, Any]]:
        """Return every known type."""
        served, home = await self._served(), self._client.namespace
        seen = await self._client.door.read(lambda store: store.workflows_seen(namespace=home))
        found = sorted({*served, *seen, *known})
        return [
            _shown(name, known.get(name), served.get(name))
            for name in found
            if include_system or not name.startswith(SYSTEM)
        ]

    async def _served(self) -> dict[str, set[str]]:
        """Return the queues of each type that live workers serve."""
        now = self._client.door.now()
        workers, definitions = await self._client.door.read(
            lambda store: (store.workers(), store.definitions())
        )
        own: dict[str, set[str]] = {}
        for one in definitions:
            own.setdefault(one.name, set()).add(one.queue)
        served: dict[str, set[str]] = {}
        for worker in workers:
            if worker.alive_for_sure is False or worker.lease_until < now:
                continue
            for workflow in worker.workflows:
                name = workflow.partition(" ")[0]  # with a version behind it, or without
                queues = own.get(name, {"default"}) & {*worker.queues} or {*worker.queues}
                served.setdefault(name, set()).update(queues)
        return served


def _shown(name: str, config: WorkflowConfig | None, queues: set[str] | None) -> dict[str, Any]:
    tier = "durable" if config is None else "certified" if config.certified else "registered"
    queue = config.task_queue if config is not None else None
    return {
        "workflow_type": name,
        "tier": tier,
        "task_queue": queue or (min(queues) if queues else None),
        "registered": config is not None,
        "active": bool(queues),
        "invocable": config.invocable if config is not None else bool(queues),
        "system": name.startswith(SYSTEM),
        "description": config.description if config is not None else None,
        "roles": list(config.roles) if config is not None else [],
        "invocation_roles": list(config.invocation_roles) if config is not None else [],
        "execute_as": config.execute_as if config is not None else None,
    }
