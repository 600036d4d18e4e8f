"""Why a run is parked, and what lets it go on."""

from __future__ import annotations

from perdure import errors
from perdure.values.states import ParkReason
from perdure.why import serving

UNBLOCK: dict[ParkReason, str] = {
    ParkReason.NONDETERMINISM: "run a worker whose code fits the history (the change guarded, or "
    "the old version beside the new one), then restart it or call unpark",
    ParkReason.UNKNOWN_WORKFLOW: "start a worker that defines this workflow",
    ParkReason.UNSERVED_QUEUE: "start a worker that serves this task queue",
    ParkReason.TURN_TIMEOUT: "mend the loop or the blocking call, then restart the worker",
    ParkReason.UNEXPECTED: "mend the code, then restart the worker or unpark",
    ParkReason.CORRUPT_HISTORY: "restore the row from a backup, then unpark; or terminate the run",
    ParkReason.WORKER_LOST: "find out what kills the worker, then unpark; or terminate the run",
    ParkReason.STORE_REFUSED: "mend the data the store refused, then unpark; or terminate the run",
    ParkReason.SUSPECT: "find out what holds the worker, then unpark; or terminate the run",
    ParkReason.IO_REFUSED: "move it into an activity, then restart the worker or unpark",
}


def unblock(reason: ParkReason, queue: str) -> str:
    """Return what lets a run go on that is parked for ``reason``."""
    is_unserved = reason in (ParkReason.UNKNOWN_WORKFLOW, ParkReason.UNSERVED_QUEUE)
    return f"{UNBLOCK[reason]}: {serving(queue)}" if is_unserved else UNBLOCK[reason]


def reason_of(error: BaseException) -> ParkReason:
    """Return why a run is parked whose code ended a turn or a replay with ``error``."""
    if isinstance(error, errors.IORefused):
        return ParkReason.IO_REFUSED
    if isinstance(error, errors.NondeterminismError):
        return ParkReason.NONDETERMINISM
    return ParkReason.UNEXPECTED
