"""The life of a turn.

1. Something puts an :class:`Input` on a run: a start, a message, an outcome, a child's end, a
   cancel, or its timer comes due (``wake``).
2. ``_drain`` takes the runs that are ready. One without a live instance is loaded first. The
   instance applies the inputs; its commands come back.
3. The turn goes to the committer as one history row, with everything that follows from it: status
   and wake time, children, messages, a parent's notice, unless the code may not go on: then the run
   is parked, with the reason.
4. After the commit, and only then (I3), ``engine/release.py`` releases the effects: activities
   start, senders and waiters are answered, log lines appear, runs that got something are woken.

A run has at most one uncommitted turn; what comes meanwhile waits (R15).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from perdure import errors
from perdure.engine import alerts, offers, overdue, parking, returned, writes
from perdure.engine.blind import Blind
from perdure.engine.interrupts import ends_the_loop
from perdure.engine.logs import logged
from perdure.engine.runs import Input, Phase, Run
from perdure.kernel.eviction import hooks
from perdure.kernel.instance import Instance, Turn
from perdure.store.port import StartRequest, TurnWrite
from perdure.values import events as ev
from perdure.values import failures, limits
from perdure.values.states import ParkReason, Status
from perdure.values.terms import CANCEL

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_SLICE = 400
_INERT = frozenset({ev.AttemptFailed, ev.AttemptLost})
_GO_ON = frozenset({ev.RunResumed, ev.RunUnparked})
_ALWAYS_PARK = (MemoryError, RecursionError)
_encode_waits = msgspec.json.Encoder().encode


class UnderWay(NamedTuple):
    """A turn that is being committed: whose it is, what it took, what the code answered."""

    run: Run
    taken: list[Input]
    turn: Turn | None


class First(NamedTuple):
    """A run that is to take its first turn, and the start that is committed with it."""

    run: Run
    request: StartRequest
    started: ev.RunStarted


class Turns:
    """Takes turns and follows them to their commit. See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.blind = Blind(core, self)
        self._firsts: list[First] = []
        self._ready: list[Run] = []
        self._scheduled = False
        self._under_way: dict[int, UnderWay] = {}
        self.taken = 0
        self.is_stopping = False

    # -- 1: inputs ---------------------------------------------------------------------------

    def begin(self, run: Run, request: StartRequest, started: ev.RunStarted) -> None:
        """Start a run: its first turn is committed together with event 1."""
        self._firsts.append(First(run, request, started))
        self.expect()

    def put(self, run: Run, item: Input) -> None:
        """Give a run one input."""
        if item.inbox:
            if item.inbox in run.seen:
                return
            run.seen.add(item.inbox)
        run.inputs.append(item)
        self.wake(run)

    def wake(self, run: Run) -> None:
        """Let the run take a turn soon."""
        if run.is_queued or run.phase is not Phase.IDLE or self.is_stopping:
            return
        run.is_queued = True
        self._ready.append(run)
        self.expect()

    def expect(self) -> None:
        """Take the turns of runs that get ready by the end of this round of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def forget(self) -> list[Input]:
        """Drop everything under way: the lease is gone. Return the inputs that were in it."""
        self._ready.clear()
        entries = list(self._under_way.values())
        self._under_way.clear()
        for entry in entries:
            entry.run.phase = Phase.GONE
            entry.run.drop_instance()
        return [item for entry in entries for item in entry.taken]

    def take_under_way(self, what: TurnWrite | StartRequest) -> UnderWay | None:
        """Return, once, whose turn (or start) the committer has dealt with."""
        return self._under_way.pop(id(what), None)

    def runs_under_way(self) -> list[Run]:
        """Return the runs whose turn is being committed; new ones are in no other list."""
        return [entry.run for entry in self._under_way.values()]

    @property
    def is_idle(self) -> bool:
        """Whether no turn is ready or uncommitted."""
        return not (self._firsts or self._ready or self._under_way)

    # -- 2: the turn -------------------------------------------------------------------------

    def _drain(self) -> None:
        self._scheduled = False
        # In slices, so that the committer gets its first batch before the last turn is taken.
        firsts, self._firsts = self._firsts[:_SLICE], self._firsts[_SLICE:]
        ready, self._ready = self._ready[:_SLICE], self._ready[_SLICE:]
        with hooks(), self._core.committer.gathering():
            for first in firsts:
                self._take_first_safely(*first)
            for run in ready:
                run.is_queued = False
                if run.phase is Phase.IDLE:
                    self._take_safely(run)
        if self._firsts or self._ready:
            self.expect()

    def _take_first_safely(self, run: Run, request: StartRequest, started: ev.RunStarted) -> None:
        """Take a first turn; an error of ours is told to who starts it and touches no other."""
        try:
            self._take_first(run, request, started)
        except Exception as exc:  # noqa: BLE001 - whatever it is, one start pays
            _log.exception("an internal error in the first turn of %r", run)
            run.drop_instance()
            run.phase = Phase.GONE
            answer = self._core.start_waiters.pop(request.run_id, None)
            if answer is not None and not answer.done():
                answer.set_exception(exc)

    def _take_safely(self, run: Run) -> None:
        """Take a turn; an error of ours parks that run and touches no other."""
        try:
            self._take(run)
        except Exception as exc:  # noqa: BLE001 - whatever it is, one run pays
            _log.exception("an internal error in a turn of %r", run)
            if run.phase is Phase.IDLE:
                self.blind.park(run, [], ParkReason.UNEXPECTED, f"internal error: {describe(exc)}")

    def _take(self, run: Run) -> None:
        if not run.inputs and not run.timer_due:
            self._core.settle(run)
            return
        if run.status.is_terminal:
            self._core.give_back(run)
            return
        if self.blind.take(run):
            return
        if run.instance is None:
            self._core.reload(run)
            return
        if run.offered and not offers.decide(self._core, run):
            return
        if run.inputs and _are_inert(run.inputs):
            self.blind.record(run)
            return
        self._take_applied(run, run.instance)

    def _take_applied(self, run: Run, instance: Instance) -> None:
        now = max(self._core.clock.now(), run.time)
        taken, run.inputs = run.inputs, []
        if len(taken) > 1:
            taken.sort(key=_rank)
        facts: list[ev.Event] = [item.fact for item in taken]
        if run.timer_due:
            run.timer_due = False
            facts[:0] = instance.due_timers(now)
            if not facts:
                self._core.settle(run)
                return
        if run.started is not None and run.started.terms.timeout_action == CANCEL:
            asked = overdue.cancels(run, (*run.blind, *facts))
            facts += [asked] if asked is not None else []
        turn = self._apply(run, instance, facts, now, taken)
        if turn is None:
            return
        if instance.cancel is not None:
            run.cancel_deadline = instance.cancel.deadline
        if turn.unexpected is not None and not self._may_fail(run, instance, turn.unexpected):
            self._park_unexpected(run, taken, turn.unexpected)
            return
        self._commit_applied(run, instance, taken, facts, turn, now)

    def _apply(
        self, run: Run, instance: Instance, facts: list[ev.Event], now: int, taken: list[Input]
    ) -> Turn | None:
        """Apply; park the run and return None if the code may not go on."""
        guard = self._core.guard
        limit = run.started.terms.task_timeout if run.started is not None else 0
        guard.enter(run, run.key, limit)
        error: BaseException | None = None
        turn: Turn | None = None
        try:
            turn = instance.apply([*run.blind, *facts] if run.blind else facts, now)
        except errors.TurnTimeout:
            guard.arrived()
        except BaseException as exc:
            if ends_the_loop(exc):
                guard.leave()
                run.inputs = taken + run.inputs
                run.drop_instance()
                raise
            error = exc  # also user code's SystemExit must not end us
        if guard.leave():
            if limit:
                run.inputs = taken + run.inputs
                self.blind.end(run, Input(ev.RunTimedOut(timeout="task")))
                return None
            detail = f"a turn ran longer than {self._core.turn_limit:g} s and was interrupted"
            self.blind.park(run, taken, ParkReason.TURN_TIMEOUT, detail)
            return None
        if error is not None:
            self.blind.park(run, taken, parking.reason_of(error), describe(error))
            return None
        return turn

    def _may_fail(self, run: Run, instance: Instance, exc: BaseException) -> bool:
        """An unexpected exception fails the run only under the code that started it."""
        if isinstance(exc, _ALWAYS_PARK):
            return False
        assert instance.started is not None
        assert run.definition is not None
        return instance.code == run.definition.code

    def _park_unexpected(self, run: Run, taken: list[Input], exc: BaseException) -> None:
        self.blind.park(run, taken, ParkReason.UNEXPECTED, describe(exc))

    # -- 3: what is written ------------------------------------------------------------------

    def _commit_applied(
        self,
        run: Run,
        instance: Instance,
        taken: list[Input],
        facts: list[ev.Event],
        turn: Turn,
        now: int,
    ) -> None:
        commands = turn.commands
        payload = ev.encode_turn(facts + commands if commands else facts)
        instance.size += len(payload)
        run.blind = ()
        write = TurnWrite(
            run=run.key,
            execution=run.execution,
            first=run.length + 1,
            count=len(facts) + len(commands),
            time=now,
            payload=payload,
            claim=None if run.is_owned else run.length,
        )
        writes.note_sources(run, write, taken)
        self._prepare(run, instance, turn, write)
        if run.offered:
            offers.settled(run, facts)
        is_busy = offers.is_busy(run, instance)
        is_full = instance.unread >= limits.INBOX_PER_EXECUTION
        if (
            run.status is not Status.RUNNING
            or not (is_busy and run.is_owned)
            or turn.closed
            or is_full is not run.is_full
            or not _GO_ON.isdisjoint(map(type, facts))
        ):
            run.is_full = is_full
            self._write_state(run, instance, turn.closed, write, now)
        self.hand_in(run, write, taken, turn)

    def _write_state(
        self,
        run: Run,
        instance: Instance,
        closed: ev.Event | None,
        write: TurnWrite,
        now: int,
    ) -> None:
        length = write.first + write.count - 1
        if closed is not None:
            write.state = writes.closed_state(closed, length, now)
            write.closes = True
            write.force_close = run.closing_tries >= limits.CLOSE_RETRIES
            writes.announce_end(run, closed, write, now)
            offers.withdraw_all(run, write)
        elif offers.is_busy(run, instance):
            # A send is answered by this worker's memory: should it die first, a takeover must see
            # that somebody waits (I9).
            write.state = writes.open_state(
                Status.RUNNING, length, now, owned=True, unread=instance.unread
            )
        else:
            waits = instance.waits()
            if run.offered:
                waits.queues = offers.awaited(run, instance)
            text = _encode_waits(waits).decode()
            write.state = writes.open_state(
                Status.WAITING,
                length,
                now,
                owned=False,
                wake_at=run.next_due(),
                waits=text,
                unread=instance.unread,
            )

    def hand_in(self, run: Run, write: TurnWrite, taken: list[Input], turn: Turn | None) -> None:
        run.phase = Phase.COMMITTING
        if write.closes:
            closing = turn.closed if turn is not None else ev.decode_turn(write.payload)[-1]
            assert closing is not None
            self._begin_beside(run, closing, write)
        self.taken += 1
        self._under_way[id(write)] = UnderWay(run, taken, turn)
        self._core.committer.add_turn(write)

    def _take_first(self, run: Run, request: StartRequest, started: ev.RunStarted) -> None:
        """Take a new run's first turn: one row holds event 1 and what the code answered."""
        assert run.instance is not None
        assert not run.key
        now = self._core.clock.now()
        turn = self._apply_first(run, run.instance, started, now)
        if turn is None:
            run.drop_instance()
            request.event = ev.encode_turn([started])
        else:
            events = [started, *turn.commands]
            write = TurnWrite(
                run=0,
                execution=0,
                first=1,
                count=len(events),
                time=now,
                payload=ev.encode_turn(events),
            )
            run.instance.size += len(write.payload)
            self._prepare(run, run.instance, turn, write)
            self._write_state(run, run.instance, turn.closed, write, now)
            if turn.closed is not None:
                self._begin_beside(run, turn.closed, write)
            request.first = write
        run.phase = Phase.COMMITTING
        self._under_way[id(request)] = UnderWay(run, [], turn)
        self._core.committer.add_start(request)

    def _begin_beside(self, run: Run, closing: ev.Event, write: TurnWrite) -> None:
        """Let the commit that ends a run begin what is to follow from such an end."""
        returned.add(self._core, run, closing, write)
        alerts.add(self._core, run, closing, write)

    def _prepare(self, run: Run, instance: Instance, turn: Turn, write: TurnWrite) -> None:
        """Add what is written beside the row: what the commands need, and what the code logged."""
        for number, command in enumerate(turn.commands, turn.first_id):
            prepare = writes.PREPARE.get(type(command))
            if prepare is not None:
                prepare(self._core, run, number, command, write)
        if instance.effects:
            write.lines = logged(instance.effects, write.time)

    def _apply_first(
        self, run: Run, instance: Instance, started: ev.RunStarted, now: int
    ) -> Turn | None:
        """Apply event 1; ``None`` leaves the start to be taken up (and parked) by loading."""
        guard = self._core.guard
        guard.enter(run, run.key, started.terms.task_timeout)
        turn: Turn | None = None
        try:
            turn = instance.apply([started], now)
        except errors.TurnTimeout:
            guard.arrived()
        except BaseException as exc:
            if ends_the_loop(exc):
                guard.leave()
                raise
            turn = None  # loading meets it again, and parks
        if guard.leave():
            return None
        if turn is not None and isinstance(turn.unexpected, _ALWAYS_PARK):
            return None
        return turn


def _are_inert(inputs: list[Input]) -> bool:
    """Tell whether none of them concerns the code."""
    for item in inputs:  # noqa: SIM110 - once per turn, and twice as fast as all() of a generator
        if type(item.fact) not in _INERT:
            return False
    return True


def _rank(item: Input) -> tuple[int, int]:
    return item.fact.rank, item.arrival


def describe(exc: BaseException) -> str:
    """Say in one line what an exception was and where it came from."""
    if isinstance(exc, errors.PerdureError):
        return exc.message
    info = failures.from_exception(exc)
    last = [line.strip() for line in info.trace.splitlines() if line.strip().startswith("File")]
    place = f" ({last[-1]})" if last else ""
    return f"{info.type}: {info.message}{place}"
