"""Watching other executions: monitors, links, and the notices that come of them.

The words are Erlang's, by way of Wippy: a *monitor* tells once that an execution has ended; a
*link* also lets its failure fail the one that is linked to it, unless that one traps links.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, cast

import msgspec

from perdure import errors
from perdure.kernel import traps, watching
from perdure.kernel.channels import Channel
from perdure.values import failures, ids, payload
from perdure.workflow.children import ChildHandle
from perdure.workflow.handles import RemoteHandle
from perdure.workflow.run import to_time


class Exit(msgspec.Struct, frozen=True):
    """A notice: a child or a monitored execution ended, with ``result`` or with ``error``.

    ``result`` is of the type that ``start`` was given; plain data if another run started the child.
    """

    sender: str
    at: datetime
    result: Any = None
    error: errors.PerdureError | None = None
    kind: ClassVar[str] = "exit"


class LinkDown(msgspec.Struct, frozen=True):
    """A notice, with ``trap_links``: a linked execution ended badly."""

    sender: str
    at: datetime
    error: errors.PerdureError
    result: None = None
    kind: ClassVar[str] = "link_down"


class CancelRequested(msgspec.Struct, frozen=True):
    """A notice, with ``trap_cancel``: somebody (``sender``) asked this run to end."""

    sender: str
    at: datetime
    reason: str = ""
    result: None = None
    error: None = None
    kind: ClassVar[str] = "cancel_requested"


Notice = Exit | LinkDown | CancelRequested


def events() -> Channel[Notice]:
    """Return the channel of notices about children, monitored and linked executions, and cancels.

    Each has ``kind``, ``sender`` (a workflow id), ``at``, ``result`` and ``error``.
    """
    return Channel(queue=traps.here().notices, read=read_notice)


def trap_links(trap: bool) -> None:
    """Get :class:`LinkDown` notices for broken links instead of ``LinkedRunFailed``."""
    traps.here().traps_links = bool(trap)


def trap_cancel(trap: bool) -> None:
    """Get a :class:`CancelRequested` notice for a cancel instead of ``asyncio.CancelledError``.

    A deadline of the request still ends the run.
    """
    traps.here().traps_cancel = bool(trap)


async def monitor(target: Any) -> None:
    """Get one :class:`Exit` on :func:`events` when an execution ends; at once if it has.

    ``target``: a handle or a workflow id. A started child is monitored anyway.

    Raises:
        NotFound: there is no such execution.
    """
    if isinstance(target, ChildHandle):
        cast("ChildHandle[Any]", target).heed()
        return
    handle = _handle(target)
    await watching.watch(traps.here(), handle.id, "monitor", handle.namespace)


async def unmonitor(target: Any) -> None:
    """Get no :class:`Exit` for it from here on; of a child too, whatever it is named by."""
    instance = traps.here()
    handle = _handle(target)
    if isinstance(target, ChildHandle):
        cast("ChildHandle[Any]", target).quieten()
        watching.forget(instance, handle.id, "monitor")
        return
    watching.quieten(instance, handle.id, handle.namespace)
    watching.unwatch(instance, handle.id, "monitor", handle.namespace)


async def link(target: Any) -> None:
    """Link this run and another execution: each hears of the other's bad end.

    Its good end gives this run an :class:`Exit`; a bad one raises ``LinkedRunFailed`` at the next
    await, or gives a :class:`LinkDown` with :func:`trap_links`.

    Raises:
        NotFound: there is no such execution.
    """
    handle = _handle(target)
    await watching.watch(traps.here(), handle.id, "link", handle.namespace)


async def unlink(target: Any) -> None:
    """Take a link back, in both directions."""
    handle = _handle(target)
    watching.unwatch(traps.here(), handle.id, "link", handle.namespace)


def read_notice(item: watching.Notice) -> Notice:
    """Return what a recorded notice says."""
    at = to_time(item.at)
    if item.kind == "cancel_requested":
        return CancelRequested(item.sender, at, item.reason)
    if item.failure is not None:
        error = failures.to_exception(item.failure)
        if item.kind == "link_down":
            return LinkDown(item.sender, at, error)
        return Exit(item.sender, at, error=error)
    read = item.read or payload.decode
    return Exit(item.sender, at, result=read(item.result or payload.NULL))


def _handle(target: Any) -> RemoteHandle:
    if isinstance(target, str):
        return RemoteHandle(ids.check_workflow_id(target))
    return RemoteHandle(target.id, target.namespace)
