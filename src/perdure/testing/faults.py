"""A desk that fails: errors, lost acknowledgements, delays, refusals, deaths, by a plan.

``FaultyDesk`` stands where the engine expects a desk, over a store that several of them share. A
writing and a reading lane run their verbs in the order they were handed in, each after a delay of
virtual time; an answer may come late, never out of order. Around every verb the plan is asked what
is to happen: the fault points are *before* the verb and *after* it, before its acknowledgement.
Production code knows nothing of it.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol, TypeVar

from perdure import errors
from perdure.store.port import Batch, Posted, Reader, Started, StartRequest, Store, Worker
from perdure.testing.clock import Process, VirtualLoop

T = TypeVar("T")
R = TypeVar("R")
POISON = b"poison-pill"
"""A batch whose payloads hold these bytes is refused, as data that a database cannot take."""

WRITES = frozenset(
    {
        "act",
        "activate",
        "admit",
        "answer",
        "ask",
        "claim",
        "close_mailboxes",
        "commit",
        "define",
        "drop_mail",
        "extend",
        "forget_codecs",
        "hand_back",
        "join",
        "keep_mailboxes",
        "leave",
        "post",
        "reseal",
        "start",
        "take_over",
        "transact",
        "unused_blobs",
        "watch",
    }
)


class Fault(enum.Enum):
    """What happens to one verb."""

    NONE = "none"
    ERROR = "error"
    """Unavailable, and nothing was written."""
    LOST_ACK = "lost ack"
    """Unavailable, though it was written."""
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"


class Plan(Protocol):
    """Decides what goes wrong."""

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Say what happens to this call of ``verb``."""
        ...

    def delay(self, desk: FaultyDesk) -> float:
        """Return seconds for one half of a verb's way: to the database, or back."""
        ...

    def hint(self, desk: FaultyDesk) -> float | None:
        """Return after how many seconds a foreign commit is noticed; ``None``: never."""
        ...


class Calm:
    """Nothing goes wrong; foreign commits are noticed as a file database would."""

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Nothing happens."""
        return Fault.NONE

    def delay(self, desk: FaultyDesk) -> float:
        """Verbs take no time."""
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Look every 20 ms."""
        return 0.02


class RandomFaults:
    """Faults by chance; every probability is per verb (deaths: per writing verb)."""

    def __init__(
        self,
        chance: Random,
        *,
        error: float = 0.0,
        lost_ack: float = 0.0,
        death: float = 0.0,
        slow: float = 0.0,
        slow_seconds: float = 0.05,
        stuck: float = 0.0,
        stuck_seconds: float = 3.0,
        lost_hint: float = 0.0,
        hint_seconds: float = 0.04,
    ) -> None:
        self._chance = chance
        self.error = error
        self.lost_ack = lost_ack
        self.death = death
        self.slow = slow
        self.slow_seconds = slow_seconds
        self.stuck = stuck
        self.stuck_seconds = stuck_seconds
        self.lost_hint = lost_hint
        self.hint_seconds = hint_seconds

    def calm(self) -> None:
        """Let nothing go wrong from here on, except that hints still get lost."""
        self.error = self.lost_ack = self.death = self.slow = self.stuck = 0.0

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Draw what happens."""
        if not (self.error or self.lost_ack or self.death):
            return Fault.NONE
        drawn = self._chance.random()
        if drawn < self.error:
            return Fault.ERROR
        if verb not in WRITES:
            return Fault.NONE
        drawn -= self.error
        if drawn < self.lost_ack:
            return Fault.LOST_ACK
        drawn -= self.lost_ack
        if drawn < self.death and desk.may_die:
            return Fault.DIE_BEFORE if drawn < self.death / 2 else Fault.DIE_AFTER
        return Fault.NONE

    def delay(self, desk: FaultyDesk) -> float:
        """Draw a delay; mostly none."""
        if not (self.slow or self.stuck):
            return 0.0
        drawn = self._chance.random()
        if drawn < self.stuck:
            return self._chance.random() * self.stuck_seconds
        if drawn < self.stuck + self.slow:
            return self._chance.random() * self.slow_seconds
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Draw whether, and when, a foreign commit is noticed."""
        if self._chance.random() < self.lost_hint:
            return None
        return self._chance.random() * self.hint_seconds


class NthCommit:
    """One fault, at the N-th commit of all workers; counts them."""

    def __init__(self, number: int, fault: Fault) -> None:
        self._number = number
        self._fault = fault
        self.commits = 0
        self.has_failed = False

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        """Let the N-th commit fail."""
        if verb != "commit":
            return Fault.NONE
        self.commits += 1
        if self.commits != self._number or not desk.may_die:
            return Fault.NONE
        self.has_failed = True
        return self._fault

    def delay(self, desk: FaultyDesk) -> float:
        """Verbs take no time."""
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        """Look every 20 ms."""
        return 0.02


class Died(BaseException):
    """The process ended in the middle of a verb."""


class Sea:
    """What the desks of one simulation share: the store, the plan, who is alive, who looks on.

    ``on_written(desk, verb, argument, answer)`` is called when a writing verb has taken effect;
    ``on_fault(desk, verb, fault)`` when one is injected.
    """

    def __init__(self, loop: VirtualLoop, store: Any, plan: Plan) -> None:
        self.loop = loop
        self.store = store
        self.plan = plan
        self.desks: list[FaultyDesk] = []
        self.owners: dict[int, FaultyDesk] = {}
        """Whose worker row is whose."""
        self.knows_the_dead = True
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

    def join(self, *args: Any, **options: Any) -> Worker:
        """Join, and take the lock."""

        def join(*args: Any, **options: Any) -> Worker:
            worker: Worker = self._sea.store.join(*args, **options)
            self._sea.owners[worker.id] = self._desk
            return worker

        return self._call("join", join, args, options)

    def commit(self, batch: Batch) -> Any:
        """Commit, unless the data is poison."""
        if _is_poisoned(batch):
            self._sea.on_fault(self._desk, "commit refused", Fault.NONE)
            raise errors.StoreRefused("the database does not take this data")
        return self._call("commit", self._sea.store.commit, (batch,), {})

    def _call(self, verb: str, call: Callable[..., T], args: Any, options: Any) -> T:
        desk, sea = self._desk, self._sea
        fault = sea.plan.fault(desk, verb)
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


class FaultyDesk:
    """A desk of one process; see the module's text."""

    def __init__(self, sea: Sea, process: Process, *, may_die: bool = False) -> None:
        self.on_change: Callable[[], None] | None = None
        self.look_seconds = 0.2
        self.process = process
        self.may_die = may_die
        self.on_death: Callable[[], None] = _ignore
        self._sea = sea
        self._store: Any = FaultyStore(self, sea)
        self._writing = _Lane()
        self._reading = _Lane()
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
        return verb(self._store)

    async def close(self) -> None:
        """Leave the shared store open, and the others' company."""
        self._is_closed = True
        if self in self._sea.desks:
            self._sea.desks.remove(self)

    def die(self) -> None:
        """End the process this desk belongs to."""
        self.process.kill()
        if self in self._sea.desks:
            self._sea.desks.remove(self)
        self.on_death()

    def notice(self) -> None:
        """Somebody else has committed; tell ``on_change`` soon, or never."""
        if self._is_noticed or self.on_change is None:
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
        lane.waiting.append((verb, future, then))
        if not lane.is_busy:
            self._next(lane)
        return future

    def _next(self, lane: _Lane) -> None:
        lane.is_busy = True
        self._after_delay(self._run, lane)

    def _run(self, lane: _Lane) -> None:
        verb, future, then = lane.waiting.popleft()
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = verb(self._store)
        except Died:
            self.die()
            return
        except Exception as exc:  # noqa: BLE001 - it is raised again where the verb was handed in
            error = exc
        lane.answers.append((future, then, answer, error))
        self._after_delay(self._deliver, lane)
        if lane.waiting:
            self._next(lane)
        else:
            lane.is_busy = False

    def _deliver(self, lane: _Lane) -> None:
        future, then, answer, error = lane.answers.popleft()
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)
        if then is not None:
            then(future)

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
