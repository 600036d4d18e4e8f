"""What workflow code calls.

Everything here works inside a workflow's activation and raises :class:`UsageError` elsewhere. Plain
functions return at once; what is awaited may suspend the run, for seconds or for months. A call
whose ``await`` was forgotten does nothing, and is logged as a warning with the id of the run.
"""

from __future__ import annotations

import asyncio
import logging
import uuid as _uuid
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar, cast

from perdure import activity as _activity
from perdure import errors
from perdure.definition import Workflow, define
from perdure.handlers import QueryHandler, UpdateHandler
from perdure.kernel import traps
from perdure.kernel.channels import After, Channel, after, select
from perdure.kernel.edge import ContinueAsNew
from perdure.logs import RunLogger
from perdure.saga import Saga
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.defining import is_name
from perdure.values.duration import Duration, microseconds
from perdure.workflow.children import ChildHandle, execute, start
from perdure.workflow.handles import RemoteHandle, handle
from perdure.workflow.messages import (
    Message,
    check_topic,
    encode_message,
    inbox,
    listen,
    recorded_messages,
    send,
)
from perdure.workflow.run import (
    Info,
    check_mapping,
    check_search,
    context,
    encode_mapping,
    history_length,
    history_size,
    info,
    principal,
    started_event,
    to_time,
)
from perdure.workflow.telling import emit, progress
from perdure.workflow.watching import (
    CancelRequested,
    Exit,
    LinkDown,
    Notice,
    events,
    link,
    monitor,
    read_notice,
    trap_cancel,
    trap_links,
    unlink,
    unmonitor,
)

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])


# -- time and chance -----------------------------------------------------------------------------


async def sleep(duration: Duration) -> None:
    """Sleep durably: ``await workflow.sleep("1h")``. A restart does not lengthen it."""
    await traps.sleep(traps.here(), microseconds(duration, what="sleep"))


def now() -> datetime:
    """Return the turn's recorded time, aware, in UTC."""
    return to_time(traps.here().time)


def uuid4() -> _uuid.UUID:
    """Return a random UUID that replays alike."""
    return _uuid.UUID(bytes=traps.here().draw(16), version=4)


def random() -> float:
    """Return a number in [0, 1) that replays alike."""
    return traps.here().draw_fraction()


def random_bytes(size: int) -> bytes:
    """Return ``size`` random bytes that replay alike.

    Raises:
        Invalid: not a whole number from 0 on.
    """
    if type(size) is not int or size < 0:
        raise errors.Invalid(f"random_bytes: {size!r} is not a number of bytes")
    return traps.here().draw(size)


# -- about the run -------------------------------------------------------------------------------


logger = RunLogger(logging.getLogger("perdure.workflow"), _activity.current)
"""Lines that are kept with the run (``handle.logs()``): told after the commit of the turn, never
again in a replay; in a query at once, and not kept.
"""


async def attrs(
    *, search: Mapping[str, Any] | None = None, memo: Mapping[str, Any] | None = None
) -> None:
    """Merge search attributes and memo into the run's; ``None`` removes a key. Await it.

    ``search`` (text, number, bool, list of text) is indexed, ``memo`` (any payload) is not.

    Raises:
        UsageError: neither was given.
        Invalid: a value of a type that cannot be indexed; more or larger values than the limits
            allow.
    """
    if not search and not memo:
        raise errors.UsageError("attrs: give search=, memo= or both")
    instance = traps.here()
    instance.command(
        ev.AttributesSet(
            search=payload.encode(check_search(search)) if search else None,
            memo=encode_mapping(memo, "memo", instance.max_payload),
        )
    )


# -- activities ----------------------------------------------------------------------------------


def call(name: str, *args: Any) -> Coroutine[Any, Any, Any]:
    """Call an activity by name: ``await workflow.call("charge", order)``.

    It must be registered with the worker that runs it.
    """
    return _activity.by_name(name, args)


# -- waiting and tasks ---------------------------------------------------------------------------


async def wait_condition(predicate: Callable[[], object], timeout: Duration | None = None) -> None:
    """Wait until ``predicate()`` is true; it is asked after every step of the run. Await it.

    Raises:
        TimeoutError: it was not within ``timeout``.
        UsageError: the predicate cannot be called.
    """
    instance = traps.here()
    if not callable(cast("Any", predicate)):
        raise errors.UsageError(f"wait_condition: {predicate!r} is not a function to ask")
    if timeout is None:
        await traps.condition(instance, predicate)
        return
    async with asyncio.timeout(microseconds(timeout, what="timeout") / 1_000_000):
        await traps.condition(instance, predicate)


def spawn(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run a coroutine beside the main one.

    It ends with the workflow, and its exception fails the workflow.
    """
    return traps.here().spawn(coro)


def saga() -> Saga:
    """Return compensations to run on failure.

    ``async with saga() as s: s.add(refund, payment.id)``
    """
    return Saga()


# -- code that changes, runs that go on ----------------------------------------------------------


def version(change_id: str, min: int, max: int) -> int:
    """Return the version of a change that this run goes by.

    That is ``max`` for runs that get here anew, the recorded one in a replay, and 1 for a history
    that had passed here before the call existed.

    Raises:
        UsageError: an empty id, or min above max.
    """
    if not change_id or type(min) is not int or type(max) is not int or min > max:
        raise errors.UsageError(f"version({change_id!r}, {min}, {max}): needs an id and min <= max")
    instance = traps.here()
    return instance.versions.of(instance, payload.text(change_id, what="change id"), min, max)


def patched(change_id: str) -> bool:
    """Tell whether this run goes by the new code: True for runs that get here anew."""
    return version(change_id, 1, 2) == 2


async def continue_as_new(input: Any = None, *, workflow: Any = None) -> NoReturn:
    """End this run; the execution goes on in a new one with ``input`` and an empty history.

    ``await workflow.continue_as_new(state)``: without the ``await`` nothing happens. Messages and
    notices that nobody received go along; children stay the execution's, and their ends are notices
    of the new run.
    """
    instance = traps.here()
    started = started_event(instance)
    name = started.workflow if workflow is None else getattr(workflow, "name", workflow)
    data = payload.encode(input, what=f"input of {name}")
    payload.limit(data, instance.max_payload, what=f"input of {name}")
    run_id = instance.new_run_id("next")
    raise ContinueAsNew(
        ev.RunContinued(run_id=run_id, workflow=payload.text(name, what="workflow"), input=data)
    )


# -- handlers ------------------------------------------------------------------------------------


def query(name: str) -> Callable[[Handler], Handler]:
    """Let ``handle.query(name, …)`` call the decorated inner function. It may only read."""

    def register(fn: Handler) -> Handler:
        _once(traps.here().queries, name, "query")[name] = QueryHandler(name, fn)
        return fn

    return register


def update(
    name: str, *, validator: Callable[..., object] | None = None
) -> Callable[[Handler], Handler]:
    """Let ``handle.update(name, …)`` run the decorated inner function and get its answer.

    ``validator`` gets the same arguments, may only read, and refuses by raising: a refused update
    leaves no trace in the history.
    """

    def register(fn: Handler) -> Handler:
        handlers = _once(traps.here().update_handlers, name, "update")
        handlers[name] = UpdateHandler(name, fn, validator)
        return fn

    return register


def _once(handlers: dict[str, Any], name: object, what: str) -> dict[str, Any]:
    if not is_name(name):
        raise errors.UsageError(f'{what}: write @workflow.{what}("NAME"), not {name!r}')
    if name in handlers:
        raise errors.UsageError(f"{what} {name!r} is defined twice in this run")
    return handlers


__all__ = [
    "After",
    "CancelRequested",
    "Channel",
    "ChildHandle",
    "Exit",
    "Info",
    "LinkDown",
    "Message",
    "Notice",
    "RemoteHandle",
    "Saga",
    "Workflow",
    "after",
    "attrs",
    "call",
    "check_mapping",
    "check_search",
    "check_topic",
    "context",
    "continue_as_new",
    "define",
    "emit",
    "encode_message",
    "events",
    "execute",
    "handle",
    "history_length",
    "history_size",
    "inbox",
    "info",
    "link",
    "listen",
    "logger",
    "monitor",
    "now",
    "patched",
    "principal",
    "progress",
    "query",
    "random",
    "random_bytes",
    "read_notice",
    "recorded_messages",
    "saga",
    "select",
    "send",
    "sleep",
    "spawn",
    "start",
    "trap_cancel",
    "trap_links",
    "unlink",
    "unmonitor",
    "update",
    "uuid4",
    "version",
    "wait_condition",
]
