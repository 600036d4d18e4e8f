"""Threads for plain activity functions: as many as there are slots, and a spare for each lost one.

A thread cannot be stopped. When an attempt times out its thread is *abandoned*: it is replaced at
once, and its late outcome falls on nobody. Past a quarter of the slots the worker says so and
takes no more work of that kind, since every abandoned thread still costs memory and time.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from perdure.engine.lanes import Lanes

_log = logging.getLogger("perdure.engine")


class Raised(Exception):
    """Carries an exception that a future or a task cannot hold without harm to the loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class _Job(NamedTuple):
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    context: contextvars.Context
    future: asyncio.Future[Any]
    on_begin: Callable[[], None]


class ThreadPool:
    """Runs functions in threads; made for activities, bound to the running loop."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.waiting: Lanes[_Job] = Lanes()
        """What waits for a thread; changed with the lock held."""
        self._tickets: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """One for each job that waits: which job a thread takes is seen when it takes one."""
        self._threads = 0
        self._busy: dict[asyncio.Future[Any], threading.Thread] = {}
        self._lock = threading.Lock()
        self._open = 0
        self.abandoned = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether too many threads were abandoned to take on more."""
        return self.abandoned * 4 > self.slots

    @property
    def room(self) -> int:
        """How many functions could begin at once."""
        return 0 if self.is_exhausted else max(0, self.slots - self._open)

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        on_begin: Callable[[], None] = lambda: None,
        lane: str = "",
        priority: int = 0,
    ) -> asyncio.Future[Any]:
        """Run ``fn(*args)`` in a thread, in a copy of the current context.

        If all threads are busy, lanes take turns (``engine/lanes.py``). ``on_begin`` is called in
        the thread, at once before: not if the future was cancelled first.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._open += 1
        future.add_done_callback(self._done)
        if self._threads < self.slots and self._threads < self._open:
            self._add_thread()
        job = _Job(fn, args, contextvars.copy_context(), future, on_begin)
        with self._lock:
            self.waiting.append(job, lane, priority)
        self._tickets.put(True)
        return future

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Give up on a function that still runs; its thread is replaced."""
        with self._lock:
            running = self._busy.pop(future, None)
        future.cancel()
        if running is not None:
            self.abandoned += 1
            self._add_thread()
            if self.is_exhausted:
                _log.error(
                    "%d of %d activity threads hang in functions that timed out; "
                    "this worker starts no more activities in threads",
                    self.abandoned,
                    self.slots,
                )

    def close(self) -> None:
        """Let the threads end after what they do now."""
        for _ in range(self._threads):
            self._tickets.put(False)

    def _done(self, _future: asyncio.Future[Any]) -> None:
        self._open -= 1

    def _add_thread(self) -> None:
        self._threads += 1
        loop = asyncio.get_running_loop()
        name = f"perdure-activity-{self._threads}"
        threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._tickets.get():
            with self._lock:
                job = self.waiting.popleft()
                future = job.future
                if future.cancelled():
                    continue
                self._busy[future] = threading.current_thread()
                job.on_begin()
            try:
                result, error = job.context.run(job.fn, *job.args), None
            except BaseException as exc:  # noqa: BLE001 - it is the function's outcome
                result, error = None, exc
            with self._lock:
                kept = self._busy.pop(future, None) is not None
            if kept:
                loop.call_soon_threadsafe(_settle, future, result, error)
            else:
                self.abandoned -= 1  # it came back after all; the spare stays
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, (Exception, asyncio.CancelledError)) and not isinstance(
        error, StopIteration
    ):
        future.set_exception(error)
    else:
        future.set_exception(Raised(error))
