"""Human tasks: rows, what people do to them, and what the clock does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.errors import (
    Conflict,
    Corrupt,
    HumanTaskError,
    Invalid,
    PerdureError,
    Sealed,
    TaskNotFound,
)
from perdure.store.rows import Acted, Moved, Posted
from perdure.store.sealing import Seal
from perdure.store.sql.audit import append, of_act
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.writes import HumanTaskRaise, HumanTaskWrite
from perdure.values import events
from perdure.values.bounds import Bounds
from perdure.values.event import Approval
from perdure.values.overdue import tick
from perdure.values.people import (
    BY_CODE,
    CODES,
    OPEN,
    Act,
    HumanTaskRow,
    LogEntry,
    decision,
    entry,
    judge,
)

_JSON = (15, 16, 25)
"""Columns of a row that hold JSON."""
_TEXTS = (11, 26)
_APPROVALS, _NOT_BY, _CHAIN = 27, 30, 31
_SEALED = (*_TEXTS, *_JSON, _APPROVALS)
"""Columns of a row that hold users' data: ``_TEXTS`` are its description and the comment."""
_read_approvals = msgspec.json.Decoder(tuple[Approval, ...]).decode
_read_names = msgspec.json.Decoder(tuple[str, ...]).decode
_read_chain = msgspec.json.Decoder(tuple[tuple[str, int], ...]).decode


class Refused(Exception):
    """One of several acts was refused, and so none is done; ``answers``: what came of each."""

    def __init__(self, answers: list[Acted | PerdureError]) -> None:
        super().__init__("one of several acts was refused")
        self.answers: list[Acted | PerdureError] = [
            it if isinstance(it, PerdureError) else Conflict("another one was refused")
            for it in answers
        ]


def asked_row(
    write: HumanTaskWrite,
    run: int,
    execution: int,
    now: int,
    sealed: Callable[[str | None], str | None],
) -> tuple[Any, ...]:
    """Return the values of a new row; its name, title and whose it is are searched and listed.

    ``run`` is 0 if none asks: then the clock does all, else only what the run's timers do not.
    """
    asked = write.asked
    handling = asked.handling
    times = [at for _, at in handling.escalate[:1]]
    times += [] if run else [at for at in (asked.due, asked.remind, asked.ends) if at]
    return (
        write.id,
        run,
        execution,
        write.event,
        asked.name,
        asked.title,
        sealed(asked.description),
        asked.role,
        asked.assignee,
        asked.priority,
        sealed(None if asked.form is None else asked.form.decode()),
        sealed(None if asked.data is None else asked.data.decode()),
        now,
        asked.due or None,
        asked.remind or None,
        handling.type,
        handling.approvers,
        _json(handling.not_by),
        _json(handling.escalate),
        min(times, default=None),
        handling.form_version,
        handling.expires,
    )


def task_of(row: tuple[Any, ...], seal: Seal) -> HumanTaskRow:
    """Return a human task as it is read; what cannot be opened is left out, and it says so."""
    fields: list[Any] = list(row)
    fields[8] = BY_CODE[fields[8]]
    sealed = ""
    for column in _SEALED:
        try:
            fields[column] = seal.open_text(fields[column])
        except (Corrupt, Sealed) as error:
            fields[column] = "" if column in _TEXTS else None
            sealed = sealed or error.message
    fields.append(sealed)
    fields[_APPROVALS] = _read_approvals(fields[_APPROVALS] or "[]")
    fields[_NOT_BY] = _read_names(fields[_NOT_BY] or "[]")
    fields[_CHAIN] = _read_chain(fields[_CHAIN] or "[]")
    for column in _JSON:
        text = fields[column]
        fields[column] = None if text is None else text.encode()
    return HumanTaskRow(*fields)


def log_entry_of(row: tuple[Any, ...], seal: Seal) -> LogEntry:
    """Return an entry of a log as it is read; what cannot be opened is left out, and it says so."""
    number, at, by, verb, stored = row
    try:
        text = seal.open_text(stored)
        data: dict[str, Any] = msgspec.json.decode(text) if text else {}
    except (Corrupt, Sealed, msgspec.DecodeError) as error:
        return LogEntry(at, by, verb, {}, number, getattr(error, "message", str(error)))
    return LogEntry(at, by, verb, data, number)


def raise_task(database: Writing, wanted: HumanTaskRaise, now: int) -> HumanTaskRow:
    """Open a human task that no run asks for: see the port."""
    asked = HumanTaskWrite(wanted.id, 0, wanted.asked)
    fields = asked_row(asked, 0, 0, now, database.seal.seal_text)[4:]
    whose = wanted.by or None, wanted.tenant or None
    made = database.run("insert_human_task", wanted.id, wanted.namespace, *fields, *whose)
    if made.rowcount == 1 and wanted.audit is not None:
        append(database, [wanted.audit], now)
    row = database.run("human_task", wanted.id).fetchone()
    task = None if row is None else task_of(row, database.seal)
    if task is None or not _is_wanted(task, wanted):
        raise Conflict(f"human task {wanted.id!r} is another one: choose another id")
    return task


def _is_wanted(task: HumanTaskRow, wanted: HumanTaskRaise) -> bool:
    """Tell whether a human task is what the same call has raised before: an id alone shows nobody
    what is of another tenant, or about something else.
    """
    asked = wanted.asked
    same = (wanted.namespace, wanted.tenant, asked.title, asked.handling.type)
    return task.run is None and (task.namespace, task.tenant, task.title, task.type) == same


def act_on(
    database: Writing,
    acts: Sequence[Act],
    now: int,
    all_or_none: bool = False,
) -> list[Acted | PerdureError]:
    """Judge acts with their rows held, write what comes of them, and tell the runs.

    Raises:
        Refused: one was refused, and all were to be done or none.
    """
    ids = list(dict.fromkeys(act.id for act in acts))
    database.hold_human_tasks(ids)
    before = _read(database, ids)
    states = dict(before)
    answers: list[Acted | PerdureError] = []
    lines: list[tuple[HumanTaskRow, LogEntry]] = []
    for act in acts:
        try:
            task = states.get(act.id)
            if task is None or task.namespace != act.namespace:
                raise TaskNotFound(act.id)
            if task.sealed:
                raise Sealed(f"human task {act.id!r}: {task.sealed}")
            after = judge(task, act, now)
        except (HumanTaskError, Invalid, Sealed) as error:
            answers.append(error)
        else:
            lines.append((after, entry(task, act, after, now)))
            states[act.id] = after
            answers.append(Acted(after))
    if all_or_none and any(isinstance(answer, PerdureError) for answer in answers):
        raise Refused(answers)
    _write(database, [(before[id], states[id]) for id in ids if id in before], lines)
    begins = {act.id: act.begins for act in acts if act.begins is not None}
    _tell(database, [answer for answer in answers if isinstance(answer, Acted)], now, begins)
    audited = [
        of_act(act.audit, answer)
        for act, answer in zip(acts, answers, strict=True)
        if act.audit is not None and isinstance(answer, Acted)
    ]
    if audited:
        append(database, audited, now)
    return answers


def move_on(database: Writing, now: int, limit: int) -> list[Moved]:
    """Do what the clock does: see the port."""
    ids = [row[0] for row in database.run("due_human_tasks", now, limit).fetchall()]
    if not ids:
        return []
    database.hold_human_tasks(ids)
    before = _read(database, ids)  # as it is now: others may have been here
    moved: list[Moved] = []
    changed: list[HumanTaskRow] = []
    for task in before.values():
        after, entries = tick(task, now)
        if after is not task:
            changed.append(after)
        if entries:
            moved.append(Moved(after, entries))
    if changed:
        database.run("move_human_tasks", to_json([_moved(after) for after in changed]))
    _log(database, [(one.task, told) for one in moved for told in one.entries])
    return moved


def _read(database: Writing, ids: Sequence[str]) -> dict[str, HumanTaskRow]:
    rows = database.run("human_tasks_of_ids", to_json(list(ids))).fetchall()
    found = {row[0]: task_of(row, database.seal) for row in rows}
    return {id: found[id] for id in ids if id in found}


def _write(
    database: Writing,
    changes: Sequence[tuple[HumanTaskRow, HumanTaskRow]],
    lines: Sequence[tuple[HumanTaskRow, LogEntry]],
) -> None:
    """Write rows that were held and judged, and what the log says of it."""
    seal = database.seal.seal_text
    rows = [_changed(before, after, seal) for before, after in changes if after is not before]
    if rows:
        changed = database.run("change_human_tasks", to_json(rows)).rowcount
        if changed != len(rows):
            raise Conflict("a human task changed meanwhile; look again")
    _log(database, lines)


def _log(database: Writing, lines: Sequence[tuple[HumanTaskRow, LogEntry]]) -> None:
    seal = database.seal.seal_text
    rows = [
        (task.id, task.run, told.at, told.by, told.verb, seal(_json(told.data)))
        for task, told in lines
    ]
    if rows:
        database.run("insert_human_log", to_json(rows))


def _changed(
    before: HumanTaskRow, after: HumanTaskRow, seal: Callable[[str | None], str | None]
) -> tuple[Any, ...]:
    return (
        after.id,
        CODES[after.status],
        after.role,
        after.assignee,
        after.claimed_by,
        after.claimed_at,
        after.claimed_until,
        after.closed_at,
        after.closed_by,
        seal(None if after.value is None else after.value.decode()),
        seal(after.comment),
        seal(_json(after.approvals)),
        _json(after.chain),
        after.next_at,
        CODES[before.status],
        before.claimed_by,
        before.claimed_until,
    )


def _moved(task: HumanTaskRow) -> tuple[Any, ...]:
    return (
        task.id,
        CODES[task.status],
        task.role,
        task.assignee,
        task.claimed_by,
        task.claimed_at,
        task.claimed_until,
        task.closed_at,
        _json(task.chain),
        task.next_at,
    )


def _tell(
    database: Writing, acted: Sequence[Acted], now: int, begins: Mapping[str, Bounds]
) -> None:
    """Put what was decided into the inboxes of the runs that asked."""
    told = [one for one in acted if one.task.status not in OPEN and one.task.execution is not None]
    if not told:
        return
    flat: list[Any] = []
    for one in told:
        task = one.task
        event = events.encode_turn([decision(task, begins.get(task.id))])
        assert task.execution is not None
        assert task.run is not None
        one.posted = Posted("delivered", execution=task.execution, run=task.run, event=event)
        flat += [task.execution, "", 0, database.seal.seal(event), 1, now]
    for one, id in zip(told, database.insert("insert_inbox", 6, flat), strict=True):
        assert one.posted is not None
        one.posted.id = id


def _json(given: Any) -> str | None:
    """Write a small value as JSON; nothing for an empty one."""
    return msgspec.json.encode(given).decode() if given else None
