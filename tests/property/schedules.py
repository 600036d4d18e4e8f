"""Random schedules: what happens next to a run, chosen by a list of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from tests.property.programs import TOPICS, interpret
from tests.unit.drive import NOON, SECOND, SEED, message

from perdure import ApplicationError, errors
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.states import Status, may

schedules = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=3), min_size=4, max_size=30)
"""One list of choices per turn: so many facts arrive together."""

UPDATES = (
    ["act", "a"],
    ["bump"],
    ["raise", 1],
    ["sleep", 2],
    ["finally", ["act", "b"], ["act", "c"]],
)


def _failure(number: int) -> failures.FailureInfo:
    return failures.from_exception(ApplicationError(f"failure {number}", kind=f"Kind{number % 3}"))


class Story:
    """One run, and the rows the store would keep of it."""

    def __init__(
        self, program: list[Any], *, after_turn: Callable[[Story], None] | None = None
    ) -> None:
        self.instance = Instance(interpret)
        self.rows: list[tuple[bytes, int]] = []
        self.time = NOON
        self.status = Status.PENDING
        self._after_turn = after_turn
        self._updates = 0
        self.apply(
            ev.RunStarted(
                workflow="interpret",
                version="1.0.0",
                workflow_id="order-7",
                run_id="r",
                seed=SEED,
                input=payload.encode(program),
                started_at=NOON,
            )
        )

    def apply(self, *facts: ev.Event) -> list[ev.Event]:
        """Take one turn."""
        ordered = sorted(facts, key=lambda fact: fact.rank)
        turn = self.instance.apply(ordered, self.time)
        data = ev.encode_turn([*ordered, *turn.commands])
        self.instance.size += len(data)
        self.rows.append((data, self.time))
        self._follow_status()
        if self._after_turn is not None and self.instance.closed is None:
            self._after_turn(self)
        return turn.commands

    def follow(self, schedule: list[list[int]]) -> Story:
        """Let the schedule happen, as far as the run lives."""
        for choices in schedule:
            if self.instance.closed is not None:
                break
            facts: list[ev.Event] = []
            for choice in choices:
                facts += self._fact(choice, facts)
            if facts:
                self.time += SECOND // 1000
                self.apply(*facts)
        return self

    def _follow_status(self) -> None:
        """Keep the status as an engine would, and hold it against the table of states."""
        closed = self.instance.closed
        after = Status.RUNNING if self.instance.activities else Status.WAITING
        if closed is not None:
            after = Status(ev.CLOSES_AS[type(closed)])
        assert may(self.status, after), f"{self.status} -> {after}"
        self.status = after

    def _fact(self, choice: int, before: list[ev.Event]) -> list[ev.Event]:
        """Choose among what can happen now; nothing is decided twice in a turn."""
        options = [*self._options(choice, before)]
        make, *args = options[choice % len(options)]
        return make(choice, *args)

    def _options(self, choice: int, before: list[ev.Event]) -> Iterator[tuple[Any, ...]]:
        run = self.instance
        taken = {(type(fact), getattr(fact, "activity", 0)) for fact in before}
        decided = {number for kind, number in taken if kind is not ev.AttemptLost}
        for number in run.activities:
            if number not in decided:
                yield self._completed, number
                yield self._completed, number
                yield self._failed, number
                if choice > 900:
                    yield self._lost, number
        kinds = {kind for kind, _ in taken}
        if run.timers and ev.TimerFired not in kinds:
            yield (self._timers,)
            yield (self._timers,)
        for number in run.children if ev.ChildClosed not in kinds else ():
            yield self._child_closed, number
        for number in run.sends if ev.SendResolved not in kinds else ():
            yield self._sent, number
        for topic in TOPICS:
            yield self._message, topic
        yield (self._update,)
        if choice > 850 and not run.cancel and ev.CancelRequested not in kinds:
            yield (lambda _choice: [ev.CancelRequested(reason="enough")],)
        if choice > 900:
            yield (lambda choice: [ev.Forked(seed=b"%016d" % choice, origin="order-6")],)
            yield (lambda _choice: [ev.RunTaken(worker="w")],)

    def _completed(self, choice: int, number: int) -> list[ev.Event]:
        return [ev.ActivityCompleted(activity=number, result=payload.encode(choice))]

    def _failed(self, choice: int, number: int) -> list[ev.Event]:
        return [ev.ActivityFailed(activity=number, failure=_failure(choice))]

    def _lost(self, _choice: int, number: int) -> list[ev.Event]:
        return [ev.AttemptLost(activity=number, attempt=1)]

    def _timers(self, _choice: int) -> list[ev.Event]:
        due = min(due for due, _ in self.instance.timers.values())
        self.time = max(self.time, due)
        return [*self.instance.due_timers(self.time)]

    def _child_closed(self, choice: int, number: int) -> list[ev.Event]:
        if choice % 3 == 0:
            return [ev.ChildClosed(child=number, status="failed", failure=_failure(choice))]
        value = payload.encode(choice)
        return [ev.ChildClosed(child=number, status="completed", result=value, at=self.time)]

    def _sent(self, choice: int, number: int) -> list[ev.Event]:
        gone = failures.from_exception(errors.NotFound("nobody"))
        return [ev.SendResolved(send=number, failure=gone if choice % 3 == 0 else None)]

    def _message(self, choice: int, topic: str) -> list[ev.Event]:
        return [message(topic, choice)]

    def _update(self, choice: int) -> list[ev.Event]:
        self._updates += 1
        args = payload.encode([UPDATES[choice % len(UPDATES)]])
        return [ev.UpdateAccepted(update=f"u{self._updates}", name="step", args=args)]
