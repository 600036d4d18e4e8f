"""What the store's rows say of a run, without a replay."""

from __future__ import annotations

from perdure import errors
from perdure.engine import forks
from perdure.engine.runs import Run, labels_of
from perdure.store.port import Loaded, RunRow
from perdure.values import events as ev
from perdure.values.concurrency import IN_QUEUE
from perdure.values.states import Status


def run_of(loaded: Loaded) -> Run:
    """Return a run with what ends it and nothing of its code."""
    run = Run(loaded.row.run)
    identify(run, loaded.row)
    run.length = loaded.row.length
    run.started = forks.became_by(started_of(loaded), loaded.turns)
    run.cancel_deadline = cancel_deadline_of(loaded)
    return run


def identify(run: Run, row: RunRow) -> None:
    """Take over what the store knows of a run."""
    run.execution = row.execution
    run.workflow = row.workflow
    run.workflow_id = row.workflow_id
    run.run_id = row.run_id
    run.namespace = row.namespace
    run.queue = row.queue
    run.tenant = row.tenant
    run.labels = labels_of(row)
    run.status = row.status
    run.wake_at = row.wake_at
    run.waits = row.waits
    run.in_queue = row.reason in IN_QUEUE and row.status in (Status.PENDING, Status.PAUSED)
    if row.parent_execution is not None and row.parent_event is not None:
        run.parent = (row.parent_execution, row.parent_event)


def started_of(loaded: Loaded) -> ev.RunStarted | None:
    """Return the start in a history; ``None``: it cannot be read."""
    try:
        first = ev.decode_turn(loaded.turns[0].payload)[0]
    except (errors.StoreError, IndexError):
        return None
    return first if isinstance(first, ev.RunStarted) else None


def cancel_deadline_of(loaded: Loaded) -> int:
    """Return the deadline of the cancel request in a history, or 0."""
    facts: list[ev.Event] = []
    for turn in loaded.turns:
        try:
            facts += ev.decode_turn(turn.payload)
        except errors.StoreError:
            break
    return forks.last_cancel(facts)


def last_parked(loaded: Loaded) -> ev.RunParked | None:
    """Return why a run was parked last; ``None``: never, or a row before it cannot be read."""
    for turn in reversed(loaded.turns):
        try:
            event = ev.decode_turn(turn.payload)[-1]
        except errors.StoreError:
            return None
        if isinstance(event, ev.RunParked):
            return event
    return None
