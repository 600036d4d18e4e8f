"""The words of steps and of runs of a graph (seed 4's, lower case, ``canceled`` with one l)."""

from __future__ import annotations

from enum import StrEnum


class StepType(StrEnum):
    """What kind of step it is: who or what completes it."""

    MACHINE = "machine"
    HUMAN = "human"
    WEBHOOK = "webhook"
    TIMER = "timer"
    GATEWAY = "gateway"


class StepStatus(StrEnum):
    """Where a step of a run stands."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"
    SKIPPED = "skipped"


class WorkflowStatus(StrEnum):
    """Where a run of a graph stands."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    CANCELLED = "canceled"
