"""Eviction: closing every coroutine of a run that leaves memory (R6).

``Evicted`` is thrown into each coroutine and generator until it ends. Cleanup code runs, but a trap
it reaches records nothing and waits, to be thrown out of again: nothing the run does here is seen.
What will not end is kept referenced for good, because the garbage collector would run its
``finally`` blocks in any thread, at any time.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from perdure import errors
from perdure.kernel.loop import DeterministicLoop, OrderedTask

_running_loop = asyncio._get_running_loop  # pyright: ignore[reportPrivateUsage]
_enter_task: Callable[[Any, Any], None] = vars(asyncio.tasks)["_enter_task"]
_leave_task: Callable[[Any, Any], None] = vars(asyncio.tasks)["_leave_task"]
_THROWS = 100
_ROUNDS = 10
_log = logging.getLogger("perdure.kernel")

graveyard: list[Any] = []
"""Coroutines and generators that refused to end at eviction."""


def hold(generator: AsyncGenerator[Any, Any]) -> None:
    """Give a generator that begins to the run that is active (``firstiter`` of the hooks)."""
    loop = _running_loop()
    if type(loop) is DeterministicLoop:
        loop.hold(generator)


def leave_alone(_generator: object) -> None:
    """Let eviction close the generator (``finalizer``): never a task of the real loop."""


@contextlib.contextmanager
def hooks() -> Generator[None]:
    """Keep the hooks for async generators in force over many activations in this thread.

    Each activation sees to it by itself; but every change raises four audit events, and the engine
    has a hook for these in Python.
    """
    outer = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=hold, finalizer=leave_alone)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*outer)


def close_all(loop: DeterministicLoop, run: str) -> None:
    """Close the tasks' coroutines, then the generators; called inside an evicting activation."""
    closed: set[int] = set()
    for _ in range(_ROUNDS):  # cleanup code may create tasks of its own
        tasks = [task for task in loop.live_tasks() if hash(task) not in closed]
        if not tasks:
            break
        for task in tasks:
            closed.add(hash(task))
            if not _close_task(task, loop):
                _bury(task.get_coro(), run)
    for generator in loop.suspended_generators():
        if not generator.ag_running and not _close_generator(generator):
            _bury(generator, run)
    loop.ready.clear()


def _close_task(task: OrderedTask, loop: DeterministicLoop) -> bool:
    """Throw ``Evicted`` until the task's coroutine ends; False if it will not."""
    coro: Any = task.get_coro()
    for _ in range(_THROWS):
        # As the current task: a timeout in cleanup code would refuse to begin without one.
        _enter_task(loop, task)
        try:
            coro.throw(errors.Evicted())
        except BaseException:  # noqa: BLE001 - whatever cleanup raises, the run is leaving memory
            return True
        finally:
            _leave_task(loop, task)
    return False


def _close_generator(generator: Any) -> bool:
    """The same for an async generator, which may also yield when something is thrown in."""
    step: Any = None
    for _ in range(_THROWS):
        try:
            if step is None:
                step = generator.athrow(errors.Evicted())
                step.send(None)
            else:
                step.throw(errors.Evicted())
        except BaseException:  # noqa: BLE001 - see above
            if generator.ag_frame is None:
                return True
            step = None
    return False


def _bury(what: Any, run: str) -> None:
    graveyard.append(what)
    _log.warning(
        "a coroutine of %s caught its eviction %d times and is kept for good (%d are): let "
        "BaseException pass in workflow code",
        run,
        _THROWS,
        len(graveyard),
    )
