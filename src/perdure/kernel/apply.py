"""What each recorded fact does to a live instance: one function per kind, in a table.

Called inside the activation, before any user code of the turn runs. A fact about something the
code no longer waits for (a cancelled timer, an activity given up) is recorded all the same and
does nothing here: the first committed outcome has won (I4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.kernel.cancelling import cancel_requested
from perdure.kernel.forking import forked, handed_over
from perdure.kernel.watching import execution_ended, inherited_ended
from perdure.values import events as ev
from perdure.values import failures

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


def _run_started(instance: Instance, event: ev.RunStarted) -> None:
    instance.code = event.code
    instance.begin(event)


def _activity_completed(instance: Instance, event: ev.ActivityCompleted) -> None:
    waiting = instance.activities.pop(event.activity, None)
    if waiting is None or waiting.future.done():
        return
    try:
        waiting.future.set_result(waiting.read(event.result))
    except errors.Invalid as exc:
        message = f"{waiting.event.name}: the result does not fit: {exc}"
        info = failures.from_exception(exc)
        waiting.future.set_exception(failures.wrap(errors.ActivityFailed, message, info))


def _activity_failed(instance: Instance, event: ev.ActivityFailed) -> None:
    waiting = instance.activities.pop(event.activity, None)
    if waiting is not None and not waiting.future.done():
        message = f"activity {waiting.event.name!r} failed: {event.failure.root.message}"
        waiting.future.set_exception(failures.wrap(errors.ActivityFailed, message, event.failure))


def _timer_fired(instance: Instance, event: ev.TimerFired) -> None:
    timer = instance.timers.pop(event.timer, None)
    if timer is not None:
        instance.loop.call_soon(timer[1])


def _message_received(instance: Instance, event: ev.MessageReceived) -> None:
    instance.mail.deliver(event.message)


def _send_resolved(instance: Instance, event: ev.SendResolved) -> None:
    if _is_of_another_run(instance, event.asked_by):
        return
    future = instance.sends.pop(event.send, None)
    if future is None or future.done():
        return
    if event.failure is None:
        future.set_result(None)
    else:
        future.set_exception(failures.to_exception(event.failure))


def _child_closed(instance: Instance, event: ev.ChildClosed) -> None:
    if _is_of_another_run(instance, event.asked_by):
        inherited_ended(instance, event)
        return
    child = instance.children.pop(event.child, None)
    if child is not None:
        child.close(event)


def _human_task_decided(instance: Instance, event: ev.HumanTaskDecided) -> None:
    if _is_of_another_run(instance, event.asked_by):
        return
    # Before a timer of the same turn runs: what a person was thanked for is not too late.
    waiting = instance.human_tasks.pop(event.opened, None)
    if waiting is not None and not waiting.future.done():
        waiting.future.set_result(event)


def _is_of_another_run(instance: Instance, asked_by: str) -> bool:
    """Tell whether the run that this one continues asked: its numbers mean nothing here."""
    return bool(asked_by) and instance.started is not None and asked_by != instance.started.run_id


def _update_accepted(instance: Instance, event: ev.UpdateAccepted) -> None:
    # Behind the tasks that are ready, so that a first turn can define its handlers before.
    instance.updates[event.update] = None
    instance.loop.call_soon(instance.run_update, event)


def _run_taken(instance: Instance, event: ev.RunTaken) -> None:
    # A start from another process knows no code: the first worker's is what the run began under.
    instance.code = instance.code or event.code
    if instance.started is not None:
        instance.started = event.onto(instance.started)


def _run_moved(instance: Instance, event: ev.RunMoved) -> None:
    # What continues the run goes by it too.
    if instance.started is not None:
        instance.started.version = event.version


def _run_overdue(instance: Instance, _event: ev.RunOverdue) -> None:
    instance.is_overdue = True


def _nothing(_instance: Instance, _event: ev.Event) -> None:
    """Recorded for people and for the engine; the code never sees it."""


APPLY: dict[type[ev.Event], Callable[[Instance, Any], None]] = {
    ev.RunStarted: _run_started,
    ev.ActivityCompleted: _activity_completed,
    ev.ActivityFailed: _activity_failed,
    ev.AttemptFailed: _nothing,
    ev.AttemptLost: _nothing,
    ev.TimerFired: _timer_fired,
    ev.MessageReceived: _message_received,
    ev.SendResolved: _send_resolved,
    ev.ChildClosed: _child_closed,
    ev.ExecutionEnded: execution_ended,
    ev.HumanTaskDecided: _human_task_decided,
    ev.UpdateAccepted: _update_accepted,
    ev.CancelRequested: cancel_requested,
    ev.RunTaken: _run_taken,
    ev.RunParked: _nothing,
    ev.RunUnparked: _nothing,
    ev.RunPaused: _nothing,
    ev.RunResumed: _nothing,
    ev.RunMoved: _run_moved,
    ev.RunOverdue: _run_overdue,
    ev.Forked: forked,
    ev.RunHandedOver: handed_over,
    ev.RunTerminated: _nothing,
    ev.RunTimedOut: _nothing,
}
