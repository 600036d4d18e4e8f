"""A desk that fails: errors, lost acknowledgements, delays, refusals, deaths, by a plan.

``FaultyDesk`` stands where the engine expects a desk, over a store that several of them share. A
writing and a reading lane run their verbs in the order they were handed in, each after a delay of
virtual time; an answer may come late, never out of order. Around every verb the plan is asked what
is to happen: the fault points are *before* the verb and *after* it, before its acknowledgement.
Production code knows nothing of it.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from perdure import errors
from perdure.store.port import Batch, Posted, Reader, Started, StartRequest, Store, Worker
from perdure.testing.clock import Process, VirtualLoop
from perdure.testing.network import Line, Network, Outcome
from perdure.testing.plans import WRITES, Calm, Fault, NthCommit, Plan, RandomFaults

T = TypeVar("T")
R = TypeVar("R")
POISON = b"poison-pill"
"""A batch whose payloads hold these bytes is refused, as data that a database cannot take."""

_FENCED = frozenset({"commit", "transact"})


class Died(BaseException):
    """The process ended in the middle of a verb."""


class Sea:
    """What the desks of one simulation share: the store, the plan, who is alive, who looks on.

    ``on_written(desk, verb, argument, answer)`` is called when a writing verb has taken effect;
    ``on_fault(desk, verb, fault)`` when one is injected.
    """

    def __init__(
        self, loop: VirtualLoop, store: Any, plan: Plan, network: Network | None = None
    ) -> None:
        self.loop = loop
        self.store = store
        self.plan = plan
        self.network = network
        """Between the workers and a server; ``None``: the database is a file of their machine."""
        self.desks: list[FaultyDesk] = []
        self.owners: dict[int, FaultyDesk] = {}
        """Whose worker row is whose."""
        self.knows_the_dead = network is None
        """Whether a dead worker's lock is seen to be free; else only the lease's time tells."""
        self.on_written: Callable[[FaultyDesk, str, Any, Any], None] = _ignore
        self.on_fault: Callable[[FaultyDesk, str, Fault], None] = _ignore

    def changed_by(self, writer: FaultyDesk) -> None:
        """Let the others notice a commit, if their luck has it."""
        for desk in self.desks:
            if desk is not writer:
                desk.notice()


def _ignore(*_: Any) -> None:
    pass


class FaultyStore:
    """The store as one desk sees it."""

    def __init__(self, desk: FaultyDesk, sea: Sea) -> None:
        self._desk = desk
        self._sea = sea

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._sea.store, verb)

        def faulty(*args: Any, **options: Any) -> Any:
            return self._call(verb, call, args, options)

        self.__dict__[verb] = faulty
        return faulty

    def workers(self) -> list[Worker]:
        """Return the workers, alive as far as anybody can tell."""
        workers: list[Worker] = self._call("workers", self._sea.store.workers, (), {})
        for worker in workers:
            owner = self._sea.owners.get(worker.id)
            is_alive = owner is not None and owner.process.is_alive
            worker.alive_for_sure = is_alive if self._sea.knows_the_dead else None
        return workers

    def time(self) -> int | None:
        """Return what the server's clock says, if there is one."""
        network = self._sea.network
        return self._call("time", network.time if network else self._sea.store.time, (), {})

    def join(self, *args: Any, now: int, lease_until: int, **options: Any) -> Worker:
        """Join, and take the lock."""

        def join(*args: Any, **options: Any) -> Worker:
            until = self._lease(now, lease_until)
            worker: Worker = self._sea.store.join(*args, now=now, lease_until=until, **options)
            self._sea.owners[worker.id] = self._desk
            return worker

        return self._call("join", join, args, options)

    def extend(
        self, worker: int, epoch: int, *, now: int, lease_until: int, **options: Any
    ) -> tuple[int, int | None]:
        """Extend a lease, by the server's clock if there is one."""
        network = self._sea.network

        def extend(worker: int, epoch: int, **options: Any) -> tuple[int, int | None]:
            until = self._lease(now, lease_until)
            recalled, time = self._sea.store.extend(
                worker, epoch, now=now, lease_until=until, **options
            )
            return recalled, network.time() if network else time

        return self._call("extend", extend, (worker, epoch), options)

    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        """Take a worker's runs over, unless its lease goes on by the server's clock."""
        network = self._sea.network

        def take_over(worker: int, *args: Any, **options: Any) -> bool:
            if network and lease_until is not None and lease_until >= network.time():
                return False
            return self._sea.store.take_over(worker, *args, **options)

        options = {"lease_until": lease_until}
        return self._call("take_over", take_over, (worker, epoch, now), options)

    def commit(self, batch: Batch) -> Any:
        """Commit, unless the data is poison."""
        if _is_poisoned(batch):
            self._sea.on_fault(self._desk, "commit refused", Fault.NONE)
            raise errors.StoreRefused("the database does not take this data")
        until = self._lease(batch.now, batch.lease_until)
        batch = msgspec.structs.replace(batch, lease_until=until)
        return self._call("commit", self._sea.store.commit, (batch,), {})

    def _lease(self, now: int, until: int) -> int:
        network = self._sea.network
        return network.lease(now, until) if network else until

    def _call(self, verb: str, call: Callable[..., T], args: Any, options: Any) -> T:
        desk, sea = self._desk, self._sea
        if desk.is_late and verb in _FENCED:
            raise errors.Unavailable("planted: its transaction ended with its connection")
        is_here = desk.process.is_alive and not desk.is_late
        fault = sea.plan.fault(desk, verb) if is_here else Fault.NONE
        if fault is not Fault.NONE:
            sea.on_fault(desk, verb, fault)
        if fault is Fault.ERROR:
            raise errors.Unavailable(f"planted: {verb} failed")
        if fault is Fault.DIE_BEFORE:
            raise Died
        answer = call(*args, **options)
        if verb in WRITES:
            sea.on_written(desk, verb, args[0] if args else None, answer)
            sea.changed_by(desk)
        if fault is Fault.LOST_ACK:
            raise errors.Unavailable(f"planted: {verb} was not acknowledged")
        if fault is Fault.DIE_AFTER:
            raise Died
        return answer


def _is_poisoned(batch: Batch) -> bool:
    for turn in batch.turns:
        if POISON in turn.payload:
            return True
    for start in batch.starts:
        if POISON in start.event or (start.first is not None and POISON in start.first.payload):
            return True
    return False


_Then = Callable[[asyncio.Future[Any]], None] | None


class _Lane:
    __slots__ = ("answers", "is_busy", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[Any], Any], asyncio.Future[Any], _Then]] = deque()
        self.answers: deque[tuple[asyncio.Future[Any], _Then, Any, BaseException | None]] = deque()
        self.is_busy = False


def _tell(
    future: asyncio.Future[Any], then: _Then, answer: Any, error: BaseException | None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
    if then is not None:
        then(future)


class FaultyDesk:
    """A desk of one process; see the module's text."""

    def __init__(self, sea: Sea, process: Process, *, may_die: bool = False) -> None:
        self.on_change: Callable[[], None] | None = None
        self.look_seconds = 0.2 if sea.network is None else 0.7
        self.process = process
        self.may_die = may_die
        self.on_death: Callable[[], None] = _ignore
        self._sea = sea
        self._store: Any = FaultyStore(self, sea)
        self._writing = _Lane()
        self._reading = _Lane()
        self._lines: tuple[Line, Line] | None = None
        if sea.network is not None:
            self._lines = sea.network.line(self), sea.network.line(self)
        self.is_late = False
        """Whether what is carried out now was given up long ago."""
        self._is_noticed = False
        self._is_closed = False
        sea.desks.append(self)

    def write(
        self, verb: Callable[[Store], T], *, then: Callable[[asyncio.Future[T]], None] | None = None
    ) -> asyncio.Future[T]:
        """Run ``verb`` on the writing lane."""
        return self._hand_in(self._writing, verb, then)

    def read(self, verb: Callable[[Reader], T]) -> asyncio.Future[T]:
        """Run ``verb`` on the reading lane."""
        return self._hand_in(self._reading, verb)

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        """Run a transactional activity at once: a simulation has one thread."""
        return self.write_from_thread(
            lambda store: store.transact(
                run, activity, attempt, fn, outcome=outcome, time_limit=time_limit, now=now
            )
        )

    def start_within(self, connection: object, request: StartRequest, now: int) -> Started:
        """Refuse: a database in memory has no second connection."""
        raise errors.UsageError("connection=: this database is in memory")

    def write_from_thread(self, verb: Callable[[Store], T]) -> T:
        """Run ``verb`` at once: a simulation has one thread."""
        if self._sea.network is not None:
            self._sea.network.check(self.process)
        return verb(self._store)

    async def close(self) -> None:
        """Leave the shared store open, and the others' company."""
        self._is_closed = True
        if self in self._sea.desks:
            self._sea.desks.remove(self)

    def die(self) -> None:
        """End the process this desk belongs to."""
        self.process.kill()
        if self._sea.network is not None:
            self._sea.network.gone(self.process)
        if self in self._sea.desks:
            self._sea.desks.remove(self)
        self.on_death()

    def notice(self) -> None:
        """Somebody else has committed; tell ``on_change`` soon, or never."""
        if self._is_noticed or self.on_change is None:
            return
        network = self._sea.network
        if network and not (network.hears_hints and network.reaches(self.process)):
            return
        after = self._sea.plan.hint(self)
        if after is not None:
            self._is_noticed = True
            self.process.call(self._sea.loop.call_later, after, self._report)

    def _report(self) -> None:
        self._is_noticed = False
        if self.on_change is not None and not self._is_closed:
            self.on_change()

    def _hand_in(
        self,
        lane: _Lane,
        verb: Callable[[Any], T],
        then: Callable[[asyncio.Future[T]], None] | None = None,
    ) -> asyncio.Future[T]:
        if self._is_closed:
            raise errors.UsageError("the store was closed")
        future: asyncio.Future[T] = self._sea.loop.create_future()
        if self._lines is not None:
            line = self._lines[lane is self._reading]
            line.hand_in(verb, functools.partial(_tell, future, then))
            return future
        lane.waiting.append((verb, future, then))
        if not lane.is_busy:
            self._next(lane)
        return future

    def _next(self, lane: _Lane) -> None:
        lane.is_busy = True
        self._after_delay(self._run, lane)

    def _run(self, lane: _Lane) -> None:
        verb, future, then = lane.waiting.popleft()
        outcome = self.carry_out(verb)
        if outcome is None:
            return
        lane.answers.append((future, then, *outcome))
        self._after_delay(self._deliver, lane)
        if lane.waiting:
            self._next(lane)
        else:
            lane.is_busy = False

    def _deliver(self, lane: _Lane) -> None:
        _tell(*lane.answers.popleft())

    def carry_out(self, verb: Callable[[Any], Any], *, is_late: bool = False) -> Outcome | None:
        """Let the store do it; ``None``: the process died of it."""
        self.is_late = is_late
        try:
            return verb(self._store), None
        except Died:
            self.die()
            return None
        except Exception as exc:  # noqa: BLE001 - it is raised again where the verb was handed in
            return None, exc
        finally:
            self.is_late = False

    def seconds(self) -> float:
        """Return how long a verb travels to the server, or its answer back."""
        return self._sea.plan.delay(self)

    def _after_delay(self, callback: Callable[[_Lane], None], lane: _Lane) -> None:
        # As the process itself: whoever handed the verb in, threads of the process carry it out.
        loop = self._sea.loop
        delay = self._sea.plan.delay(self)
        if delay:
            self.process.call(loop.call_later, delay, callback, lane)
        else:
            self.process.call(loop.call_soon, callback, lane)


__all__ = [
    "POISON",
    "WRITES",
    "Calm",
    "Died",
    "Fault",
    "FaultyDesk",
    "FaultyStore",
    "NthCommit",
    "Plan",
    "RandomFaults",
    "Sea",
]
