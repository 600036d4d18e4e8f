"""Seed 4's event objects, for applications that pass such objects on; all times are aware UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass
class WorkflowEvent:
    """Something happened to an instance."""

    instance_id: UUID
    timestamp: datetime


@dataclass
class WorkflowStarted(WorkflowEvent):
    """It began."""

    workflow_name: str
    workflow_version: str
    initial_data: dict[str, Any] | None = None
    user_id: str | None = None
    tenant_id: str | None = None


@dataclass
class WorkflowCompleted(WorkflowEvent):
    """It came to its end."""

    status: str
    final_step: str | None = None
    duration_seconds: float | None = None


@dataclass
class WorkflowFailed(WorkflowEvent):
    """It failed."""

    error: str
    failed_step: str | None = None
    error_type: str | None = None
    stack_trace: str | None = None


@dataclass
class WorkflowCanceled(WorkflowEvent):
    """It was cancelled."""

    reason: str
    canceled_by: str | None = None
    current_step: str | None = None


@dataclass
class WorkflowPaused(WorkflowEvent):
    """It takes no turns for now."""

    reason: str | None = None
    paused_at_step: str | None = None


@dataclass
class WorkflowResumed(WorkflowEvent):
    """It goes on."""

    resumed_by: str | None = None
    resuming_at_step: str | None = None


@dataclass
class StepStarted(WorkflowEvent):
    """A step began."""

    step_name: str
    step_type: str
    input_data: dict[str, Any] | None = None


@dataclass
class StepCompleted(WorkflowEvent):
    """A step succeeded."""

    step_name: str
    status: str
    result: Any = None
    output_data: dict[str, Any] | None = None
    duration_seconds: float | None = None


@dataclass
class StepFailed(WorkflowEvent):
    """A step failed; ``retry_count``: how often it had been tried again."""

    step_name: str
    error: str
    error_type: str | None = None
    retry_count: int = 0


@dataclass
class StepSkipped(WorkflowEvent):
    """A step could not be done and was passed over."""

    step_name: str
    reason: str | None = None


@dataclass
class HumanTaskCreated(WorkflowEvent):
    """A person is asked."""

    step_name: str
    task_id: UUID
    assignee: str | None = None
    title: str | None = None
    description: str | None = None
    due_at: datetime | None = None


@dataclass
class HumanTaskCompleted(WorkflowEvent):
    """A person has answered."""

    step_name: str
    task_id: UUID
    completed_by: str
    form_data: dict[str, Any] | None = None
    comment: str | None = None


@dataclass
class HumanTaskReassigned(WorkflowEvent):
    """Somebody else is asked."""

    step_name: str
    task_id: UUID
    from_assignee: str | None = None
    to_assignee: str | None = None
    reassigned_by: str | None = None
    reason: str | None = None
