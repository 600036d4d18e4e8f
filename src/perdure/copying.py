"""Which part of a history a fork or a retry begins with: pure functions over stored rows.

A history can be cut where the code was not in the middle of an answer: at the end of a turn, or
between a turn's facts and the commands the code answered them with. A cut of the second kind leaves
the facts as a blind row, which a replay joins to the next applied one (R3): the code at hand
answers them anew. Rows before the cut are copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perdure import errors
from perdure.kernel.entropy import Keys, digest
from perdure.store.port import StartRequest, TurnRow
from perdure.values import endings
from perdure.values import events as ev
from perdure.values.failures import FailureInfo
from perdure.values.terms import Deadlines, ends_unbegun, later_deadlines

_NAMED = 10
_FAILS = frozenset({"ActivityFailed", "ChildFailed"})


class Turn:
    """A stored row, read: its events, and how many of them could stand without the others."""

    def __init__(self, row: TurnRow) -> None:
        self.row = row
        self.events = ev.decode_turn(row.payload)
        self.facts = next(
            (n for n, event in enumerate(self.events) if not _is_fact(event)), len(self.events)
        )

    @property
    def last(self) -> int:
        """The id of the row's last event."""
        return self.row.first + self.row.count - 1

    @property
    def answers_from(self) -> int:
        """The id that the first command has, or would have."""
        return self.row.first + self.facts

    @property
    def is_end(self) -> bool:
        """Whether the run ends with this turn."""
        return type(self.events[-1]) in ev.CLOSING

    def numbered(self) -> Iterator[tuple[int, ev.Event]]:
        """Yield events with their ids."""
        yield from enumerate(self.events, self.row.first)


def read(rows: Sequence[TurnRow]) -> list[Turn]:
    """Read a history.

    Raises:
        SchemaMismatch, Corrupt: this Perdure cannot read it.
    """
    return [Turn(row) for row in rows]


# -- where to cut --------------------------------------------------------------------------------


def cut(turns: Sequence[Turn], event: int) -> list[TurnRow]:
    """Return the rows up to the last place at or before ``event`` where the history can be cut.

    Event 1 is always among them, and the event that ended the run never.
    """
    rows: list[TurnRow] = []
    for turn in turns:
        if turn.last <= event and not turn.is_end:
            rows.append(turn.row)
            continue
        facts = turn.facts if turn.answers_from - 1 <= event else 0
        if facts or not rows:
            rows.append(_facts_row(turn, max(facts, 1)))
        break
    return rows


def before_step(turns: Sequence[Turn], name: str) -> list[TurnRow]:
    """Return the rows up to where the code first scheduled the step.

    Raises:
        Invalid: no activity, child, human task or step of that name is in the history.
    """
    return cut(turns, turns[_scheduling(turns, name)].answers_from - 1)


def repair(turns: Sequence[Turn], from_step: str | None) -> list[TurnRow]:
    """Return the rows that a retry keeps: up to where the turn was answered that led to the end,
    or where ``from_step`` was first scheduled. Recorded successes of what was scheduled before,
    and all messages, are kept also if they came later; the failures that led there are not.

    Raises:
        Invalid: there is no such step, or nothing that failed.
    """
    if from_step is not None:
        place = _scheduling(turns, from_step)
    else:
        place = _failing(turns)
        if place is None:
            return [turn.row for turn in turns]
    at = turns[place]
    rows = [turn.row for turn in turns[:place]]
    inherited = _inherited(turns)
    kept: list[dict[str, Any]] = []
    for turn in turns[place:]:
        kept += _kept(turn, at, inherited, plain=ev.decode_plain(turn.row.payload))
    if kept:
        first = rows[-1].first + rows[-1].count if rows else 1
        time = turns[-1].row.time
        rows.append(_blind(at.row, first, time, kept))
    return rows


def _scheduling(turns: Sequence[Turn], name: str) -> int:
    names: dict[str, None] = {}
    for index, turn in enumerate(turns):
        for event in turn.events:
            step = _step(event)
            if step == name:
                return index
            if step:
                names[step] = None
    known = ", ".join([*names][:_NAMED]) or "none"
    raise errors.Invalid(f"the run never scheduled a step {name!r} (it scheduled: {known})")


def _step(event: ev.Event) -> str:
    if isinstance(event, ev.ActivityScheduled):
        return event.name
    if isinstance(event, ev.HumanTaskOpened):
        return event.name or event.title
    if isinstance(event, ev.Emitted):
        return event.step if event.name == "step.started" else ""
    return event.workflow if isinstance(event, ev.ChildScheduled) else ""


def _failing(turns: Sequence[Turn]) -> int | None:
    """Return the turn that led to the end; ``None``: the run is open, all of it can be kept."""
    end = turns[-1].events[-1]
    if isinstance(end, (ev.RunCompleted, ev.RunContinued)):
        raise errors.Invalid(
            f"the run ended as {endings.status_of(end)}: nothing failed. Name a step (from_step=), "
            "or fork it"
        )
    if isinstance(end, ev.RunFailed):
        return _culprit(turns, end.failure)
    if isinstance(end, ev.RunCancelled):
        for index, turn in enumerate(turns):
            if any(isinstance(event, ev.CancelRequested) for event in turn.events):
                return index
    return len(turns) - 1 if turns[-1].is_end else None


def _culprit(turns: Sequence[Turn], failure: FailureInfo) -> int:
    """Return the turn with the failed step that the run's failure came from, else the last one.

    A child cannot be told to start again, so for a failed child it is the turn that started it.
    """
    chain = [failure]
    while chain[-1].cause is not None:
        chain.append(chain[-1].cause)
    failed: list[tuple[int, ev.ActivityFailed | ev.ChildClosed]] = [
        (index, event)
        for index, turn in enumerate(turns)
        for event in turn.events
        if isinstance(event, (ev.ActivityFailed, ev.ChildClosed)) and event.failure is not None
    ]
    same = [found for found in failed if found[1].failure in chain]
    if not same and not any(info.type in _FAILS for info in chain):
        same = [(len(turns) - 1, turns[-1].events[-1])]  # pyright: ignore[reportAssignmentType]
    index, event = (same or failed or [(len(turns) - 1, turns[-1].events[-1])])[-1]
    if isinstance(event, ev.ChildClosed):
        return next(n for n, turn in enumerate(turns) if turn.last >= event.child)
    return index


_KEPT: dict[type[ev.Event], Callable[[Any], int | None]] = {
    ev.MessageReceived: lambda _fact: 0,
    ev.ActivityCompleted: lambda fact: fact.activity,
    ev.SendResolved: lambda fact: fact.send,
    ev.ChildClosed: lambda fact: fact.child if fact.failure is None else None,
    ev.ExecutionEnded: lambda fact: fact.watch if fact.failure is None else None,
    ev.HumanTaskDecided: lambda fact: fact.opened if fact.outcome == "completed" else None,
}
"""Facts that a retry keeps, and the command each is about."""


def _inherited(turns: Sequence[Turn]) -> set[tuple[str, int]]:
    """Return the children of the runs that this one continues: by run, and by the event there."""
    started = turns[0].events[0] if turns else None
    children = started.children if isinstance(started, ev.RunStarted) else ()
    return {(child.run_id, child.child) for child in children}


def _kept(
    turn: Turn, at: Turn, inherited: set[tuple[str, int]], *, plain: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what a retry from turn ``at`` keeps of this turn."""
    for (_, event), data in zip(turn.numbered(), plain, strict=True):
        is_notice = isinstance(event, ev.ChildClosed) and (event.asked_by, event.child) in inherited
        if is_notice or (turn is at and isinstance(event, (ev.RunStarted, ev.TimerFired))):
            yield data
        elif type(event) in _KEPT:
            about = _KEPT[type(event)](event)
            if about is not None and about < at.row.first:
                yield data


def _is_fact(event: ev.Event) -> bool:
    return type(event) in _FACTS and type(event) not in ev.CLOSING


_FACTS = frozenset(ev.FACTS)
_BECOMES = (ev.Forked, ev.RunHandedOver, ev.RunResumed)


def _facts_row(turn: Turn, count: int) -> TurnRow:
    """Return the first ``count`` events of a turn as a blind row."""
    row = turn.row
    if count == row.count and not row.applied:
        return row
    return _blind(row, row.first, row.time, ev.decode_plain(row.payload)[:count])


def _blind(like: TurnRow, first: int, time: int, events: list[dict[str, Any]]) -> TurnRow:
    return TurnRow(like.run, first, len(events), time, False, like.worker, ev.encode_plain(events))


# -- what a copy begins with ---------------------------------------------------------------------


def check_open(rows: Sequence[TurnRow]) -> None:
    """Refuse a copy that would wait for what only the original is told.

    Raises:
        Invalid: children, or watches of other executions, are open at its end; the message has
            them.
    """
    waits: dict[int, str] = {}
    turns = read(rows)
    inherited = _inherited(turns)
    for turn in turns:
        for number, event in turn.numbered():
            if isinstance(event, ev.ChildScheduled):
                waits[number] = f"child {event.workflow_id!r} (event {number})"
            elif isinstance(event, ev.WatchSet):
                waits[number] = f"the end of {event.target!r} (event {number})"
            elif isinstance(event, ev.ChildClosed):
                if (event.asked_by, event.child) not in inherited:
                    waits.pop(event.child, None)
            elif isinstance(event, ev.ExecutionEnded):
                waits.pop(event.watch, None)
            elif isinstance(event, ev.SendResolved) and event.failure is not None:
                waits.pop(event.send, None)
            elif isinstance(event, ev.WatchDropped):
                target = f"the end of {event.target!r} "
                waits = {n: text for n, text in waits.items() if not text.startswith(target)}
    if waits:
        texts = ", ".join([*waits.values()][:_NAMED])
        raise errors.Invalid(
            f"at this point the run waits for {texts}, whose end only the original is told; "
            f"choose a point before event {min(waits)}, or after the end"
        )


def started_as(rows: Sequence[TurnRow]) -> ev.RunStarted:
    """Return what event 1 says at the end of these rows.

    Raises:
        Corrupt: there is no event 1.
    """
    started: ev.RunStarted | None = None
    for turn in read(rows):
        for event in turn.events:
            if isinstance(event, ev.RunStarted):
                started = event
            elif isinstance(event, _BECOMES) and started is not None:
                started = event.onto(started)
    if started is None:
        raise errors.Corrupt("the history does not begin with run_started")
    return started


def with_input(rows: Sequence[TurnRow], data: bytes) -> list[TurnRow]:
    """Return event 1 with another input.

    Raises:
        Invalid: more than event 1 would be copied: the code has seen the input.
    """
    if len(rows) != 1 or rows[0].count != 1:
        raise errors.Invalid(
            "input: only a fork from the very start (after_event=0) can have another input; the "
            "copied turns were computed from the recorded one"
        )
    [event] = ev.decode_plain(rows[0].payload)
    event["input"] = data
    return [_blind(rows[0], 1, rows[0].time, [event])]


def go_on(
    request: StartRequest,
    rows: Sequence[TurnRow],
    mark: ev.Forked,
    now: int,
    handed: ev.RunHandedOver | None = None,
) -> None:
    """Let a start write these rows and then, in a row of its own, the mark where the copy ends, and
    to whom it was ``handed``.

    Under a limit it stands in the queue as the copied run would.
    """
    terms = started_as(rows).terms
    request.key, request.priority = terms.key, terms.priority
    deadlines = Deadlines(0, mark.run_deadline, mark.execution_deadline)
    request.deadline = ends_unbegun(terms, deadlines)
    last = rows[-1]
    first = last.first + last.count
    time = max(now, last.time)
    events: list[ev.Event] = [mark] if handed is None else [mark, handed]
    row = TurnRow(0, first, len(events), time, False, 0, ev.encode_turn(events))
    request.copied, request.own = [*rows, row], 1


def set_deadlines(mark: ev.Forked, started: ev.RunStarted, now: int) -> None:
    """Count the timeouts of the copied run anew, from now."""
    terms = started.terms
    execution = now + terms.execution_timeout if terms.execution_timeout else 0
    deadlines = later_deadlines(terms, now, execution)
    mark.run_deadline, mark.execution_deadline = deadlines.run, deadlines.execution


def keys_to_keep(turns: Sequence[Turn], rows: Sequence[TurnRow]) -> tuple[ev.KeptKey, ...]:
    """Return the keys of calls that a retry with these rows makes again: made after, unsuccessful.

    A call that succeeded and is made again was asked for, and is another one: it gets a new key.
    """
    whole = {row.first for row in rows if row.applied}
    copied = {n for turn in turns if turn.row.first in whole for n, _ in turn.numbered()}
    calls: dict[int, ev.ActivityScheduled] = {}
    keys = Keys()
    for turn in turns:
        for number, event in turn.numbered():
            if isinstance(event, ev.RunStarted):
                keys.begin(number, event.seed)
            elif isinstance(event, ev.Forked):
                keys.begin(number, event.seed)
                keys.keep(event.keys, goes_on=event.keeps_chance)
                if event.run_id and not event.keeps_chance:
                    keys.begin_anew(calls, event.seed)
            elif isinstance(event, ev.ActivityScheduled):
                calls[number] = event
                keys.take(number, event.name, event.args)
            elif isinstance(event, ev.ActivityCompleted):
                calls.pop(event.activity, None)
    given = {number: keys.key(number) for number in calls if number not in copied}
    return tuple(
        ev.KeptKey(calls[number].name, digest(calls[number].args), key)
        for number, key in given.items()
    )
