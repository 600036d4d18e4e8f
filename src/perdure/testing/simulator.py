"""A cluster on one thread: workers that die, stop and come back, over one database in memory.

``Simulation`` wires a virtual loop, a shared in-memory database and any number of workers, each an
ordinary engine in a process of its own behind a faulty desk. All that is left to chance comes from
the seed: the same seed gives the same run, callback by callback. With ``on_server`` the database is
on a server (``network.py``), else a file of the workers' machine::

    async def main() -> Receipt:
        worker = sim.worker("a", [orders, charge])
        await worker.start()
        handle = await worker.spawn(worker.client.start(orders, order))
        worker.kill()
        await sim.worker("b", [orders, charge]).start()
        process, client = sim.foreign_client("shop")
        return await process.spawn(client.get(handle.id).result())

    with Simulation(seed=7) as sim:
        receipt = sim.run(main())
        assert checks.problems(sim.store, [orders]) == []
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from perdure import errors
from perdure.activity import Attempt
from perdure.client import Client
from perdure.door import StoreDoor
from perdure.engine.activities import Runner
from perdure.engine.core import Core
from perdure.engine.engine import Engine
from perdure.engine.lanes import Lanes
from perdure.engine.work import Work
from perdure.testing.blank import new_database
from perdure.testing.clock import Process, VirtualClock, VirtualLoop
from perdure.testing.faults import Calm, Died, Fault, FaultyDesk, Plan, Sea
from perdure.testing.network import Network

T = TypeVar("T")
_LOGGERS = ("perdure", "asyncio")
_LIMIT_CALLS = 500_000


class _Inline:
    """Stands where a worker's threads are: what is submitted runs on the loop, all at once."""

    is_exhausted = False
    room = 100

    def __init__(self, desk: FaultyDesk) -> None:
        self._desk = desk
        self.waiting: Lanes[Any] = Lanes()

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        on_begin: Callable[[], None] = lambda: None,
        **_place: Any,
    ) -> asyncio.Future[Any]:
        """Run ``fn(*args)`` soon."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        loop.call_soon(self._run, future, fn, args, on_begin)
        return future

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Give up on what has not begun."""
        future.cancel()

    def close(self) -> None:
        """There is nothing to close."""

    def _run(
        self,
        future: asyncio.Future[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        on_begin: Callable[[], None],
    ) -> None:
        if future.done():
            return
        on_begin()
        try:
            result = fn(*args)
        except Died:
            self._desk.die()
        except Exception as exc:  # noqa: BLE001 - it is the function's outcome
            future.set_exception(exc)
        else:
            future.set_result(result)


class SimulatedWorker:
    """A worker in a process of its own. After :meth:`kill` or :meth:`stop`, make another."""

    def __init__(
        self,
        sim: Simulation,
        name: str,
        definitions: Sequence[Any],
        options: dict[str, Any],
        prepare: Callable[[Engine], None] | None = None,
        clock_offset: int = 0,
    ) -> None:
        self.name = name
        self.process = sim.process(name)
        self.is_up = False
        self.may_die = False
        self.on_attempt: Callable[[Work], None] = _ignore
        """Called when an attempt of an activity begins."""
        self._sim = sim
        self._definitions = definitions
        self._options = options
        self._prepare = prepare
        self._clock_offset = clock_offset
        self.engine = self._make_engine()

    def __repr__(self) -> str:
        return f"<{self.name} {self.process.state.value}>"

    @property
    def client(self) -> Client:
        """The engine's own client; use it in tasks that :meth:`spawn` started."""
        return self.engine.client

    @property
    def core(self) -> Core:
        """The parts of the running engine."""
        core = self.engine._core  # pyright: ignore[reportPrivateUsage]
        assert core is not None, "the engine is not running"
        return core

    async def start(self) -> None:
        """Start the engine; while the store is unavailable, try again."""
        started = self.process.spawn(self._start())
        await ended(self.process, started)
        self.is_up = self.process.is_alive and started.result()

    def _make_engine(self) -> Engine:
        self.desk = FaultyDesk(self._sim.sea, self.process, may_die=self.may_die)
        self.desk.on_death = self._died
        engine = Engine(
            definitions=self._definitions,
            desk=self.desk,
            clock=VirtualClock(self._sim.loop, self._clock_offset),
            chance=self._sim.bytes,
            name=self.name,
            **self._options,
        )
        if self._prepare is not None:
            self._prepare(engine)
        return engine

    async def _start(self) -> bool:
        while True:
            try:
                await self.engine.start()
            except errors.Unavailable as error:
                self._sim.note(self.name, "could not start", str(error))
                await asyncio.sleep(0.2)
                self.engine = self._make_engine()
            else:
                inline: Any = _Inline(self.desk)
                self.core.runner.threads = inline
                self._hear_of_attempts(self.core.runner)
                return True

    def _hear_of_attempts(self, runner: Runner) -> None:
        make = runner._attempt_context  # pyright: ignore[reportPrivateUsage]

        def begin(work: Work) -> Attempt:
            self.on_attempt(work)
            return make(work)

        runner._attempt_context = begin  # pyright: ignore[reportPrivateUsage]

    async def stop(self, grace: str = "500ms") -> None:
        """Stop the engine gracefully."""
        self.is_up = False
        stopped = self.process.spawn(self.engine.stop(grace))
        await ended(self.process, stopped)
        if self.process.is_alive:
            self.process.kill()
            stopped.result()

    def kill(self) -> None:
        """End the process where it stands."""
        if self.process.is_alive:
            self.desk.die()

    def freeze(self) -> None:
        """Stop the process, as SIGSTOP does."""
        self.process.stop()

    def thaw(self) -> None:
        """Let it go on, as SIGCONT does."""
        self.process.go_on()

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task inside the worker's process: it dies with it."""
        return self.process.spawn(coro)

    def _died(self) -> None:
        self.is_up = False
        self._sim.note(self.name, "died")


async def ended(process: Process, task: asyncio.Task[Any], seconds: float | None = None) -> bool:
    """Wait from outside for a task of a process, or for the end of the process.

    Returns whether the task is done.
    """
    waits: list[asyncio.Future[Any]] = [task, process.ended]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return task.done()


class Simulation:
    """See the module's text. Use it as a context manager: it keeps logs and closes the database."""

    def __init__(
        self,
        seed: int | str,
        *,
        plan: Plan | None = None,
        limit_seconds: float = 600.0,
        on_server: bool = False,
    ) -> None:
        self.seed = seed
        self.loop = VirtualLoop(limit_seconds=limit_seconds, limit_calls=_LIMIT_CALLS)
        self.clock = VirtualClock(self.loop)
        self.store: Any = new_database(self.clock.now())
        self.network = Network(self.loop, self.chance("network")) if on_server else None
        self.sea = Sea(self.loop, self.store, plan or Calm(), self.network)
        self.sea.on_fault = self._fault
        self.workers: list[SimulatedWorker] = []
        self.trace: list[tuple[float, str, str, tuple[Any, ...]]] = []
        self.alarms: list[str] = []
        """Log records of level CRITICAL: parts of the engine that ended unexpectedly."""
        self._bytes = self.chance("bytes")
        self._tick = 0
        self._log = _Log(self)
        self._before: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = []

    def __enter__(self) -> Self:
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            self._before.append((logger, logger.handlers, logger.level, logger.propagate))
            logger.handlers, logger.propagate = [self._log], False
            logger.setLevel(logging.WARNING)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            _evict(worker.engine)
        self.loop.close()
        self.store.close()
        for logger, handlers, level, propagate in self._before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)

    def chance(self, name: str) -> Random:
        """Return a stream of chance of its own, so that one more draw here moves nothing there."""
        return Random(f"{self.seed}/{name}")  # noqa: S311 - repeatable is what it must be

    def bytes(self, size: int) -> bytes:
        """Return seeds and ids for runs."""
        return self._bytes.randbytes(size)

    def tick(self) -> int:
        """Return the next number of a counter that orders everything that happens."""
        self._tick += 1
        return self._tick

    def process(self, name: str) -> Process:
        """Make a process."""
        return Process(self.loop, name)

    def worker(
        self,
        name: str,
        definitions: Sequence[Any],
        *,
        prepare: Callable[[Engine], None] | None = None,
        clock_offset: int = 0,
        **options: Any,
    ) -> SimulatedWorker:
        """Make a worker; ``options`` go to its engine, which ``prepare`` gets before it starts.

        ``clock_offset``: how many microseconds its machine's clock is ahead.
        """
        worker = SimulatedWorker(self, name, definitions, options, prepare, clock_offset)
        self.workers.append(worker)
        return worker

    def foreign_client(self, name: str, *, clock_offset: int = 0) -> tuple[Process, Client]:
        """Make a client in a process of its own that talks to the database alone."""
        process = self.process(name)
        desk = FaultyDesk(self.sea, process)
        clock = VirtualClock(self.loop, clock_offset)
        if self.network is not None:
            clock.resync(self.network.time())  # as a client does that is opened
        return process, Client(door=StoreDoor(desk, clock.now, self.bytes))

    async def until(self, holds: Callable[[], bool], *, every: float = 0.25) -> None:
        """Wait until ``holds()``, looking every so many seconds of virtual time."""
        while True:
            if holds():
                return
            await asyncio.sleep(every)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until ``main`` is done."""
        return self.loop.run_until_complete(main)

    def note(self, who: str, what: str, *more: Any) -> None:
        """Add a line to the trace."""
        self.trace.append((self.loop.time(), who, what, more))

    def report(self, last: int = 200) -> str:
        """Return the last lines of the trace."""
        lines = [
            f"{at:10.6f} {who:<8} {what} {' '.join(str(item) for item in more)}"
            for at, who, what, more in self.trace[-last:]
        ]
        left_out = len(self.trace) - len(lines)
        head = [f"seed {self.seed}" + (f" ({left_out} lines left out)" if left_out else "")]
        return "\n".join([*head, *lines])

    def _fault(self, desk: FaultyDesk, verb: str, fault: Fault) -> None:
        self.note(desk.process.name, f"{verb}:", fault.value)


class _Log(logging.Handler):
    def __init__(self, sim: Simulation) -> None:
        super().__init__()
        self._sim = sim

    def emit(self, record: logging.LogRecord) -> None:
        self._sim.note("log", record.getMessage())
        if record.levelno >= logging.CRITICAL:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            self._sim.alarms.append(text)


def _ignore(*_: Any) -> None:
    pass


def _evict(engine: Engine) -> None:
    """Close workflow code that a dead or running engine still holds."""
    core = engine._core  # pyright: ignore[reportPrivateUsage]
    if core is not None:
        for run in [*core.runs.values(), *core.turns.runs_under_way()]:
            run.drop_instance()
