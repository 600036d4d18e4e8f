"""The starts that schedules make: by the clock, and when somebody asks.

Everything is called inside a transaction. Whoever looks for schedules that are due passes over rows
that others hold. A tick begins an execution whose ids follow from the tick, in the transaction that
moves the schedule past it; so it begins once, however many look, and whatever becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from perdure.definition import highest_active
from perdure.errors import Conflict, Corrupt, Invalid, ScheduleNotFound
from perdure.store.rows import Committed, Started
from perdure.store.schedules import Fired, Happened, ScheduleRow, ScheduleSteer
from perdure.store.sql import tallies
from perdure.store.sql.audit import append
from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.schedules import (
    change,
    check_tenant,
    drop_schedule,
    encode,
    held,
    look_at,
    open_of,
    schedule_of,
)
from perdure.store.writes import Batch, Post, StartRequest
from perdure.values import events as ev
from perdure.values.firing import Backfill, Begun, Look, Start, candidates
from perdure.values.meters import Spent
from perdure.values.schedules import Overlap, Template, run_id_of, workflow_id_of
from perdure.values.terms import ends_unbegun, first_deadlines

_MOST_BACKFILLS = 10

Begin = Callable[[Writing, Batch], Committed]
"""Writes starts and posts in a transaction that was begun."""


def fire(database: Writing, now: int, chance: bytes, begin: Begin, *, limit: int) -> Fired:
    """Begin what is due: see the port."""
    rows = database.run("due_schedules", now, limit).fetchall()
    rows += database.run("waiting_schedules", limit).fetchall()
    due: dict[tuple[str, str], ScheduleRow] = {}
    broken: list[str] = []
    moved: list[tuple[Any, ...]] = []
    for row in rows:
        try:
            due[row[0], row[1]] = schedule_of(row, database.seal)
        except Corrupt as error:
            broken.append(error.message)
            moved.append((row[0], row[1], row[6], None, None))
    schedules = list(due.values())
    open = open_of(database, schedules) if schedules else set[int]()
    there = _there(database, schedules)
    looks: list[tuple[ScheduleRow, Look]] = []
    for schedule in schedules:
        look = look_at(schedule, now, open, there)
        look.take()
        looks.append((schedule, look))
    started = _carry_out(database, looks, now, chance, begin) if looks else []
    for schedule, look in looks:
        schedule.next_at = look.next_at()
        state = encode(schedule.standing).decode()
        place = (schedule.namespace, schedule.id)
        moved.append((*place, state, schedule.next_at, look.waits_for()))
    if moved:
        database.run("moved_schedules", to_json(moved))
    happened = [
        Happened(schedule, begun, look.passed)
        for (schedule, look), begun in zip(looks, started, strict=True)
    ]
    return Fired(happened, one(database, "next_look"), broken)


def _carry_out(
    database: Writing,
    looks: Sequence[tuple[ScheduleRow, Look]],
    now: int,
    chance: bytes,
    begin: Begin,
) -> list[list[Started]]:
    """Start and stop what the looks say, in one batch; return what began, for each."""
    _leave_out_those_there(database, looks)
    posts = [
        Post(_ending(row, way), execution=execution, is_control=True)
        for row, look in looks
        for execution, way in look.stops.items()
    ]
    choose = _Definitions(database) if any(look.starts for _, look in looks) else None
    templates = [row.template for row, look in looks if look.starts]
    meters = tallies.Meters(database, (it for each in templates for it in each.meters), now)
    wanted: list[tuple[ScheduleRow, Look, Start]] = []
    requests: list[StartRequest] = []
    for row, look in looks:
        for start in list(look.starts):
            assert choose is not None
            try:
                version, queue = choose(row.template)
            except Invalid as error:
                look.refused(start, error.message)
                continue
            if spent := meters.spend(row.template.meters):
                look.refused(start, _too_often(row.template, spent))
                continue
            requests.append(_request(row, start, version, queue, now, chance))
            wanted.append((row, look, start))
    meters.write()
    answers: Sequence[Started] = ()
    if requests or posts:
        batch = Batch(0, 0, 0, now=now, lease_until=0, starts=requests, posts=posts)
        answers = begin(database, batch).started
    begun: dict[str, list[Started]] = {row.name: [] for row, _ in looks}
    for (row, look, start), answer in zip(wanted, answers, strict=True):
        if answer.refused or not answer.created:
            taken = f"execution {answer.workflow_id!r} is there already"
            look.refused(start, answer.detail or taken)
            continue
        ids = answer.workflow_id, answer.run_id, answer.execution
        look.begun(start, Begun(start.tick, now, *ids, start.by))
        begun[row.name].append(answer)
    return [begun[row.name] for row, _ in looks]


def _too_often(template: Template, spent: Spent) -> str:
    rate = next(meter.rate for meter in template.meters if meter.key == spent.refused)
    return f"more than {rate.text}"


def _request(
    row: ScheduleRow, start: Start, version: str, queue: str, now: int, chance: bytes
) -> StartRequest:
    template = row.template
    workflow_id = workflow_id_of(row.id, start.tick, start.by)
    run_id = run_id_of(row.namespace, workflow_id, start.tick)
    # A clock that was ahead may have made the tick wait: no execution precedes its tick.
    now = max(now, start.tick)
    deadlines = first_deadlines(template.terms, now)
    started = ev.RunStarted(
        workflow=template.workflow,
        version=version,
        workflow_id=workflow_id,
        run_id=run_id,
        # Nobody can know it who does not know the chance of this very transaction.
        seed=blake2b(run_id.encode(), key=chance, digest_size=16).digest(),
        input=template.input,
        queue=queue,
        namespace=row.namespace,
        context=template.context,
        started_at=now,
        first_started_at=now,
        terms=template.terms,
        not_before=deadlines.not_before,
        run_deadline=deadlines.run,
        execution_deadline=deadlines.execution,
        schedule=row.id,
        scheduled_at=start.tick,
        places=template.places,
    )
    return StartRequest(
        workflow=template.workflow,
        workflow_id=workflow_id,
        run_id=run_id,
        event=ev.encode_turn([started]),
        created_at=now,
        version=version,
        namespace=row.namespace,
        queue=queue,
        conflict="fail",
        reuse="reject_duplicate",
        not_before=deadlines.not_before,
        key=template.terms.key,
        priority=template.terms.priority,
        deadline=ends_unbegun(template.terms, deadlines),
        places=template.places,
        keep_for=template.terms.retention,
        created_by=template.created_by,
        correlation_id=template.correlation_id,
        tenant=template.tenant,
        tags=template.tags,
        memo=template.memo,
        search={**template.search, "schedule_id": row.id},
    )


class _Definitions:
    """Which version of a workflow a start by name takes now, and its queue."""

    def __init__(self, database: Writing) -> None:
        self._known = database.run("definitions").fetchall()

    def __call__(self, template: Template) -> tuple[str, str]:
        """Return version and queue.

        Raises:
            Invalid: all versions are inactive.
        """
        name, version = template.workflow, template.version
        queues = {row[1]: row[4] for row in self._known if row[0] == name}
        if not version and queues:
            inactive = {(row[0], row[1]) for row in self._known if not row[5]}
            chosen = highest_active(name, queues, inactive)
            if chosen is None:
                raise Invalid(f"workflow {name!r} has no active version")
            version = chosen
        # A workflow that no worker has defined yet may be by the time that its run is taken up.
        return version, template.queue or queues.get(version, "default")


def _ending(row: ScheduleRow, way: Overlap) -> bytes:
    reason, by = f"schedule {row.id!r}: the next one is due", "schedule"
    if way is Overlap.TERMINATE_OTHER:
        return ev.encode_turn([ev.RunTerminated(reason=reason, by=by)])
    return ev.encode_turn([ev.CancelRequested(reason=reason, by=by)])


def _leave_out_those_there(database: Writing, looks: Sequence[tuple[ScheduleRow, Look]]) -> None:
    """A tick whose run is there has begun before: by a backfill, say."""
    wanted = {_run_id(row, start): (look, start) for row, look in looks for start in look.starts}
    if not wanted:
        return
    for _, _, run_id, *_ in from_json(one(database, "same_run_id", to_json(list(wanted)))):
        look, start = wanted[run_id]
        look.starts.remove(start)


def _there(database: Writing, rows: Iterable[ScheduleRow]) -> dict[str, set[int]]:
    """Return, by schedule, ticks of backfills whose run is there."""
    wanted = {
        _run_id(row, Start(tick, "backfill")): (row.name, tick)
        for row in rows
        for tick in candidates(row.spec, row.standing)
    }
    found: dict[str, set[int]] = {}
    if wanted:
        for _, _, run_id, *_ in from_json(one(database, "same_run_id", to_json(list(wanted)))):
            name, tick = wanted[run_id]
            found.setdefault(name, set()).add(tick)
    return found


def _run_id(row: ScheduleRow, start: Start) -> str:
    return run_id_of(row.namespace, workflow_id_of(row.id, start.tick, start.by), start.tick)


# -- when somebody asks ---------------------------------------------------------------------------


def steer_schedule(
    database: Writing, steer: ScheduleSteer, now: int, chance: bytes, begin: Begin
) -> Happened:
    """Do something to a schedule: see the port."""
    row = held(database, steer.namespace, steer.id)
    if row is None:
        raise ScheduleNotFound(steer.id)
    check_tenant(row, steer.sees)
    if steer.verb == "delete":
        drop_schedule(database, row.namespace, row.id)
        _tell(database, steer, [], now)
        return Happened(row, [], [])
    if steer.note is not None:
        row.note = steer.note
    look = look_at(row, now, open_of(database, [row]))
    started: list[Started] = []
    if steer.verb == "pause":
        row.is_paused = True
    elif steer.verb == "resume":
        if row.is_paused:
            row.standing.done = max(row.standing.done, now)
        row.is_paused = False
    elif steer.verb == "trigger":
        look.trigger(steer.overlap)
        started = _carry_out(database, [(row, look)], now, chance, begin)[0]
    else:
        _add_backfill(row, steer)
    passed = look.passed
    look = look_at(row, now, row.standing.open)
    row.next_at, waits_for = look.next_at(), look.waits_for()
    row.changed_at = now
    change(database, row, waits_for)
    _tell(database, steer, started, now)
    return Happened(row, started, passed)


def _tell(database: Writing, steer: ScheduleSteer, started: Sequence[Started], now: int) -> None:
    if steer.audit is not None:
        run_id = started[0].run_id if started else ""
        append(database, [msgspec.structs.replace(steer.audit, run_id=run_id)], now)


def _add_backfill(row: ScheduleRow, steer: ScheduleSteer) -> None:
    backfills = row.standing.backfills
    if len(backfills) >= _MOST_BACKFILLS:
        raise Conflict(f"schedule {row.id!r} has {len(backfills)} backfills to do; wait for them")
    overlap = steer.overlap or Overlap.BUFFER_ALL
    row.standing.backfills = [*backfills, Backfill(steer.after, steer.before, overlap)]
