"""The SQL of ``list`` and ``count``: which index leads, and how far it is followed.

With a million runs the wrong leader costs half a second, and a database without statistics cannot
know. So each condition that has an index is counted first, up to a bound, through its index alone;
the rarest leads and the others are looked up per row. Bounds grow until one condition stays below:
that is the cheapest way to tell. Several statuses are one branch each, merged in order, since an
index gives order only within one status.

Newest first is by ``run``, which every index has as its last column. A list that asks for times is
in the order of the times instead: runs are not numbered by the clock (an imported run is as old as
its history), so no other order could be read from the index of times. What another condition leads
to is then sorted, and so leads only if there is little of it.

Conditions that are all common may have nothing in common. So no more than ``WINDOW`` candidates are
looked at: where that ends, the next page begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from perdure.store.port import Filter, Place
from perdure.store.sql.attributes import found, has, of_type, values_of
from perdure.store.sql.database import Writing
from perdure.values.states import CODES

WINDOW = 20_000
"""Candidates that one page looks at: with a few lookups for each, a tenth of a second."""
_BOUNDS = (1_000, 5_000, WINDOW)
_SORTED = 5_000
"""As many runs as are sorted; beyond, the index that has the order leads."""
_NO_BOUND = 2**62


class Leader(msgspec.Struct, frozen=True):
    """A way to find candidates: a table, conditions on it, and its column of runs.

    ``covers``: which condition of the filter it has settled. ``rest``: a part of this condition
    that its index does not hold.
    """

    table: str
    where: str
    parameters: tuple[Any, ...]
    run: str
    covers: str
    rest: str = ""


class Query(msgspec.Struct, frozen=True):
    """A statement. ``floor``: it looks at nothing behind this run, and there is more."""

    text: str
    parameters: list[Any]
    floor: Place | None = None


def list_query(database: Writing, where: Filter, limit: int, before: Place | None) -> Query:
    """Return the statement for ``list``."""
    search = _Search(database, where, before)
    floor = search.floor()
    ids, parameters = search.ids(floor, limit)
    columns, tables = database.sql["row_columns"], database.sql["row_tables"]
    text = f"SELECT {columns} FROM ({ids}) k CROSS JOIN {tables} WHERE r.run = k.run "  # noqa: S608 - names from above
    last = "r.created_at DESC, r.run DESC" if search.by_time else "r.run DESC"
    return Query(f"{text}ORDER BY {last}", parameters, floor)


def count_query(database: Writing, where: Filter, limit: int | None) -> Query:
    """Return the statement for ``count``; without a limit it counts however long that takes."""
    search = _Search(database, where, None)
    floor = None if limit is None else search.floor()
    branches, parameters = search.branches(floor)
    inner = " UNION ALL ".join(branches)
    bound = _NO_BOUND if limit is None else limit
    text = f"SELECT count(*) FROM ({inner} LIMIT ?) AS counted"  # noqa: S608 - names from above
    return Query(text, [*parameters, bound], floor)


class _Search:
    """What one call looks for: its leader, and the conditions that are left."""

    def __init__(self, database: Writing, where: Filter, before: Place | None) -> None:
        self._database = database
        self._sql = database.sql
        self._where = where
        self.by_time = where.started_after is not None or where.started_before is not None
        self._leader, self._is_long = self._choose()
        self._conditions, self._values = _conditions(self._sql, self._leader, where)
        self._before = before

    def floor(self) -> Place | None:
        """Return the last candidate to look at; ``None``: there are not so many."""
        if not self._conditions or not self._is_long:
            return None
        ids, parameters = self.ids(None, WINDOW, is_leader_only=True)
        text = f"SELECT * FROM ({ids}) w LIMIT 1 OFFSET {WINDOW - 1}"  # noqa: S608 - names from above
        found = self._database.ask(text, parameters).fetchone()
        return None if found is None else Place(*found)

    def ids(
        self, floor: Place | None, limit: int, *, is_leader_only: bool = False
    ) -> tuple[str, list[Any]]:
        """Return a SELECT of the first ``limit`` runs, in the order of the list."""
        branches, parameters = self.branches(floor, is_leader_only=is_leader_only)
        order = f"ORDER BY {'began DESC, run DESC' if self.by_time else 'run DESC'} LIMIT {limit}"
        if len(branches) > 1:  # each stops by itself, whether or not the database merges them
            branches = [f"SELECT * FROM ({one} {order}) b{n}" for n, one in enumerate(branches)]  # noqa: S608 - names from above
        return f"{' UNION ALL '.join(branches)} {order}", parameters

    def branches(
        self, floor: Place | None, *, is_leader_only: bool = False
    ) -> tuple[list[str], list[Any]]:
        """Return a SELECT of candidates for each way the leader goes, and their parameters."""
        leader = self._leader
        conditions = [] if is_leader_only else list(self._conditions)
        values = [] if is_leader_only else list(self._values)
        for condition, *given in self._span(floor):
            conditions.append(condition)
            values += given
        tables = leader.table
        text = " ".join(conditions)
        if leader.run != "r.run" and "r." in text:
            tables += f" {self._sql['join_run'].format(leader.run)}"
        if leader.run != "s.run" and "s.status" in text:
            tables += f" {self._sql['join_state'].format(leader.run)}"
        starts: list[tuple[str, tuple[Any, ...]]] = [
            (leader.where + leader.rest, leader.parameters)
        ]
        if leader.covers == "status":
            starts = [("s.status = ?", (code,)) for code in leader.parameters]
        elif leader.covers == "time":
            # The span says the rest, and from where to go on.
            starts = [(self._sql["of_namespace"], (self._where.namespace,))]
        columns = f"{leader.run} AS run, {'r.created_at' if self.by_time else '0'} AS began"
        texts: list[str] = []
        parameters: list[Any] = []
        for first, own in starts:
            all_of = " AND ".join(filter(None, (first, *conditions)))
            texts.append(f"SELECT {columns} FROM {tables} WHERE {all_of}")  # noqa: S608 - names from above
            parameters += [*own, *values]
        return texts, parameters

    def _span(self, floor: Place | None) -> Iterator[tuple[Any, ...]]:
        """Yield the conditions that say from where to where: one for each end."""
        before, where, run = self._before, self._where, self._leader.run
        if not self.by_time:
            if before is not None:
                yield f"{run} < ?", before.run
            if floor is not None:
                yield f"{run} >= ?", floor.run
            return
        until = where.started_before
        if before is not None and (until is None or before.at < until):
            yield "(r.created_at, r.run) < (?, ?)", before.at, before.run
        elif until is not None:
            yield "r.created_at < ?", until
        if floor is not None:
            yield "(r.created_at, r.run) >= (?, ?)", floor.at, floor.run
        elif where.started_after is not None:
            yield "r.created_at >= ?", where.started_after

    def _choose(self) -> tuple[Leader, bool]:
        """Return the leader, and whether it has as many candidates as a window or more."""
        left = list(self._leaders())
        if not self.by_time and any(leader.covers != "status" for leader in left[:-1]):
            del left[-1]  # the others are of this namespace, so none has more runs than it
        if len(left) == 1:
            return left[0], True
        for bound in _BOUNDS:
            found = [(self._count(leader, bound), n) for n, leader in enumerate(left)]
            fewest, place = min(found)
            if fewest < bound:
                return left[place], False
            if self.by_time and bound >= _SORTED:
                left = left[-1:]
                break
        return left[0], True

    def _count(self, leader: Leader, bound: int) -> int:
        text = (
            f"SELECT count(*) FROM (SELECT 1 FROM {leader.table} "  # noqa: S608 - names from above
            f"WHERE {leader.where} LIMIT {bound}) AS counted"
        )
        return int(self._database.ask(text, leader.parameters).fetchone()[0])

    def _leaders(self) -> Iterator[Leader]:
        """Yield what can lead; the last one has the order of the list."""
        where, sql = self._where, self._sql
        if where.workflow_id:
            parameters = (where.namespace, where.workflow_id)
            condition = "r.namespace = ? AND r.workflow_id = ?"
            yield Leader("perdure_run r", condition, parameters, "r.run", "workflow_id")
            if not self.by_time:
                return  # nothing else is as rare
        for key, value in where.search.items():
            first = values_of(key, value)[0]
            condition, given = found(sql, where.namespace, key, first)
            covers, rest = f"search:{key}", of_type(sql, first)
            yield Leader("perdure_attr a", condition, tuple(given), "a.run", covers, rest)
        for tag in where.tags:
            own = (where.namespace, tag)
            yield Leader(
                "perdure_tag t", "t.namespace = ? AND t.tag = ?", own, "t.run", f"tag:{tag}"
            )
        for column in ("workflow", "correlation_id", "tenant", "created_by"):
            value = getattr(where, column)
            if value:
                own = (where.namespace, value)
                condition = f"r.namespace = ? AND r.{column} = ?"
                yield Leader("perdure_run r", condition, own, "r.run", column)
        if where.status:
            codes = tuple(CODES[status] for status in where.status)
            marks = ",".join("?" * len(codes))
            yield Leader("perdure_state s", f"s.status IN ({marks})", codes, "s.run", "status")
        own = (where.namespace,)
        if self.by_time:
            yield Leader("perdure_run r", *_between(sql, where), "r.run", "time")
        else:
            yield Leader("perdure_run r", sql["of_namespace"], own, "r.run", "namespace")


def _between(sql: Mapping[str, str], where: Filter) -> tuple[str, tuple[Any, ...]]:
    ends = (("r.created_at < ?", where.started_before), ("r.created_at >= ?", where.started_after))
    given = [(text, value) for text, value in ends if value is not None]
    texts = [sql["of_namespace"], *(text for text, _ in given)]
    return " AND ".join(texts), (where.namespace, *(value for _, value in given))


def _conditions(
    sql: Mapping[str, str], leader: Leader, where: Filter
) -> tuple[list[str], list[Any]]:
    """Return what each candidate must still satisfy, but for its time."""
    conditions: list[str] = []
    parameters: list[Any] = []

    def need(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    of_column = sql["of_column"]
    if leader.covers == "status":  # all others begin with the namespace
        need(of_column.format("namespace"), where.namespace)
    for column in ("workflow_id", "workflow", "correlation_id", "tenant", "created_by"):
        value = getattr(where, column)
        if value and leader.covers != column:
            need(of_column.format(column), value)
    for tag in where.tags:
        if leader.covers != f"tag:{tag}":
            need(
                "EXISTS (SELECT 1 FROM perdure_tag x WHERE x.namespace = ? AND x.tag = ? "  # noqa: S608 - names from above
                f"AND x.run = {leader.run} {sql['for_each']})",
                where.namespace,
                tag,
            )
    for key, value in where.search.items():
        for wanted in values_of(key, value)[int(leader.covers == f"search:{key}") :]:
            text, given = has(sql, where.namespace, key, wanted, leader.run)
            need(text, *given)
    if where.status and leader.covers != "status":
        codes = [CODES[status] for status in where.status]
        need(f"s.status IN ({','.join('?' * len(codes))})", *codes)
    return conditions, parameters
