"""Differences between Python versions, evened out in one place (R5).

Histories outlive interpreters, so code must give the same commands on every supported Python. The
measure is 3.13's behaviour. While a deterministic loop runs, and only then, stock asyncio
dispatches to the versions here.

On every Python, because stock code goes by the address of objects:

* ``as_completed`` starts what it is given in the order of a set; here in the order given;
* ``gather``'s own future gets a creation number, like the loop's;
* ``all_tasks`` asks the loop, whose tasks are not in asyncio's own set (see ``loop.py``).

On every Python, because stock code knows no interruption but a cancel:

* ``TaskGroup.__aexit__`` takes a broken link that meets it as it takes an outside cancel: it ends
  its tasks and waits for them before the error goes on.

Before 3.13, because they behaved differently:

* ``wait_for`` (before 3.12) wrapped its argument in a task, so ``gather(wait_for(a), b)`` asked for
  ``b`` first; ``gather`` (before 3.12) saw futures that were done already one step later;
* ``TaskGroup.__aexit__`` decided about an outside cancel before its children had ended, and lost
  one that met a child's failure;
* ``Task.uncancel`` did not take back a cancel that was still to be delivered, so that a timeout
  around a failed group cancelled the await after it;
* ``Condition.wait`` lost a notification, and ``Semaphore.acquire`` a release, that met a cancel.

``FLAVOUR`` is recorded in event 1. A run recorded under another flavour is replayed like any other;
what this file misses would show as a NondeterminismError, and parks the run rather than corrupt it.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import collections
import sys
import types
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, cast

from perdure.errors import LinkedRunFailed
from perdure.kernel import unawaited
from perdure.kernel.loop import DeterministicLoop, Handle

FLAVOUR = "asyncio-3.13"

_installed = False
chosen: dict[str, Callable[..., Any]] = {}
"""What a function of ``asyncio.tasks`` calls now: own or stock code, by the running loop."""


def install() -> None:
    """Install the dispatchers. Idempotent; without effect outside a deterministic loop."""
    global _installed  # noqa: PLW0603 - asyncio is patched once per process
    if _installed:
        return
    _installed = True
    unawaited.install()
    _order_gather()
    _dispatch_function(_forward_as_completed, _AsCompleted)
    _dispatch_function(_forward_all_tasks, _all_tasks)
    _dispatch_method(asyncio.TaskGroup, "__aexit__", _leave_group)
    if sys.version_info < (3, 12):
        _dispatch_function(_forward_wait_for, _wait_for)
        _dispatch_function(_forward_gather, _gather)
    if sys.version_info < (3, 13):
        _dispatch_method(asyncio.Timeout, "__aexit__", _leave_timeout)
        _dispatch_method(asyncio.Condition, "wait", _wait_for_notice)
        _dispatch_method(asyncio.Semaphore, "acquire", _acquire)


# -- how stock code is made to dispatch ----------------------------------------------------------


def _deterministic() -> bool:
    return type(asyncio._get_running_loop()) is DeterministicLoop  # pyright: ignore[reportPrivateUsage]


def _dispatch_function(forward: types.FunctionType, own: Callable[..., Any]) -> None:
    """Let a function of ``asyncio.tasks`` ask first which loop is running.

    Its code object is swapped, not the name: ``from asyncio import wait_for`` may have happened.
    """
    name = forward.__name__.removeprefix("_forward_")
    stock: Any = vars(asyncio.tasks)[name]
    original: Any = types.FunctionType(
        stock.__code__, stock.__globals__, name, stock.__defaults__, stock.__closure__
    )
    original.__kwdefaults__ = stock.__kwdefaults__

    def choose(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs) if _deterministic() else original(*args, **kwargs)

    chosen[name] = choose
    stock.__code__ = forward.__code__


def _forward_all_tasks(loop: Any = None) -> Any:
    # Runs with the globals of asyncio.tasks, like the other three: hence the import.
    from perdure.kernel.compat import chosen

    return chosen["all_tasks"](loop)


def _forward_as_completed(fs: Any, *, timeout: float | None = None) -> Any:
    from perdure.kernel.compat import chosen

    return chosen["as_completed"](fs, timeout=timeout)


def _forward_gather(*coros_or_futures: Any, return_exceptions: bool = False) -> Any:
    from perdure.kernel.compat import chosen

    return chosen["gather"](*coros_or_futures, return_exceptions=return_exceptions)


async def _forward_wait_for(fut: Any, timeout: float | None) -> Any:
    from perdure.kernel.compat import chosen

    return await chosen["wait_for"](fut, timeout)


def _dispatch_method(owner: type, name: str, own: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    stock = getattr(owner, name)

    async def choose(self: Any, *args: Any) -> Any:
        return await (own(self, *args) if _deterministic() else stock(self, *args))

    choose.__doc__ = stock.__doc__
    setattr(owner, name, choose)


# -- every Python --------------------------------------------------------------------------------


def _order_gather() -> None:
    gathering: Any = vars(asyncio.tasks)["_GatheringFuture"]
    stock_init = gathering.__init__

    def init(self: Any, children: Any, *, loop: Any) -> None:
        if type(loop) is DeterministicLoop:
            self._order = loop.next_order()
        stock_init(self, children, loop=loop)

    def order(self: Any) -> int:
        number = getattr(self, "_order", None)  # not every Python has a __dict__ here
        return object.__hash__(self) if number is None else number

    gathering.__init__ = init
    gathering.__hash__ = order


def _all_tasks(_loop: Any = None) -> set[asyncio.Task[Any]]:
    running: Any = asyncio.get_running_loop()
    return set(running.live_tasks())


class _AsCompleted:
    """What ``as_completed`` returns: for ``for`` and, as in 3.13, for ``async for``."""

    def __init__(self, fs: Iterable[Any], *, timeout: float | None = None) -> None:
        if isinstance(fs, Coroutine) or asyncio.isfuture(fs):
            raise TypeError(f"expects an iterable of awaitables, not {type(fs).__name__}")
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        started = [asyncio.ensure_future(one, loop=loop) for one in dict.fromkeys(fs)]
        self._open = dict.fromkeys(started)
        self._left = len(self._open)
        self._timer: asyncio.TimerHandle | None = None
        for future in started:
            future.add_done_callback(self._one_finished)
        if started and timeout is not None:
            self._timer = loop.call_later(timeout, self._time_is_up)

    def __iter__(self) -> _AsCompleted:
        return self

    def __aiter__(self) -> _AsCompleted:
        return self

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._result_of_next()

    async def __anext__(self) -> asyncio.Future[Any]:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next()

    async def _result_of_next(self) -> Any:
        return (await self._next()).result()

    async def _next(self) -> asyncio.Future[Any]:
        future = await self._finished.get()
        if future is None:
            raise TimeoutError
        return future

    def _one_finished(self, future: asyncio.Future[Any]) -> None:
        if future not in self._open:
            return
        del self._open[future]
        self._finished.put_nowait(future)
        if not self._open and self._timer is not None:
            self._timer.cancel()

    def _time_is_up(self) -> None:
        for future in self._open:
            future.remove_done_callback(self._one_finished)
            self._finished.put_nowait(None)
        self._open.clear()


async def _leave_group(group: Any, kind: type[BaseException] | None, exc: Any, tb: Any) -> None:
    """Leave a TaskGroup: wait for the children first, settle the parent's cancel count after.

    A broken link comes out as it is, as a cancel does; if tasks have failed, among their errors.
    """
    group._exiting = True
    cancelled = exc if isinstance(exc, asyncio.CancelledError) else None
    broken = exc if isinstance(exc, LinkedRunFailed) else None
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
        except LinkedRunFailed as outside:
            # Kept also if the group is aborting: it came in the place of the group's own cancel.
            broken = outside
            if not group._aborting:
                group._abort()
        group._on_completed_fut = None
    if group._base_error is not None:
        raise group._base_error
    parent = group._parent_task
    if group._parent_cancel_requested and await _uncancel(parent) == 0:
        cancelled = None
    if cancelled is not None and broken is None and not group._errors:
        raise cancelled
    if kind is not None and not isinstance(exc, (asyncio.CancelledError, LinkedRunFailed)):
        group._errors.append(exc)
    if group._errors and broken is not None:
        group._errors.append(broken)
    elif not group._errors and broken is None:
        return
    if parent.cancelling():
        # Someone else wants the parent gone as well: let the next await say so again.
        parent.uncancel()
        parent.cancel()
    failures, group._errors = group._errors, None
    if broken is not None and not failures:
        raise broken
    raise BaseExceptionGroup("unhandled errors in a TaskGroup", failures) from None


# -- before 3.12 ---------------------------------------------------------------------------------


async def _wait_for(awaitable: Any, timeout: float | None) -> Any:
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await awaitable
    future = asyncio.ensure_future(awaitable)
    if future.done():
        return future.result()
    future.cancel()
    await asyncio.wait([future])
    try:
        return future.result()
    except asyncio.CancelledError as exc:
        raise TimeoutError from exc


def _gather(*awaitables: Any, return_exceptions: bool = False) -> asyncio.Future[list[Any]]:
    loop = asyncio.get_running_loop()
    if not awaitables:
        nothing: asyncio.Future[list[Any]] = loop.create_future()
        nothing.set_result([])
        return nothing
    futures: dict[Any, Any] = {}
    for one in awaitables:
        if one not in futures:
            futures[one] = asyncio.ensure_future(one, loop=loop)
    gathering: Any = vars(asyncio.tasks)["_GatheringFuture"]
    outer = gathering([futures[one] for one in awaitables], loop=loop)
    left = len(futures)

    def one_finished(future: Any) -> None:
        nonlocal left
        left -= 1
        failure = _cancelled_as(future) if future.cancelled() else future.exception()
        if outer.done():
            return
        if failure is not None and not return_exceptions:
            outer.set_exception(failure)
        elif not left and outer._cancel_requested:
            outer.set_exception(_cancelled_as(future))
        elif not left:
            outer.set_result([_outcome(futures[one]) for one in awaitables])

    waiting = [future for future in futures.values() if not future.done()]
    for future in waiting:
        future.add_done_callback(one_finished)
    for future in futures.values():
        if future not in waiting:
            one_finished(future)
    return outer


def _outcome(future: Any) -> Any:
    if future.cancelled():
        return _cancelled_as(future)
    failure = future.exception()
    return future.result() if failure is None else failure


def _cancelled_as(future: Any) -> asyncio.CancelledError:
    return future._make_cancelled_error()


# -- before 3.13 ---------------------------------------------------------------------------------


async def _leave_timeout(timeout: Any, kind: type[BaseException] | None, exc: Any, tb: Any) -> None:
    """Leave ``asyncio.timeout``: it is a TimeoutError if nobody else wants the task cancelled."""
    if timeout._timeout_handler is not None:
        timeout._timeout_handler.cancel()
        timeout._timeout_handler = None
    states = cast("Any", type(timeout._state))
    if timeout._state is states.ENTERED:
        timeout._state = states.EXITED
        return
    assert timeout._state is states.EXPIRING
    timeout._state = states.EXPIRED
    if await _uncancel(timeout._task) > timeout._cancelling or kind is None:
        return
    if issubclass(kind, asyncio.CancelledError):
        raise TimeoutError from exc
    _name_timeout(exc)
    if isinstance(exc, ExceptionGroup):
        inner: tuple[BaseException, ...] = cast("Any", exc).exceptions
        for failure in inner:
            _name_timeout(failure)


def _name_timeout(failure: BaseException) -> None:
    """Let an error that was raised while the timeout cancelled say that there was a timeout."""
    while failure.__context__ is not None:
        if isinstance(failure.__context__, asyncio.CancelledError):
            timeout = TimeoutError()
            timeout.__context__ = timeout.__cause__ = failure.__context__
            failure.__context__ = timeout
            return
        failure = failure.__context__


async def _uncancel(task: Any) -> int:
    """Do what ``uncancel`` does in 3.13: the last one takes back a cancel not yet delivered.

    Before, nothing but a step of the task could take it back. So the task, which runs this, yields
    for a step of its own that comes before anything else, and swallows the cancel there.
    """
    left = task.uncancel()
    if left == 0 and task._must_cancel:
        loop = task.get_loop()
        loop.ready.appendleft(Handle(lambda: loop.ready.rotate(1), (), None))
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
    return left


async def _wait_for_notice(condition: Any) -> bool:
    """Wait on a Condition; a notification that meets a cancel goes to the next waiter."""
    if not condition.locked():
        raise RuntimeError("cannot wait on un-acquired lock")
    future = condition._get_loop().create_future()
    condition.release()
    try:
        try:
            condition._waiters.append(future)
            try:
                await future
            finally:
                condition._waiters.remove(future)
        finally:
            await _reacquire(condition)
    except BaseException:
        waiting = next((one for one in condition._waiters if not one.done()), None)
        if waiting is not None:
            waiting.set_result(False)
        raise
    return True


async def _reacquire(condition: Any) -> None:
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await condition.acquire()
            break
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


async def _acquire(semaphore: Any) -> bool:
    """Acquire a Semaphore; whatever happens, nobody waits while there is a value to take."""
    if not semaphore.locked():
        semaphore._value -= 1
        return True
    waiters: collections.deque[Any] | None = semaphore._waiters
    if waiters is None:
        waiters = semaphore._waiters = collections.deque[Any]()
    future = semaphore._get_loop().create_future()
    waiters.append(future)
    try:
        try:
            await future
        finally:
            waiters.remove(future)
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            semaphore._value += 1
        raise
    finally:
        while semaphore._value > 0:
            before = semaphore._value
            semaphore._wake_up_next()
            if semaphore._value == before:
                break
    return True
