"""Watches of other executions, notices about them, and what a broken link does to the run.

Notices wait on one queue (``workflow.events()``): ends of children and of monitored executions,
broken links and cancel requests that the code has asked to get as notices. An untrapped broken link
is thrown into the main coroutine where it waits (``Main``), as a cancellation is; so cleanup code
runs, and may catch it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure import errors
from perdure.values import events as ev
from perdure.values import failures

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance


class Notice(NamedTuple):
    """What stands on the queue. ``read`` decodes a result; microseconds since 1970."""

    kind: str
    sender: str
    at: int
    result: bytes | None = None
    failure: failures.FailureInfo | None = None
    read: Callable[[bytes], Any] | None = None
    reason: str = ""


class Watch(NamedTuple):
    """A watch this run has set; ``future`` if somebody awaits the end."""

    target: str
    way: str
    future: asyncio.Future[ev.ExecutionEnded] | None = None


class Main(Coroutine[Any, Any, Any]):
    """The main coroutine, into which an error can be thrown in place of a cancellation."""

    __slots__ = ("coro", "thrown")

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self.coro = coro
        self.thrown: BaseException | None = None

    def send(self, value: Any) -> Any:
        return self.coro.send(value)

    def throw(self, *exc: Any) -> Any:
        thrown, self.thrown = self.thrown, None
        if thrown is not None and isinstance(exc[0], asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return self.coro.throw(thrown)
        try:
            return self.coro.throw(*exc)
        finally:
            exc = ()  # kept here, it would keep this frame and be kept by it

    def close(self) -> None:
        self.coro.close()

    def __await__(self) -> Any:
        return self.coro.__await__()


async def watch(instance: Instance, target: str, way: str, namespace: str) -> None:
    """Watch an execution; wait until that is committed.

    Raises:
        NotFound: there is no such execution.
    """
    number = instance.command(ev.WatchSet(target=target, way=way, namespace=namespace))
    instance.watches[number] = Watch(target, way)
    await _confirmed(instance, number)


async def end_of(instance: Instance, target: str, namespace: str) -> ev.ExecutionEnded:
    """Wait for the end of any execution.

    Raises:
        NotFound: there is no such execution.
    """
    number = instance.command(ev.WatchSet(target=target, way="await", namespace=namespace))
    future: asyncio.Future[ev.ExecutionEnded] = asyncio.Future(loop=instance.loop)
    instance.watches[number] = Watch(target, "await", future)
    try:
        await _confirmed(instance, number)
        return await future
    except (asyncio.CancelledError, errors.LinkedRunFailed):
        if instance.watches.pop(number, None) is not None:
            instance.command(ev.WatchDropped(target=target, way="await", namespace=namespace))
        raise


def unwatch(instance: Instance, target: str, way: str, namespace: str) -> None:
    """Watch it no more; what was already on its way is not delivered."""
    forget(instance, target, way)
    if way == "link":
        instance.unlinked[target] = instance.time
    instance.command(ev.WatchDropped(target=target, way=way, namespace=namespace))


def forget(instance: Instance, target: str, way: str) -> None:
    """Let the end of a watched execution mean nothing."""
    for number, watch_ in list(instance.watches.items()):
        if (watch_.target, watch_.way) == (target, way):
            del instance.watches[number]


def quieten(instance: Instance, child_id: str, namespace: str) -> None:
    """Give no notice of the end of a child that this run, or one before it, has started."""
    assert instance.started is not None
    own = instance.started.namespace
    for child in instance.children.values():
        asked = child.event
        if (asked.workflow_id, asked.namespace or own) == (child_id, namespace or own):
            child.is_quiet = True
    for key, inherited in list(instance.inherited.items()):
        if inherited == child_id:
            del instance.inherited[key]


async def _confirmed(instance: Instance, number: int) -> None:
    future: asyncio.Future[None] = asyncio.Future(loop=instance.loop)
    instance.sends[number] = future
    try:
        await future
    except errors.NotFound:
        instance.watches.pop(number, None)
        raise


def execution_ended(instance: Instance, event: ev.ExecutionEnded) -> None:
    """Take the end of a watched execution."""
    started = instance.started
    is_own = started is not None and event.asked_by == started.run_id
    watch_ = instance.watches.pop(event.watch, None) if is_own else None
    if is_own and watch_ is None:
        return  # watched no more
    if watch_ is not None and watch_.future is not None:
        if not watch_.future.done():
            watch_.future.set_result(event)
        return
    if event.way == "await":
        return  # the run that waited has continued as new
    if event.way != "monitor" and event.failure is not None:
        if not is_own and event.at <= instance.unlinked.get(event.workflow_id, -1):
            return  # it had ended before the link was taken back
        broken = Notice("link_down", event.workflow_id, event.at, failure=event.failure)
        break_link(instance, broken)
        return
    notice = Notice("exit", event.workflow_id, event.at, event.result, event.failure)
    instance.notices.offer(notice)


def inherit(instance: Instance, started: ev.RunStarted) -> None:
    """Take what goes along from the run that this one continues: messages, notices, children."""
    for message in started.messages:
        instance.mail.deliver(message)
    for kept in started.notices:
        notice = Notice(
            kept.notice, kept.sender, kept.at, kept.result, kept.failure, reason=kept.reason
        )
        instance.notices.offer(notice)
    for child in started.children:
        instance.inherited[child.run_id, child.child] = child.workflow_id


def inherited_ended(instance: Instance, event: ev.ChildClosed) -> None:
    """Take the end of a child that an earlier run of the execution started."""
    sender = instance.inherited.pop((event.asked_by, event.child), None)
    if sender is not None:
        notice = Notice("exit", sender, event.at, event.result, event.failure)
        instance.notices.offer(notice)


def unread_notices(instance: Instance) -> tuple[ev.UnreadNotice, ...]:
    """Return the notices nobody received: what continue-as-new takes along."""
    return tuple(
        ev.UnreadNotice(one.kind, one.sender, one.at, one.result, one.failure, one.reason)
        for one in instance.notices.unread()
    )


def awaited_children(instance: Instance) -> list[str]:
    """Return the ids of the children whose end the run is to be told."""
    own = (child.event.workflow_id for child in instance.children.values())
    return [*instance.inherited.values(), *own]


def open_children(instance: Instance) -> tuple[ev.OpenChild, ...]:
    """Return the children whose end is still to be a notice: the next run's, if there is one."""
    assert instance.started is not None
    inherited = [ev.OpenChild(id, *key) for key, id in instance.inherited.items()]
    own = [
        ev.OpenChild(child.event.workflow_id, instance.started.run_id, number)
        for number, child in instance.children.items()
        if not child.is_quiet
    ]
    return (*inherited, *own)


def break_link(instance: Instance, notice: Notice) -> None:
    """A linked execution ended badly: a notice if links are trapped, else an error."""
    if instance.traps_links:
        instance.notices.offer(notice)
        return
    assert notice.failure is not None
    message = f"linked workflow {notice.sender!r} ended: {notice.failure.root.message}"
    instance.interrupt(failures.wrap(errors.LinkedRunFailed, message, notice.failure))
