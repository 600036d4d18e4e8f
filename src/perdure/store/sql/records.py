"""Documents that administrators keep: read by kind and id, written by compare-and-set."""

from __future__ import annotations

from typing import Any

from perdure.errors import Conflict
from perdure.store.sql.audit import audit_query, row_of
from perdure.store.sql.database import Database, Writing, reading
from perdure.store.sql.encoding import to_json
from perdure.values.audit import AuditFilter, AuditHead, AuditPlace, AuditRow
from perdure.values.records import ANY, Amend, Amended, Drop, Put, Record


class RecordReader:
    """The verbs that read documents, and the audit."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def record(self, kind: str, id: str, *, namespace: str = "default") -> Record | None:
        row = self.database.run("record", namespace, kind, id).fetchone()
        return None if row is None else _record(self.database, namespace, kind, row)

    @reading
    def records(
        self, kind: str, *, limit: int, after: str = "", namespace: str = "default"
    ) -> list[Record]:
        rows = self.database.run("records", namespace, kind, after, limit).fetchall()
        return [_record(self.database, namespace, kind, row) for row in rows]

    @reading
    def audit(
        self, where: AuditFilter, *, limit: int, before: AuditPlace | None = None
    ) -> list[AuditRow]:
        columns, seal = self.database.sql["audit_columns"], self.database.seal
        query = audit_query(columns, where, limit, before)
        return [row_of(row, seal) for row in self.database.ask(*query).fetchall()]

    @reading
    def audit_chain(self, *, limit: int, after: int = 0) -> list[AuditRow]:
        rows = self.database.run("audit_chain", after, limit).fetchall()
        return [row_of(row, self.database.seal) for row in rows]

    @reading
    def audit_head(self) -> AuditHead:
        return AuditHead(*self.database.run("audit_head").fetchone())


def amend(database: Writing, wish: Amend, now: int) -> Amended:
    """Write documents inside a transaction that was begun: see the port; its audit comes last.

    Rows are taken in the order of their keys, so two of these do not wait for each other.
    """
    versions: dict[int, int] = {}
    places = list(enumerate([*wish.puts, *wish.drops]))
    for place, change in sorted(places, key=lambda it: (it[1].namespace, it[1].kind, it[1].id)):
        key = (change.namespace, change.kind, change.id)
        to_json(key)  # what no column can hold is refused here
        if isinstance(change, Put):
            data = database.seal.seal(change.data)
            database.written += len(data)
            row = database.run("put_record", *key, change.replaces, now, data).fetchone()
        else:
            row = database.run("drop_record", *key, change.replaces, now).fetchone()
        if row is None:
            raise _changed(change)
        versions[place] = int(row[0])
    return Amended(tuple(versions[place] for place in range(len(wish.puts))))


def _record(database: Writing, namespace: str, kind: str, row: Any) -> Record:
    id, version, changed_at, data = row
    return Record(kind, id, version, database.seal.open(data), changed_at, namespace)


def _changed(change: Put | Drop) -> Conflict:
    what = f"{change.kind} {change.id!r}"
    if isinstance(change, Put) and change.replaces == 0:
        said = f"{what} is there already"
    elif isinstance(change, Drop) and change.replaces == ANY:
        said = f"there is no {what}"
    else:
        said = f"{what} was changed or dropped meanwhile; read it again"
    return Conflict(said, details={"kind": change.kind, "id": change.id})
