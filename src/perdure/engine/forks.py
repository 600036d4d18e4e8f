"""What the loader must know of how a history begins, and of one copied from another run's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perdure.engine import people
from perdure.engine.runs import Input, Run
from perdure.kernel.edge import StoredTurn
from perdure.store.offers import Offer
from perdure.store.port import TurnRow
from perdure.values import events as ev
from perdure.values.duration import soonest

_MARKS = (b"forked", b"run_taken", b"run_handed_over", b"run_resumed")
_BECOMES = (ev.Forked, ev.RunTaken, ev.RunHandedOver, ev.RunResumed)


def became(started: ev.RunStarted | None, facts: Iterable[ev.Event]) -> ev.RunStarted | None:
    """Return what event 1 says after these facts.

    A copied one names the run it was copied from, and may act for somebody else; the first worker
    may know of a deadline; one that was started paused may have been resumed.
    """
    for fact in facts:
        if isinstance(fact, _BECOMES) and started is not None:
            started = fact.onto(started)
    return started


def became_by(started: ev.RunStarted | None, turns: Sequence[TurnRow]) -> ev.RunStarted | None:
    """Return what event 1 says after these rows."""
    for turn in turns:
        if any(mark in turn.payload for mark in _MARKS):
            started = became(started, ev.decode_turn(turn.payload))
    return started


def last_cancel(facts: Iterable[ev.Event], before: ev.CancelRequested | None = None) -> int:
    """Return the soonest deadline of the cancel requests, or 0: a fork knows none of them."""
    deadline = before.deadline if before is not None else 0
    for fact in facts:
        if isinstance(fact, ev.Forked) and fact.run_id:
            deadline = 0
        elif isinstance(fact, ev.CancelRequested):
            deadline = soonest(deadline, fact.deadline)
    return deadline


def taken_up(run: Run, taken: ev.RunTaken, *, is_copy: bool, offers: Sequence[Offer] = ()) -> None:
    """Let a run take a turn that says who has it now, before all else.

    The open transactional activities of a copy get deciding rows in the same commit, and what it
    asks people for gets rows of its own: those of the run it was copied from are that run's.
    ``offers``: of activities in task queues that are on offer no more, or not yet.
    """
    item = Input(taken)
    item.offering = tuple((offer.activity, offer) for offer in offers)
    if is_copy:
        item.asks = people.open_in(run)
        item.opens = tuple(
            (number, work.attempt) for number, work in run.work.items() if work.event.transactional
        )
    run.inputs.insert(0, item)


def beginning(turns: Sequence[StoredTurn]) -> tuple[int, ev.Event] | None:
    """Return how a run whose own code has not run yet began, and when."""
    for turn in reversed(turns):
        if turn.applied:
            return None
        for event in reversed(turn.events):
            if isinstance(event, (ev.RunStarted, ev.Forked)):
                return turn.time, event
    return None


def is_copy(facts: Iterable[ev.Event]) -> bool:
    """Tell whether a copy ends among these facts: then its first own turn is still to come."""
    return any(isinstance(fact, ev.Forked) and fact.run_id for fact in facts)


def key_source(run: Run, activity: int) -> str | bytes:
    """Return an activity's idempotency key, or the seed that it comes from.

    Also where a copy's end is not applied yet.
    """
    for fact in reversed(run.blind):
        if isinstance(fact, ev.Forked) and fact.run_id and not fact.keeps_chance:
            return fact.seed
    return run.instance.keys.source(activity) if run.instance is not None else ""
