"""Eviction: closing every coroutine of a run that leaves memory (R6).

``Evicted`` is thrown into each coroutine and generator until it ends. Cleanup code runs, but a trap
it reaches records nothing and waits, to be thrown out of again: nothing the run does here is seen.
What will not end is kept referenced for good, because the garbage collector would run its
``finally`` blocks in any thread, at any time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from perdure import errors
from perdure.kernel.loop import DeterministicLoop

_THROWS = 100
_ROUNDS = 10
_log = logging.getLogger("perdure.kernel")

graveyard: list[Any] = []
"""Coroutines and generators that refused to end at eviction."""


class Generators:
    """The run's async generators, held so that only eviction closes them."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[Any] = []

    def hold(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Take a generator that begins (``firstiter`` of the asyncgen hooks)."""
        if len(self._held) > 32:
            self._held = self.suspended()
        self._held.append(generator)

    def suspended(self) -> list[Any]:
        """Return those that have not ended."""
        return [generator for generator in self._held if generator.ag_frame is not None]


def leave_alone(_generator: object) -> None:
    """Let eviction close the generator (``finalizer``): never a task of the real loop."""


def close_all(loop: DeterministicLoop, generators: Generators, what: str) -> None:
    """Close the tasks' coroutines, then the generators; called inside an evicting activation."""
    closed: set[int] = set()
    for _ in range(_ROUNDS):  # cleanup code may create tasks of its own
        tasks = [task for task in loop.live_tasks() if hash(task) not in closed]
        if not tasks:
            break
        for task in tasks:
            closed.add(hash(task))
            coro: Any = task.get_coro()
            if coro is not None:
                _close(coro, coro.throw, what)
    for generator in generators.suspended():
        if not generator.ag_running:
            step = generator.athrow(errors.Evicted())
            _close((generator, step), _first_send(step), what)
    loop.ready.clear()


def _first_send(step: Any) -> Callable[[BaseException], Any]:
    """Return what throws into a generator: ``athrow`` begins with a ``send``."""
    has_begun = False

    def throw(exc: BaseException) -> Any:
        nonlocal has_begun
        if has_begun:
            return step.throw(exc)
        has_begun = True
        return step.send(None)

    return throw


def _close(what: Any, throw: Callable[[BaseException], Any], run: str) -> None:
    """Throw ``Evicted`` until it ends; bury what does not."""
    for _ in range(_THROWS):
        try:
            throw(errors.Evicted())
        except BaseException:  # noqa: BLE001 - whatever cleanup raises, the run is leaving memory
            return
    graveyard.append(what)
    _log.warning(
        "a coroutine of %s caught its eviction %d times and is kept for good (%d are): let "
        "BaseException pass in workflow code",
        run,
        _THROWS,
        len(graveyard),
    )
