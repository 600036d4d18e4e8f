"""Human tasks: opened by a turn, decided once, and what the run is told in the same transaction."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.store_contract import World, closing, request, turn

from perdure.errors import TaskClaimed, TaskClosed, TaskNotFound
from perdure.store.port import Act, HumanTaskFilter, HumanTaskWrite, Started
from perdure.values import events as ev
from perdure.values.people import HumanTaskRow, HumanTaskStatus
from perdure.values.states import Status

OPEN, CANCELLED = HumanTaskStatus.OPEN, HumanTaskStatus.CANCELLED


def asked(id: str = "t-1", event: int = 3, **fields: Any) -> HumanTaskWrite:
    title = fields.pop("title", f"Do {id}?")
    return HumanTaskWrite(id, event, opened(id, title, **fields))


def opened(id: str, title: str, **fields: Any) -> ev.HumanTaskOpened:
    """Return what is asked; the fields of its handling may stand among the others."""
    names = ev.Handling.__struct_fields__
    handling = ev.Handling(**{name: fields.pop(name) for name in names if name in fields})
    return ev.HumanTaskOpened(id=id, title=title, handling=handling, **fields)


def waiting_for(world: World, *ids: str, **fields: Any) -> Started:
    """Start a run whose second turn asks a person."""
    started = world.owned(f"of-{ids[0]}")
    world.commit(turn(started.run, asks=[asked(id, **fields) for id in ids]))
    return started


def listed(world: World, *, limit: int = 9, after: Any = None, **where: Any) -> list[str]:
    found = world.store.human_tasks(HumanTaskFilter(**where), world.now, limit=limit, after=after)
    return [task.id for task in found]


def get(world: World, id: str = "t-1") -> HumanTaskRow:
    task = world.store.human_task(id)
    assert task is not None
    return task


def decide(world: World, id: str = "t-1", verb: str = "complete", **fields: Any) -> HumanTaskRow:
    fields.setdefault("by", "ada")
    return world.store.act(Act(id, verb, **fields), world.now).task


def test_what_a_turn_asks_is_there_as_it_was_asked(world: World):
    started = waiting_for(
        world,
        "t-1",
        name="approve",
        description="all of it",
        role="finance",
        assignee="ada",
        priority=1,
        form=b'{"type":"object"}',
        data=b'{"text":"\\u0000 \xc3\xbc"}',
        due=77,
        remind=66,
        expires=88,
    )
    task = get(world)
    assert (task.title, task.name, task.description) == ("Do t-1?", "approve", "all of it")
    assert (task.role, task.assignee, task.priority) == ("finance", "ada", 1)
    assert (task.form, task.data) == (b'{"type":"object"}', b'{"text":"\\u0000 \xc3\xbc"}')
    assert (task.due_at, task.remind_at, task.created_at) == (77, 66, 5)
    assert (task.expires_at, task.ends_at) == (88, 88)
    assert (task.run, task.execution, task.event) == (started.run, started.execution, 3)
    assert (task.workflow, task.workflow_id, task.run_id) == ("order", "of-t-1", "run-of-of-t-1")
    assert task.status is OPEN
    assert world.store.human_task("t-1", namespace="elsewhere") is None
    assert world.store.human_task("t-2") is None


def test_a_first_turn_may_ask(world: World):
    first = turn(0, first=1, count=2, asks=[asked(event=2)])
    started = world.commit(starts=[request(first=first)]).started[0]
    assert get(world).run == started.run


def test_a_dropped_turn_asks_nobody(world: World):
    sleeper = world.asleep()
    result = world.commit(turn(sleeper.run, claim=1, asks=[asked()]))
    assert result.lost == {sleeper.run}
    assert world.store.human_task("t-1") is None


def test_a_decision_closes_the_row_and_lies_in_the_inbox(world: World):
    started = waiting_for(world, "t-1")
    acted = world.store.act(Act("t-1", "complete", "ada", value=b"7", comment="so"), 88)
    task = get(world)
    assert (acted.task, task.status) == (task, HumanTaskStatus.COMPLETED)
    assert (task.closed_by, task.closed_at, task.value, task.comment) == ("ada", 88, b"7", "so")
    [event] = world.inbox(started.run)
    told = ev.HumanTaskDecided(
        opened=3,
        outcome="completed",
        value=b"7",
        by="ada",
        comment="so",
        at=88,
        asked_by="run-of-of-t-1",
    )
    assert ev.decode_fact(event) == told
    assert acted.posted is not None
    assert (acted.posted.run, acted.posted.event) == (started.run, event)


def test_a_decision_reaches_also_a_run_that_is_stopped(world: World):
    waiting_for(world, "t-1")
    decide(world)
    [row] = world.store.inbox(["order"], ["default"], world.worker.id, limit=9)
    assert world.load(row.run).inbox[0].id == row.id


@pytest.mark.parametrize("verb", ["complete", "reject", "cancel", "claim", "reassign"])
def test_what_is_decided_stays_so_and_nobody_is_told_twice(world: World, verb: str):
    started = waiting_for(world, "t-1")
    before = decide(world)
    with pytest.raises(TaskClosed, match="was completed"):
        decide(world, verb=verb, by="grace", until=world.now + 9)
    assert get(world) == before
    assert len(world.inbox(started.run)) == 1


def test_a_refused_act_changes_nothing(world: World):
    started = waiting_for(world, "t-1")
    claimed = decide(world, verb="claim", until=world.now + 100)
    with pytest.raises(TaskClaimed):
        decide(world, by="grace")
    assert get(world) == claimed
    assert world.inbox(started.run) == []
    for id, namespace in (("t-1", "elsewhere"), ("t-2", "default")):
        with pytest.raises(TaskNotFound, match=id):
            decide(world, id, namespace=namespace)


def test_a_claim_that_is_over_counts_as_open(world: World):
    waiting_for(world, "t-1")
    decide(world, verb="claim", until=world.now + 5)
    assert listed(world, status=(HumanTaskStatus.CLAIMED,)) == ["t-1"]
    assert listed(world, status=(OPEN,)) == []
    world.now += 5
    assert listed(world, status=(HumanTaskStatus.CLAIMED,)) == []
    assert listed(world, status=(OPEN,)) == ["t-1"]
    assert listed(world, status=(OPEN, HumanTaskStatus.COMPLETED)) == ["t-1"]
    assert decide(world, by="grace").closed_by == "grace"


def test_a_turn_gives_up_what_it_asked_before_or_in_the_same_commit(world: World):
    started = waiting_for(world, "t-1")
    world.commit(
        turn(
            started.run,
            first=4,
            count=3,
            gives_up=(("t-1", HumanTaskStatus.EXPIRED), ("t-2", CANCELLED)),
            asks=[asked("t-2", 5)],
        )
    )
    assert [get(world, id).status for id in ("t-1", "t-2")] == [HumanTaskStatus.EXPIRED, CANCELLED]
    assert get(world).closed_at == get(world, "t-2").closed_at == 5
    assert get(world).closed_by is None
    assert listed(world) == []


def test_a_turn_that_gives_up_what_was_decided_meanwhile_is_dropped(world: World):
    started, other = waiting_for(world, "t-1"), waiting_for(world, "t-2")
    decide(world)
    gives_up = (("t-1", HumanTaskStatus.EXPIRED),)
    result = world.commit(
        turn(started.run, first=4, gives_up=gives_up, asks=[asked("t-3", 4)]),
        turn(other.run, first=4, gives_up=(("t-2", CANCELLED),)),
    )
    assert result.reopened == {started.run}
    assert get(world).status is HumanTaskStatus.COMPLETED
    assert get(world, "t-2").status is CANCELLED
    assert world.store.human_task("t-3") is None
    assert world.load(started.run).row.length == 3


def test_the_end_of_a_run_closes_what_it_asked_and_only_that(world: World):
    started, _ = waiting_for(world, "t-1", "t-2"), waiting_for(world, "t-3")
    decide(world, "t-1")
    [row] = world.load(started.run).inbox
    world.commit(closing(started.run, first=4, consumed=(row.id,), asks=[asked("t-4", 4)]))
    found = [get(world, f"t-{n}").status for n in range(1, 5)]
    assert found == [HumanTaskStatus.COMPLETED, CANCELLED, OPEN, CANCELLED]
    with pytest.raises(TaskClosed, match="no longer waits for it"):
        decide(world, "t-2")


def test_a_run_does_not_end_before_it_has_read_what_was_decided(world: World):
    started = waiting_for(world, "t-1")
    decide(world)
    assert world.commit(closing(started.run, first=4)).reopened == {started.run}


def test_a_start_that_replaces_a_run_closes_what_it_asked_and_records_what_was_decided(
    world: World,
):
    started = waiting_for(world, "t-1", "t-2")
    decide(world, "t-1")
    world.start("of-t-1", run_id="new", conflict="terminate_existing")
    assert world.row(started.run).status is Status.TERMINATED
    assert get(world, "t-2").status is CANCELLED
    last = ev.decode_turn(world.payloads(started.run)[-1])
    assert [event.kind for event in last] == ["human_task_decided", "run_terminated"]


def test_open_ones_are_listed_by_when_they_are_due_and_go_on_behind_any_of_them(world: World):
    for number, due in enumerate([0, 30, 10, 0, 20]):
        waiting_for(world, f"t-{number}", due=due)
    order = ["t-2", "t-4", "t-1", "t-0", "t-3"]
    assert listed(world) == order
    for place, id in enumerate(order):
        assert listed(world, after=get(world, id)) == order[place + 1 :]
    assert listed(world, limit=2) == order[:2]


def test_lists_of_closed_ones_begin_with_the_newest(world: World):
    for number in range(4):
        waiting_for(world, f"t-{number}")
    for id in ("t-1", "t-3"):
        decide(world, id)
    every = tuple(HumanTaskStatus)
    assert listed(world, status=(HumanTaskStatus.COMPLETED,)) == ["t-3", "t-1"]
    assert listed(world, status=every) == ["t-3", "t-2", "t-1", "t-0"]
    assert listed(world, status=every, after=get(world, "t-2")) == ["t-1", "t-0"]


def test_lists_are_narrowed_by_whose_and_what_and_when(world: World):
    waiting_for(world, "t-1", role="finance", due=4)
    waiting_for(world, "t-2", assignee="ada")
    waiting_for(world, "t-3", role="finance", assignee="grace", due=10**9)
    assert listed(world, role="finance") == ["t-1", "t-3"]
    assert listed(world, assignee="ada") == ["t-2"]
    assert listed(world, for_person="ada") == ["t-1", "t-2"]
    assert listed(world, overdue=True) == ["t-1"]
    assert listed(world, workflow="order", workflow_id="of-t-3") == ["t-3"]
    assert listed(world, workflow="other") == listed(world, namespace="elsewhere") == []
    assert listed(world, prefix="t-2") == ["t-2"]


def test_whose_it_is_can_change_and_a_claim_ends_with_it(world: World):
    waiting_for(world, "t-1", role="finance")
    decide(world, verb="claim", until=world.now + 100)
    decide(world, verb="reassign", by="grace", assignee="barbara")
    task = get(world)
    whose = task.assignee, task.role, task.claimed_by
    assert (task.status, *whose) == (OPEN, "barbara", "finance", None)
    assert listed(world, assignee="barbara") == ["t-1"]
