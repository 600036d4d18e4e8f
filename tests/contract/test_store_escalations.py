"""Human tasks beyond one decision: many at once, the clock, those without a run, logs, and who may
read what.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.contract.store_contract import World, closing
from tests.contract.test_store_people import decide, get, listed, opened, waiting_for

from perdure.errors import Conflict, HumanTaskError, TaskClosed, TaskDenied, TaskNotFound
from perdure.store.port import Act, Acted, HumanTaskFilter, HumanTaskRaise, HumanTaskRow, Prune
from perdure.values import events as ev
from perdure.values.event import Approval
from perdure.values.people import HumanTaskStatus
from perdure.values.principals import Grant, Principal, Reach
from perdure.values.reach import readable

OPEN, EXPIRED = HumanTaskStatus.OPEN, HumanTaskStatus.EXPIRED


def raised(world: World, id: str = "e-1", **fields: Any) -> HumanTaskRow:
    more = {name: fields.pop(name) for name in ("by", "tenant", "namespace") if name in fields}
    wanted = HumanTaskRaise(id, opened(id, f"Look at {id}", **fields), **more)
    return world.store.raise_human_task(wanted, world.now)


def told(world: World, id: str = "e-1") -> list[tuple[str, str]]:
    return [(it.by, it.verb) for it in world.store.human_log(id, limit=99)]


def moved(world: World, limit: int = 9) -> list[str]:
    return [one.task.id for one in world.store.move_human_tasks(world.now, limit=limit)]


def next_at(world: World) -> int | None:
    return world.store.news(world.now, world.now, ["order"], ["default"], 1).people_at


def test_one_that_no_run_asks_for_is_there_as_it_was_raised(world: World):
    row = raised(
        world,
        role="ops",
        type="alert",
        data=b'{"host":"a"}',
        form=b"true",
        due=2_000,
        remind=1_500,
        escalate=(("lead", 1_800),),
        not_by=("eve",),
        approvers=2,
        form_version=7,
        by="ada",
        tenant="acme",
    )
    assert row == get(world, "e-1")
    assert (row.run, row.execution, row.event, row.workflow) == (None, None, None, "")
    assert (row.role, row.type, row.data, row.form) == ("ops", "alert", b'{"host":"a"}', b"true")
    assert (row.due_at, row.remind_at, row.chain) == (2_000, 1_500, (("lead", 1_800),))
    assert (row.not_by, row.approvers, row.form_version) == (("eve",), 2, 7)
    assert (row.created_by, row.tenant, row.created_at) == ("ada", "acme", world.now)
    assert row.next_at == next_at(world) == 1_500
    assert listed(world, type="alert") == ["e-1"]
    assert listed(world, type="other") == []


def test_the_same_raised_twice_is_one_and_another_one_with_its_id_is_refused(world: World):
    first = raised(world, by="ada")
    decide(world, "e-1", verb="claim", until=world.now + 9)
    assert raised(world, by="grace").created_by == "ada"
    assert raised(world).claimed_by == "ada"
    with pytest.raises(Conflict, match="another one"):
        raised(world, namespace="elsewhere")
    waiting_for(world, "t-1")
    with pytest.raises(Conflict, match="another one"):
        raised(world, "t-1")
    assert first.claimed_by is None


def test_one_without_a_run_is_decided_and_nobody_is_told(world: World):
    raised(world)
    acted = world.store.act(Act("e-1", "complete", "ada", value=b"7"), world.now)
    assert (acted.posted, acted.task.status) == (None, HumanTaskStatus.COMPLETED)
    assert get(world, "e-1").value == b"7"
    with pytest.raises(TaskClosed):
        decide(world, "e-1", by="grace")


def test_the_log_says_who_did_what_in_order(world: World):
    waiting_for(world, "t-1", role="finance", approvers=2)
    decide(world, verb="claim", until=2_000)
    decide(world, verb="comment", by="grace", comment="hm")
    decide(world, verb="attach", data=b'{"name":"bill","uri":"s3://b"}')
    decide(world, verb="delegate", assignee="grace", comment="yours")
    decide(world, by="grace", value=b"1")
    decide(world, verb="escalate", role="lead", by="boss")
    with pytest.raises(TaskDenied):
        decide(world, by="grace")
    decide(world, by="ada", value=b"2")
    entries = world.store.human_log("t-1", limit=99)
    assert [(it.by, it.verb, it.data) for it in entries] == [
        ("ada", "claimed", {"until": 2_000}),
        ("grace", "commented", {"comment": "hm"}),
        ("ada", "attached", {"name": "bill", "uri": "s3://b"}),
        ("ada", "delegated", {"assignee": "grace", "role": "finance", "comment": "yours"}),
        ("grace", "approved", {"approvals": 1, "approvers": 2}),
        ("boss", "escalated", {"from": "finance", "role": "lead"}),
        ("ada", "completed", {"approvals": 2, "approvers": 2}),
    ]
    numbers = [it.number for it in entries]
    assert numbers == sorted(set(numbers))
    after = world.store.human_log("t-1", after=numbers[2], limit=2)
    assert [it.number for it in after] == numbers[3:5]


def test_the_run_is_told_of_all_who_have_completed_it_when_the_last_has(world: World):
    started = waiting_for(world, "t-1", approvers=2)
    decide(world, value=b"1", comment="a")
    assert world.inbox(started.run) == []
    decide(world, by="grace", value=b"2")
    [event] = world.inbox(started.run)
    fact = ev.decode_fact(event)
    assert isinstance(fact, ev.HumanTaskDecided)
    assert (fact.by, fact.value) == ("grace", b"2")
    assert fact.approvals == (
        Approval("ada", world.now, b"1", "a"),
        Approval("grace", world.now, b"2"),
    )
    assert get(world).approvals == fact.approvals


def test_of_many_each_is_judged_and_the_others_are_done(world: World):
    started = waiting_for(world, "t-1", "t-2", "t-3")
    raised(world)
    decide(world, "t-2", verb="claim", by="grace", until=world.now + 99)
    ids = ["t-1", "t-2", "nobody", "t-3", "e-1"]
    answers = world.store.act_all([Act(id, "complete", "ada", value=b"1") for id in ids], world.now)
    codes = [it.code if isinstance(it, HumanTaskError) else "" for it in answers]
    assert codes == ["", "human_task.claimed", "human_task.not_found", "", ""]
    assert listed(world) == ["t-2"]
    rows = [it.posted.id for it in answers if isinstance(it, Acted) and it.posted is not None]
    assert [row.id for row in world.load(started.run).inbox] == rows
    assert len(rows) == 2


def test_acts_on_one_human_task_follow_each_other(world: World):
    waiting_for(world, "t-1")
    acts = [Act("t-1", "claim", "ada", until=2_000), Act("t-1", "complete", "grace", value=b"1")]
    first, second = world.store.act_all(acts, world.now)
    assert isinstance(first, Acted)
    assert isinstance(second, HumanTaskError)
    assert get(world).claimed_by == "ada"
    assert told(world, "t-1") == [("ada", "claimed")]


def test_of_all_or_none_none_is_done_if_one_is_refused(world: World):
    started = waiting_for(world, "t-1", "t-2")
    decide(world, "t-2", by="grace")
    acts = [Act(id, "complete", "ada", value=b"1") for id in ("t-1", "t-2")]
    answers = world.store.act_all(acts, world.now, all_or_none=True)
    assert [type(it) for it in answers] == [Conflict, TaskClosed]
    assert get(world).status is OPEN
    assert told(world, "t-1") == []
    assert len(world.inbox(started.run)) == 1


def test_the_clock_moves_what_is_due_and_once(world: World):
    waiting_for(world, "t-1", role="finance", escalate=(("lead", 1_100), ("director", 1_200)))
    raised(world, role="ops", due=1_150)
    decide(world, verb="claim", until=9_999)
    assert next_at(world) == 1_100
    assert moved(world) == []
    world.now = 1_100
    [one] = world.store.move_human_tasks(world.now, limit=9)
    assert (one.task, one.task.role, one.task.claimed_by) == (get(world), "lead", None)
    assert [it.verb for it in one.entries] == ["escalated"]
    assert moved(world) == []
    assert next_at(world) == 1_150
    world.now = 1_300
    assert moved(world) == ["e-1", "t-1"]
    assert (get(world, "e-1").status, get(world).role) == (EXPIRED, "director")
    assert next_at(world) is None
    assert told(world, "t-1") == [("ada", "claimed"), ("", "escalated"), ("", "escalated")]
    assert told(world) == [("", "expired")]


def test_the_clock_takes_so_many_at_once_soonest_first(world: World):
    for number in range(5):
        raised(world, f"e-{number}", due=1_100 - number)
    world.now = 2_000
    assert [moved(world, 2), moved(world, 2), moved(world, 2)] == [
        ["e-4", "e-3"],
        ["e-2", "e-1"],
        ["e-0"],
    ]


def test_what_a_run_gave_up_is_not_moved(world: World):
    started = waiting_for(world, "t-1", role="finance", escalate=(("lead", 1_100),))
    world.commit(closing(started.run, first=4))
    world.now = 2_000
    assert next_at(world) is None
    assert moved(world) == []
    assert get(world).role == "finance"


def test_those_without_a_run_are_forgotten_when_they_ended_long_ago(world: World):
    raised(world, "e-1")
    raised(world, "e-2")
    waiting_for(world, "t-1")
    for id in ("e-1", "t-1"):
        decide(world, id)
    decide(world, "e-2", verb="comment", comment="hm")
    assert world.store.forget_human_tasks(world.now, limit=9) == 0
    assert world.store.forget_human_tasks(world.now + 1, limit=9) == 1
    assert listed(world, status=tuple(HumanTaskStatus)) == ["t-1", "e-2"]
    assert [told(world, id) for id in ("e-1", "e-2")] == [[], [("ada", "commented")]]


def test_the_log_goes_with_the_run(world: World):
    started = waiting_for(world, "t-1")
    decide(world, verb="comment", comment="hm")
    row = world.load(started.run).inbox
    world.commit(closing(started.run, first=4, consumed=tuple(it.id for it in row)))
    world.asleep("later")
    world.commit()
    world.store.prune(Prune(world.now + 99))
    assert world.store.human_task("t-1") is None
    assert told(world, "t-1") == []


PEOPLE = ["ada", "grace", None]
ROLES = ["finance", "legal", "ops", None]


def crowd(world: World) -> dict[str, HumanTaskRow]:
    """Raise human tasks of all kinds, in all states."""
    chance = random.Random(7)
    for number in range(60):
        raised(
            world,
            f"e-{number:02}",
            role=chance.choice(ROLES),
            assignee=chance.choice(PEOPLE),
            due=chance.choice([0, 5_000, 6_000 + number]),
            tenant=chance.choice(["acme", ""]),
        )
        row = get(world, f"e-{number:02}")
        who = row.assignee or chance.choice(["ada", "grace"])
        match chance.randrange(4):
            case 0:
                decide(world, row.id, verb="claim", by=who, until=chance.choice([1_001, 9_000]))
            case 1:
                decide(world, row.id, by=who)
            case _:
                pass
    world.now = 2_000
    return {id: get(world, id) for id in listed(world, limit=99, status=tuple(HumanTaskStatus))}


N, S, A = Reach.NONE, Reach.SELF, Reach.ALL


@pytest.mark.parametrize(
    "roles",
    [
        [],
        ["finance"],
        ["finance", "legal"],
        [Grant("finance", read=S), Grant("legal", read=N)],
        [Grant("finance", read=A), Grant("legal", read=N), Grant("ops", read=S)],
        ["admin"],
        [f"r{number}" for number in range(40)] + ["finance"],
    ],
    ids=lambda roles: f"{len(roles)} roles",
)
@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_list_and_a_count_hold_what_a_principal_may_read(
    world: World, roles: list[Any], tenant: str
):
    rows = crowd(world)
    sight = readable(Principal("ada", roles=roles, tenant=tenant))
    seen = {id for id, row in rows.items() if sight.sees(row, world.now)}
    assert 0 < len(seen) <= len(rows)
    for status in (tuple(HumanTaskStatus), (), (HumanTaskStatus.CLAIMED,), (OPEN,), (EXPIRED,)):
        for role in ("", "finance", "legal", "r1"):
            where = HumanTaskFilter(status=status, role=role, sight=sight)
            every = HumanTaskFilter(status=status, role=role)
            whole = world.store.human_tasks(every, world.now, limit=99)
            expected = [row.id for row in whole if row.id in seen]
            got = world.store.human_tasks(where, world.now, limit=99)
            assert [row.id for row in got] == expected
            assert world.store.count_human_tasks(where, world.now) == len(expected)
            assert world.store.count_human_tasks(every, world.now) == len(whole)
            if len(expected) > 3:
                first = world.store.human_tasks(where, world.now, limit=2)
                rest = world.store.human_tasks(where, world.now, limit=99, after=first[-1])
                assert [row.id for row in (*first, *rest)] == expected


def test_a_principal_acts_on_what_it_reaches(world: World):
    raised(world, role="finance")
    reader = Principal("ada", roles=[Grant("finance", write=N)])
    nobody = Principal("ada", roles=[Grant("finance", read=N)])
    for who, error in ((reader, TaskDenied), (nobody, TaskNotFound)):
        with pytest.raises(error):
            decide(world, "e-1", verb="claim", until=9_999, who=who)
    assert (
        decide(
            world, "e-1", verb="claim", until=9_999, who=Principal("ada", roles=["finance"])
        ).claimed_by
        == "ada"
    )
    assert told(world) == [("ada", "claimed")]


def test_what_does_not_end_when_it_is_due_is_overdue_until_somebody_decides_it(world: World):
    raised(world, due=1_100, expires=0)
    raised(world, "e-2", due=1_100, expires=1_500)
    waiting_for(world, "t-1", due=1_100, expires=0)
    assert next_at(world) == 1_100
    world.now = 1_200
    assert listed(world, overdue=True) == ["e-1", "e-2", "t-1"]
    assert sorted(moved(world)) == ["e-1", "e-2"]
    assert told(world) == [("", "overdue")]
    assert moved(world) == []
    assert next_at(world) == 1_500
    world.now = 1_600
    assert moved(world) == ["e-2"]
    assert listed(world, overdue=True) == ["e-1", "t-1"]
    assert decide(world, "e-1").status is HumanTaskStatus.COMPLETED
    assert listed(world, overdue=True) == ["t-1"]
