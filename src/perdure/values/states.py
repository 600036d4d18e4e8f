"""The life of an execution, as a table.

Everything that asks "may this happen now?" reads this file: the engine's guards, the API's answers
and the drawn diagrams. (The form is h11's ``_state.py``.)
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Status of an execution, the same everywhere."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"
    CONTINUED_AS_NEW = "continued_as_new"

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        return cls.CANCELLED if value == "canceled" else None

    @property
    def is_terminal(self) -> bool:
        """Whether a run with this status has ended for good."""
        return self in TERMINAL

    @property
    def is_stopped(self) -> bool:
        """Whether the run's code takes no turns for now."""
        return self in STOPPED


TERMINAL = frozenset(
    {
        Status.COMPLETED,
        Status.FAILED,
        Status.CANCELLED,
        Status.TERMINATED,
        Status.TIMED_OUT,
        Status.CONTINUED_AS_NEW,
    }
)
GOING = frozenset({Status.RUNNING, Status.WAITING})
"""The run takes turns."""
STOPPED = frozenset({Status.PENDING, Status.PAUSED, Status.PARKED})
OPEN = frozenset(Status) - TERMINAL

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(
        {Status.RUNNING, Status.WAITING, Status.PAUSED, Status.PARKED} | TERMINAL
    ),
    Status.RUNNING: frozenset({Status.WAITING, Status.PAUSED, Status.PARKED} | TERMINAL),
    Status.WAITING: frozenset({Status.RUNNING, Status.PAUSED, Status.PARKED} | TERMINAL),
    Status.PAUSED: frozenset(
        {Status.PENDING, Status.RUNNING, Status.WAITING, Status.PARKED} | TERMINAL
    ),
    Status.PARKED: frozenset({Status.RUNNING, Status.WAITING} | TERMINAL),
    **dict.fromkeys(TERMINAL, frozenset[Status]()),
}
"""What may follow what. A stopped run that goes on goes straight to what its turn gives."""

CODES: dict[Status, int] = {status: number for number, status in enumerate(Status)}
"""Small integers for the store. Append only: stored rows hold them."""

BY_CODE: tuple[Status, ...] = tuple(Status)


def may(before: Status, after: Status) -> bool:
    """Tell whether an execution may go from ``before`` to ``after`` (staying is always allowed)."""
    return before is after or after in TRANSITIONS[before]


class ParkReason(StrEnum):
    """Why a run cannot go on; stands in its row and in ``why``."""

    NONDETERMINISM = "nondeterminism"
    UNKNOWN_WORKFLOW = "unknown_workflow"
    UNSERVED_QUEUE = "unserved_queue"
    TURN_TIMEOUT = "turn_timeout"
    UNEXPECTED = "unexpected_error"
    CORRUPT_HISTORY = "corrupt_history"
    WORKER_LOST = "worker_lost"
    STORE_REFUSED = "store_refused"
    SUSPECT = "suspect"
    IO_REFUSED = "io_refused"


MENDED_BY_CODE = (
    ParkReason.NONDETERMINISM,
    ParkReason.UNEXPECTED,
    ParkReason.TURN_TIMEOUT,
    ParkReason.IO_REFUSED,
)
"""A worker that starts with other code tries runs parked for these reasons again."""
