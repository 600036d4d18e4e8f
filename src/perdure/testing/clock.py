"""Virtual time: an event loop that never sleeps, and what lives and dies together on it.

Theory of operation
-------------------
``VirtualLoop`` runs ready callbacks first in, first out. When none is ready, time jumps to the next
timer; when there is no timer either, nothing can ever happen again, and ``Idle`` is raised: a wait
without a waker is an error that shows itself at once. There is no selector, no thread and no
socket, so a run of the loop depends on its callbacks and nothing else. Tasks and futures hash by
the order of their creation, so that a set of them iterates alike every time.

A ``Process`` is a boundary within the loop: every callback belongs to the process in whose context
it was scheduled, and tasks started within a process stay in it. A killed process runs nothing any
more (no ``finally``, as with SIGKILL); a stopped one keeps what comes due and runs it, in order,
when it goes on (as with SIGSTOP).
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from perdure.engine.clock import told_by_store

T = TypeVar("T")
EPOCH = 1_800_000_000_000_000
"""Where virtual time begins, in microseconds since 1970."""

_set_running_loop = asyncio._set_running_loop  # pyright: ignore[reportPrivateUsage]


class Idle(Exception):
    """Nothing is ready, no timer runs, and what was to be awaited is not done."""


class TooLong(Exception):
    """Virtual time, or the number of callbacks, went past the limit."""


class State(enum.Enum):
    """What a process does."""

    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"


class Process:
    """Callbacks that live, stop and die together."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self._loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the process is dead."""
        self._held: list[Handle] = []
        self._context = contextvars.Context()
        self._context.run(_process.set, self)

    @property
    def is_alive(self) -> bool:
        """Whether it has not been killed."""
        return self.state is not State.DEAD

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Call a function as this process; what it schedules belongs to the process."""
        return self._context.copy().run(fn, *args)

    def put(self, variable: contextvars.ContextVar[T], value: T) -> None:
        """Set a context variable for everything the process starts from here on."""
        self._context.run(variable.set, value)

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of this process."""
        return self._loop.create_task(coro, context=self._context.copy())

    def kill(self) -> None:
        """End it: none of its callbacks ever runs again."""
        self.state = State.DEAD
        self._held.clear()
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self) -> None:
        """Freeze it."""
        if self.state is State.RUNNING:
            self.state = State.STOPPED

    def go_on(self) -> None:
        """Let a frozen process go on with everything that came due meanwhile."""
        if self.state is State.STOPPED:
            self.state = State.RUNNING
            held, self._held = self._held, []
            self._loop.requeue(held)

    def hold(self, handle: Handle) -> None:
        """Keep a callback of a frozen process."""
        self._held.append(handle)


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar(
    "perdure_process", default=None
)


def current_process() -> Process | None:
    """Return the process that is running."""
    return _process.get()


class Handle:
    """A scheduled callback; what ``asyncio.Handle`` and ``asyncio.TimerHandle`` are to callers."""

    __slots__ = ("_args", "_callback", "_context", "_when", "is_cancelled", "order", "process")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float,
        order: int,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context if context is not None else contextvars.copy_context()
        self._when = when
        self.process: Process | None = self._context.get(_process)
        self.order = order
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not run it."""
        self.is_cancelled = True
        self._callback, self._args = _nothing, ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """Return the loop time it is due."""
        return self._when

    def run(self) -> None:
        """Run the callback in its context."""
        self._context.run(self._callback, *self._args)


def _nothing() -> None:
    pass


class _Future(asyncio.Future[Any]):
    def __init__(self, loop: VirtualLoop) -> None:
        self._order = loop.next_order()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._order


class _Task(asyncio.Task[Any]):
    def __init__(self, coro: Coroutine[Any, Any, Any], loop: VirtualLoop, **options: Any) -> None:
        self._order = loop.next_order()
        super().__init__(coro, loop=loop, **options)
        # Tasks of a killed process stay pending on purpose.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._order


class VirtualLoop(asyncio.AbstractEventLoop):
    """See the module's text. ``limit_seconds`` of virtual time, ``limit_calls`` callbacks."""

    def __init__(self, *, limit_seconds: float = 3_600.0, limit_calls: int = 5_000_000) -> None:
        self.errors: list[dict[str, Any]] = []
        self.calls = 0
        self._limit_seconds = limit_seconds
        self._limit_calls = limit_calls
        self._now = 0.0
        self._order = 0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._tasks: dict[int, _Task] = {}
        self._prune_at = 256
        self._is_running = False
        self._is_closed = False

    def next_order(self) -> int:
        """Return the next creation number."""
        self._order += 1
        return self._order

    def requeue(self, handles: list[Handle]) -> None:
        """Make callbacks ready again, in their order."""
        self._ready.extend(handles)

    def run_until_complete(self, future: Any) -> Any:
        """Run until ``future`` (or a coroutine) is done and return its result.

        Raises:
            Idle: it can never be done.
            TooLong: a limit was passed.
        """
        task = asyncio.ensure_future(future, loop=self)
        _set_running_loop(self)
        self._is_running = True
        try:
            while not task.done():
                self._step()
        finally:
            self._is_running = False
            _set_running_loop(None)
        return task.result()

    def close(self) -> None:
        """Close what is still suspended, and the loop."""
        self._is_closed = True
        self._ready.clear()
        self._timers.clear()
        _set_running_loop(self)
        try:
            for task in list(self._tasks.values()):
                if not task.done():
                    _close(task.get_coro())
        finally:
            _set_running_loop(None)
        self._tasks.clear()

    def _step(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2].is_cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Idle(f"at {self._now:.6f} s nothing is left to happen")
            self._now = max(self._now, timers[0][0])
            if self._now > self._limit_seconds:
                raise TooLong(f"{self._limit_seconds:g} s of virtual time have passed")
            while timers and timers[0][0] <= self._now:
                handle = heapq.heappop(timers)[2]
                if not handle.is_cancelled:
                    ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.is_cancelled:
                continue
            process = handle.process
            if process is not None and process.state is not State.RUNNING:
                if process.state is State.STOPPED:
                    process.hold(handle)
                continue
            self.calls += 1
            try:
                handle.run()
            except Exception as exc:  # noqa: BLE001 - as asyncio does: reported, and the loop goes on
                self.call_exception_handler({"message": "a callback raised", "exception": exc})
        if self.calls > self._limit_calls:
            raise TooLong(f"{self._limit_calls} callbacks have run; something spins")

    # -- what asyncio asks of a loop -----------------------------------------------------------

    def time(self) -> float:
        """Return seconds of virtual time."""
        return self._now

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run a callback after those that are ready."""
        handle = Handle(callback, args, context, self._now, 0)
        self._ready.append(handle)
        return handle  # type: ignore[return-value]  # asyncio needs cancel() and cancelled() only

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback after ``delay`` seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run a callback at loop time ``when``; those due together keep their order."""
        order = self.next_order()
        handle = Handle(callback, args, context, when, order)
        heapq.heappush(self._timers, (when, order, handle))
        return handle  # type: ignore[return-value]  # asyncio needs cancel(), cancelled(), when()

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future that hashes by creation."""
        return _Future(self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Any = None, **_flavour: Any
    ) -> asyncio.Task[Any]:
        """Start a task that hashes by creation."""
        if len(self._tasks) >= self._prune_at:
            self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
            self._prune_at = max(256, 2 * len(self._tasks))
        task = _Task(coro, self, name=name or f"task-{self._order + 1}", context=context)
        self._tasks[hash(task)] = task
        return task

    def is_running(self) -> bool:
        """Whether callbacks run now."""
        return self._is_running

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def get_debug(self) -> bool:
        """Never."""
        return False

    def get_task_factory(self) -> None:
        """There is none."""
        return

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the report in ``errors``."""
        self.errors.append(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the report in ``errors``."""
        self.errors.append(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing is kept of them."""


class VirtualClock:
    """The engine's clock on a virtual loop; ``offset`` microseconds apart from the others."""

    def __init__(self, loop: VirtualLoop, offset: int = 0) -> None:
        self._loop = loop
        self._start = EPOCH + offset

    def now(self) -> int:
        """Return microseconds since 1970."""
        return self._start + round(self._loop.time() * 1_000_000)

    def resync(self, now: int | None = None, within: int = 0) -> None:
        """Go by the store's clock, which said ``now``, if it has one."""
        if now is not None:
            self._start += told_by_store(now, within, self.now()) - self.now()


def _close(coro: Any) -> None:
    try:
        coro.close()
    except BaseException:  # noqa: BLE001 - whatever its cleanup raises, the loop is gone
        return
