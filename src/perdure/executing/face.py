"""What seed 4's engines have in common: its verbs, said with Perdure's client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Self, cast
from uuid import UUID

from perdure import errors
from perdure.client import Client
from perdure.definition import highest_active
from perdure.executing.again import retry, retry_later
from perdure.executing.carrier import Carrier
from perdure.executing.instance import WorkflowInstanceData
from perdure.graph.alone import perform
from perdure.graph.context import WorkflowContext
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.exceptions import (
    InstanceNotWaitingError,
    WorkflowAlreadyCompletedError,
    WorkflowInstanceNotFoundError,
    WorkflowNotFoundError,
)
from perdure.graph.people import human_steps
from perdure.graph.protocols import EventBus, WorkflowPersistence
from perdure.graph.registry import Given, WorkflowRegistry
from perdure.graph.states import WorkflowStatus
from perdure.values import limits
from perdure.values.duration import Duration

_log = logging.getLogger("perdure.graph")


class GraphEngine:
    """An engine by seed 4's names. It opens on first use, and ends with :meth:`aclose` or
    ``async with``; what it started goes on when it is opened again on the same database.

    Args:
        registry: the definitions it carries; also those that are registered later.
        persistence: is told of each state, best effort.
        event_bus: is told of starts, waits and ends, best effort.
    """

    def __init__(
        self,
        registry: WorkflowRegistry,
        persistence: WorkflowPersistence | None = None,
        event_bus: EventBus | None = None,
    ) -> None:
        self.registry = registry
        self.persistence = persistence
        self.event_bus = event_bus
        self._carrier: Carrier | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    # -- life ------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open the database and carry its runs; done by the first call, too.

        Raises:
            UsageError: it was closed.
        """
        await self._open()
        return self

    async def aclose(self) -> None:
        """Stop carrying runs; a second call does nothing."""
        self._is_closed = True
        async with self._opening:
            carrier, self._carrier = self._carrier, None
            if carrier is not None:
                await self._release(carrier)
                await carrier.untold(self.persistence, self.event_bus)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def client(self) -> Client:
        """Perdure's client of the same database.

        Raises:
            UsageError: the engine is not open.
        """
        if self._carrier is None:
            raise errors.UsageError("the engine is not open; use `async with`, or call open()")
        return self._carrier.client

    # -- starting --------------------------------------------------------------------------------

    async def start_workflow(
        self,
        workflow: str | Given,
        initial_data: dict[str, Any] | None = None,
        version: str | None = None,
        *,
        tenant_id: str | None = None,
        created_by: str | None = None,
        **options: Any,
    ) -> WorkflowInstanceData:
        """Start an instance; it is stored when this returns, and runs in the background.

        Args:
            workflow: the name of a registered definition, a class with ``get_definition()``, or a
                definition; the latter two are registered if they are not.
            initial_data: the context's ``data`` at the beginning.
            version: one of the versions of a name; the latest if it is left out.
            tenant_id: for whom; steps see it as ``context.tenant_id``.
            created_by: who starts it; steps see it as ``context.user_id``.
            **options: those of ``Client.start``, such as ``id`` or ``tags``.

        Raises:
            WorkflowNotFoundError: nothing of this name and version is registered; or it was
                deactivated, here or in the database.
            Invalid: the data cannot be stored, or an option is wrong.
        """
        if not isinstance(cast("Any", initial_data), Mapping | None):
            raise errors.Invalid(f"initial_data: {initial_data!r} is no mapping of names to values")
        carrier = await self._writing()
        definition = await self._chosen(carrier, workflow, version)
        context: dict[str, Any] = {**(options.pop("context", None) or {})}
        context |= {"user_id": created_by} if created_by is not None else {}
        context |= {"tenant_id": tenant_id} if tenant_id is not None else {}
        return await carrier.begin(
            definition,
            dict(initial_data or {}),
            created_by=created_by,
            tenant=tenant_id,
            context=context,
            **options,
        )

    async def execute_step(
        self, step: Any, context: WorkflowContext, previous_result: Any = None
    ) -> Any:
        """Do a single step here and now, with its guard and hooks; nothing of it is stored.

        Raises:
            StepExecutionError: it failed; ``cause`` is what it raised.
        """
        return await perform(step, context, previous_result)

    # -- acting ----------------------------------------------------------------------------------

    async def cancel_workflow(
        self, instance_id: UUID, reason: str = "", *, deadline: Duration = "10s"
    ) -> None:
        """Cancel an instance and wait until it has ended; after ``deadline`` it is terminated.

        Raises:
            WorkflowAlreadyCompletedError: it has ended, or ends before it hears of it.
            WorkflowInstanceNotFoundError: there is no such instance.
        """
        await self._writing()
        instance = await self.get_instance(instance_id)
        if instance.is_ended or not await instance.handle.cancel(reason, deadline=deadline):
            raise WorkflowAlreadyCompletedError(instance_id, instance.status)
        await instance.ended()
        if instance.status is not WorkflowStatus.CANCELED:
            raise WorkflowAlreadyCompletedError(instance_id, instance.status)

    async def complete_human_task(
        self, instance_id: UUID, step_name: str, user_id: str, data: dict[str, Any]
    ) -> None:
        """Complete the human task that an instance waits for at a step, as ``user_id``.

        When this returns, the decision is recorded, and the instance has taken note of it.

        Raises:
            InstanceNotWaitingError: it does not wait, or not there; a ``ValueError`` too.
            Invalid: the data does not fit the step's form (the message has the path), or its
                ``validate_submission`` refuses it. Nothing was changed.
            UnauthorizedTaskError: the human task is assigned to somebody else.
            TaskAlreadyCompletedError: somebody else was first.
            WorkflowInstanceNotFoundError: there is no such instance.
        """
        carrier = await self._writing()
        instance = await self.get_instance(instance_id)
        people = carrier.client.human_tasks
        page = await people.list(workflow_id=instance.handle.id, limit=limits.LIST_MAX)
        there = [task for task in page.items if task.name == step_name]
        if not there:
            raise _not_waiting(instance, step_name)
        # One step may ask several people at a time (a map): each answers what they were asked.
        asked = min(there, key=lambda it: _place_for(user_id, it.assignee, it.claimed_by))
        definition = carrier.definition(instance.workflow_name, instance.workflow_version)
        asking = [] if definition is None else human_steps(definition.outline, step_name)
        if len(asking) == 1:  # else the run alone knows which of them asks
            await asking[0].check_submission(data, instance.context)
        await people.complete(asked.id, data, by=user_id)
        await instance.refresh()

    async def retry(self, instance_id: UUID, from_step: str | None = None) -> None:
        """Let an instance that has ended go on: keep what succeeded, and try the rest again.

        Args:
            instance_id: the instance; it keeps its id.
            from_step: begin where this step was first begun; it and what followed run again.

        Raises:
            InvalidTransitionError: it has not ended; or it completed and no step is named; or it
                never came to the step.
            WorkflowInstanceNotFoundError: there is no such instance.
            NotFound: its definition has no such step.
        """
        await retry(await self._writing(), instance_id, from_step)
        await self.get_instance(instance_id)

    async def schedule_step(
        self, instance_id: UUID, step_name: str, delay: timedelta | None = None
    ) -> None:
        """Let an instance that has ended go on at a step: :meth:`retry`, now or after ``delay``.

        The delay is a durable timer: a crash does not lose it. What goes wrong then is logged.

        Raises:
            InvalidTransitionError, WorkflowInstanceNotFoundError, NotFound: as :meth:`retry`.
        """
        if delay is None or delay <= timedelta(0):
            await self.retry(instance_id, step_name)
            return
        await retry_later(await self._writing(), instance_id, step_name, delay)

    # -- asking ----------------------------------------------------------------------------------

    async def get_instance(self, instance_id: UUID) -> WorkflowInstanceData:
        """Return an instance as it is now; the object follows its run.

        Raises:
            WorkflowInstanceNotFoundError: there is none; it is a ``KeyError`` too.
        """
        carrier = await self._open()
        try:
            return await carrier.find(instance_id)
        except WorkflowInstanceNotFoundError:
            saved = await self._saved(instance_id)
            if saved is None:
                raise
            return saved

    # -- inside ----------------------------------------------------------------------------------

    async def _open(self) -> Carrier:
        if self._is_closed:
            raise errors.UsageError("the engine is closed")
        async with self._opening:
            if self._carrier is None:
                self._carrier = await self._acquire()
                self._carrier.told(self.persistence, self.event_bus)
        self._carrier.add_all(self.registry)
        return self._carrier

    async def _writing(self) -> Carrier:
        """Open, to write."""
        return await self._open()

    async def _chosen(
        self, carrier: Carrier, workflow: str | Given, version: str | None
    ) -> WorkflowDefinition:
        """Return the definition to start: no version that was deactivated in the database."""
        stored = await carrier.client.door.read(lambda store: store.definitions())
        inactive = {(one.name, one.version) for one in stored if not one.is_active}
        if isinstance(workflow, str) and version is None:
            here = [it.version for it in self.registry.list_definitions() if it.name == workflow]
            version = highest_active(workflow, here, inactive)
        found = self.registry.resolve(workflow, version)
        if (found.name, found.version) in inactive:
            raise WorkflowNotFoundError(
                found.name,
                found.version,
                message=f"Workflow '{found.name}' version '{found.version}' is deactivated: it "
                "begins no new instances",
            )
        return found

    async def _acquire(self) -> Carrier:
        """Return a carrier that runs."""
        raise NotImplementedError

    async def _release(self, carrier: Carrier) -> None:
        """Let a carrier go."""
        raise NotImplementedError

    async def _saved(self, instance_id: UUID) -> Any:
        if self.persistence is None:
            return None
        try:
            return await self.persistence.load_instance(instance_id)
        except Exception:  # noqa: BLE001 - a listener is user code; its error is logged
            _log.exception("%r could not load an instance", self.persistence)
            return None


def _place_for(user_id: str, *whose: str | None) -> int:
    """Say how near a human task is to somebody: theirs, nobody's, or another's."""
    return 0 if user_id in whose else 1 if whose == (None, None) else 2


def _not_waiting(instance: WorkflowInstanceData, step: str) -> InstanceNotWaitingError:
    if instance.status is not WorkflowStatus.WAITING:
        said = f"Instance {instance.id} is not waiting (status: {instance.status})"
    else:
        here = "', '".join(instance.current_steps)
        said = f"Instance is waiting at step '{here}', not '{step}'"
    return InstanceNotWaitingError(said)
