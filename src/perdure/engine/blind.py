"""What is recorded without the code: ends, pauses, parking, and what reaches a stopped run.

Such facts make a *blind* history row (R3). A run is *stopped* while it is pending (its start is
delayed), paused or parked; outcomes and children's ends are recorded then, messages stay in the
inbox, and a cancel lets the run try again, so that its code can clean up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.engine import forks, offers, overdue, parking, writes
from perdure.engine.runs import Input, Run
from perdure.store.port import TurnWrite
from perdure.values import events as ev
from perdure.values import limits
from perdure.values.concurrency import Queued
from perdure.values.duration import soonest, to_text
from perdure.values.states import ParkReason, Status
from perdure.values.terms import RESUME_WITHIN

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.turns import Turns

_log = logging.getLogger("perdure.engine")
_INERT = (ev.AttemptFailed, ev.AttemptLost)
WITHOUT_CODE = (ev.RunTerminated, ev.RunTimedOut)
"""Ends that are asked for."""
_RECORDED_AT_ONCE = (
    ev.ActivityCompleted,
    ev.ActivityFailed,
    ev.ChildClosed,
    ev.HumanTaskDecided,
    ev.RunPaused,
    ev.SendResolved,
    *_INERT,
)
"""What a stopped run need not leave in its inbox. Messages stay there, where they are counted."""


class Blind:
    """See the module's text. The turns' other half: those that the code does not take."""

    def __init__(self, core: Core, turns: Turns) -> None:
        self._core = core
        self._turns = turns

    def take(self, run: Run) -> bool:
        """Do what needs no code: an end asked for, a deadline, a pause, a run that is stopped."""
        is_asked_to_pause = False
        for index, item in enumerate(run.inputs):
            kind = type(item.fact)
            if kind in WITHOUT_CODE:
                del run.inputs[index]
                self.end(run, item)
                return True
            if kind is ev.RunPaused:
                is_asked_to_pause = True
        if run.timer_due:
            due, which = run.deadline
            if due and due <= self._core.clock.now():
                if which not in overdue.SOFT:
                    self.end(run, Input(_out_of_time(run, which)))
                    return True
                fact = overdue.fact_of(run, which)
                run.inputs += [] if fact is None else [Input(fact)]
        if run.status.is_stopped:
            self._take_while_stopped(run)
            return True
        if is_asked_to_pause:
            self._pause(run)
        return is_asked_to_pause

    def end(self, run: Run, end: Input, *, asked: Sequence[Input] = ()) -> None:
        """Record the end, after the messages that nobody will read: they were acknowledged (I7).

        So were people's decisions. ``asked``: who wanted it, if the end does not say it.
        """
        unread = [item for item in run.inputs if isinstance(item.fact, ev.ACKNOWLEDGED)]
        # In the order in which applied ones are read.
        unread.sort(key=lambda item: item.arrival)
        dropped = [item for item in run.inputs if item.inbox and item not in unread]
        run.inputs = [item for item in run.inputs if item not in unread and not item.inbox]
        taken = [*dropped, *unread, *asked, end]
        if isinstance(end.fact, ev.RunTimedOut):
            writes.name_successor(self._core, run, end.fact, self._core.clock.now())
        self.commit(run, taken, [*unread, *asked, end], closing=end.fact)

    def _cancel_unbegun(self, run: Run, asked: Input) -> None:
        """A run that has not begun ends when somebody cancels it."""
        assert isinstance(asked.fact, ev.CancelRequested)
        run.inputs.remove(asked)
        self.end(run, Input(ev.RunCancelled(reason=asked.fact.reason)), asked=[asked])

    def _pause(self, run: Run) -> None:
        """Take no turns from here on; what is under way goes on, and its outcome is recorded."""
        # With what resumed it before: left behind, that would undo this pause.
        steered = [i for i in run.inputs if isinstance(i.fact, (ev.RunPaused, ev.RunResumed))]
        steered.sort(key=lambda item: item.arrival)
        while not isinstance(steered[-1].fact, ev.RunPaused):
            steered.pop()
        run.inputs = [item for item in run.inputs if item not in steered]
        run.status = Status.PAUSED
        reason = Queued.PAUSED if run.in_queue else "paused"
        run.stop = str(reason), "somebody paused it", "`perdure resume`"
        self.commit(run, steered, steered)

    def _take_while_stopped(self, run: Run) -> None:
        """Let the run go on if something says so; else record what came, but not messages."""
        if run.status is Status.PENDING or run.in_queue:
            self._take_while_pending(run)
            return
        asked = next((item for item in run.inputs if isinstance(item.fact, ev.GOES_ON)), None)
        if asked is not None:
            self._go_on(run, asked)
            return
        recorded = [item for item in run.inputs if isinstance(item.fact, _RECORDED_AT_ONCE)]
        others = [item for item in run.inputs if item not in recorded]
        run.inputs = recorded
        run.timer_due = False
        self._core.leave_in_inbox(run, others)
        if recorded:
            self.record(run)
        else:
            self._core.settle(run)

    def _go_on(self, run: Run, asked: Input) -> None:
        begins = run.started.not_before if run.started is not None else 0
        is_early = begins > self._core.clock.now()
        is_new = run.started is not None and run.started.resume_by is not None
        if run.status is Status.PAUSED and (is_early or is_new):
            if isinstance(asked.fact, ev.CancelRequested):
                self._cancel_unbegun(run, asked)
                return
            if is_early:
                run.wake_at = begins
                self._resume_unbegun(run, asked)
                return
        run.drop_instance()  # loading finds the attempts that nobody has begun meanwhile
        before, run.status = run.status, Status.RUNNING
        run.timer_due = True  # whatever came due meanwhile
        if not isinstance(asked.fact, ev.CancelRequested):
            run.inputs.remove(asked)
            run.inputs.insert(0, asked)
        elif before is Status.PAUSED:
            run.inputs.insert(0, Input(ev.RunResumed(by="cancel")))
        self._turns.wake(run)

    def _resume_unbegun(self, run: Run, asked: Input) -> None:
        """A run that has not begun is pending again, until it is time or a limit allows."""
        run.inputs.remove(asked)
        run.started = forks.became(run.started, [asked.fact])
        run.status, run.stop = Status.PENDING, ("", "", "")
        self.commit(run, [asked], [asked])

    def _take_while_pending(self, run: Run) -> None:
        """Begin when it is time and a limit allows; before that, end, pause or resume if asked."""
        assert run.started is not None
        if run.timer_due and run.started.not_before <= self._core.clock.now():
            run.timer_due = False
            if not run.in_queue:
                self._core.reload(run)
                return
            self._core.intake.admit()
        run.timer_due = False
        for item in run.inputs:
            if isinstance(item.fact, ev.RunResumed) and run.status is Status.PAUSED:
                # Not to where it was: the limit may say wait, and the store knows.
                self._resume_unbegun(run, item)
                return
            if isinstance(item.fact, ev.CancelRequested):
                self._cancel_unbegun(run, item)
                return
            if isinstance(item.fact, ev.RunPaused):
                self._pause(run)
                return
        others, run.inputs = run.inputs, []
        self._core.leave_in_inbox(run, others)
        self._core.settle(run)

    def record(self, run: Run) -> None:
        """Record the inputs, which change nothing for the code."""
        taken, run.inputs = run.inputs, []
        self.commit(run, taken, taken)

    def commit(
        self,
        run: Run,
        taken: list[Input],
        recorded: list[Input],
        *,
        closing: ev.Event | None = None,
    ) -> None:
        """Write the facts of ``recorded``, which ends the run if there is a closing one.

        ``taken``: the inputs that are dealt with by it, recorded or not.
        """
        facts = [item.fact for item in recorded]
        write = self._row(run, facts, taken)
        now = write.time
        length = write.first + write.count - 1
        if closing is not None:
            write.state = writes.closed_state(closing, length, now)
            write.closes = True
            # Nobody's word that it may begin is passed over, however often others have sent more.
            is_given_up = isinstance(closing, ev.RunTerminated) and closing.by == RESUME_WITHIN
            write.force_close = run.closing_tries >= limits.CLOSE_RETRIES and not is_given_up
            writes.announce_end(run, closing, write, now)
            writes.succeed(self._core, run, closing, write, now, facts)
            offers.withdraw_all(run, write)
            if run.instance is not None:
                run.drop_instance()
        elif not run.is_owned or run.status.is_stopped:
            wake_at = run.next_due() if run.status.is_stopped else run.wake_at
            write.state = writes.open_state(
                run.status,
                length,
                now,
                owned=_holds_attempts(run),
                wake_at=wake_at,
                waits=run.waits,
            )
            self._keep_stop(run, write)
        if closing is None and run.instance is not None:
            run.blind = [*run.blind, *facts]
        self._turns.hand_in(run, write, taken, None)

    def _row(self, run: Run, facts: Sequence[ev.Event], taken: Sequence[Input]) -> TurnWrite:
        """Return the write of a blind row; ``taken``: where its facts come from."""
        write = TurnWrite(
            run=run.key,
            execution=run.execution,
            first=run.length + 1,
            count=len(facts),
            time=max(self._core.clock.now(), run.time),
            payload=ev.encode_turn(facts),
            applied=False,
            claim=None if run.is_owned else run.length,
        )
        writes.note_sources(run, write, taken)
        return write

    @staticmethod
    def _keep_stop(run: Run, write: TurnWrite) -> None:
        assert write.state is not None
        reason, detail, unblock = run.stop
        write.state.reason = reason or None
        write.state.detail = detail or None
        write.state.unblock = unblock or None
        write.state.keeps_lost = run.has_lost

    def park(
        self,
        run: Run,
        taken: list[Input],
        reason: ParkReason,
        detail: str,
        *,
        first: Sequence[Input] = (),
    ) -> None:
        """Record that the run cannot go on, and keep what it had not applied.

        ``first``: facts to record before (somebody had asked to unpark it).
        """
        run.drop_instance()
        run.timer_due = False
        run.inputs = taken + run.inputs
        code = self._core.registry.code(run.definition)
        unblock = parking.unblock(reason, run.queue)
        event = ev.RunParked(reason=reason.value, detail=detail, unblock=unblock, code=code)
        _log.error("parked %s %r: %s", run.workflow, run.workflow_id, detail)
        run.stop = reason.value, detail, unblock
        facts = [*(item.fact for item in first), event]
        write = self._row(run, facts, first)
        for item in first:
            if isinstance(item.fact, ev.CancelRequested):
                run.cancel_deadline = soonest(run.cancel_deadline, item.fact.deadline)
        write.state = writes.open_state(
            Status.PARKED,
            run.length + len(facts),
            write.time,
            # What the store refuses once, it refuses again: nothing is left to be recorded.
            owned=bool(run.work) if reason is ParkReason.STORE_REFUSED else _holds_attempts(run),
            wake_at=run.deadline[0] or None,
        )
        self._keep_stop(run, write)
        self._core.revival.parked_here(run.key, write.time)
        self._turns.hand_in(run, write, list(first), None)


def _holds_attempts(run: Run) -> bool:
    """Tell whether attempts would be lost with this worker: under way, or not yet recorded."""
    return bool(run.work) or any(isinstance(item.fact, _RECORDED_AT_ONCE) for item in run.inputs)


def _out_of_time(run: Run, which: str) -> ev.Event:
    if which == "cancel":
        return ev.RunTerminated(reason="the deadline of the cancel request passed")
    if which == RESUME_WITHIN:
        assert run.started is not None
        assert run.started.resume_by is not None
        within = to_text(run.started.resume_by - run.started.started_at)
        return ev.RunTerminated(reason=f"nobody resumed it within {within}", by=RESUME_WITHIN)
    return ev.RunTimedOut(timeout=which)
