"""Events that start workflows: ``client.publish``.

A definition says ``triggers=("event:order.paid",)``; whoever publishes such an event starts it, in
the highest active version that workers have registered.
"""

from __future__ import annotations

from typing import Any

from perdure import errors
from perdure.definition import highest_active
from perdure.door import Door
from perdure.handle import Handle
from perdure.store.port import Definition
from perdure.values import payload as payloads

_EVENT = "event:"


class Publishing:
    """What a client publishes with."""

    @property
    def door(self) -> Door:
        """Where its calls go."""
        raise NotImplementedError

    async def start(self, workflow: Any, input: Any = None, **options: Any) -> Handle[Any]:
        """Start an execution."""
        raise NotImplementedError

    async def publish(
        self, event: str, payload: Any = None, *, id: str | None = None, **options: Any
    ) -> list[Handle[Any]]:
        """Start what an event triggers, with the payload as input; it is on disk when this returns.

        Args:
            event: its name. A trigger ``event:order.*`` fits all that begin with ``order.``.
            payload: what each execution gets.
            id: of the event: the executions are called ``WORKFLOW-ID``, so that an event that is
                published twice starts each of them once.
            **options: as for :meth:`start`, for each of them.

        Returns:
            Handles on the executions, by the names of their workflows; none if nothing is
            triggered.

        Raises:
            Invalid: the payload does not fit one of them (the others have been started).
            AlreadyExists, ConcurrencyLimit, RateLimited, Unavailable: as for :meth:`start`.
        """
        name = payloads.text(event, what="event")
        known = await self.door.read(lambda store: store.definitions())
        handles: list[Handle[Any]] = []
        failed: errors.PerdureError | None = None
        for workflow, version in _triggered(known, name):
            # The same event again finds the execution, also one that has ended.
            own: dict[str, Any] = {"version": version}
            if id is not None:
                own |= {"id": f"{workflow}-{id}", "id_reuse_policy": "reject_duplicate"}
            try:
                handles.append(await self.start(workflow, payload, **own | options))
            except errors.AlreadyExists:
                if id is None or {"id_conflict_policy", "id_reuse_policy"} & options.keys():
                    raise
                handles.append(self.get(f"{workflow}-{id}", namespace=options.get("namespace")))
            except errors.PerdureError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return handles

    def get(
        self, workflow_id: Any, run_id: str | None = None, *, namespace: str | None = None
    ) -> Handle[Any]:
        """Return a handle on an execution."""
        raise NotImplementedError


def _triggered(known: list[Definition], event: str) -> list[tuple[str, str]]:
    """Return name and version of the workflows that an event starts."""
    inactive = {(one.name, one.version) for one in known if not one.is_active}
    found: list[tuple[str, str]] = []
    for name in sorted({one.name for one in known}):
        versions = {one.version: one for one in known if one.name == name}
        chosen = highest_active(name, versions, inactive)
        if chosen is not None and any(_fits(one, event) for one in versions[chosen].triggers):
            found.append((name, chosen))
    return found


def _fits(trigger: str, event: str) -> bool:
    if not trigger.startswith(_EVENT):
        return False
    start, star, _ = trigger.removeprefix(_EVENT).partition("*")
    return event.startswith(start) if star else event == start
