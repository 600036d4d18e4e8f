"""What the rows of a history tell of a run of a graph: its data, its steps, how it ended.

The rows are the truth, and no code of the workflow is needed to read them. Everything is made when
it is asked for: a list that shows status and times decodes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, cast

import msgspec

from perdure.contrib.sqlalchemy.opening import opened
from perdure.graph.states import StepStatus, StepType
from perdure.trail import Gathered, Visit, Visits
from perdure.values import endings
from perdure.values import events as ev
from perdure.views import to_datetime


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
        visits, ended = Visits(), None if self.end is None else self.end[0]
        for row in self.rows:
            visits.take(ev.decode_plain(row.payload), row.first, row.time)
        return [_record(visit, ended) for visit in visits.found]

    @property
    def current_step(self) -> str | None:
        """The first step it is at; ``None`` once it has ended."""
        if self.end is not None:
            return None
        return next((step.name for step in self.steps if step.completed_at is None), None)

    def gathered(self, webhooks: Mapping[str, str] | None) -> Gathered:
        """Return ``data`` and ``metadata`` as they are now; ``webhooks`` as in
        :class:`~perdure.trail.Gathered`.
        """
        found = Gathered(webhooks)
        for row in self.rows:
            found.take(ev.decode_plain(row.payload), row.first)
        return found


def _record(visit: Visit, ended: datetime | None) -> StepRecord:
    type = StepType(visit.kind) if visit.kind in [*StepType] else StepType.MACHINE
    status, completed_at = _ENDS.get(visit.status), visit.completed_at
    if status is None and ended is not None:
        status, completed_at = StepStatus.CANCELED, ended
    elif status is None:
        status = StepStatus.WAITING if type in _WAITS else StepStatus.RUNNING
    return StepRecord(
        visit.asked or visit.event,
        visit.step,
        type,
        status,
        visit.started_at or cast("datetime", visit.completed_at),
        completed_at,
        visit.input,
        visit.output,
        visit.error,
        visit.assignee,
        visit.done_by,
    )


_WAITS = frozenset({StepType.HUMAN, StepType.TIMER, StepType.WEBHOOK})
_ENDS = {
    "completed": StepStatus.SUCCEEDED,
    "failed": StepStatus.FAILED,
    "skipped": StepStatus.SKIPPED,
    "cancelled": StepStatus.CANCELED,
}
