"""Events by name: what listeners and subscribers are told, made from history rows.

A history holds what a replay needs; people and programs that watch want to hear that a workflow has
started and that a step is tried again. These events are derived, by pure functions, from rows that
are committed: nobody is told what might still be undone, and everybody is told the same. Names and
payload keys are those of the table in ``docs/events.md``.

A row does not say it all: an outcome names its activity by number, and a step's mark names the
outcome by that number. A :class:`Past` is what has to be known of a run's earlier rows; it is the
rows before, read in their order, or what is left of them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, cast

import msgspec

from perdure import errors
from perdure.store.port import TurnRow
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import SECOND
from perdure.values.failures import FailureInfo
from perdure.values.retry import RetryPolicy
from perdure.views import to_datetime


class NamedEvent(msgspec.Struct, frozen=True):
    """Something that happened in a run.

    ``id`` tells a later ``client.events(after=…)`` where to go on; what ``engine.events`` tells has
    none. ``at``: the time of the turn. ``run_id``: of the execution's run that it happened in.
    """

    name: str
    data: dict[str, Any]
    id: str = ""
    at: datetime | None = None
    run_id: str = ""

    def matches(self, pattern: str) -> bool:
        """Tell whether the name matches; ``*`` stands for the rest, dots included."""
        return fnmatchcase(self.name, pattern)


class Head(NamedTuple):
    """Whose history a row belongs to."""

    workflow_id: str
    workflow: str
    run_id: str


class Call:
    """An activity that was scheduled: what its outcome's row does not say."""

    __slots__ = ("name", "outcome", "retry", "step", "tells")

    def __init__(self, event: dict[str, Any]) -> None:
        self.name = cast("str", event["name"])
        self.step = cast("str", event.get("step", ""))
        retry = event.get("retry")
        self.retry = None if retry is None else msgspec.convert(retry, RetryPolicy)
        self.outcome: dict[str, Any] | None = None
        self.tells = True

    @property
    def shown(self) -> str:
        """The name of the step, for people."""
        return self.step or self.name


class Past:
    """What is known of a run's rows so far: its activities without a told outcome, by number."""

    __slots__ = ("calls", "is_whole")

    def __init__(self, *, is_whole: bool) -> None:
        self.calls: dict[int, Call] = {}
        self.is_whole = is_whole
        """Whether every row before is in it: what it does not know is no longer of interest."""

    def knows_enough(self, events: Sequence[dict[str, Any]], first: int) -> bool:
        """Tell whether these events can be told without looking at earlier rows."""
        if self.is_whole:
            return True
        wanted = (number for event in events if (number := _about(event)))
        return all(number >= first or number in self.calls for number in wanted)


def past_of(turns: Sequence[TurnRow], before: int | None = None) -> Past:
    """Return what the rows of a history say; only those that begin before an event, if given.

    Raises:
        Corrupt: one of them is not a turn.
    """
    past = Past(is_whole=True)
    for turn in turns:
        if before is None or turn.first < before:
            tell(ev.decode_plain(turn.payload), turn.first, turn.time, Head("", "", ""), past)
    return past


Told = tuple[str, dict[str, Any]]


def tell(
    events: Sequence[dict[str, Any]], first: int, time: int, head: Head, past: Past
) -> list[tuple[str, NamedEvent]]:
    """Return the named events of a row, each with its place in the row, and bring ``past`` on.

    ``events``: the row, as :func:`perdure.values.events.decode_plain` gives it; those of kinds that
    this Perdure does not know have no names here. ``time``: the row's, in microseconds.
    """
    who = {"instance_id": head.workflow_id, "workflow_name": head.workflow}
    at = to_datetime(time)
    scene = _Scene(events, time, past)
    told: list[tuple[str, NamedEvent]] = []
    for index, event in enumerate(events):
        make = _MAKE.get(event["kind"])
        if make is None:
            continue
        for part, (name, data) in enumerate(make(scene, first + index, event)):
            named = NamedEvent(f"workflow.{name}", {**who, **data}, at=at, run_id=head.run_id)
            told.append((f"{index}.{part}", named))
    return told


def unreadable(head: Head, time: int, why: str) -> list[tuple[str, NamedEvent]]:
    """Return the one event of a row that cannot be read."""
    data = {"instance_id": head.workflow_id, "workflow_name": head.workflow, "error": why}
    event = NamedEvent("workflow.unreadable", data, at=to_datetime(time), run_id=head.run_id)
    return [("0.0", event)]


class _Scene(NamedTuple):
    events: Sequence[dict[str, Any]]
    time: int
    past: Past

    def call(self, event: dict[str, Any]) -> Call | None:
        return self.past.calls.get(event["activity"])

    def has(self, kind: str, activity: int | None = None) -> bool:
        return any(
            event["kind"] == kind and (activity is None or event["activity"] == activity)
            for event in self.events
        )


def _about(event: dict[str, Any]) -> int:
    if event["kind"] == "emitted":
        return event.get("of", 0)
    return event.get("activity", 0) if event["kind"] in _OF_ACTIVITIES else 0


# -- the run ---------------------------------------------------------------------------------------


def _started(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "started", {"input": payload.decode(event.get("input", payload.NULL))}


def _completed(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "completed", {"output": payload.decode(event.get("result", payload.NULL))}


def _failed(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    said = [_message(event["failure"])]
    if event.get("not_undone"):
        said.append(_message(event["not_undone"]))
    yield "failed", {"error": "; ".join(said)}


def _timed_out(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    text = f"the {event.get('timeout', 'run')} timeout passed"
    yield "failed", {"error": text, "status": "timed_out"}


def _cancelled(_: _Scene, _number: int, _event: dict[str, Any]) -> Iterator[Told]:
    yield "cancelled", {}


def _terminated(_: _Scene, _number: int, _event: dict[str, Any]) -> Iterator[Told]:
    yield "cancelled", {"status": "terminated"}


def _continued(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "continued", {"run_id": event["run_id"]}


def _parked(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "parked", {key: event.get(key, "") for key in ("reason", "detail", "unblock")}


def _forked(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield (
        "forked",
        {
            "origin": event["origin"],
            "event": event.get("event", 0),
            "how": event.get("how", "fork"),
        },
    )


def _moved(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "moved", {"version": event["version"]}


def _overdue(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    yield "overdue", {"limit": event.get("limit", 0) / SECOND}


def _just(name: str) -> Callable[[_Scene, int, dict[str, Any]], Iterator[Told]]:
    def make(_: _Scene, _number: int, _event: dict[str, Any]) -> Iterator[Told]:
        yield name, {}

    return make


def _progress(_: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    done, total = event["done"], event.get("total")
    percent = min(100, round(100 * done / total)) if total else None
    yield "progress", _steps(percent, event.get("note", ""), done, total)


def _steps(percent: int | None, step: str, done: float, total: float | None) -> dict[str, Any]:
    return {
        "progress": percent,
        "current_step": step,
        "completed_steps": done,
        "total_steps": total,
    }


# -- its activities: the steps of a function ---------------------------------------------------


def _scheduled(scene: _Scene, number: int, event: dict[str, Any]) -> Iterator[Told]:
    call = scene.past.calls[number] = Call(event)
    if not call.step:
        yield "step.started", {"step_name": call.name, "step_type": "activity"}


def _activity_ended(scene: _Scene, number: int, event: dict[str, Any]) -> Iterator[Told]:
    call = scene.call(event)
    if call is None:
        return  # the code had given it up
    if call.step:
        call.outcome = event  # the step's mark tells
        return
    del scene.past.calls[event["activity"]]
    if event["kind"] == "activity_completed":
        output = payload.decode(event.get("result", payload.NULL))
        yield "step.completed", {"step_name": call.name, "output": output}
    else:
        yield "step.failed", {"step_name": call.name, **_failure(event)}


def _attempt_failed(scene: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    call = scene.call(event)
    if call is not None:
        delay = max(0, event["retry_at"] - scene.time)
        if call.retry is not None:
            delay = call.retry.delay_after(event["attempt"])
        yield "step.retry", _retry(call, event, delay / SECOND, _message(event["failure"]))


def _attempt_lost(scene: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    call = scene.call(event)
    if call is None or scene.has("activity_failed", event["activity"]) or scene.has("run_parked"):
        return  # it is not tried again
    text = "the stop cut it off" if event.get("by_stop") else "it was lost with its worker"
    yield "step.retry", _retry(call, event, 0.0, text)


def _retry(call: Call, event: dict[str, Any], delay: float, error: str) -> dict[str, Any]:
    return {
        "step_name": call.shown,
        "attempt": event["attempt"],
        "max_attempts": (call.retry.max_attempts if call.retry else 0) or None,
        "delay": delay,
        "error": error,
    }


def _activity_cancelled(scene: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    call = scene.past.calls.pop(event["activity"], None)
    if call is not None and not call.step:
        yield "step.cancelled", {"step_name": call.name}


def _failure(event: dict[str, Any]) -> dict[str, Any]:
    return {"error": _message(event["failure"]), "attempts": event.get("attempt", 1)}


def _message(failure: dict[str, Any]) -> str:
    """Return what went wrong, without the wrappers that say where it was heard of."""
    return msgspec.convert(failure, FailureInfo).root.message


# -- what the code tells, and the steps of a graph ---------------------------------------------


def _emitted(scene: _Scene, _number: int, event: dict[str, Any]) -> Iterator[Told]:
    name, step = event.get("name", "event"), event.get("step", "")
    data = payload.decode(event.get("data", payload.NULL))
    if name == "event":
        yield "event", {"event": event.get("event", ""), "data": data}
        return
    if name != "progress":
        call = scene.past.calls.get(event.get("of", 0))
        outcome = call.outcome if call is not None else None
        if call is not None and outcome is not None and event.get("path", "output"):
            yield from _told_by_handler(call, outcome)
        found = _FINDINGS.get(name, _nothing)(event, outcome)
        yield name, {"step_name": step, **found, **(data or {})}
        if name in _ENDS or (name == "step.poll" and not found["done"]):
            scene.past.calls.pop(event.get("of", 0), None)
    if total := event.get("total", 0):
        done = event.get("done", 0)
        percent = 100 if name == "progress" else min(100, round(100 * done / total))
        yield "progress", _steps(percent, step, done, total)


def _told_by_handler(call: Call, outcome: dict[str, Any]) -> Iterator[Told]:
    """Tell what a handler emitted: it was recorded with its outcome."""
    if not call.tells or "result" not in outcome:
        return
    call.tells = False
    found = payload.decode(outcome["result"])
    if isinstance(found, dict) and "changes" in found:
        changes = cast("dict[str, dict[str, Any]]", found)["changes"]
        for event, data in (changes or {}).get("events", ()):
            yield "event", {"event": event, "data": data}


def _output(event: dict[str, Any], outcome: dict[str, Any] | None) -> Any:
    if not event.get("of"):
        return payload.decode(event.get("result") or payload.NULL)
    value = payload.decode((outcome or {}).get("result", payload.NULL))
    for key in filter(None, event.get("path", "output").split(".")):
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    return value


def _finding_output(event: dict[str, Any], outcome: dict[str, Any] | None) -> dict[str, Any]:
    return {"output": _output(event, outcome)}


def _finding_failure(_: dict[str, Any], outcome: dict[str, Any] | None) -> dict[str, Any]:
    if outcome is None or "failure" not in outcome:
        return {"error": "", "attempts": (outcome or {}).get("attempt", 1)}
    return _failure(outcome)


def _finding_answer(event: dict[str, Any], outcome: dict[str, Any] | None) -> dict[str, Any]:
    answer = _output(event, outcome)
    found = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    return {"done": bool(found.get("done")), "result": found.get("result")}


def _nothing(_: dict[str, Any], _outcome: dict[str, Any] | None) -> dict[str, Any]:
    return {}


_ENDS = frozenset({"step.completed", "step.failed", "step.skipped"})
_FINDINGS: dict[str, Callable[[dict[str, Any], dict[str, Any] | None], dict[str, Any]]] = {
    "step.completed": _finding_output,
    "step.failed": _finding_failure,
    "step.poll": _finding_answer,
}
_OF_ACTIVITIES = frozenset(
    {
        "activity_completed",
        "activity_failed",
        "attempt_failed",
        "attempt_lost",
        "activity_cancelled",
    }
)
_MAKE: dict[str, Callable[[_Scene, int, dict[str, Any]], Iterator[Told]]] = {
    "run_started": _started,
    "run_completed": _completed,
    "run_failed": _failed,
    "run_timed_out": _timed_out,
    "run_cancelled": _cancelled,
    "run_terminated": _terminated,
    "run_continued": _continued,
    "run_parked": _parked,
    "run_unparked": _just("unparked"),
    "run_paused": _just("paused"),
    "run_resumed": _just("resumed"),
    "run_moved": _moved,
    "run_overdue": _overdue,
    "forked": _forked,
    "progress_reported": _progress,
    "activity_scheduled": _scheduled,
    "activity_completed": _activity_ended,
    "activity_failed": _activity_ended,
    "attempt_failed": _attempt_failed,
    "attempt_lost": _attempt_lost,
    "activity_cancelled": _activity_cancelled,
    "emitted": _emitted,
}


# -- places ---------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A subscriber's position: a history row, an event of it, and what of that was told last."""

    row: int
    event: int
    part: int

    def __str__(self) -> str:
        return f"{self.row}.{self.event}.{self.part}"


def read_place(text: str) -> Place:
    """Read the ``id`` of an event.

    Raises:
        Invalid: it is not one.
    """
    try:
        row, event, part = map(int, text.split("."))
        if row < 1 or event < 0 or part < 0:
            raise ValueError(text)
    except (ValueError, AttributeError):
        raise errors.Invalid(f"after: {text!r:.80} is not the id of an event") from None
    return Place(row, event, part)
