"""What commands add to a turn's write, and what they release after its commit: two tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.store.port import Post, StartRequest, StateWrite, TurnWrite
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.ids import MAILBOX
from perdure.values.states import ParkReason, Status

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run

UNBLOCK: dict[ParkReason, str] = {
    ParkReason.NONDETERMINISM: "run a worker whose code fits the history (guard the change with "
    "workflow.patched), then restart it or call unpark",
    ParkReason.UNKNOWN_WORKFLOW: "start a worker that defines this workflow",
    ParkReason.UNSERVED_QUEUE: "start a worker that serves this task queue",
    ParkReason.TURN_TIMEOUT: "mend the loop or the blocking call, then restart the worker",
    ParkReason.UNEXPECTED: "mend the code, then restart the worker or unpark",
    ParkReason.CORRUPT_HISTORY: "restore the row from a backup, then unpark; or terminate the run",
    ParkReason.WORKER_LOST: "find out what kills the worker, then unpark; or terminate the run",
    ParkReason.STORE_REFUSED: "mend the data the store refused, then unpark; or terminate the run",
    ParkReason.SUSPECT: "find out what holds the worker, then unpark; or terminate the run",
}


def open_state(
    status: Status,
    length: int,
    now: int,
    *,
    owned: bool,
    wake_at: int | None = None,
    waits: str | None = None,
    unread: int = 0,
) -> StateWrite:
    """Return the state row of a run that goes on."""
    return StateWrite(
        status=status,
        owned=owned,
        length=length,
        wake_at=wake_at,
        waits=waits,
        since=now,
        unread=unread,
    )


def closed_state(closing: ev.Event, length: int, now: int) -> StateWrite:
    """Return the state row of a run that ends."""
    status = Status(ev.CLOSES_AS[type(closing)])
    detail = None
    if isinstance(closing, ev.RunFailed):
        detail = closing.failure.text
    elif isinstance(closing, ev.RunCancelled):
        detail = closing.text or None
    elif isinstance(closing, ev.RunTerminated):
        detail = closing.reason or None
    return StateWrite(
        status=status, owned=False, length=length, closed_at=now, detail=detail, since=now
    )


def announce_end(run: Run, closing: ev.Event, write: TurnWrite, now: int) -> None:
    """Put the end of a child into its parent's inbox, in the same commit."""
    if run.parent is None or isinstance(closing, ev.RunContinued):
        return
    execution, child = run.parent
    event = ev.ChildClosed(
        child=child,
        status=ev.CLOSES_AS[type(closing)],
        result=closing.result if isinstance(closing, ev.RunCompleted) else None,
        failure=end_failure(closing),
        run_id=run.run_id,
        at=now,
        asked_by=run.started.parent.run_id if run.started and run.started.parent else "",
    )
    write.posts = [*write.posts, Post(event=ev.encode_turn([event]), execution=execution)]


def end_failure(closing: ev.Event) -> failures.FailureInfo | None:
    """Return the failure a closing event means to whoever waits for the run."""
    if isinstance(closing, ev.RunFailed):
        return closing.failure
    if isinstance(closing, ev.RunCancelled):
        text = closing.text or "the workflow was cancelled"
        return _end("WorkflowCancelled", "Canceled", text, closing.failure)
    if isinstance(closing, ev.RunTerminated):
        text = closing.reason or "the workflow was terminated"
        return _end("WorkflowTerminated", "Canceled", text)
    if isinstance(closing, ev.RunTimedOut):
        return _end("WorkflowTimedOut", "Timeout", f"the {closing.timeout} timeout passed")
    return None


def _end(
    name: str, kind: str, message: str, cause: failures.FailureInfo | None = None
) -> failures.FailureInfo:
    return failures.FailureInfo(message, kind=kind, type=name, retryable=False, cause=cause)


# -- before the commit: what a command adds to the write -------------------------------------------


def _activity_scheduled(
    core: Core, run: Run, number: int, event: ev.ActivityScheduled, write: TurnWrite
) -> None:
    if event.transactional:
        write.opens = (*write.opens, (number, 1))


def _activity_cancelled(
    core: Core, run: Run, number: int, event: ev.ActivityCancelled, write: TurnWrite
) -> None:
    work = run.work.get(event.activity)
    if work is not None and work.event.transactional:
        write.settles = (*write.settles, event.activity)


def _message_sent(
    core: Core, run: Run, number: int, event: ev.MessageSent, write: TurnWrite
) -> None:
    if event.target.startswith(MAILBOX):
        return  # nobody listens there yet: taken and dropped
    message = ev.Message(
        event.topic,
        event.payload,
        sender=run.workflow_id,
        id=f"{run.run_id}/{number}",
        sent_at=_time(run),
    )
    post = Post(
        event=ev.encode_turn([ev.MessageReceived(message=message)]),
        workflow_id=event.target,
        namespace=run.namespace,
        refusal=_refusal(run, number, event.target),
    )
    write.posts = [*write.posts, post]


def _cancel_sent(core: Core, run: Run, number: int, event: ev.CancelSent, write: TurnWrite) -> None:
    fact: ev.Event
    if event.terminate:
        fact = ev.RunTerminated(reason=event.reason, by=run.workflow_id)
    else:
        fact = ev.CancelRequested(reason=event.reason, deadline=event.deadline, by=run.workflow_id)
    post = Post(
        event=ev.encode_turn([fact]),
        workflow_id=event.target,
        namespace=run.namespace,
        refusal=_refusal(run, number, event.target),
        is_control=True,
    )
    write.posts = [*write.posts, post]


def _refusal(run: Run, number: int, target: str) -> bytes:
    info = failures.FailureInfo(
        f"workflow {target!r} is unknown or has ended", "NotFound", "NotFound", retryable=False
    )
    return ev.encode_turn([ev.SendResolved(send=number, failure=info, asked_by=run.run_id)])


def _child_scheduled(
    core: Core, run: Run, number: int, event: ev.ChildScheduled, write: TurnWrite
) -> None:
    parent = ev.Parent(run.execution, run.workflow_id, run.run_id, number)
    definition = core.definition(event.workflow, event.version)
    started = ev.RunStarted(
        workflow=event.workflow,
        version=event.version or (definition.version if definition else ""),
        workflow_id=event.workflow_id,
        run_id=event.run_id,
        seed=core.chance(16),
        input=event.input,
        code=definition.code if definition else "",
        flavour=core.flavour,
        queue=event.queue or run.queue,
        namespace=run.namespace,
        parent=parent,
        context=event.context,
        messages=event.messages,
        started_at=_time(run),
        first_started_at=_time(run),
    )
    refused = ev.ChildClosed(
        child=number,
        status="refused",
        failure=failures.FailureInfo(
            f"an execution with id {event.workflow_id!r} is open",
            "AlreadyExists",
            "AlreadyExists",
            retryable=False,
        ),
        run_id=event.run_id,
        at=_time(run),
        asked_by=run.run_id,
    )
    request = StartRequest(
        workflow=event.workflow,
        workflow_id=event.workflow_id,
        run_id=event.run_id,
        event=ev.encode_turn([started]),
        version=started.version,
        namespace=run.namespace,
        queue=started.queue,
        conflict="none" if event.workflow_id == event.run_id else "fail",
        parent=(run.execution, number),
        parent_close=event.parent_close,
        refusal=ev.encode_turn([refused]),
        memo=event.memo,
        search=payload.decode(event.search) if event.search else {},
    )
    write.children = [*write.children, request]


def _attributes_set(
    core: Core, run: Run, number: int, event: ev.AttributesSet, write: TurnWrite
) -> None:
    if event.search is not None:
        write.search = {**(write.search or {}), **payload.decode(event.search)}
    if event.memo is not None:
        write.memo = {**(write.memo or {}), **payload.decode(event.memo)}


def _progress(
    core: Core, run: Run, number: int, event: ev.ProgressReported, write: TurnWrite
) -> None:
    value = {"done": event.done, "total": event.total, "note": event.note}
    write.progress = payload.encode(value).decode()


def _continued(core: Core, run: Run, number: int, event: ev.RunContinued, write: TurnWrite) -> None:
    assert run.instance is not None
    before = run.instance.started
    assert before is not None
    definition = core.definition(event.workflow, "")
    started = ev.RunStarted(
        workflow=event.workflow,
        version=definition.version if definition else before.version,
        workflow_id=before.workflow_id,
        run_id=event.run_id,
        seed=core.chance(16),
        input=event.input,
        code=definition.code if definition else "",
        flavour=core.flavour,
        queue=before.queue,
        namespace=before.namespace,
        parent=before.parent,
        continued_from=before.run_id,
        context=before.context,
        messages=event.messages,
        started_at=_time(run),
        first_started_at=before.first_started_at,
    )
    write.continued = StartRequest(
        workflow=event.workflow,
        workflow_id=before.workflow_id,
        run_id=event.run_id,
        event=ev.encode_turn([started]),
        version=started.version,
        namespace=before.namespace,
        queue=before.queue,
        execution=run.execution,  # whose parent, and what its end means, the store knows
    )


def _time(run: Run) -> int:
    assert run.instance is not None
    return run.instance.time


PREPARE: dict[type[ev.Event], Callable[[Any, Any, int, Any, TurnWrite], None]] = {
    ev.ActivityScheduled: _activity_scheduled,
    ev.ActivityCancelled: _activity_cancelled,
    ev.MessageSent: _message_sent,
    ev.CancelSent: _cancel_sent,
    ev.ChildScheduled: _child_scheduled,
    ev.AttributesSet: _attributes_set,
    ev.ProgressReported: _progress,
    ev.RunContinued: _continued,
}


# -- after the commit: the effects a command releases ----------------------------------------------


def _start_activity(core: Core, run: Run, number: int, event: ev.ActivityScheduled) -> None:
    pending = run.instance.activities.get(number) if run.instance is not None else None
    if pending is not None:
        core.runner.dispatch(run, number, pending)


def _stop_activity(core: Core, run: Run, number: int, event: ev.ActivityCancelled) -> None:
    core.runner.cancel(run, event.activity)
    # What came of it while the cancel was being committed came too late (I4).
    run.inputs = [
        item
        for item in run.inputs
        if item.inbox or getattr(item.fact, "activity", 0) != event.activity
    ]


def _sent(core: Core, run: Run, number: int, event: Any) -> None:
    core.resolve_send(run, number)


def _update_answered(core: Core, run: Run, number: int, event: ev.UpdateCompleted) -> None:
    for answer in run.updates.pop(event.update, ()):
        answer(event)


RELEASE: dict[type[ev.Event], Callable[[Any, Any, int, Any], None]] = {
    ev.ActivityScheduled: _start_activity,
    ev.ActivityCancelled: _stop_activity,
    ev.MessageSent: _sent,
    ev.CancelSent: _sent,
    ev.UpdateCompleted: _update_answered,
}

__all__ = [
    "PREPARE",
    "RELEASE",
    "UNBLOCK",
    "announce_end",
    "closed_state",
    "end_failure",
    "open_state",
]
