"""How a run ends: from what its code returned or raised to the closing command.

A failure that is data (:class:`PerdureError`) fails the workflow. Anything else is unexpected: the
turn says so, and the engine decides whether it fails the run or parks it. What no code may be
stopped from raising leaves the activation as it is: the turn has not happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure import errors
from perdure.kernel.edge import ContinueAsNew
from perdure.kernel.watching import open_children, unread_notices
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.terms import successor

if TYPE_CHECKING:
    from perdure.kernel.instance import Instance

_BUGS = (errors.UsageError, errors.DefinitionError)
_NO_OUTCOME = (errors.ControlFlow, MemoryError, RecursionError)
"""Nothing that a replay would meet again in the same place."""


def closing_command(
    instance: Instance, exc: BaseException | None
) -> tuple[ev.Event, BaseException | None]:
    """Return the closing command of a run whose code ended with ``exc``, and what was unexpected.

    Raises:
        BaseException: ``exc``, when it is no outcome of the run.
    """
    if exc is None:
        return _followed(instance, _completed(instance)), None
    for inner in _within(exc):
        if isinstance(inner, ContinueAsNew):
            return msgspec.structs.replace(
                inner.event,
                messages=tuple(instance.mail.unread()),
                notices=unread_notices(instance),
                children=open_children(instance),
            ), None
        if isinstance(inner, _NO_OUTCOME):
            raise inner
    if isinstance(exc, asyncio.CancelledError):
        return _cancelled(instance), None
    failure = failures.from_exception(exc)
    failed = _followed(instance, ev.RunFailed(failure=failure, not_undone=instance.not_undone))
    return failed, None if all(_is_data(inner) for inner in _within(exc)) else exc


def _followed(instance: Instance, closing: ev.Event) -> ev.Event:
    """Name the run that follows this one, by its retry policy or its cron text."""
    started = instance.started
    if started is None or not (started.terms.retry or started.terms.cron):
        return closing
    failure = closing.failure if isinstance(closing, ev.RunFailed) else None
    following = successor(
        started.terms, started.attempt, started.execution_deadline, failure, instance.time
    )
    if following is None:
        return closing
    return msgspec.structs.replace(
        closing,
        next_run=instance.new_run_id("next"),
        next_at=following.at,
        next_attempt=following.attempt,
        messages=tuple(instance.mail.unread()),
    )


def _is_data(exc: BaseException) -> bool:
    return isinstance(exc, errors.PerdureError) and not isinstance(exc, _BUGS)


def _within(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception, or the leaves of its group: a TaskGroup wraps what its tasks raise."""
    if isinstance(exc, BaseExceptionGroup):
        members: tuple[BaseException, ...] = cast("Any", exc).exceptions
        for member in members:
            yield from _within(member)
    else:
        yield exc


def _completed(instance: Instance) -> ev.Event:
    name = instance.program.name
    try:
        assert instance.root is not None
        result = instance.program.finish(instance.root.result())
        payload.limit(result, instance.max_payload, what=f"result of {name}")
    except errors.Invalid as invalid:
        return ev.RunFailed(failure=failures.from_exception(invalid))
    return ev.RunCompleted(result=result)


def _cancelled(instance: Instance) -> ev.Event:
    if instance.cancel is not None:
        return ev.RunCancelled(reason=instance.cancel.reason, failure=instance.not_undone)
    info = failures.FailureInfo(
        "the workflow cancelled itself", kind="Canceled", type="CancelledError"
    )
    return ev.RunFailed(failure=info)
