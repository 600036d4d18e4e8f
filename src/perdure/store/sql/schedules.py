"""Schedules: their rows, lists, and how they come and go.

What writes is called inside a transaction and holds the schedule's row from its first line: on
PostgreSQL by a row lock, which comes before all other locks (``postgres/holding.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Invalid,
    PermissionDenied,
    ScheduleNotFound,
)
from perdure.store.schedules import ScheduleFilter, SchedulePut, ScheduleRow
from perdure.store.sealing import Seal
from perdure.store.sql.audit import append
from perdure.store.sql.database import Database, Writing, one, reading
from perdure.store.sql.encoding import from_json, to_json
from perdure.values.firing import Look, Standing
from perdure.values.schedules import Spec, Template, tick_after

_TRIES = 3
_LAST = "\U0010ffff"
encode = msgspec.json.encode
"""Encode a part of a row."""
_read_spec = msgspec.json.Decoder(Spec).decode
_read_template = msgspec.json.Decoder(Template).decode
_read_standing = msgspec.json.Decoder(Standing).decode


# -- reading ---------------------------------------------------------------------------------------


def schedule_of(row: Sequence[Any], seal: Seal) -> ScheduleRow:
    """Return a schedule as it is read.

    Raises:
        Corrupt: it cannot be.
        Sealed: it cannot be opened here.
    """
    namespace, id, _, spec, template, note, state, paused, next_at, *times = row
    where = f"schedule {id!r}"
    try:
        return ScheduleRow(
            namespace,
            id,
            _read_spec(spec),
            _read_template(seal.open(bytes(template))),
            "" if note is None else seal.open(bytes(note)).decode(),
            _read_standing(state),
            bool(paused),
            next_at,
            *times,
        )
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Corrupt(f"{where}: its row cannot be read: {exc}", cause=exc) from exc
    except Corrupt as exc:
        raise Corrupt(f"{where}: {exc.message}", cause=exc) from exc


class ScheduleReader:
    """The verbs that read schedules."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def schedule(self, id: str, *, namespace: str = "default") -> ScheduleRow | None:
        rows = self.database.run("schedule", namespace, id).fetchall()
        return next(iter(read_schedules(self.database, rows)), None)

    @reading
    def schedules(self, where: ScheduleFilter, *, limit: int, after: str = "") -> list[ScheduleRow]:
        query = schedules_query(self.database.sql, where, limit, after)
        return read_schedules(self.database, self.database.ask(*query).fetchall())

    @reading
    def next_look(self) -> int | None:
        return one(self.database, "next_look")


def read_schedules(database: Writing, rows: Iterable[Sequence[Any]]) -> list[ScheduleRow]:
    """Return schedules, with those of their executions that are open now."""
    found = [schedule_of(row, database.seal) for row in rows]
    open = open_of(database, found)
    for row in found:
        row.standing.open = [one for one in row.standing.open if one in open]
    return found


def schedules_query(
    sql: Mapping[str, str], where: ScheduleFilter, limit: int, after: str
) -> tuple[str, list[Any]]:
    """Return the text of a list and its parameters; by id."""
    conditions, parameters = ["p.namespace = ?", "p.id > ?"], [where.namespace, after]
    more: list[tuple[str, Any]] = []
    if where.workflow:
        more.append(("p.workflow = ?", where.workflow))
    if where.prefix:
        more += [("p.id >= ?", where.prefix), ("p.id < ?", where.prefix + _LAST)]
    if where.paused is not None:
        more.append(("p.paused = ?", int(where.paused)))
    for condition, value in more:
        conditions.append(condition)
        parameters.append(value)
    text = (
        f"SELECT {sql['schedule_columns']} FROM perdure_schedule p "  # noqa: S608 - our own words
        f"WHERE {' AND '.join(conditions)} ORDER BY p.id LIMIT ?"
    )
    return text, [*parameters, limit]


# -- what people do --------------------------------------------------------------------------------


def put_schedule(database: Writing, put: SchedulePut, now: int) -> ScheduleRow:
    """Create or replace a schedule: see the port."""
    for _ in range(_TRIES):
        row = held(database, put.namespace, put.id)
        if row is not None:
            return _replace(database, row, put, now)
        if put.must_exist:
            raise ScheduleNotFound(put.id)
        _check_ahead(put.spec, now)
        new = ScheduleRow(
            put.namespace,
            put.id,
            put.spec,
            put.template,
            put.note or "",
            Standing(done=now),
            bool(put.is_paused),
            None,
            now,
            now,
            1,
        )
        new.next_at = look_at(new, now).next_at()
        values = _values(database, new)
        if database.run("insert_schedule", *values, new.next_at, now).rowcount == 1:
            _tell(database, put, "schedule.create", now)
            return new
    raise Conflict(f"schedule {put.id!r} comes and goes; try again")


def _replace(database: Writing, row: ScheduleRow, put: SchedulePut, now: int) -> ScheduleRow:
    if put.must_exist:
        check_tenant(row, put.sees)
    elif put.sees and row.template.tenant != put.sees:
        raise AlreadyExists(f"schedule id {put.id!r} is taken")
    is_same = (row.spec, row.template) == (put.spec, put.template)
    if not (is_same or put.replaces or put.must_exist):
        raise AlreadyExists(
            f"there is another schedule {put.id!r}: of workflow {row.template.workflow!r}, "
            f"{row.spec.text}; replace=True takes its place",
        )
    open = open_of(database, [row])
    look_at(row, now, open)  # what has ended since is told
    paused = row.is_paused if put.is_paused is None else put.is_paused
    note = row.note if put.note is None else put.note
    if is_same and (paused, note) == (row.is_paused, row.note):
        return row
    standing = row.standing
    if row.spec != put.spec:
        _check_ahead(put.spec, now)
        standing.done = now
        standing.skipped += len(standing.buffer)
        standing.buffer, standing.backfills = [], []
    elif row.is_paused and not paused:
        standing.done = max(standing.done, now)
    row.spec, row.template, row.note, row.is_paused = put.spec, put.template, note, paused
    look = look_at(row, now, open)
    row.next_at, row.changed_at = look.next_at(), now
    change(database, row, look.waits_for())
    _tell(database, put, "schedule.update", now)
    return row


def _tell(database: Writing, put: SchedulePut, action: str, now: int) -> None:
    if put.audit is not None:
        append(database, [msgspec.structs.replace(put.audit, action=action)], now)


def _check_ahead(spec: Spec, now: int) -> None:
    if tick_after(spec, now) is not None:
        return
    what = "at: is over" if spec.at else "end: no tick would come before it"
    if not (spec.at or spec.end):
        what = "start: no tick would come after it"
    raise Invalid(f"{what}; a schedule needs a time to come")


# -- rows ------------------------------------------------------------------------------------------


def drop_schedule(database: Writing, namespace: str, id: str) -> bool:
    """Delete a schedule; what it has begun goes on. ``False``: there is none."""
    return database.run("delete_schedule", namespace, id).rowcount == 1


def held(database: Writing, namespace: str, id: str) -> ScheduleRow | None:
    """Return a schedule that nobody else can change before the commit."""
    row = database.run("schedule_held", namespace, id).fetchone()
    return None if row is None else schedule_of(row, database.seal)


def look_at(
    row: ScheduleRow,
    now: int,
    open: Iterable[int] = (),
    there: Mapping[str, set[int]] | None = None,
) -> Look:
    """Begin a look at a schedule, of whose executions these are open."""
    known = (there or {}).get(row.name, ())
    return Look(
        row.name, row.spec, row.standing, set(open), now, is_paused=row.is_paused, there=known
    )


def open_of(database: Writing, rows: Iterable[ScheduleRow]) -> set[int]:
    """Return those executions of schedules that are open."""
    asked = sorted({one for row in rows for one in row.standing.open})
    return set(from_json(one(database, "open_executions", to_json(asked)))) if asked else set()


def check_tenant(row: ScheduleRow, sees: str) -> None:
    """Make sure that a schedule is of the tenant ``sees``, if there is one.

    Raises:
        PermissionDenied: it is of another tenant, or of none.
    """
    if sees and row.template.tenant != sees:
        raise PermissionDenied(f"schedule {row.id!r} is not of tenant {sees!r}")


def _values(database: Writing, row: ScheduleRow) -> tuple[Any, ...]:
    seal = database.seal
    template, note = encode(row.template), row.note.encode()
    database.written += len(template)
    return (
        row.namespace,
        row.id,
        row.template.workflow,
        encode(row.spec).decode(),
        seal.seal(template),
        seal.seal(note) if note else None,
        encode(row.standing).decode(),
        int(row.is_paused),
    )


def change(database: Writing, row: ScheduleRow, waits_for: int | None) -> None:
    """Write a schedule that is held."""
    values = _values(database, row)
    database.run("change_schedule", *values, row.next_at, waits_for, row.changed_at)
    row.revision += 1
