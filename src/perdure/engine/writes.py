"""What commands add to a turn's write, and what they release after its commit: two tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.engine import offers, people, refusals
from perdure.engine.beside import inherit
from perdure.engine.work import resolved
from perdure.store.port import Post, StartRequest, StateWrite, TurnWrite, Watch
from perdure.values import budgets, endings, failures, ids, payload
from perdure.values import events as ev
from perdure.values.principals import tenant_in
from perdure.values.states import Status
from perdure.values.terms import ends_unbegun, first_deadlines, later_deadlines, successor

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Input, Run


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
    status = Status(endings.status_of(closing))
    detail = None
    if isinstance(closing, ev.RunFailed):
        detail = closing.text
    elif isinstance(closing, ev.RunCancelled):
        detail = closing.text or None
    elif isinstance(closing, ev.RunTerminated):
        detail = closing.reason or None
    return StateWrite(
        status=status, owned=False, length=length, closed_at=now, detail=detail, since=now
    )


def announce_end(run: Run, closing: ev.Event, write: TurnWrite, now: int) -> None:
    """Put the end of a child into its parent's inbox, in the same commit."""
    if run.parent is None or endings.next_run(closing):
        return
    execution, child = run.parent
    event = ev.ChildClosed(
        child=child,
        status=endings.status_of(closing),
        result=endings.result_of(closing),
        failure=endings.failure_of(closing),
        run_id=run.run_id,
        at=now,
        asked_by=run.started.parent.run_id if run.started and run.started.parent else "",
    )
    write.posts = [*write.posts, Post(event=ev.encode_turn([event]), execution=execution)]


def name_successor(core: Core, run: Run, end: ev.RunTimedOut, now: int) -> None:
    """Let a run that timed out be followed by another, if its terms say so.

    Not one that was started paused and that nobody has resumed: nobody has said that it may begin.
    """
    started = run.started
    if started is None or end.timeout == "execution" or run.waits_for_resume:
        return
    following = successor(
        started.terms, started.attempt, started.execution_deadline, endings.failure_of(end), now
    )
    if following is not None:
        end.next_run = ids.uuid7(now // 1000, core.chance(10))
        end.next_at, end.next_attempt = following


def succeed(
    core: Core,
    run: Run,
    closing: ev.Event,
    write: TurnWrite,
    now: int,
    came: Sequence[ev.Event] = (),
) -> None:
    """Start, in the same commit, the run that follows this end by retry or cron.

    ``came``: facts that are recorded with the end; messages among them go along.
    """
    if not isinstance(closing, (ev.RunCompleted, ev.RunFailed, ev.RunTimedOut)):
        return
    before = run.started
    if not closing.next_run or before is None:
        return
    messages = _unread(run, came) if isinstance(closing, ev.RunTimedOut) else closing.messages
    write.closes_children = True
    write.continued = _later_run(
        core,
        run,
        before,
        now,
        run_id=closing.next_run,
        input=before.input,
        messages=messages,
        attempt=closing.next_attempt,
        not_before=closing.next_at if closing.next_at > now else 0,
    )


def _unread(run: Run, came: Sequence[ev.Event]) -> tuple[ev.Message, ...]:
    """Return the messages that the code of a run which is out of time has not received."""
    instance, started = run.instance, run.started
    if instance is not None and instance.started is not None:
        kept = list(instance.mail.unread())
    else:
        has_begun = started is None or not (run.status is Status.PENDING or run.in_queue)
        kept = [] if has_begun or started is None else list(started.messages)
    facts = [*run.blind, *came]
    return (*kept, *(fact.message for fact in facts if isinstance(fact, ev.MessageReceived)))


def note_sources(run: Run, write: TurnWrite, taken: Sequence[Input]) -> None:
    """Say which inbox rows and which transactions' deciding rows this turn takes away."""
    consumed = [item.inbox for item in taken if item.inbox]
    if consumed:
        write.consumed = tuple(consumed)
    for item in taken:
        if item.opens:
            write.opens = (*write.opens, *item.opens)
        for number, offer in item.offering:
            write.withdraws = (*write.withdraws, number)
            if offer is not None:
                write.offers = [*write.offers, offer]
        if item.asks:
            people.ask_anew(run, item.asks, write)
        if item.transaction is not None:
            number, following = item.transaction
            write.settles = (*write.settles, number)
            if following:
                write.opens = (*write.opens, (number, following))


# -- before the commit: what a command adds to the write -------------------------------------------


def _activity_scheduled(
    core: Core, run: Run, number: int, event: ev.ActivityScheduled, write: TurnWrite
) -> None:
    pending = run.instance.activities.get(number) if run.instance is not None else None
    if pending is not None and pending.definition is None:
        event = resolved(pending, core.registry.activity(event.name))  # as it will be dispatched
    if event.queue and event.queue != run.queue and offers.schedule(core, run, number, write):
        return
    if event.transactional:
        write.opens = (*write.opens, (number, 1))


def _activity_cancelled(
    core: Core, run: Run, number: int, event: ev.ActivityCancelled, write: TurnWrite
) -> None:
    work = run.work.get(event.activity)
    if work is not None and work.event.transactional:
        write.settles = (*write.settles, event.activity)
    if run.offered:
        offers.withdraw(run, event.activity, write)


def _message_sent(
    core: Core, run: Run, number: int, event: ev.MessageSent, write: TurnWrite
) -> None:
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
        namespace=event.namespace or run.namespace,
        refusal=refusals.unknown_or_ended(run, number, event.target),
        overflow=refusals.inbox_is_full(run, number, event.target),
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
        namespace=event.namespace or run.namespace,
        refusal=refusals.unknown_or_ended(run, number, event.target),
        ended=refusals.had_ended(run, number, event.target),
        is_control=True,
    )
    write.posts = [*write.posts, post]


def _watch_set(core: Core, run: Run, number: int, event: ev.WatchSet, write: TurnWrite) -> None:
    watch = _watch(run, event, number, refusals.unknown(run, number, event.target))
    write.watches = [*write.watches, watch]


def _watch_dropped(
    core: Core, run: Run, number: int, event: ev.WatchDropped, write: TurnWrite
) -> None:
    watch = _watch(run, event, number, None)
    watch.drop = True
    write.watches = [*write.watches, watch]


def _watch(
    run: Run, event: ev.WatchSet | ev.WatchDropped, number: int, refusal: bytes | None
) -> Watch:
    return Watch(
        way=event.way,
        workflow_id=event.target,
        namespace=event.namespace or run.namespace,
        ref=number,
        asked_by=run.run_id,
        refusal=refusal,
    )


def _child_scheduled(
    core: Core, run: Run, number: int, event: ev.ChildScheduled, write: TurnWrite
) -> None:
    parent = ev.Parent(run.execution, run.workflow_id, run.run_id, number)
    now = _time(run)
    try:
        version = event.version or core.registry.version_for(event.workflow)
    except errors.NotFound as none:
        told = _refused(run, number, event, none.message, "NotFound")
        post = Post(
            event=told, workflow_id=run.workflow_id, namespace=run.namespace, is_control=True
        )
        write.posts = [*write.posts, post]
        return
    definition = core.registry.definition(event.workflow, version)
    deadlines = first_deadlines(event.terms, now)
    started = ev.RunStarted(
        workflow=event.workflow,
        version=version,
        workflow_id=event.workflow_id,
        run_id=event.run_id,
        seed=core.chance(16),
        input=event.input,
        code=definition.code if definition else "",
        flavour=core.flavour,
        queue=event.queue or run.queue,
        namespace=event.namespace or run.namespace,
        parent=parent,
        context=event.context,
        messages=event.messages,
        started_at=now,
        first_started_at=now,
        terms=event.terms,
        not_before=deadlines.not_before,
        run_deadline=deadlines.run,
        execution_deadline=deadlines.execution,
        places=event.places,
    )
    is_open = f"an execution with id {event.workflow_id!r} is open"
    request = StartRequest(
        workflow=event.workflow,
        workflow_id=event.workflow_id,
        run_id=event.run_id,
        event=ev.encode_turn([started]),
        version=started.version,
        namespace=started.namespace,
        queue=started.queue,
        conflict=event.conflict or "none",
        reuse=event.reuse or "allow_duplicate",
        not_before=started.not_before,
        key=event.terms.key,
        priority=event.terms.priority,
        deadline=ends_unbegun(event.terms, deadlines),
        keep_for=event.terms.retention,
        places=event.places,
        parent=(run.execution, number),
        parent_close=event.parent_close,
        refusal=_refused(run, number, event, is_open, "AlreadyExists"),
        tenant=run.tenant,
        sees=tenant_in(event.context) if event.conflict or event.reuse else "",
        watches=(Watch("child", ref=number, asked_by=run.run_id),) if event.conflict else (),
        messages=ev.encode_messages(event.messages if event.conflict else ()),
        memo=event.memo,
        search=payload.decode(event.search) if event.search else {},
        budget=budgets.own(event.context, event.run_id),
        charges=budgets.for_child(event.context, event.run_id),
    )
    if event.heir:
        inherit(run, request)
    write.children = [*write.children, request]


def _refused(run: Run, number: int, event: ev.ChildScheduled, text: str, kind: str) -> bytes:
    """Return, encoded, what the parent hears of a child that was not started."""
    failure = failures.FailureInfo(text, kind, kind, retryable=False)
    closed = ev.ChildClosed(
        child=number,
        status="refused",
        failure=failure,
        run_id=event.run_id,
        at=_time(run),
        asked_by=run.run_id,
    )
    return ev.encode_turn([closed])


def _attributes_set(
    core: Core, run: Run, number: int, event: ev.AttributesSet, write: TurnWrite
) -> None:
    if event.search is not None:
        write.search = {**(write.search or {}), **payload.decode(event.search)}
    if event.memo is not None:
        write.memo = {**(write.memo or {}), **payload.decode(event.memo)}


def _progress(
    core: Core, run: Run, number: int, event: ev.ProgressReported | ev.Emitted, write: TurnWrite
) -> None:
    if (shown := event.shown) is not None:
        write.progress = payload.encode(shown).decode()


def _continued(core: Core, run: Run, number: int, event: ev.RunContinued, write: TurnWrite) -> None:
    assert run.instance is not None
    before = run.instance.started
    assert before is not None
    write.continued = _later_run(
        core,
        run,
        before,
        _time(run),
        run_id=event.run_id,
        workflow=event.workflow,
        input=event.input,
        messages=event.messages,
        notices=event.notices,
        children=event.children,
    )


def _later_run(
    core: Core,
    run: Run,
    before: ev.RunStarted,
    now: int,
    *,
    run_id: str,
    input: bytes,
    messages: tuple[ev.Message, ...],
    notices: tuple[ev.UnreadNotice, ...] = (),
    children: tuple[ev.OpenChild, ...] = (),
    workflow: str = "",
    attempt: int = 1,
    not_before: int = 0,
) -> StartRequest:
    """Return the start of the execution's next run: of other code only if ``workflow`` is given."""
    name = workflow or before.workflow
    version = before.version if not workflow else ""
    definition = core.registry.definition(name, version)
    deadlines = later_deadlines(before.terms, now, before.execution_deadline, not_before)
    started = ev.RunStarted(
        workflow=name,
        version=definition.version if definition else before.version,
        workflow_id=before.workflow_id,
        run_id=run_id,
        seed=core.chance(16),
        input=input,
        code=definition.code if definition else "",
        flavour=core.flavour,
        queue=before.queue,
        namespace=before.namespace,
        attempt=attempt,
        parent=before.parent,
        continued_from=before.run_id,
        first_run_id=before.first_run,
        schedule=before.schedule,
        scheduled_at=before.scheduled_at,
        context=before.context,
        messages=messages,
        notices=notices,
        children=children,
        started_at=now,
        first_started_at=before.first_started_at,
        terms=before.terms,
        not_before=not_before,
        run_deadline=deadlines.run,
        execution_deadline=deadlines.execution,
        places=before.places,
    )
    return StartRequest(
        workflow=name,
        workflow_id=before.workflow_id,
        run_id=run_id,
        event=ev.encode_turn([started]),
        version=started.version,
        namespace=before.namespace,
        queue=before.queue,
        attempt=attempt,
        not_before=not_before,
        deadline=ends_unbegun(before.terms, deadlines),
        execution=run.execution,  # whose parent, and what its end means, the store knows
    )


def _time(run: Run) -> int:
    assert run.instance is not None
    return run.instance.time


def _ended(core: Core, run: Run, number: int, event: ev.Event, write: TurnWrite) -> None:
    succeed(core, run, event, write, _time(run))


PREPARE: dict[type[ev.Event], Callable[[Any, Any, int, Any, TurnWrite], None]] = {
    **people.PREPARE,
    ev.ActivityScheduled: _activity_scheduled,
    ev.ActivityCancelled: _activity_cancelled,
    ev.MessageSent: _message_sent,
    ev.CancelSent: _cancel_sent,
    ev.ChildScheduled: _child_scheduled,
    ev.WatchSet: _watch_set,
    ev.WatchDropped: _watch_dropped,
    ev.AttributesSet: _attributes_set,
    ev.ProgressReported: _progress,
    ev.Emitted: _progress,
    ev.RunContinued: _continued,
    ev.RunCompleted: _ended,
    ev.RunFailed: _ended,
}


# -- after the commit: the effects a command releases ----------------------------------------------


def _start_activity(core: Core, run: Run, number: int, event: ev.ActivityScheduled) -> None:
    pending = run.instance.activities.get(number) if run.instance is not None else None
    if pending is not None and number not in run.offered:
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
    ev.WatchSet: _sent,
    ev.UpdateCompleted: _update_answered,
}

__all__ = [
    "PREPARE",
    "RELEASE",
    "announce_end",
    "closed_state",
    "open_state",
]
