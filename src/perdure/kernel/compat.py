"""Differences between Python versions, evened out in one place (R5).

Histories outlive interpreters, so code must give the same commands on every supported Python. The
measure is 3.13's behaviour. On older versions, and only while a deterministic loop runs, stock
asyncio dispatches to the versions here:

* ``wait_for`` before 3.12 wrapped its argument in a task, so ``gather(wait_for(a), b)`` asked for
  ``b`` first;
* ``TaskGroup.__aexit__`` before 3.13 decided about an outside cancel before its children had ended,
  and lost one that met a child's failure.

``gather``'s own future hashes by address everywhere; here it gets a creation number too.

``FLAVOUR`` is recorded in event 1. A run recorded under another flavour is replayed like any other;
what this file misses would show as a NondeterminismError, and parks the run rather than corrupt it.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import asyncio.timeouts
import sys
import types
from typing import Any

from perdure.kernel.loop import DeterministicLoop

FLAVOUR = "asyncio-3.13"

_installed = False


def _deterministic() -> bool:
    return type(asyncio._get_running_loop()) is DeterministicLoop  # pyright: ignore[reportPrivateUsage]


async def _wait_for(awaitable: Any, timeout: float | None) -> Any:
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await awaitable
    future = asyncio.ensure_future(awaitable)
    if not future.done():
        future.cancel()
        await asyncio.wait([future])
    try:
        return future.result()
    except asyncio.CancelledError as exc:
        raise TimeoutError from exc


async def _leave_group(group: Any, kind: type[BaseException] | None, exc: Any, tb: Any) -> None:
    """Leave a TaskGroup: wait for the children first, settle the parent's cancel count after."""
    group._exiting = True
    cancelled = exc if kind is not None and issubclass(kind, asyncio.CancelledError) else None
    if isinstance(exc, (SystemExit, KeyboardInterrupt)) and group._base_error is None:
        group._base_error = exc
    if kind is not None and not group._aborting:
        group._abort()
    while group._tasks:
        if group._on_completed_fut is None:
            group._on_completed_fut = group._loop.create_future()
        try:
            await group._on_completed_fut
        except asyncio.CancelledError as outside:
            if not group._aborting:
                cancelled = outside
                group._abort()
        group._on_completed_fut = None
    if group._base_error is not None:
        raise group._base_error
    parent = group._parent_task
    if group._parent_cancel_requested and parent.uncancel() == 0:
        cancelled = None
    if cancelled is not None and not group._errors:
        raise cancelled
    if kind is not None and not issubclass(kind, asyncio.CancelledError):
        group._errors.append(exc)
    if not group._errors:
        return
    if parent.cancelling():
        # Someone else wants the parent gone as well: let the next await say so again.
        parent.uncancel()
        parent.cancel()
    failures, group._errors = group._errors, None
    raise BaseExceptionGroup("unhandled errors in a TaskGroup", failures) from None


def install() -> None:
    """Install the dispatchers. Idempotent; without effect outside a deterministic loop."""
    global _installed  # noqa: PLW0603 - asyncio is patched once per process
    if _installed:
        return
    _installed = True
    if sys.version_info < (3, 12):
        _replace_wait_for()
    if sys.version_info < (3, 13):
        _replace_group_exit()
    _order_gather()


def _replace_wait_for() -> None:
    stock = asyncio.tasks.wait_for
    original = types.FunctionType(
        stock.__code__, stock.__globals__, stock.__name__, stock.__defaults__, stock.__closure__
    )

    async def wait_for(fut: Any, timeout: float | None) -> Any:
        return await perdure_dispatch(fut, timeout)  # type: ignore[name-defined]  # noqa: F821

    def dispatch(fut: Any, timeout: float | None) -> Any:
        return _wait_for(fut, timeout) if _deterministic() else original(fut, timeout)

    # The code object is swapped, not the name: `from asyncio import wait_for` may have happened.
    vars(asyncio.tasks)["perdure_dispatch"] = dispatch
    stock.__code__ = wait_for.__code__


def _replace_group_exit() -> None:
    stock = asyncio.TaskGroup.__aexit__

    async def leave(self: Any, kind: Any, exc: Any, tb: Any) -> Any:
        if _deterministic():
            return await _leave_group(self, kind, exc, tb)
        return await stock(self, kind, exc, tb)

    asyncio.TaskGroup.__aexit__ = leave


def _order_gather() -> None:
    gathering: Any = vars(asyncio.tasks)["_GatheringFuture"]
    stock_init = gathering.__init__

    def init(self: Any, children: Any, *, loop: Any) -> None:
        if type(loop) is DeterministicLoop:
            self._order = loop.next_order()
        stock_init(self, children, loop=loop)

    def order(self: Any) -> int:
        number = self.__dict__.get("_order")
        return object.__hash__(self) if number is None else number

    gathering.__init__ = init
    gathering.__hash__ = order
