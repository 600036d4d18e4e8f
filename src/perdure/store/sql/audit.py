"""The audit: lines are appended within the transaction of what they tell of, in one chain.

Its end is one row, which is held from here to the commit: so this comes last in a transaction, and
nothing that is locked after it can be in its way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.errors import Conflict, Corrupt, Sealed
from perdure.store.port import Batch, Posted
from perdure.store.rows import Acted
from perdure.store.sealing import Seal
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.sql.starting import Decision
from perdure.values.audit import AuditFilter, AuditHead, AuditLine, AuditPlace, AuditRow, linked

REPLACES = "terminate"
"""What is told of a run that a start has put an end to."""
_COLUMNS = 13
_LAST = "\U0010ffff"


def append(database: Writing, lines: Sequence[AuditLine], now: int) -> None:
    """Append lines behind the end of the chain."""
    head = AuditHead(*database.run("hold_audit_head").fetchone())
    flat: list[Any] = []
    for line in lines:
        row = linked(line, head, now)
        head = AuditHead(row.number, row.hash)
        sealed = None if row.data is None else database.seal.seal(row.data)
        facts = (
            row.number,
            row.at,
            row.namespace,
            row.action,
            row.principal,
            row.initiated_by,
            row.target,
            row.run_id,
            row.decision,
            row.rule,
            row.digest,
            row.hash,
        )
        to_json(facts)  # what no column can hold is refused here
        flat += (*facts, sealed)
        database.written += 300 + len(sealed or b"")
    database.insert("insert_audit", _COLUMNS, flat)
    database.run("move_audit_head", head.number, head.hash)


def of_batch(
    batch: Batch, starts: Sequence[Decision], posted: Sequence[Posted]
) -> Iterator[AuditLine]:
    """Yield the lines of what came of a batch; what was refused, or repeated, has none."""
    yield from batch.audit
    for decision in starts:
        line, started = decision.request.audit, decision.started
        if line is None or started.refused:
            continue
        if decision.ends is not None:  # the same did that, by the same right
            replaced = msgspec.structs.replace(line, action=REPLACES, data=None)
            yield _of_run(replaced, decision.ends.run_id)
        if decision.is_written or started.run_id != decision.request.run_id:
            yield _of_run(line, started.run_id)
    for post, answer in zip(batch.posts, posted, strict=False):
        if post.audit is not None and answer.outcome == "delivered":
            yield post.audit


def of_act(line: AuditLine, acted: Acted) -> AuditLine:
    """Return the line of what somebody did to a human task."""
    return _of_run(line, acted.task.run_id or "")


def _of_run(line: AuditLine, run_id: str) -> AuditLine:
    return msgspec.structs.replace(line, run_id=run_id)


def audit_query(
    columns: str, where: AuditFilter, limit: int, before: AuditPlace | None
) -> tuple[str, list[Any]]:
    """Return the text of a list, newest first, and its parameters."""
    conditions = ["namespace = ?"]
    values: list[Any] = [where.namespace]
    for column, value in (
        ("principal", where.principal),
        ("target", where.target),
        ("run_id", where.run_id),
    ):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if where.action.endswith("*"):
        conditions.append("action >= ? AND action < ?")
        values += [where.action[:-1], where.action[:-1] + _LAST]
    elif where.action:
        conditions.append("action = ?")
        values.append(where.action)
    for condition, at in (("at >= ?", where.since), ("at < ?", where.until)):
        if at is not None:
            conditions.append(condition)
            values.append(at)
    if before is not None:
        conditions.append("at <= ? AND (at < ? OR number < ?)")
        values += [before.at, before.at, before.number]
    text = (
        f"SELECT {columns} FROM perdure_audit "  # noqa: S608 - our own words
        f"WHERE {' AND '.join(conditions)} ORDER BY at DESC, number DESC LIMIT ?"
    )
    return text, [*values, limit]


def row_of(stored: Sequence[Any], seal: Seal) -> AuditRow:
    """Return a row as it is read; what cannot be opened is left out, and it says so."""
    *facts, data = stored
    try:
        return AuditRow(*facts, data=None if data is None else seal.open(data))
    except (Corrupt, Sealed) as error:
        return AuditRow(*facts, sealed=error.message)


def cut(database: Writing, number: int, lines: Sequence[AuditLine], now: int, limit: int) -> int:
    """Cut the chain off behind a row, and delete up to ``limit`` rows before it: see the port."""
    head = AuditHead(*database.run("hold_audit_head").fetchone())
    if number > head.cut:
        row = database.run("audit_hash", number).fetchone()
        if row is None:
            raise Conflict(f"the audit has no row {number}: it ends with row {head.number}")
        database.run("cut_audit", number, row[0])
        if lines:
            append(database, lines, now)
    return database.run("delete_audit", limit).rowcount


def erase(
    database: Writing, target: str, lines: Sequence[AuditLine], now: int, namespace: str
) -> int:
    """Erase the details of what was done to a target: see the port."""
    count = database.run("erase_audit", namespace, target).rowcount
    if count:
        append(database, lines, now)
    return count
