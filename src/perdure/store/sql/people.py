"""Human tasks: rows, lists, and what people do to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perdure.errors import Conflict, Corrupt, Sealed, TaskNotFound
from perdure.store.rows import Acted, Posted
from perdure.store.sealing import Seal
from perdure.store.sql.database import Writing
from perdure.store.writes import HumanTaskWrite
from perdure.values import events
from perdure.values.people import (
    BY_CODE,
    CODES,
    OPEN,
    Act,
    HumanTaskFilter,
    HumanTaskRow,
    HumanTaskStatus,
    decision,
    judge,
)

_NEVER = 2**63 - 1
"""Stands for the due time of what has none."""
_DUE = f"coalesce(t.due_at, {_NEVER})"
_LAST = "\U0010ffff"
_JSON = (15, 16, 25)
"""Columns of a row that hold JSON."""
_TEXTS = (11, 26)
_SEALED = (*_TEXTS, *_JSON)
"""Columns of a row that hold users' data: ``_TEXTS`` are its description and the comment."""


def asked_row(
    write: HumanTaskWrite,
    run: int,
    execution: int,
    now: int,
    sealed: Callable[[str | None], str | None],
) -> tuple[Any, ...]:
    """Return the values of a new row; its name, title and whose it is are searched and listed."""
    asked = write.asked
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
    for column in _JSON:
        text = fields[column]
        fields[column] = None if text is None else text.encode()
    return HumanTaskRow(*fields)


def tasks_query(
    sql: Mapping[str, str], where: HumanTaskFilter, now: int, limit: int, after: HumanTaskRow | None
) -> tuple[str, list[Any]]:
    """Return the text of a list and its parameters."""
    status = frozenset(where.status) or OPEN
    conditions: list[str] = ["t.namespace = ?"]
    parameters: list[Any] = [where.namespace]
    is_open = status <= OPEN
    # What finds few tasks leads, and no index of all open ones, whose words these are not.
    is_narrow = bool(where.workflow_id or where.prefix)
    due = f"({_DUE} + 0)" if is_narrow else _DUE
    if is_open:
        # In these words the partial indexes fit.
        conditions.append("t.status < 2" if is_narrow else "t.status IN (0, 1)")
    elif status != frozenset(HumanTaskStatus):
        codes = ", ".join(str(CODES[one]) for one in sorted({*status, *_implied(status)}))
        conditions.append(f"t.status IN ({codes})")
    if len(status & OPEN) == 1:
        is_claimed = HumanTaskStatus.CLAIMED in status
        claimed = "(t.status = 1 AND t.claimed_until > ?)"
        either = "t.status > 1 OR " if not is_open else ""
        conditions.append(f"({either}{'' if is_claimed else 'NOT '}{claimed})")
        parameters.append(now)
    for condition, value in (
        ("t.role = ?", where.role),
        ("t.assignee = ?", where.assignee),
        ("(t.assignee IS NULL OR t.assignee = ?)", where.for_person),
        ("r.workflow = ?", where.workflow),
    ):
        if value:
            conditions.append(condition)
            parameters.append(value)
    if where.workflow_id:
        conditions.append(
            "t.run IN (SELECT x.run FROM perdure_run x WHERE x.namespace = ? AND x.workflow_id = ?)"
        )
        parameters += [where.namespace, where.workflow_id]
    if where.overdue:
        conditions.append(f"t.status IN (0, 1) AND {_DUE} < ?")
        parameters.append(now)
    if where.prefix:
        conditions.append("t.id >= ? AND t.id < ?")
        parameters += [where.prefix, where.prefix + _LAST]
    if after is not None:
        if is_open:  # not as a pair: an index on an expression would not be searched by it
            conditions.append(f"{due} >= ? AND ({due} > ? OR t.id > ?)")
            parameters += [after.due_at if after.due_at is not None else _NEVER] * 2
        else:
            conditions.append("t.id < ?")
        parameters.append(after.id)
    order = f"{due}, t.id" if is_open else "t.id DESC"
    text = (
        f"SELECT {sql['task_columns']} FROM {sql['task_tables']} "  # noqa: S608 - our own words
        f"WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ?"
    )
    return text, [*parameters, limit]


def _implied(status: frozenset[HumanTaskStatus]) -> frozenset[HumanTaskStatus]:
    """Return the stored statuses that may stand for these: a claim may be over."""
    return OPEN if HumanTaskStatus.OPEN in status else frozenset()


def act_on(database: Writing, act: Act, now: int) -> Acted:
    """Judge an act with the write lock held, write what comes of it, and tell the run."""
    row = database.run("human_task", act.id).fetchone()
    if row is None or row[1] != act.namespace:
        raise TaskNotFound(act.id)
    seal = database.seal
    before = task_of(row, seal)
    if before.sealed:
        raise Sealed(f"human task {act.id!r}: {before.sealed}")
    after = judge(before, act, now)
    changed = database.run(
        "change_human_task",
        after.id,
        CODES[after.status],
        after.role,
        after.assignee,
        after.claimed_by,
        after.claimed_at,
        after.claimed_until,
        after.closed_at,
        after.closed_by,
        seal.seal_text(None if after.value is None else after.value.decode()),
        seal.seal_text(after.comment),
        CODES[before.status],
        before.claimed_by,
        before.claimed_until,
    ).rowcount
    if changed != 1:
        raise Conflict(f"human task {act.id!r} changed meanwhile; look again")
    return Acted(after, None if after.status in OPEN else _tell(database, after, now))


def _tell(database: Writing, task: HumanTaskRow, now: int) -> Posted:
    event = events.encode_turn([decision(task)])
    sealed = database.seal.seal(event)
    (id,) = database.insert("insert_inbox", 6, [task.execution, "", 0, sealed, 1, now])
    return Posted("delivered", id=id, execution=task.execution, run=task.run, event=event)
