"""What must hold in any database, whatever happened: the invariants that can be read from it.

``problems(store, definitions)`` reads every run and returns what is wrong, in sentences; an empty
list is what you want. Nothing may be writing meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perdure import errors
from perdure.definition import Workflow
from perdure.kernel.instance import Instance
from perdure.store.port import Filter, Listed, Loaded, Place, RunRow
from perdure.values import endings, limits
from perdure.values import events as ev
from perdure.values.people import HumanTaskFilter
from perdure.values.states import Status
from perdure.values.terms import RESUME_WITHIN

_ATTEMPTS = (ev.AttemptFailed, ev.AttemptLost)
_OUTCOMES = (ev.ActivityCompleted, ev.ActivityFailed, ev.ActivityCancelled)


class History:
    """A run with its events, decoded: ``events[0]`` has id 1."""

    def __init__(self, loaded: Loaded) -> None:
        self.row = loaded.row
        self.turns = loaded.turns
        self.inbox = [ev.decode_turn(row.event)[0] for row in loaded.inbox]
        self.broken = loaded.broken
        self.events: list[ev.Event] = []
        self.times: list[int] = []
        """The time of each event's turn."""
        for turn in loaded.turns:
            decoded = ev.decode_turn(turn.payload)
            self.events += decoded
            self.times += [turn.time] * len(decoded)

    @property
    def name(self) -> str:
        """How problems name the run."""
        return f"{self.row.workflow_id!r} (run {self.row.run})"

    def all(self, *kinds: type[ev.Event]) -> Iterator[tuple[int, Any]]:
        """Yield (event id, event) of these kinds."""
        for number, event in enumerate(self.events, start=1):
            if isinstance(event, kinds):
                yield number, event

    def messages(self) -> Iterator[tuple[int, ev.MessageReceived]]:
        """Yield the messages received, and behind them those that wait in the inbox."""
        yield from self.all(ev.MessageReceived)
        for number, event in enumerate(self.inbox, start=len(self.events) + 1):
            if isinstance(event, ev.MessageReceived):
                yield number, event


def histories(store: Any) -> list[History]:
    """Read every run, oldest first."""
    rows: list[RunRow] = []
    before: Place | None = None
    while True:
        page: Listed = store.list(Filter(), limit=limits.LIST_MAX, before=before)
        rows += page.rows
        before = page.goes_on
        if before is None:
            break
    runs = sorted(row.run for row in rows)
    found = {loaded.row.run: History(loaded) for loaded in store.load(runs)}
    return [found[run] for run in runs]


def problems(store: Any, definitions: Sequence[Workflow[Any, Any]]) -> list[str]:
    """Return everything that is wrong in the database."""
    known = {(definition.name, definition.version): definition for definition in definitions}
    found: list[str] = []
    read = histories(store)
    for history in read:
        for check in (_ids, _status, _activities, _timers, _terms, _pauses):
            found += [f"{history.name}: {problem}" for problem in check(history)]
        definition = known.get((history.row.workflow, history.row.version))
        if definition is not None:
            found += [f"{history.name}: {problem}" for problem in _replay(history, definition)]
    found += _messages(read)
    found += _children(read)
    last = {history.row.execution: history for history in read}
    found += [
        f"{history.name} has ended and has a place in its workflow's limit (I8)"
        for execution, history in last.items()
        if history.row.status.is_terminal and store.standing(execution) is not None
    ]
    found += _executions(read)
    found += _watches(read)
    found += _people(store, read)
    live = {worker.id for worker in store.workers()}
    found += [
        f"{history.name} is owned by worker {history.row.owner}, which is gone"
        for history in read
        if history.row.owner is not None and history.row.owner not in live
    ]
    return found


# -- one run ---------------------------------------------------------------------------------------


def _ids(history: History) -> Iterator[str]:
    """I2: ids are gapless and rows do not overlap; turn time never goes back."""
    if history.broken:
        yield history.broken
    expected, before = 1, 0
    for turn in history.turns:
        if turn.first != expected:
            yield f"event {expected} is followed by a row that begins at {turn.first} (I2)"
        held = len(ev.decode_turn(turn.payload))
        if held != turn.count:
            yield f"the row at {turn.first} says it has {turn.count} events and holds {held}"
        if turn.time < before:
            yield f"time goes back at event {turn.first}"
        expected, before = turn.first + turn.count, turn.time
    if not history.events or not isinstance(history.events[0], ev.RunStarted):
        yield "event 1 is not run_started (I1)"
    if sum(isinstance(event, ev.RunStarted) for event in history.events) > 1:
        yield "it was started twice"


def _status(history: History) -> Iterator[str]:
    row, last = history.row, history.events[-1]
    closing = [n for n, e in enumerate(history.events, 1) if type(e) in ev.CLOSES_AS]
    if closing and closing != [len(history.events)]:
        yield f"the closing event is not the last one: {closing} of {len(history.events)}"
    if row.length != len(history.events):
        yield f"its row says {row.length} events, its history has {len(history.events)}"
    if row.status.is_terminal:
        says = ev.CLOSES_AS.get(type(last))
        if says != row.status:
            yield f"its status is {row.status}, its last event {last.brief()}"
        if row.owner is not None:
            yield "it has ended and has an owner"
        if history.inbox and not endings.next_run(last):
            yield f"it has ended with {len(history.inbox)} rows in its inbox"
    elif closing:
        yield f"its status is {row.status}, its last event {last.brief()}"
    if row.status is Status.PARKED and not row.reason:
        yield "it is parked without a reason"


def _activities(history: History) -> Iterator[str]:
    """I4: one outcome, and nothing after it; I13: attempts are counted one by one."""
    attempts: dict[int, int] = {}
    decided: dict[int, str] = {}
    for number, event in enumerate(history.events, start=1):
        if isinstance(event, ev.ActivityScheduled):
            attempts[number] = 0
        elif isinstance(event, (*_OUTCOMES, *_ATTEMPTS)):
            activity = event.activity
            if activity not in attempts:
                yield f"event {number} is about activity {activity}, which was not scheduled before"
                continue
            if activity in decided:
                yield f"event {number}, {event.brief()}, comes after {decided[activity]} (I4)"
            yield from _counted(number, event, attempts)
            if isinstance(event, _OUTCOMES):
                decided[activity] = f"event {number}, {event.brief()}"


def _counted(number: int, event: Any, attempts: dict[int, int]) -> Iterator[str]:
    if isinstance(event, ev.ActivityCancelled):
        return
    counted = attempts[event.activity]
    allowed = {counted + 1}
    if isinstance(event, ev.ActivityFailed):
        allowed.add(counted)  # the last one was lost, or never began
    if event.attempt not in allowed:
        yield f"event {number}: attempt {event.attempt} follows attempt {counted} (I13)"
    attempts[event.activity] = event.attempt


def _timers(history: History) -> Iterator[str]:
    due: dict[int, int] = {}
    gone: set[int] = set()
    for number, event in enumerate(history.events, start=1):
        if isinstance(event, ev.TimerStarted):
            due[number] = event.due
        elif isinstance(event, (ev.TimerFired, ev.TimerCancelled)):
            if event.timer not in due:
                yield f"event {number} is about timer {event.timer}, which was not started before"
            elif event.timer in gone:
                yield f"event {number}: timer {event.timer} fires, or is cancelled, a second time"
            elif isinstance(event, ev.TimerFired) and history.times[number - 1] < due[event.timer]:
                yield f"timer {event.timer} fired before it was due"
            gone.add(event.timer)


def _terms(history: History) -> Iterator[str]:
    """No turn is taken before a delayed start is due, and no time is up too early."""
    started = history.events[0]
    if not isinstance(started, ev.RunStarted):
        return
    cancels: list[ev.CancelRequested] = [event for _, event in history.all(ev.CancelRequested)]
    for turn in history.turns:
        if turn.applied and turn.time < started.not_before:
            yield f"the turn at {turn.first} came before the start was due"
    for number, event in history.all(ev.RunTimedOut):
        due = {"run": started.run_deadline, "execution": started.execution_deadline}
        if history.times[number - 1] < due.get(event.timeout, 0):
            yield f"its {event.timeout} timeout passed too early"
    last = history.events[-1]
    if isinstance(last, ev.RunTerminated) and last.by == RESUME_WITHIN:
        if history.times[-1] < (started.resume_by or 0):
            yield "it ended before the time in which to resume it was over"
        if any(isinstance(event, ev.RunResumed) for event in history.events):
            yield "it was resumed, and ended because nobody had"
    if isinstance(last, ev.RunTerminated) and not last.by and cancels:
        limits = [cancel.deadline for cancel in cancels if cancel.deadline]
        if limits and history.times[-1] < min(limits):
            yield "it was terminated before the deadline of its cancel request"


def _pauses(history: History) -> Iterator[str]:
    """A paused run takes no turn until it is resumed."""
    started = history.events[0]
    is_paused = isinstance(started, ev.RunStarted) and started.resume_by is not None
    is_parked = False
    for turn in history.turns:
        for event in ev.decode_turn(turn.payload):
            if isinstance(event, ev.RunParked):
                is_parked = True
            elif isinstance(event, ev.RunUnparked):
                is_parked = False
            elif isinstance(event, ev.RunPaused) and not is_parked:
                is_paused = True
            elif isinstance(event, ev.RunResumed):
                is_paused = False
        if is_paused and turn.applied:
            yield f"the turn at {turn.first} was taken while the run was paused"
            return


def _replay(history: History, definition: Workflow[Any, Any]) -> Iterator[str]:
    """I5, I11: the code, run again over the facts, asks for the same commands, byte by byte.

    But for soft ones: a replay makes none.
    """
    instance = Instance(definition)
    facts: list[ev.Event] = []
    try:
        for turn in history.turns:
            events = ev.decode_turn(turn.payload)
            if not turn.applied:
                facts += events
                continue
            count = ev.split(events)
            facts += events[:count]
            answered = instance.apply(facts, turn.time, events[count:])
            facts = []
            hard = [command for command in events[count:] if type(command) not in ev.SOFT]
            if ev.encode_turn(answered.commands) != ev.encode_turn(hard):
                yield f"the turn at {turn.first} replays with other commands"
    except errors.NondeterminismError as exc:
        yield f"it does not replay: {exc.message}"
    finally:
        instance.evict()


# -- between runs ----------------------------------------------------------------------------------


def _messages(read: Sequence[History]) -> Iterator[str]:
    """I7: a message is in one history once; what was sent arrived, in the order of its sender."""
    places: dict[str, list[tuple[int, int]]] = {}
    for history in read:
        for number, event in history.messages():
            if event.message.id:
                places.setdefault(event.message.id, []).append((history.row.run, number))
    for id_, found in places.items():
        if len(found) > 1:
            yield f"message {id_} was received {len(found)} times: {found} (I7)"
    for history in read:
        resolved = {e.send: e for _, e in history.all(ev.SendResolved)}
        last: dict[str, tuple[tuple[int, int], str]] = {}
        for number, sent in history.all(ev.MessageSent):
            answer = resolved.get(number)
            id_ = f"{history.row.run_id}/{number}"
            if answer is None or sent.target.startswith("@"):
                continue
            if answer.failure is not None:
                if id_ in places:
                    yield f"{history.name}: message {id_} was refused, and received"
                continue
            if id_ not in places:
                yield f"{history.name}: message {id_} to {sent.target!r} was sent and not received"
                continue
            place = places[id_][0]
            if sent.target in last and place < last[sent.target][0]:
                yield f"{history.name}: {id_} overtook {last[sent.target][1]}"
            last[sent.target] = place, id_


def _children(read: Sequence[History]) -> Iterator[str]:
    by_run_id = {history.row.run_id: history for history in read}
    taken = {history.row.workflow_id for history in read}
    closed: dict[tuple[int, int, str], int] = {}
    for history in read:
        for _, event in history.all(ev.ChildClosed):
            key = history.row.execution, event.child, event.run_id
            closed[key] = closed.get(key, 0) + 1
    for key, times in closed.items():
        if times > 1:
            yield f"execution {key[0]} heard {times} times of the end of child {key[1]}"
    for history in read:
        for number, event in history.all(ev.ChildScheduled):
            child = by_run_id.get(event.run_id)
            heard = (history.row.execution, number, event.run_id) in closed
            # A run that ended at once may not have heard that the child's id was taken.
            is_refused = history.row.status.is_terminal and event.workflow_id in taken
            if child is None and not heard and not is_refused:
                yield f"{history.name}: child {event.workflow_id!r} was neither started nor refused"


def _executions(read: Sequence[History]) -> Iterator[str]:
    """One run of a workflow id is open at most; a run that names its successor has it."""
    open_: dict[tuple[str, str], list[int]] = {}
    by_run_id = {history.row.run_id: history for history in read}
    followed: dict[str, str] = {}
    for history in read:
        row = history.row
        if not row.status.is_terminal:
            open_.setdefault((row.namespace, row.workflow_id), []).append(row.run)
        following = endings.next_run(history.events[-1]) if row.status.is_terminal else ""
        if following:
            followed[following] = row.run_id
            after = by_run_id.get(following)
            if after is None or after.row.execution != row.execution:
                yield f"{history.name} goes on in run {following}, which is not there"
        started = history.events[0]
        if isinstance(started, ev.RunStarted) and started.continued_from:
            before = by_run_id.get(started.continued_from)
            if before is None or endings.next_run(before.events[-1]) != row.run_id:
                yield f"{history.name} continues a run that does not say so"
    for (_, id), runs in open_.items():
        if len(runs) > 1:
            yield f"{id!r} has several open runs: {runs}"


def _watches(read: Sequence[History]) -> Iterator[str]:
    """A watch gives at most one notice, and that says how the execution ended."""
    by_run_id = {history.row.run_id: history for history in read}
    heard: dict[tuple[str, int, str], int] = {}
    for history in read:
        waiting = [event for event in history.inbox if isinstance(event, ev.ExecutionEnded)]
        recorded = [event for _, event in history.all(ev.ExecutionEnded)]
        for event in (*recorded, *waiting):
            target = by_run_id.get(event.run_id)
            if target is None or str(target.row.status) != event.status:
                yield f"{history.name} heard that {event.workflow_id!r} is {event.status}"
            elif endings.next_run(target.events[-1]):
                yield f"{history.name} heard of the end of {event.workflow_id!r}, which goes on"
            if event.way != "linked":
                key = event.asked_by, event.watch, event.run_id
                heard[key] = heard.get(key, 0) + 1
                yield from _asked_for(history, by_run_id.get(event.asked_by), event)
    for (asked_by, watch, _), times in heard.items():
        if times > 1:
            yield f"watch {watch} of run {asked_by} gave {times} notices"


def _asked_for(history: History, asked: History | None, event: ev.ExecutionEnded) -> Iterator[str]:
    """A notice answers a watch of the same execution."""
    set_ = asked.events[event.watch - 1] if asked and event.watch <= len(asked.events) else None
    if asked is None or asked.row.execution != history.row.execution:
        yield f"{history.name} got a notice that another execution asked for"
    elif not isinstance(set_, ev.WatchSet) or set_.target != event.workflow_id:
        yield f"{history.name} got a notice about {event.workflow_id!r} that it did not ask for"


def _people(store: Any, read: Sequence[History]) -> Iterator[str]:
    """A human task is open in the table exactly as long as its run waits for it."""
    listed: dict[int, set[int]] = {}
    for task in store.human_tasks(HumanTaskFilter(), 0, limit=-1):
        if task.run is not None and task.event is not None:
            listed.setdefault(task.run, set()).add(task.event)
    for history in read:
        waits = _asked(history)
        found = listed.pop(history.row.run, set())
        for number in sorted(waits - found):
            yield f"{history.name} waits for event {number}, which nobody is asked for"
        for number in sorted(found - waits):
            yield f"{history.name}: people are asked for event {number}, which it does not wait for"
    for run in listed:
        yield f"people are asked for run {run}, which is not there"


def _asked(history: History) -> set[int]:
    """Return the commands of an open run that people can still do."""
    waits: set[int] = set()
    is_copy = False
    for number, event in enumerate(history.events, start=1):
        if isinstance(event, ev.HumanTaskOpened):
            waits.add(number)
        elif isinstance(event, (ev.HumanTaskDecided, ev.HumanTaskClosed)):
            waits.discard(event.opened)
        elif isinstance(event, ev.Forked) and event.run_id:
            is_copy = True
        elif isinstance(event, ev.RunTaken):
            is_copy = False
    if history.row.status.is_terminal or is_copy:
        return set()  # a copy asks anew in its first own turn
    decided = {event.opened for event in history.inbox if isinstance(event, ev.HumanTaskDecided)}
    return waits - decided
