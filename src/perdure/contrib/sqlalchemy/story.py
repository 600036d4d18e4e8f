"""What the rows of a history tell of a run of a graph: its data, its steps, how it ended.

The rows are the truth, and no code of the workflow is needed to read them. Everything is made when
it is asked for: a list that shows status and times decodes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from perdure import named
from perdure.contrib.sqlalchemy.opening import opened
from perdure.graph.states import StepStatus, StepType
from perdure.named import Head, NamedEvent, Past
from perdure.values import endings, payload
from perdure.values import events as ev
from perdure.values.commands import NOT_CHOSEN
from perdure.views import to_datetime
from perdure.visits import Gathered


class Row(NamedTuple):
    """A row of a history: its first event's id, the turn's time in microseconds, its events."""

    first: int
    time: int
    payload: bytes


class StepRecord(msgspec.Struct):
    """One visit of a step. ``event``: the id of the event that began it, or asked a person."""

    event: int
    name: str
    type: StepType
    status: StepStatus
    started_at: datetime
    completed_at: datetime | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    assigned_to: str | None = None
    completed_by: str | None = None


class Story:
    """A run's history. ``text``: ``first:time:hexadecimal`` for each row, parted by commas."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Story) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows, in their order."""
        parts = (part.split(":") for part in self._text.split(",") if part)
        return sorted(
            Row(int(first), int(time), opened(bytes.fromhex(data))) for first, time, data in parts
        )

    @property
    def end(self) -> tuple[datetime, ev.Event] | None:
        """When and how the run ended; ``None`` while it is open."""
        if not self.rows:
            return None
        closing = ev.decode_turn(self.rows[-1].payload)[-1]
        return (to_datetime(self.rows[-1].time), closing) if type(closing) in ev.CLOSING else None

    @property
    def error(self) -> str | None:
        """Why the run failed or was cancelled."""
        if self.end is None:
            return None
        closing = self.end[1]
        if isinstance(closing, (ev.RunCancelled, ev.RunTerminated)):
            return f"Canceled: {closing.reason}" if closing.reason else "Canceled"
        failure = endings.failure_of(closing)
        return failure.message if failure is not None else None

    @cached_property
    def steps(self) -> list[StepRecord]:
        """The visits of its steps, in the order in which they began."""
        return _Steps(self).found

    @property
    def current_step(self) -> str | None:
        """The first step it is at; ``None`` once it has ended."""
        if self.end is not None:
            return None
        return next((step.name for step in self.steps if step.completed_at is None), None)

    def gathered(self, webhooks: Mapping[str, str] | None) -> Gathered:
        """Return ``data`` and ``metadata`` as they are now; ``webhooks`` as in
        :class:`~perdure.visits.Gathered`.
        """
        found = Gathered(webhooks)
        for row in self.rows:
            found.take(ev.decode_plain(row.payload), row.first)
        return found


class _Steps:
    """Reads the visits of steps from what the history tells by name."""

    def __init__(self, story: Story) -> None:
        self.found: list[StepRecord] = []
        self._asked: dict[int, StepRecord] = {}
        past = Past(is_whole=True)
        for row in story.rows:
            events = ev.decode_plain(row.payload)
            told = named.tell(events, row.first, row.time, Head("", "", ""), past)
            for place, event in told:
                index = int(place.partition(".")[0])
                self._take(event, row.first + index, to_datetime(row.time))
            self._take_inputs(events)
            self._take_people(events, row.first)
        if story.end is not None:
            for step in self._open():
                step.status, step.completed_at = StepStatus.CANCELED, story.end[0]

    def _take(self, event: NamedEvent, number: int, at: datetime) -> None:
        name = event.name.removeprefix("workflow.")
        if event.data.get("reason") == NOT_CHOSEN:
            self._begin(event, number, at)
            self.found[-1].status, self.found[-1].completed_at = _ENDS[name], at
        elif name == "step.started":
            self._begin(event, number, at)
        elif name in _ENDS:
            step = next(self._open(event.data["step_name"]), None)
            if step is not None:
                step.status, step.completed_at = _ENDS[name], at
                step.output = event.data.get("output")
                step.error = event.data.get("error")

    def _begin(self, event: NamedEvent, number: int, at: datetime) -> None:
        given = event.data.get("step_type", "")
        type = StepType(given) if given in [*StepType] else StepType.MACHINE
        waits = type in (StepType.HUMAN, StepType.TIMER, StepType.WEBHOOK)
        status = StepStatus.WAITING if waits else StepStatus.RUNNING
        self.found.append(StepRecord(number, event.data["step_name"], type, status, at))

    def _take_inputs(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["kind"] == "activity_scheduled":
                name = event.get("step") or event["name"]
                args = payload.decode(event.get("args", b"[]"))
                step = next(self._open(name), None)
                if step is not None and args and args[0] is not None:
                    step.input = args[0]

    def _take_people(self, events: list[dict[str, Any]], first: int) -> None:
        for number, event in enumerate(events, first):
            if event["kind"] == "human_task_opened":
                step = next(self._open(event.get("name", "")), None)
                if step is not None and step.type is StepType.HUMAN:
                    step.assigned_to = event.get("assignee")
                    # One that is asked again is still the same visit.
                    if not any(it is step for it in self._asked.values()):
                        step.event = number
                    self._asked[number] = step
            elif event["kind"] == "human_task_decided" and event["opened"] in self._asked:
                self._asked[event["opened"]].completed_by = event.get("by") or None

    def _open(self, name: str = "") -> Any:
        return (s for s in self.found if s.completed_at is None and name in ("", s.name))


_ENDS = {
    "step.completed": StepStatus.SUCCEEDED,
    "step.failed": StepStatus.FAILED,
    "step.skipped": StepStatus.SKIPPED,
    "step.cancelled": StepStatus.CANCELED,
}
