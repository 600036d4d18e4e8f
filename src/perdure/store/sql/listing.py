"""The SQL of ``list`` and ``count``: which index leads.

With a million runs the wrong leader costs half a second, and a database without statistics cannot
know. So each condition that has an index (a search attribute, a workflow, a status) is
counted first, up to a bound, through its index alone; the rarest leads and the others are looked up
per row. Several statuses are one branch each, merged in order, since an index gives order only
within one status. Newest first is by ``run``, which every index has as its last column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from perdure.errors import Invalid
from perdure.store.port import Filter
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.values.states import CODES

_BOUND = 2_000
_NO_BOUND = 2**62


class Leader(msgspec.Struct, frozen=True):
    """A way to find candidates: tables in join order, conditions, and the column that orders.

    ``covers``: which conditions of the filter it has settled. ``is_ordered``: whether its index
    gives the runs by number.
    """

    tables: str
    where: str
    parameters: tuple[Any, ...]
    run: str
    covers: str
    is_ordered: bool = True


def list_query(
    database: Writing, where: Filter, limit: int, before: int | None
) -> tuple[str, list[Any]]:
    """Return the statement for ``list`` and its parameters."""
    leader = _choose(database, where)
    branches, parameters = _branches(database.sql, leader, where, before)
    if len(branches) == 1:
        ids = f"{branches[0]} ORDER BY run DESC LIMIT ?"
    else:
        ids = f"{' UNION ALL '.join(branches)} ORDER BY run DESC LIMIT ?"
    columns, tables = database.sql["row_columns"], database.sql["row_tables"]
    text = f"SELECT {columns} FROM ({ids}) k CROSS JOIN {tables} WHERE r.run = k.run "  # noqa: S608 - names from above
    return text + "ORDER BY r.run DESC", [*parameters, limit]


def count_query(database: Writing, where: Filter, limit: int | None) -> tuple[str, list[Any]]:
    """Return the statement for ``count`` and its parameters."""
    leader = _choose(database, where)
    branches, parameters = _branches(database.sql, leader, where, None)
    inner = " UNION ALL ".join(branches)
    bound = _NO_BOUND if limit is None else limit
    return f"SELECT count(*) FROM ({inner} LIMIT ?) AS counted", [*parameters, bound]  # noqa: S608 - names from above


def _choose(database: Writing, where: Filter) -> Leader:
    candidates = list(_leaders(database.sql, where))
    if len(candidates) == 1:
        return candidates[0]
    best, fewest = candidates[-1], _BOUND + 1
    for leader in candidates[:-1]:
        sql = (
            f"SELECT count(*) FROM (SELECT 1 FROM {leader.tables} "  # noqa: S608 - names from above
            f"WHERE {leader.where} LIMIT {_BOUND}) AS counted"
        )
        found = database.ask(sql, leader.parameters).fetchone()[0]
        # Many rows that come in another order would have to be sorted.
        if found < fewest and (found < _BOUND or leader.is_ordered):
            best, fewest = leader, found
    return best


def _leaders(sql: Mapping[str, str], where: Filter) -> Iterator[Leader]:
    """Yield usable leaders; the last one is the table itself."""
    if where.workflow_id:
        parameters = (where.namespace, where.workflow_id)
        yield Leader(
            "perdure_run r", "r.namespace = ? AND r.workflow_id = ?", parameters, "r.run", "id"
        )
        return
    for key, value in where.search.items():
        first = _values(key, value)[0]
        yield Leader(
            "perdure_attr a",
            f"a.namespace = ? AND a.key = ? AND a.value = {sql['json_value']}{_of_type(first)}",
            (where.namespace, key, to_json(first)),
            "a.run",
            f"search:{key}",
        )
    for column in ("workflow", "correlation_id", "tenant"):
        value = getattr(where, column)
        if value:
            yield Leader("perdure_run r", f"r.{column} = ?", (value,), "r.run", column)
    if where.status:
        codes = [CODES[status] for status in where.status]
        marks = ",".join("?" * len(codes))
        yield Leader("perdure_state s", f"s.status IN ({marks})", tuple(codes), "s.run", "status")
    parameters = (where.namespace,)
    yield Leader(
        "perdure_run r", "r.namespace = ?", parameters, "r.run", "namespace", is_ordered=False
    )
    yield Leader("perdure_run r", "true", (), "r.run", "")


def _branches(
    sql: Mapping[str, str], leader: Leader, where: Filter, before: int | None
) -> tuple[list[str], list[Any]]:
    conditions, parameters = _conditions(sql, leader, where)
    tables = leader.tables
    if conditions and leader.run != "r.run":
        tables += f" {sql['join_after']} perdure_run r ON r.run = {leader.run}"
    if any("s.status" in condition for condition in conditions):
        tables += f" {sql['join_after']} perdure_state s ON s.run = {leader.run}"
    if before is not None:
        conditions.append(f"{leader.run} < ?")
        parameters.append(before)
    starts: list[tuple[str, tuple[Any, ...]]] = [(leader.where, leader.parameters)]
    if leader.covers == "status":
        starts = [("s.status = ?", (code,)) for code in leader.parameters]
    texts: list[str] = []
    values: list[Any] = []
    for first, own in starts:
        all_of = " AND ".join([first, *conditions])
        texts.append(f"SELECT {leader.run} AS run FROM {tables} WHERE {all_of}")  # noqa: S608 - names from above
        values += [*own, *parameters]
    return texts, values


def _conditions(
    sql: Mapping[str, str], leader: Leader, where: Filter
) -> tuple[list[str], list[Any]]:
    """Return what each candidate must still satisfy."""
    conditions: list[str] = []
    parameters: list[Any] = []

    def need(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if leader.covers not in ("id", "namespace") and not leader.covers.startswith("search:"):
        need(sql["of_namespace"], where.namespace)
    for column in ("workflow", "correlation_id", "tenant", "created_by"):
        value = getattr(where, column)
        if value and leader.covers != column:
            need(f"r.{column} = ?", value)
    if where.started_after is not None:
        need("r.created_at >= ?", where.started_after)
    if where.started_before is not None:
        need("r.created_at < ?", where.started_before)
    for tag in where.tags:
        need(sql["has_tag"], tag)
    for key, value in where.search.items():
        for wanted in _values(key, value)[int(leader.covers == f"search:{key}") :]:
            need(
                "EXISTS (SELECT 1 FROM perdure_attr x WHERE x.namespace = ? AND x.key = ? "  # noqa: S608 - names from above
                f"AND x.value = {sql['json_value']} AND x.run = {leader.run}{_of_type(wanted)})",
                where.namespace,
                key,
                to_json(wanted),
            )
    if where.status and leader.covers != "status":
        codes = [CODES[status] for status in where.status]
        need(f"s.status IN ({','.join('?' * len(codes))})", *codes)
    return conditions, parameters


def _values(key: str, value: Any) -> list[Any]:
    """Return what a run's attribute must contain: all of a list, or the one value."""
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not values or not all(isinstance(one_of, (str, int, float)) for one_of in values):
        raise Invalid(f"search: {key}={value!r} is not text, a number, a boolean or a list")
    return values


def _of_type(value: Any) -> str:
    """Return what tells a boolean from a number, as which it is stored."""
    if isinstance(value, bool):
        return " AND form = -1"
    return " AND coalesce(form, 0) <> -1" if isinstance(value, (int, float)) else ""
