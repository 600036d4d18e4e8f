"""The trail of a graph's run, read off its history: visits of steps, ``data`` and ``metadata``.

The rows are the truth, and no code of the workflow is needed to read them. Rows are read in their
order, and each once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, cast

import msgspec

from perdure import named
from perdure.named import NamedEvent
from perdure.values import payload
from perdure.values.commands import NOT_CHOSEN
from perdure.views import to_datetime

SET_METADATA = "set_metadata"
"""The update by which ``handle.set_metadata`` reaches a run of a graph."""
_WEBHOOK_DATA = "webhook_data"
"""Where a webhook leaves what has come, unless its definition says otherwise."""
_Event = dict[str, Any]


class Visit(msgspec.Struct, eq=False):
    """One visit of a step. ``event``: the id of its first mark. ``kind``: the step's type, as
    listeners are told it; "activity": it is one, called by a function. ``status``: running,
    completed, failed, skipped or cancelled. ``asked``: the id of the event by which it first asked
    a person; 0: it did not.
    """

    event: int
    step: str
    kind: str
    started_at: datetime | None
    status: str = "running"
    completed_at: datetime | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    attempts: int = 1
    asked: int = 0
    assignee: str | None = None
    done_by: str | None = None


class Visits:
    """The visits of steps, in the order in which they began: ``found``.

    Several visits of one step may be under way at a time (a map). Marks name their step alone, so
    they are told apart by what they wait for: a command that directly follows the mark of a visit
    is of that visit, and of those that wait for nothing the one goes on that was ready first.
    """

    def __init__(self) -> None:
        self.found: list[Visit] = []
        self._past = named.Past(is_whole=True)
        self._ready: dict[str, dict[int, Visit]] = {}
        self._waiting: dict[str, dict[int, Visit]] = {}
        self._of: dict[int, Visit] = {}

    def take(self, events: Sequence[_Event], first: int, time: int) -> None:
        """Read a row: its events, the id of the first, and its time in microseconds."""
        told: dict[int, list[NamedEvent]] = {}
        for place, event in named.tell(events, first, time, named.Head("", "", ""), self._past):
            told.setdefault(int(place.partition(".")[0]), []).append(event)
        at, marked = to_datetime(time), None
        for index, event in enumerate(events):
            kind, number = event["kind"], first + index
            if kind in _SETTLES:
                self._settle(event)
            elif kind in _BEGINS:
                self._wait(event, number, marked)
            marked = None
            for one in told.get(index, ()):
                marked = self._mark(one, event, number, at) or marked

    def _mark(self, told: NamedEvent, event: _Event, number: int, at: datetime) -> Visit | None:
        """Take what is told of a step; return the visit that goes on now, if one does."""
        name, is_mark = told.name.removeprefix("workflow.step."), event["kind"] == "emitted"
        step, kind = told.data.get("step_name", ""), told.data.get("step_type", "")
        if told.data.get("reason") == NOT_CHOSEN:
            self.found.append(Visit(number, step, kind, None, "skipped", at, attempts=0))
            return None
        if name == "started" and step:
            visit = Visit(number, step, kind, at)
            self.found.append(visit)
            if is_mark:
                self._ready.setdefault(step, {})[number] = visit
                return visit
            self._call(visit, event, number)
            return None
        visit = self._of.get(event.get("of" if is_mark else "activity", 0))
        visit = self._next(step) if visit is None and is_mark else visit
        if visit is None:
            return None
        if name == "retry":
            visit.attempts = told.data["attempt"] + 1
        elif name in _ENDS and visit.status == "running":
            visit.status, visit.completed_at = name, at
            visit.output, visit.error = told.data.get("output"), told.data.get("error")
            visit.attempts = told.data.get("attempts", visit.attempts)
            self._forget(visit)
        return visit if name == "poll" else None

    def _wait(self, event: _Event, number: int, marked: Visit | None) -> None:
        """A command: note which visit waits for what comes of it."""
        key, kinds = _BEGINS[event["kind"]]
        step = event.get(key, "")
        is_its = marked is not None and (step == marked.step if key else marked.kind in kinds)
        visit = marked if is_its else self._next(step)
        if visit is None:
            return
        self._forget(visit)
        self._waiting.setdefault(visit.step, {})[visit.event] = self._of[number] = visit
        if event["kind"] == "activity_scheduled":
            self._call(visit, event, number)
        elif event["kind"] == "human_task_opened":
            visit.asked, visit.assignee = visit.asked or number, event.get("assignee")

    def _call(self, visit: Visit, event: _Event, number: int) -> None:
        self._of[number] = visit
        visit.input = next(iter(payload.decode(event.get("args", b"[]"))), None)

    def _settle(self, event: _Event) -> None:
        """What a visit waited for is there: it goes on after those that were ready before."""
        visit = self._of.get(event[_SETTLES[event["kind"]]])
        if visit is None or visit.status != "running":
            return
        if event["kind"] == "human_task_decided":
            visit.done_by = event.get("by") or None
        self._forget(visit)
        self._ready.setdefault(visit.step, {})[visit.event] = visit

    def _next(self, step: str) -> Visit | None:
        """Return the visit of a step that goes on next."""
        under_way = self._ready.get(step) or self._waiting.get(step) or {}
        return next(iter(under_way.values()), None)

    def _forget(self, visit: Visit) -> None:
        for of_state in (self._ready, self._waiting):
            of_state.get(visit.step, {}).pop(visit.event, None)


class Gathered:
    """The ``data`` and ``metadata`` that a graph's run has, as far as its history was read.

    ``webhooks``: under which keys of ``data`` its webhooks leave what has come; ``None``: nobody
    knows, and it is where they leave it by default.
    """

    def __init__(self, webhooks: Mapping[str, str] | None = None) -> None:
        self.data: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self._webhooks = webhooks
        self._kinds: dict[str, str] = {}
        self._outcomes: dict[int, bytes] = {}
        self._asked: dict[int, str] = {}
        self._not_done: list[tuple[str, Any]] = []

    def take(self, events: Sequence[dict[str, Any]], first: int) -> None:
        """Read a row; rows are read in their order."""
        for number, event in enumerate(events, first):
            read = self._READ.get(event["kind"])
            if read is not None:
                read(self, number, event)

    def _started(self, _: int, event: dict[str, Any]) -> None:
        given = payload.decode(event.get("input", payload.NULL))
        self.data = cast("dict[str, Any]", given) if isinstance(given, dict) else {}

    def _outcome(self, _: int, event: dict[str, Any]) -> None:
        self._outcomes[event["activity"]] = event.get("result", payload.NULL)

    def _update(self, _: int, event: dict[str, Any]) -> None:
        if event["name"] == SET_METADATA:
            for given in payload.decode(event.get("args", b"[]")):
                self.metadata.update(given)

    def _asks(self, number: int, event: dict[str, Any]) -> None:
        self._asked[number] = event.get("name", "")

    def _decided(self, _: int, event: dict[str, Any]) -> None:
        told = {"outcome": event.get("outcome", "cancelled")}
        told |= {"by": event.get("by", ""), "comment": event.get("comment", "")}
        if told["outcome"] != "completed":
            self._not_done.append((self._asked.get(event["opened"], ""), told))

    def _mark(self, _: int, event: dict[str, Any]) -> None:
        """Merge what a handler has set: a mark says whether an outcome is one's, and was taken."""
        if event.get("path", "output"):
            found = payload.decode(self._outcomes.pop(event.get("of", 0), payload.NULL))
            outcome = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
            changes = cast("dict[str, Any]", outcome.get("changes") or {})
            self.metadata.update(changes.get("metadata", {}))
            self.data.update(changes.get("data", {}))
            for key in changes.get("dropped", ()):
                self.data.pop(key, None)
        name, step = event.get("name"), event.get("step", "")
        if name == "step.started":
            self._kinds[step] = payload.decode(event.get("data", b"{}")).get("step_type", "")
        elif name == "step.completed":
            self._completed(step, event)

    def _completed(self, step: str, event: dict[str, Any]) -> None:
        """Take what came from outside: what a person entered, or a message."""
        kind = self._kinds.get(step)
        if kind not in ("human", "webhook"):
            return
        came = payload.decode(event.get("result") or payload.NULL)
        if kind == "webhook":
            keys = {step: _WEBHOOK_DATA} if self._webhooks is None else self._webhooks
            if step in keys:
                self.data[keys[step]] = came
        elif (step, came) in self._not_done:  # it went on without, and says so to the next step
            self._not_done.remove((step, came))
        elif isinstance(came, dict):
            self.data.update(cast("dict[str, Any]", came))

    _READ: ClassVar[Mapping[str, Callable[[Any, int, dict[str, Any]], None]]] = {
        "run_started": _started,
        "activity_completed": _outcome,
        "update_accepted": _update,
        "human_task_opened": _asks,
        "human_task_decided": _decided,
        "human_task_closed": _decided,
        "emitted": _mark,
    }


_ENDS = frozenset({"completed", "failed", "skipped", "cancelled"})
_BEGINS: Mapping[str, tuple[str, Sequence[str]]] = {
    "activity_scheduled": ("step", ()),
    "human_task_opened": ("name", ()),
    "timer_started": ("", ("timer", "poll")),
    "child_scheduled": ("", ("subflow",)),
}
"""The commands that a visit waits for: where they name its step, or which types of steps make them
as soon as they are marked.
"""
_SETTLES = {
    "activity_completed": "activity",
    "activity_failed": "activity",
    "activity_cancelled": "activity",
    "human_task_decided": "opened",
    "human_task_closed": "opened",
    "timer_fired": "timer",
    "timer_cancelled": "timer",
    "child_closed": "child",
}
