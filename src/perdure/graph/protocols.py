"""What an execution engine is, and what it tells: seed 4's protocols."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from perdure.graph.context import WorkflowContext
from perdure.graph.states import WorkflowStatus


@runtime_checkable
class WorkflowInstance(Protocol):
    """One execution of a workflow, as it is now."""

    @property
    def id(self) -> UUID:
        """Run id of the execution's first run."""
        ...

    @property
    def workflow_name(self) -> str:
        """The definition's name."""
        ...

    @property
    def workflow_version(self) -> str:
        """The definition's version."""
        ...

    @property
    def status(self) -> WorkflowStatus:
        """Where it stands."""
        ...

    @property
    def context(self) -> WorkflowContext:
        """Its data, metadata and steps."""
        ...

    @property
    def current_step(self) -> str | None:
        """The step it is at; ``None`` once it has ended."""
        ...

    @property
    def error(self) -> str | None:
        """Why it failed or was cancelled."""
        ...


@runtime_checkable
class ExecutionEngine(Protocol):
    """Starts instances and acts on them."""

    async def start_workflow(
        self,
        workflow: Any,
        initial_data: dict[str, Any] | None = None,
        version: str | None = None,
    ) -> WorkflowInstance:
        """Start an instance of a workflow, given by name, class or definition."""
        ...

    async def execute_step(
        self, step: Any, context: WorkflowContext, previous_result: Any = None
    ) -> Any:
        """Do a single step here and now, outside of any instance."""
        ...

    async def schedule_step(
        self, instance_id: UUID, step_name: str, delay: timedelta | None = None
    ) -> None:
        """Let an instance that has ended go on at a step, now or after a time."""
        ...

    async def complete_human_task(
        self, instance_id: UUID, step_name: str, user_id: str, data: dict[str, Any]
    ) -> None:
        """Complete the human task that an instance waits for."""
        ...

    async def cancel_workflow(self, instance_id: UUID, reason: str) -> None:
        """Cancel an instance."""
        ...

    async def retry(self, instance_id: UUID, from_step: str | None = None) -> None:
        """Let an instance that has ended try again what did not succeed."""
        ...


class WorkflowPersistence(Protocol):
    """Somewhere else that is told of each state, best effort; Perdure's own store is the truth."""

    async def save_instance(self, instance: Any) -> None:
        """Take note of an instance as it is now."""
        ...

    async def load_instance(self, instance_id: UUID) -> Any:
        """Return an instance that was saved, or ``None``; for ids that the store does not know."""
        ...


class EventBus(Protocol):
    """Is told of starts, waits and ends, best effort."""

    async def emit(self, event: str, /, **data: Any) -> None:
        """Take note of ``workflow.started``, ``.waiting``, ``.completed``, ``.failed``,
        ``.canceled``; ``data`` has ``instance_id``.
        """
        ...
