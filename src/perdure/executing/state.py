"""What a run of a graph says of itself: the answer of its query ``graph``, read."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.graph.context import StepExecution
from perdure.graph.states import WorkflowStatus
from perdure.values import payload
from perdure.values.states import Status

QUERY = "graph"
"""The query that every run of a graph answers, also when it has ended."""


class GraphState(msgspec.Struct):
    """Where the run is, and what it has gathered."""

    current_steps: list[str] = []
    steps: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    data: dict[str, Any] = {}
    progress: int = 0
    step_history: list[StepExecution] = []
    user_id: str | None = None


def read_state(answer: bytes) -> GraphState:
    """Read an encoded answer.

    Raises:
        Invalid: it is none.
    """
    return _read(answer)


def state_of(answer: Any) -> GraphState:
    """Read an answer that was decoded already."""
    return _read(payload.encode(answer))


def shown(status: Status) -> WorkflowStatus:
    """Return seed 4's word for the status of an execution."""
    return _SHOWN.get(status) or WorkflowStatus(str(status))


_SHOWN = {
    Status.PAUSED: WorkflowStatus.WAITING,
    Status.PARKED: WorkflowStatus.WAITING,
    Status.TIMED_OUT: WorkflowStatus.FAILED,
    Status.CANCELLED: WorkflowStatus.CANCELED,
    Status.TERMINATED: WorkflowStatus.CANCELED,
    Status.CONTINUED_AS_NEW: WorkflowStatus.RUNNING,
}
ENDED = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.CANCELED})
_read = payload.decoder(GraphState, what="state of a graph")
