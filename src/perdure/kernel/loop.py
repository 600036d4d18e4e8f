"""The deterministic event loop: a ready queue and virtual time, nothing else.

Theory of operation
-------------------
An activation makes this loop the running one, runs ready callbacks until none is left, and gives
the real loop back. There is no selector, no thread, no wall clock: ``time()`` is the turn's
recorded time, ``call_later`` a durable timer of the host, everything that would touch the world
raises. Stock ``asyncio`` primitives run on it unchanged (``kernel/compat.py`` evens out what
differs between Python versions).

Order. Callbacks run first in, first out. Tasks and futures hash by a creation counter, so the sets
that asyncio keeps of them (``TaskGroup``, ``wait``) iterate alike in every replay; by address they
do not (300 aborts of one TaskGroup gave 212 to 300 orders). The tasks of all runs share these small
hashes, so they must not gather in asyncio's set of every task in the process: with 16,000 live runs
in it, starting one more took 0.3 ms.

What must not be put here: knowledge of events, commands or workflows.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextvars
import inspect
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, NoReturn, Protocol

from perdure.errors import Invalid, UsageError

_PRUNE_AT = 64
_PRUNE_GENERATORS_AT = 32
_unregister_task: Callable[[Any], None] = vars(asyncio.tasks)["_unregister_task"]


class TimerHost(Protocol):
    """Who keeps the loop's timers: the instance."""

    def start_timer(self, seconds: float, fire: Callable[[], None]) -> int:
        """Start a durable timer for loop time ``seconds``; return its id."""
        ...

    def cancel_timer(self, timer: int) -> None:
        """Cancel it; no effect if it has fired."""
        ...

    def loop_failed(self, context: dict[str, Any]) -> None:
        """Report what asyncio would send to the loop's exception handler."""
        ...


class Nobody:
    """The host of a loop whose run has left memory: nothing it says is heard."""

    def start_timer(self, seconds: float, fire: Callable[[], None]) -> int:
        """Start none."""
        return 0

    def cancel_timer(self, timer: int) -> None:
        """There is none."""

    def loop_failed(self, context: dict[str, Any]) -> None:
        """Too late to matter."""


NOBODY = Nobody()


class Handle:
    """A callback in the ready queue; what ``asyncio.Handle`` is, without the debugging."""

    __slots__ = ("_args", "_callback", "_context", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not run the callback."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def run(self, host: TimerHost) -> None:
        """Run the callback in its context; an exception of it fails the workflow."""
        try:
            self._context.run(self._callback, *self._args)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - it fails the run
            host.loop_failed({"message": "a callback raised", "exception": exc, "handle": self})


class TimerHandle(Handle):
    """A durable timer; what ``call_at`` returns."""

    __slots__ = ("_host", "_timer", "_when")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        host: TimerHost,
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._host = host
        self._timer: int | None = host.start_timer(when, self._fire)

    def when(self) -> float:
        """Return the loop time it is due."""
        return self._when

    def cancel(self) -> None:
        """Cancel the timer, durably."""
        super().cancel()
        if self._timer is not None:
            timer, self._timer = self._timer, None
            self._host.cancel_timer(timer)

    def _fire(self) -> None:
        self._timer = None
        if not self.is_cancelled:
            self.run(self._host)


class OrderedFuture(asyncio.Future[Any]):
    """A future that hashes by its creation order."""

    def __init__(self, loop: DeterministicLoop) -> None:
        self._order = loop.next_order()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._order


class OrderedTask(asyncio.Task[Any]):
    """A task that hashes by its creation order."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], loop: DeterministicLoop, **kwargs: Any
    ) -> None:
        self._order = loop.next_order()
        super().__init__(coro, loop=loop, **kwargs)
        _unregister_task(self)
        # A run that leaves memory leaves pending tasks behind on purpose.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._order


class DeterministicLoop(asyncio.AbstractEventLoop):
    """See the module's text. ``tasks`` keeps every unfinished task alive (I10)."""

    def __init__(self, host: TimerHost) -> None:
        self.host = host
        self.ready: deque[Handle] = deque()
        self.tasks: dict[int, OrderedTask] = {}
        self.now_seconds = 0.0
        self.is_stopping = False
        self.is_read_only = False
        self.generators: list[Any] = []
        """Async generators that have begun, held so that only eviction closes them."""
        self._order = 0
        self._prune_at = _PRUNE_AT

    def next_order(self) -> int:
        """Return the next creation number."""
        self._order += 1
        return self._order

    def run_ready(self) -> None:
        """Run callbacks until none is ready, or until :meth:`stop`."""
        ready = self.ready
        while ready and not self.is_stopping:
            handle = ready.popleft()
            if not handle.is_cancelled:
                handle.run(self.host)

    def live_tasks(self) -> list[OrderedTask]:
        """Return unfinished tasks in creation order."""
        return [task for task in self.tasks.values() if not task.done()]

    def unawaited_tasks(self) -> list[OrderedTask]:
        """Return unfinished tasks that nobody awaits, in creation order.

        One with a done callback is awaited (or in a group, a gather): what happens to its parent
        reaches it.
        """
        return [task for task in self.live_tasks() if not getattr(task, "_callbacks", None)]

    def hold(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Hold an async generator that begins."""
        if len(self.generators) > _PRUNE_GENERATORS_AT:
            self.generators = self.suspended_generators()
        self.generators.append(generator)

    def suspended_generators(self) -> list[Any]:
        """Return those that have not ended."""
        return [generator for generator in self.generators if generator.ag_frame is not None]

    # -- what asyncio asks of a loop ---------------------------------------------------------

    def time(self) -> float:
        """Return seconds since the run began, by the turn's recorded time."""
        return self.now_seconds

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = Handle(callback, args, context)
        self.ready.append(handle)
        return handle  # type: ignore[return-value]  # asyncio needs cancel() and cancelled() only

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_seconds + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        if not math.isfinite(when):
            raise Invalid(f"a timer of {when} seconds: it must be a finite number")
        handle = TimerHandle(when, callback, args, context, self.host)
        return handle  # type: ignore[return-value]  # asyncio needs cancel(), cancelled(), when()

    def create_future(self) -> OrderedFuture:
        return OrderedFuture(self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Any = None, **_flavour: Any
    ) -> OrderedTask:
        if self.is_read_only:
            coro.close()
            raise UsageError("a query handler or validator may not create tasks")
        # Eager starts (3.12's factories, 3.14's argument) would change the order: never here.
        if len(self.tasks) >= self._prune_at:
            self.tasks = {key: task for key, task in self.tasks.items() if not task.done()}
            self._prune_at = max(_PRUNE_AT, 2 * len(self.tasks))
        task = OrderedTask(coro, self, name=name or f"task-{self._order + 1}", context=context)
        self.tasks[hash(task)] = task
        return task

    def stop(self) -> None:
        self.is_stopping = True

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        _refuse("set_debug")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.host.loop_failed(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.host.loop_failed(context)

    def get_task_factory(self) -> None:
        return None

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> NoReturn:
        _refuse("call_soon_threadsafe")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        _refuse("to_thread and executors")


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"{what} cannot be used in workflow code: it would not replay. "
        "Do it in an activity and await that"
    )


def _forbid(name: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(name)

    async def refuse_async(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(name)

    stock = getattr(asyncio.AbstractEventLoop, name)
    return refuse_async if inspect.iscoroutinefunction(stock) else refuse


_OWN = set(vars(DeterministicLoop))
for _name in dir(asyncio.AbstractEventLoop):
    # Sockets, servers, subprocesses, signals, executors, run_forever …: each says why not.
    if not _name.startswith("_") and _name not in _OWN:
        setattr(DeterministicLoop, _name, _forbid(_name))
