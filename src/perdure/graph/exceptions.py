"""The errors that seed 4 names, each with its text; they are ordinary errors of Perdure.

What is not found is one family: :class:`~perdure.errors.NotFound`, which is a ``KeyError`` and a
``ValueError`` too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from uuid import UUID

from perdure.errors import (
    ApplicationError,
    Conflict,
    DefinitionError,
    HumanTaskError,
    Invalid,
    Kind,
    NotFound,
    PerdureError,
    TaskClosed,
    TaskDenied,
    TaskNotFound,
)

__all__ = [
    "HumanTaskError",
    "InstanceNotWaitingError",
    "InvalidTransitionError",
    "StepExecutionError",
    "TaskAlreadyCompletedError",
    "TaskNotFoundError",
    "UnauthorizedTaskError",
    "ValidationError",
    "WorkflowAlreadyCompletedError",
    "WorkflowInstanceNotFoundError",
    "WorkflowNotFoundError",
    "WorkflowValidationError",
    "WorkflowsError",
]

WorkflowsError = PerdureError
"""Base of all."""
TaskNotFoundError = TaskNotFound
TaskAlreadyCompletedError = TaskClosed
UnauthorizedTaskError = TaskDenied


class WorkflowNotFoundError(NotFound):
    """No workflow of this name and version is registered."""

    code = "workflow.not_found"

    def __init__(self, name: str, version: str | None = None, *, message: str = "") -> None:
        of = f" version '{version}'" if version else ""
        super().__init__(message or f"Workflow '{name}'{of} not found")
        self.name, self.version = name, version


class WorkflowInstanceNotFoundError(NotFound):
    """There is no such instance."""

    code = "instance.not_found"

    def __init__(self, instance_id: UUID | str) -> None:
        super().__init__(f"Workflow instance '{instance_id}' not found")
        self.instance_id = instance_id


class StepExecutionError(ApplicationError):
    """A step failed; ``cause`` is what it raised."""

    code = "step.failed"
    default_kind = Kind.INTERNAL

    def __init__(self, step_name: str, cause: BaseException | None = None) -> None:
        why = f": {cause}" if cause is not None else ""
        super().__init__(f"Step '{step_name}' failed{why}", cause=cause)
        self.step_name = step_name


class InvalidTransitionError(Conflict, ValueError):
    """The tables of states do not let it go from the one to the other."""

    code = "transition.invalid"

    def __init__(self, from_state: str, to_state: str, reason: str | None = None) -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"Invalid transition from '{from_state}' to '{to_state}'{why}")
        self.from_state, self.to_state, self.reason = str(from_state), str(to_state), reason


class WorkflowValidationError(DefinitionError, Invalid):
    """A workflow or a step is wrong; ``errors`` has every mistake."""

    code = "workflow.invalid"
    default_kind: ClassVar[str] = Kind.INVALID

    def __init__(self, errors: Iterable[str] | str) -> None:
        self.errors = [errors] if isinstance(errors, str) else list(errors)
        super().__init__(f"Workflow validation failed: {'; '.join(self.errors)}")


ValidationError = WorkflowValidationError


class WorkflowAlreadyCompletedError(Conflict):
    """The instance has ended."""

    code = "instance.ended"

    def __init__(self, instance_id: UUID | str, status: str) -> None:
        super().__init__(f"Workflow '{instance_id}' is already {status}")
        self.instance_id, self.status = instance_id, str(status)


class InstanceNotWaitingError(HumanTaskError, Conflict, ValueError):
    """The instance does not wait for a person, or not at this step."""

    code = "instance.not_waiting"
