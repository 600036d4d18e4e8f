"""Lists of human tasks: what a filter selects, and what somebody may see of it.

What a principal may read is one condition (``perdure.values.reach.Sight``) in several branches: its
roles, and what is theirs. Each branch is led by an index of its own and read up to the limit, so a
list is as fast for many roles as for one; no human task is in two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from perdure.store.sql.attributes import Condition as _Condition
from perdure.store.sql.attributes import found, has, of_type, values_of
from perdure.store.sql.database import Writing
from perdure.values.people import CODES, OPEN, HumanTaskFilter, HumanTaskRow, HumanTaskStatus

_NEVER = 2**63 - 1
"""Stands for the due time of what has none."""
_DUE = f"coalesce(t.due_at, {_NEVER})"
_LAST = "\U0010ffff"
_FEW = 5_000
"""As many runs are looked up for a search attribute that leads."""
_BRANCHES = 200
"""More roles than this are one branch."""

_TALLIED = {
    "role": "coalesce(t.role, '')",
    "type": "CASE t.type WHEN '' THEN coalesce(r.workflow, '') ELSE t.type END",
}
"""What is counted apart; a type is that of ``HumanTaskFilter.kind``."""
_ANY: _Condition = ("", [])


def tasks_query(
    sql: Mapping[str, str],
    where: HumanTaskFilter,
    now: int,
    limit: int,
    after: HumanTaskRow | None,
    *,
    rare: str = "",
) -> tuple[str, list[Any]]:
    """Return the text of a list and its parameters; ``rare``: see :func:`rare_attribute`."""
    is_open, is_narrow = _kind(where, rare)
    due = _due(is_narrow)
    order = f"{due}, t.id" if is_open else "t.id DESC"
    conditions, parameters = _conditions(sql, where, now, rare)
    if after is not None:
        if is_open:  # not as a pair: an index on an expression would not be searched by it
            conditions.append(f"{due} >= ? AND ({due} > ? OR t.id > ?)")
            parameters += [after.due_at if after.due_at is not None else _NEVER] * 2
        else:
            conditions.append("t.id < ?")
        parameters.append(after.id)
    tables, columns = sql["task_tables"], sql["task_columns"]
    branches = _branches(where, now)
    if len(branches) == 1:
        text, more = branches[0]
        given = " AND ".join([*conditions, *([text] if text else [])])
        # S608 below: our own words
        made = f"SELECT {columns} FROM {tables} WHERE {given} ORDER BY {order} LIMIT ?"  # noqa: S608
        return made, [*parameters, *more, limit]
    parts: list[str] = []
    every: list[Any] = []
    for text, more in branches:
        given = " AND ".join([*conditions, text])
        part = (
            f"SELECT t.id, {due} AS due FROM {_tables(sql, given)} WHERE {given} "  # noqa: S608
            f"ORDER BY {order} LIMIT ?"
        )
        parts.append(f"SELECT id, due FROM ({part}) AS branch")  # noqa: S608
        every += [*parameters, *more, limit]
    together = " UNION ALL ".join(parts)
    place = "due, id" if is_open else "id DESC"
    first = f"SELECT id FROM ({together}) AS every ORDER BY {place} LIMIT ?"  # noqa: S608
    made = f"SELECT {columns} FROM {tables} WHERE t.id IN ({first}) ORDER BY {order}"  # noqa: S608
    return made, [*every, limit]


def tasks_count(
    sql: Mapping[str, str], where: HumanTaskFilter, now: int, *, rare: str = ""
) -> tuple[str, list[Any]]:
    """Return the text of a count and its parameters."""
    conditions, parameters = _conditions(sql, where, now, rare)
    parts: list[str] = []
    every: list[Any] = []
    for text, more in _branches(where, now):
        given = " AND ".join([*conditions, *([text] if text else [])])
        parts.append(f"(SELECT count(*) FROM {_tables(sql, given)} WHERE {given})")  # noqa: S608
        every += [*parameters, *more]
    return f"SELECT {' + '.join(parts) or '0'}", every


def tasks_tally(
    sql: Mapping[str, str], where: HumanTaskFilter, now: int, by: str, *, rare: str = ""
) -> tuple[str, list[Any]]:
    """Return the text of a count for each role or type, and its parameters."""
    conditions, parameters = _conditions(sql, where, now, rare)
    parts: list[str] = []
    every: list[Any] = []
    for text, more in _branches(where, now):
        given = " AND ".join([*conditions, *([text] if text else [])])
        tables = _tables(sql, f"{_TALLIED[by]} {given}")
        parts.append(f"SELECT {_TALLIED[by]} AS what FROM {tables} WHERE {given}")  # noqa: S608
        every += [*parameters, *more]
    if not parts:
        return "SELECT '', 0 WHERE 1 = 0", []
    together = " UNION ALL ".join(parts)
    return f"SELECT what, count(*) FROM ({together}) AS every GROUP BY what ORDER BY what", every  # noqa: S608


def rare_attribute(database: Writing, where: HumanTaskFilter) -> str:
    """Return the search attribute that few runs have as the filter wants it, so that it leads;
    empty if there is none, and the order of the list leads instead.
    """
    for key, value in where.search.items():
        condition, given = found(database.sql, where.namespace, key, values_of(key, value)[0])
        text = f"SELECT 1 FROM perdure_attr a WHERE {condition} LIMIT 1 OFFSET {_FEW}"  # noqa: S608
        if database.ask(text, given).fetchone() is None:
            return key
    return ""


def _tables(sql: Mapping[str, str], conditions: str) -> str:
    """Return the tables that conditions need: the run only if they ask for it."""
    return sql["task_tables"] if "r." in conditions else "perdure_human_task t"


def _kind(where: HumanTaskFilter, rare: str) -> tuple[bool, bool]:
    """Tell whether only open ones are meant, and whether few are, by what finds them."""
    status = frozenset(where.status) or OPEN
    # What finds few tasks leads, and no index of all open ones, whose words these are not.
    return status <= OPEN, bool(where.workflow_id or where.prefix or rare)


def _due(is_narrow: bool) -> str:
    return f"({_DUE} + 0)" if is_narrow else _DUE


def _conditions(
    sql: Mapping[str, str], where: HumanTaskFilter, now: int, rare: str
) -> tuple[list[str], list[Any]]:
    """Return what a filter demands of all branches."""
    is_open, is_narrow = _kind(where, rare)
    status = frozenset(where.status) or OPEN
    conditions: list[str] = ["t.namespace = ?"]
    parameters: list[Any] = [where.namespace]
    if is_open:
        # In these words the partial indexes fit.
        conditions.append("t.status < 2" if is_narrow else "t.status IN (0, 1)")
    elif status != frozenset(HumanTaskStatus):
        codes = ", ".join(str(CODES[one]) for one in sorted({*status, *_implied(status)}))
        closed = "" if status & OPEN or is_narrow else "t.status > 1 AND "
        conditions.append(f"{closed}t.status IN ({codes})")
    elif not is_narrow:
        conditions.append("t.id > ''")  # all of them, in the order of this index
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
        ("t.type = ?", where.type),
        ("t.priority = ?", where.priority),
        ("t.created_at >= ?", where.opened_from),
        ("t.closed_at >= ?", where.closed_from),
    ):
        if value:
            conditions.append(condition)
            parameters.append(value)
    if where.workflow_id:
        text, more = _of_workflow(where)
        conditions.append(text)
        parameters += more
    for text, more in _with_attributes(sql, where, rare):
        conditions.append(text)
        parameters += more
    if where.kind:
        conditions.append("(t.type = ? OR (t.type = '' AND r.workflow = ?))")
        parameters += [where.kind] * 2
    if where.overdue:
        conditions.append(f"t.status IN (0, 1) AND {_DUE} < ?")
        parameters.append(now)
    if where.prefix:
        conditions.append("t.id >= ? AND t.id < ?")
        parameters += [where.prefix, where.prefix + _LAST]
    if where.sight is not None and where.sight.tenant:
        conditions.append("coalesce(t.tenant, r.tenant, '') = ?")
        parameters.append(where.sight.tenant)
    return conditions, parameters


def _of_workflow(where: HumanTaskFilter) -> _Condition:
    """Return the condition of what the runs of a workflow id ask, and those that ask for them."""
    runs = "SELECT x.run FROM perdure_run x WHERE x.namespace = ? AND"
    text, more = f"{runs} x.workflow_id = ?", [where.namespace, where.workflow_id]
    if prefix := where.workflow_prefix:
        text = f"{text} UNION ALL {runs} x.workflow_id >= ? AND x.workflow_id < ?"
        more += [where.namespace, prefix, prefix + _LAST]
    return f"t.run IN ({text})", more


def _with_attributes(
    sql: Mapping[str, str], where: HumanTaskFilter, rare: str
) -> Iterator[_Condition]:
    """Yield the conditions that the run which asks has certain search attributes."""
    for key, value in where.search.items():
        first, *others = values_of(key, value)
        if key == rare:
            text, more = found(sql, where.namespace, key, first)
            runs = f"SELECT a.run FROM perdure_attr a WHERE {text}{of_type(sql, first)}"  # noqa: S608
            yield f"t.run IN ({runs})", more
        else:
            others.append(first)
        for wanted in others:
            yield has(sql, where.namespace, key, wanted, "t.run")


def _branches(where: HumanTaskFilter, now: int) -> list[_Condition]:
    """Return what somebody may read, as conditions of which at most one is true; of certain roles,
    or somebody's, if the filter says so.
    """
    sight, asked = where.sight, sorted(set(where.roles))
    among = _among("t.role", asked) if asked else _ANY
    if sight is None or sight.is_whole:
        if where.holder:
            return _narrowed(_own(where.holder, [], now), among)
        return _of_roles(asked) or [_ANY]
    held = _any_of(_own(where.holder, [], now)) if where.holder else _ANY
    roles = sorted(sight.whole & frozenset(asked) if asked else sight.whole)
    if where.role:  # the others would find nothing
        roles = [role for role in roles if role == where.role]
        if roles:
            return _narrowed([_ANY], held)
    own = _own(sight.me, sorted(sight.whole | sight.closed), now)
    return _narrowed([*_of_roles(roles), *_narrowed(own, among)], held)


def _narrowed(branches: list[_Condition], more: _Condition) -> list[_Condition]:
    """Return branches with one more condition each."""
    if not more[0]:
        return branches
    return [
        (" AND ".join(part for part in (text, more[0]) if part), [*values, *more[1]])
        for text, values in branches
    ]


def _any_of(branches: list[_Condition]) -> _Condition:
    text = " OR ".join(f"({part})" for part, _ in branches)
    return f"({text})", [value for _, values in branches for value in values]


def _of_roles(roles: list[str]) -> list[_Condition]:
    if len(roles) > _BRANCHES:
        return [_among("t.role", roles)]
    return [("t.role = ?", [role]) for role in roles]


def _own(me: str, roles: list[str], now: int) -> list[_Condition]:
    """Return the conditions of what is somebody's own, and in none of these roles."""
    elsewhere, others = "", "(t.assignee IS NULL OR t.assignee <> ?)"
    if roles:
        text, _ = _among("t.role", roles)
        elsewhere = f" AND (t.role IS NULL OR NOT {text})"
    held = "t.claimed_by = ? AND t.status = 1 AND t.claimed_until > ?"
    done = "t.closed_by = ? AND t.status > 1"
    return [
        (f"t.assignee = ?{elsewhere}", [me, *roles]),
        (f"{held} AND {others}{elsewhere}", [me, now, me, *roles]),
        (f"{done} AND {others}{elsewhere}", [me, me, *roles]),
    ]


def _among(column: str, values: list[str]) -> _Condition:
    return f"{column} IN ({', '.join('?' * len(values))})", list(values)


def _implied(status: frozenset[HumanTaskStatus]) -> frozenset[HumanTaskStatus]:
    """Return the stored statuses that may stand for these: a claim may be over."""
    return OPEN if HumanTaskStatus.OPEN in status else frozenset()
