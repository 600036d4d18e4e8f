"""Filters of lists of human tasks: what each selects, on its own, together, and in a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.store_contract import World, closing, request, turn
from tests.contract.test_store_escalations import crowd
from tests.contract.test_store_escalations import raised as raise_by_hand
from tests.contract.test_store_people import asked, decide, waiting_for

from perdure.store.port import HumanTaskFilter, HumanTaskRow
from perdure.store.sql import worklists
from perdure.values.people import HumanTaskStatus
from perdure.values.principals import Grant, Principal, Reach
from perdure.values.reach import readable

EVERY = tuple(HumanTaskStatus)
OPEN = HumanTaskStatus.OPEN


def _is_of(row: HumanTaskRow, who: str, now: int) -> bool:
    is_held = row.standing(now) is HumanTaskStatus.CLAIMED and row.claimed_by == who
    return row.assignee == who or is_held or row.closed_by == who


CHECKS: dict[str, tuple[Any, Callable[[HumanTaskRow, int], bool]]] = {
    "roles": (("finance", "ops"), lambda row, now: row.role in ("finance", "ops")),
    "holder": ("ada", lambda row, now: _is_of(row, "ada", now)),
    "priority": (2, lambda row, now: row.priority == 2),
    "role": ("legal", lambda row, now: row.role == "legal"),
}


@pytest.mark.parametrize(
    "names",
    [["roles"], ["holder"], ["priority"], ["roles", "holder"], ["role", "holder"], [*CHECKS]],
    ids="+".join,
)
@pytest.mark.parametrize(
    "roles",
    [["admin"], ["finance"], ["finance", "legal"], [Grant("finance", read=Reach.NONE), "ops"]],
    ids=["admin", "one role", "two roles", "one closed"],
)
def test_filters_narrow_what_may_be_read(world: World, names: list[str], roles: list[Any]):
    crowd(world)
    sight = readable(Principal("ada", roles=roles))
    chosen = {name: CHECKS[name] for name in names}
    filters: dict[str, Any] = {name: value for name, (value, _) in chosen.items()}
    for status in (EVERY, (), (OPEN,), (HumanTaskStatus.COMPLETED,)):
        whole = world.store.human_tasks(HumanTaskFilter(status=status), world.now, limit=99)
        expected = [
            row.id
            for row in whole
            if sight.sees(row, world.now)
            and all(holds(row, world.now) for _, holds in chosen.values())
        ]
        where = HumanTaskFilter(status=status, sight=sight, **filters)
        assert [it.id for it in world.store.human_tasks(where, world.now, limit=99)] == expected
        assert world.store.count_human_tasks(where, world.now) == len(expected)
        seen = [row for row in whole if row.id in expected]
        for by, of in (("role", lambda row: row.role or ""), ("type", lambda row: row.type)):
            counted = Counter(map(of, seen))
            assert world.store.tally_human_tasks(where, world.now, by) == counted
        if len(expected) > 2:
            first = world.store.human_tasks(where, world.now, limit=1)
            rest = world.store.human_tasks(where, world.now, limit=99, after=first[0])
            assert [it.id for it in (*first, *rest)] == expected


@pytest.mark.parametrize("few", [0, 5_000], ids=["the order leads", "the attribute leads"])
def test_what_runs_with_certain_search_attributes_ask_is_found(
    world: World, few: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worklists, "_FEW", few)

    def ask(id: str, search: dict[str, Any], **fields: Any) -> None:
        asks = [asked(id, **fields)]
        world.commit(turn(world.owned(f"of-{id}").run, asks=asks, search=search))

    for id, search in {
        "t-1": {"order": 7, "region": "eu", "paid": True},
        "t-2": {"order": 8, "region": "eu", "paid": 1},
        "t-3": {"order": "7", "labels": ["a", "b"]},
        "t-4": {},
    }.items():
        ask(id, search, role="ops")
    raise_by_hand(world, "e-1")
    ask("t-5", {"region": "eu"}, due=1)
    decide(world, "t-2", value=b"1")
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({"order": 7}, ["t-1"]),
        ({"order": "7"}, ["t-3"]),
        ({"region": "eu"}, ["t-5", "t-2", "t-1"]),
        ({"region": "eu", "order": 8}, ["t-2"]),
        ({"paid": True}, ["t-1"]),
        ({"paid": 1}, ["t-2"]),
        ({"labels": ["b", "a"]}, ["t-3"]),
        ({"labels": ["a", "c"]}, []),
        ({"colour": "red"}, []),
    ]
    for search, ids in expected:
        where = HumanTaskFilter(status=EVERY, search=search)
        rows = world.store.human_tasks(where, world.now, limit=9)
        assert [row.id for row in rows] == ids, search
        assert world.store.count_human_tasks(where, world.now) == len(ids)
        assert sum(world.store.tally_human_tasks(where, world.now, "role").values()) == len(ids)
        where.status = (OPEN,)
        rows = world.store.human_tasks(where, world.now, limit=9)
        assert [row.id for row in rows] == [id for id in ("t-5", "t-1", "t-3") if id in ids]
    sight = readable(Principal("ada", roles=["ops"]))
    where = HumanTaskFilter(status=EVERY, search={"region": "eu"}, sight=sight)
    assert [it.id for it in world.store.human_tasks(where, world.now, limit=9)] == ["t-2", "t-1"]
    first = world.store.human_tasks(where, world.now, limit=1)
    rest = world.store.human_tasks(where, world.now, limit=9, after=first[0])
    assert [it.id for it in rest] == ["t-1"]


def test_a_kind_is_a_type_or_a_workflow_that_says_no_type(world: World):
    waiting_for(world, "t-1")  # of a run, without a type
    waiting_for(world, "t-2", type="page")
    [row] = world.store.human_tasks(HumanTaskFilter(), world.now, limit=1)

    def found(**filters: Any) -> list[str]:
        where = HumanTaskFilter(status=EVERY, **filters)
        rows = world.store.human_tasks(where, world.now, limit=9)
        assert world.store.count_human_tasks(where, world.now) == len(rows)
        return sorted(it.id for it in rows)

    assert row.workflow
    where = HumanTaskFilter(status=EVERY)
    tally = world.store.tally_human_tasks(where, world.now, "type")
    assert tally == {row.workflow: 1, "page": 1}
    assert found(kind=row.workflow) == ["t-1"]
    assert found(kind="page") == ["t-2"]
    assert found(kind="pag") == []
    assert found(type="page") == ["t-2"]


def test_those_of_a_workflow_id_are_found_with_those_that_ask_for_it(world: World):
    for number, workflow_id in enumerate(["w", "asks/w/1", "asks/w/2", "asks/ww/1", "asks/w"]):
        started = world.owned(workflow_id)
        world.commit(turn(started.run, asks=[asked(f"t-{number}")]))

    def found(**filters: Any) -> list[str]:
        where = HumanTaskFilter(status=EVERY, workflow_id="w", **filters)
        rows = world.store.human_tasks(where, world.now, limit=9)
        assert world.store.count_human_tasks(where, world.now) == len(rows)
        return sorted(it.id for it in rows)

    assert found() == ["t-0"]
    assert found(workflow_prefix="asks/w/") == ["t-0", "t-1", "t-2"]
    decide(world, "t-1")
    assert found(workflow_prefix="asks/w/", roles=("x",)) == []


def test_a_run_that_begins_with_an_end_is_there_with_it(world: World):
    """What the engine does for an escalation: a start that is nobody's child, in a closing turn."""
    started = world.owned("w")
    beside = request("asks", tags=("a",), tenant="acme", search={"of": "w"}, created_by="ada")
    world.commit(closing(started.run, children=[beside]))
    row = world.store.find("asks")
    assert row is not None
    assert (row.parent_execution, row.tenant, row.tags, row.created_by) == (
        None,
        "acme",
        ("a",),
        "ada",
    )
    assert world.store.attributes(row.run) == {"of": "w"}


@pytest.mark.parametrize("roles", [["admin"], ["finance"]])
def test_a_role_that_is_asked_for_twice_lists_everything_once(world: World, roles: list[Any]):
    crowd(world)
    sight = readable(Principal("ada", roles=roles))
    once, twice = (
        HumanTaskFilter(status=EVERY, sight=sight, roles=("finance",) * count) for count in (1, 2)
    )
    rows = world.store.human_tasks(once, world.now, limit=99)
    assert rows
    assert [it.id for it in world.store.human_tasks(twice, world.now, limit=99)] == [
        it.id for it in rows
    ]
    assert world.store.count_human_tasks(twice, world.now) == len(rows)
