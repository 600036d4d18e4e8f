"""How an instance is, in the words of policies and of the host API."""

from __future__ import annotations

from enum import StrEnum

from perdure.values.states import Status


class InstanceStatus(StrEnum):
    """How an instance is, in the page's six words."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> InstanceStatus | None:
        return cls.CANCELLED if value == "canceled" else None


SHOWN = {
    Status.PENDING: InstanceStatus.PENDING,
    Status.RUNNING: InstanceStatus.RUNNING,
    Status.WAITING: InstanceStatus.WAITING,
    Status.PAUSED: InstanceStatus.WAITING,
    Status.PARKED: InstanceStatus.WAITING,
    Status.COMPLETED: InstanceStatus.COMPLETED,
    Status.FAILED: InstanceStatus.FAILED,
    Status.TIMED_OUT: InstanceStatus.FAILED,
    Status.CANCELLED: InstanceStatus.CANCELLED,
    Status.TERMINATED: InstanceStatus.CANCELLED,
}


def status_of(status: Status) -> InstanceStatus:
    """Return a status in these words; what goes on in another run still runs."""
    return SHOWN.get(status, InstanceStatus.RUNNING)
