"""What a schedule looks like from outside: how a spec is read, and how a row is shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure import errors, views
from perdure.store.port import ScheduleRow
from perdure.values import payload
from perdure.values.duration import SECOND, microseconds
from perdure.values.options import one_of
from perdure.values.schedules import Overlap, Spec, Upcoming, checked, upcoming

SHOWN = 5
"""Ticks to come, of each schedule."""
WAYS = tuple(Overlap)


class Run(msgspec.Struct, frozen=True):
    """An execution that a schedule has begun. ``scheduled_at``: the time of its tick; ``by``:
    ``clock``, ``trigger`` or ``backfill``.
    """

    workflow_id: str
    run_id: str
    scheduled_at: datetime
    started_at: datetime
    by: str = "clock"
    is_open: bool = False


class Schedule(msgspec.Struct, frozen=True):
    """A schedule as lists and details show it. Durations in seconds, times aware, in UTC.

    ``spec``: what was asked for, in a few words. ``next``: the next five ticks (before jitter);
    none while it is paused or if it is ``finished``, which says why: ``at`` (its time has come),
    ``end`` or ``max_executions``. ``runs``: the last ones that it has begun, newest first;
    ``running``: how many are open. ``buffered``: ticks that wait for the end of an execution;
    ``backfilling``: whether a backfill is not done yet.
    """

    id: str
    workflow: str
    spec: str
    overlap: Overlap
    catch_up: float
    created_at: datetime
    changed_at: datetime
    cron: str | None = None
    every: float | None = None
    offset: float = 0
    at: datetime | None = None
    timezone: str = "UTC"
    jitter: float = 0
    start: datetime | None = None
    end: datetime | None = None
    max_executions: int = 0
    version: str = ""
    task_queue: str = ""
    input: Any = None
    description: str = ""
    note: str = ""
    paused: bool = False
    finished: str = ""
    next: tuple[Upcoming, ...] = ()
    runs: tuple[Run, ...] = ()
    running: int = 0
    fired: int = 0
    skipped: int = 0
    missed: int = 0
    buffered: int = 0
    backfilling: bool = False
    namespace: str = "default"


class Triggered(msgspec.Struct, frozen=True):
    """What came of a trigger. ``outcome``: ``fired``, ``buffered`` or ``skipped``; ``workflow_id``:
    of the execution, also of one that is to come; ``reason``: why it did not begin.
    """

    outcome: str
    workflow_id: str = ""
    run_id: str = ""
    reason: str = ""


def read_spec(given: dict[str, Any]) -> Spec:
    """Take a spec out of what a call was given.

    Raises:
        Invalid: it cannot be.
    """
    taken = {name: given.pop(name) for name in _SPEC if name in given}
    values: dict[str, Any] = {}
    for name, value in taken.items():
        if value is None:
            continue
        if name in _DURATIONS:
            values[name] = microseconds(value, what=name)
            if name == "every" and not values[name]:
                raise errors.Invalid("every: 0 is no interval")
        elif name in _TIMES:
            values[name] = read_time(name, value)
        else:
            values[name] = value
    values["overlap"] = Overlap(one_of("overlap", values.get("overlap"), WAYS))
    most = values.get("max_executions", 0)
    if not isinstance(most, int) or isinstance(most, bool):
        raise errors.Invalid(f"max_executions: {most!r} is no whole number")
    cron = values.get("cron", "x")
    if not isinstance(cron, str) or not cron.strip():
        raise errors.Invalid(f"cron: {cron!r} is no cron text, such as '0 9 * * *'")
    return checked(Spec(**values))


_DURATIONS = frozenset({"every", "offset", "catch_up", "jitter"})
_TIMES = frozenset({"at", "start", "end"})
_SPEC = ("cron", "timezone", "overlap", "max_executions", *sorted(_DURATIONS | _TIMES))


def shown(row: ScheduleRow, now: int) -> Schedule:
    """Show a schedule."""
    spec, template, standing = row.spec, row.template, row.standing
    is_waiting = not row.is_paused and not standing.finished
    # What is overdue begins in a moment: it is a tick to come, too.
    after = max(standing.done, now - spec.catch_up)
    return Schedule(
        id=row.id,
        workflow=template.workflow,
        spec=spec.text,
        overlap=spec.overlap,
        catch_up=spec.catch_up / SECOND,
        created_at=views.to_datetime(row.created_at),
        changed_at=views.to_datetime(row.changed_at),
        cron=spec.cron or None,
        every=spec.every / SECOND if spec.every else None,
        offset=spec.offset / SECOND,
        at=_shown_time(spec.at),
        timezone=spec.timezone,
        jitter=spec.jitter / SECOND,
        start=_shown_time(spec.start),
        end=_shown_time(spec.end),
        max_executions=spec.max_executions,
        version=template.version,
        task_queue=template.queue,
        input=payload.decode(template.input),
        description=template.description,
        note=row.note,
        paused=row.is_paused,
        finished=standing.finished,
        next=tuple(upcoming(spec, after, SHOWN)) if is_waiting else (),
        runs=tuple(
            Run(
                one.workflow_id,
                one.run_id,
                views.to_datetime(one.tick),
                views.to_datetime(one.at),
                one.by,
                one.execution in standing.open,
            )
            for one in reversed(standing.last)
        ),
        running=len(standing.open),
        fired=standing.fired,
        skipped=standing.skipped,
        missed=standing.missed,
        buffered=len(standing.buffer),
        backfilling=bool(standing.backfills),
        namespace=row.namespace,
    )


def _shown_time(time: int) -> datetime | None:
    return views.to_datetime(time) if time else None


def read_time(what: str, value: Any) -> int:
    """Return an aware datetime in microseconds.

    Raises:
        Invalid: it is none; the message begins with ``what``.
    """
    if not isinstance(value, datetime):
        raise errors.Invalid(f"{what}: {value!r} is not a datetime")
    if value.tzinfo is None:
        raise errors.Invalid(
            f"{what}: {value!r} has no time zone; write {what}=datetime(…, tzinfo=UTC)"
        )
    return views.from_datetime(value)
