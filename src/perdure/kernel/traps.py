"""The only awaitables that can suspend a workflow, and how code finds the run it belongs to.

Each trap makes a command and waits on a future that a recorded fact settles. The instance decides
by its mode what a command means: *live* (recorded, or held against the script in a replay),
*read-only* (queries and validators: refused), *evicting* (dropped; the trap suspends again, so that
cleanup code neither acts nor sees an error it could handle).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.kernel.loop import DeterministicLoop
from perdure.kernel.pending import Child, PendingActivity
from perdure.kernel.people import PendingHumanTask
from perdure.values import events as ev
from perdure.values.payload import Decode

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance

INTERRUPTED = (asyncio.CancelledError, errors.LinkedRunFailed)
"""What is thrown into a waiting coroutine from outside: it gives up what it waits for."""

_running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage]


def current() -> Instance | None:
    """Return the instance whose activation is running, or ``None`` outside workflow code."""
    loop = _running_loop()
    return loop.host if type(loop) is DeterministicLoop else None  # type: ignore[return-value]


def here() -> Instance:
    """Return the instance whose activation is running.

    Raises:
        UsageError: called outside workflow code.
    """
    loop = _running_loop()
    if type(loop) is not DeterministicLoop:
        raise errors.UsageError("this can only be called in workflow code")
    return loop.host  # type: ignore[return-value]


async def activity(
    instance: Instance,
    event: ev.ActivityScheduled,
    read: Decode,
    definition: Any = None,
    begun: Callable[[int], None] | None = None,
) -> Any:
    """Schedule an activity and wait for its outcome; ``begun`` is told its number."""
    number = instance.command(event)
    if begun is not None:
        begun(number)
    if instance.keys.kept:
        instance.keys.take(number, event.name, event.args)
    future: asyncio.Future[Any] = asyncio.Future(loop=instance.loop)
    instance.activities[number] = PendingActivity(future, read, event, definition)
    try:
        return await future
    except INTERRUPTED:
        if instance.activities.pop(number, None) is not None:
            instance.command(ev.ActivityCancelled(activity=number))
        raise


async def sleep(instance: Instance, microseconds: int) -> None:
    """Wait until the turn's time plus ``microseconds``; at once if that is not positive."""
    if microseconds <= 0:
        await asyncio.sleep(0)
        return
    future: asyncio.Future[None] = asyncio.Future(loop=instance.loop)
    number = instance.command(ev.TimerStarted(due=instance.time + microseconds))
    instance.timers[number] = (instance.time + microseconds, partial(_settle, future))
    try:
        await future
    except INTERRUPTED:
        instance.cancel_timer(number)
        raise


async def human_task(
    instance: Instance, event: ev.HumanTaskOpened
) -> tuple[ev.HumanTaskDecided | None, str]:
    """Ask a person and wait for the decision; ``None`` if it expired before one came. With it comes
    the id that the human task has: in a copy it is another one.
    """
    number = instance.command(event)
    future: asyncio.Future[ev.HumanTaskDecided | None] = asyncio.Future(loop=instance.loop)
    waiting = instance.human_tasks[number] = PendingHumanTask(future, event)
    timers: list[int] = []
    ends, end = event.ends, partial(_settle, future)
    for due, fire in (
        (event.due, end if event.due == ends else partial(_tell, instance, number, "overdue")),
        (event.remind, partial(_tell, instance, number, "reminder")),
        (ends if event.due != ends else 0, end),
    ):
        if due:
            timers.append(timer := instance.command(ev.TimerStarted(due=due)))
            instance.timers[timer] = (due, fire)
    outcome = "cancelled"
    try:
        decision = await future
        outcome = "expired"
        return decision, waiting.id
    finally:
        # Before the timers: what gives it up is why they are no longer wanted.
        if instance.human_tasks.pop(number, None) is not None:
            instance.command(ev.HumanTaskClosed(opened=number, id=waiting.id, outcome=outcome))
        for timer in timers:
            instance.cancel_timer(timer)


async def condition(instance: Instance, predicate: Callable[[], object]) -> None:
    """Wait until ``predicate()`` is true; it is asked again after every step of the run."""
    if predicate():
        return
    future: asyncio.Future[None] = asyncio.Future(loop=instance.loop)
    entry = (predicate, future)
    instance.conditions.append(entry)
    try:
        await future
    finally:
        if entry in instance.conditions:
            instance.conditions.remove(entry)


async def send(
    instance: Instance, target: str, topic: str, payload: bytes, namespace: str = ""
) -> None:
    """Send a message and wait until it is committed.

    Raises:
        NotFound: the target is unknown or has ended.
    """
    number = instance.command(
        ev.MessageSent(target=target, topic=topic, payload=payload, namespace=namespace)
    )
    future: asyncio.Future[None] = asyncio.Future(loop=instance.loop)
    instance.sends[number] = future
    await future


async def cancel_other(
    instance: Instance,
    target: str,
    reason: str,
    deadline: int,
    *,
    terminate: bool,
    namespace: str = "",
) -> bool:
    """Ask another execution to end and wait until the request is committed; False if it had ended.

    Raises:
        NotFound: there is no such execution.
    """
    event = ev.CancelSent(
        target=target,
        reason=reason,
        deadline=deadline,
        terminate=terminate,
        namespace=namespace,
    )
    number = instance.command(event)
    future: asyncio.Future[None] = asyncio.Future(loop=instance.loop)
    instance.sends[number] = future
    try:
        await future
    except errors.Closed:
        return False
    return True


def start_child(instance: Instance, event: ev.ChildScheduled, read: Decode) -> Child:
    """Schedule a child; it starts in the commit of this turn."""
    number = instance.command(event)
    child = Child(instance.loop, instance.notices, number, event, read)
    instance.children[number] = child
    return child


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(instance: Instance, number: int, what: str) -> None:
    """Tell listeners that nobody has done it yet: best effort, and not again in a replay."""
    waiting = instance.human_tasks.get(number)
    if waiting is not None:
        instance.effect(f"workflow.task.{what}", waiting)
