"""Concurrency limits in the store: slots, queues, and who is next."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.contract.store_contract import (
    WORKFLOWS,
    World,
    closing,
    request,
    turn,
    waiting,
)

from perdure.store.port import Definition, Limit, Started, StateWrite, TurnWrite
from perdure.values import events
from perdure.values.concurrency import Queued
from perdure.values.failures import FailureInfo
from perdure.values.states import Status

ONE = Limit(max_open=1, on_limit="queue")


def limit(world: World, *limits: Limit, names: Sequence[str] = ("order", "bill")) -> None:
    """Let a worker register these limits, of ``order`` first."""
    definitions = [Definition(name, "1", limit=it) for name, it in zip(names, limits, strict=False)]
    world.join("limiting", *definitions)


def statuses(world: World, *started: Started) -> list[str]:
    return [str(world.row(one.run).status) for one in started]


def has_room(world: World, now: int) -> bool:
    return world.store.news(now, now, ["order"], ["default"], world.worker.id).has_room


def end(world: World, started: Started, **rest: Any) -> None:
    world.commit(closing(started.run, first=2, claim=1, execution=started.execution, **rest))


def paused(world: World, started: Started) -> None:
    state = StateWrite(status=Status.PAUSED, owned=False, length=2, reason=str(Queued.PAUSED))
    world.commit(turn(started.run, first=2, claim=1, applied=False, state=state))


def test_a_start_too_many_is_refused_and_writes_nothing(world: World):
    limit(world, Limit(max_open=1))
    world.start("a")
    refused = world.start("b")
    assert (refused.created, refused.refused) == (False, "limit")
    assert "'order' has reached its concurrency limit (1)" in refused.detail
    assert world.store.find("b") is None
    assert world.store.find("", run_id="run-of-b") is None


def test_starts_of_one_call_see_each_other(world: World):
    limit(world, Limit(max_open=2))
    requests = [request(str(n)) for n in range(4)]
    assert [one.refused for one in world.store.start(requests, 1)] == ["", "", "limit", "limit"]


def test_a_repeated_start_is_answered_as_the_first_one_was(world: World):
    limit(world, Limit(max_open=1))
    first = world.start("a")
    again = world.start("a")
    assert (again.created, again.run, again.refused) == (True, first.run, "")


def test_an_end_frees_the_slot_in_its_own_commit(world: World):
    limit(world, Limit(max_open=1))
    end(world, world.start("a"))
    assert world.start("b").created


def test_one_too_many_waits_with_event_one_alone(world: World):
    limit(world, ONE)
    world.start("a")
    first = turn(
        0,
        first=1,
        count=2,
        state=waiting(2),
        payload=events.encode_turn([events.RunPaused(), events.RunResumed()]),
        children=[request("child", workflow="bill")],
    )
    waits = world.commit(starts=[request("b", first=first)]).started[0]
    assert (waits.created, waits.is_queued, waits.status) == (True, True, Status.PENDING)
    row = world.row(waits.run)
    assert (row.status, row.reason, row.length, row.wake_at) == (
        Status.PENDING,
        Queued.QUEUED,
        1,
        None,
    )
    [payload] = world.payloads(waits.run)
    assert [type(one) for one in events.decode_turn(payload)] == [events.RunPaused]
    assert world.store.find("child") is None


def test_a_freed_slot_goes_to_the_next_in_the_same_commit(world: World):
    limit(world, ONE)
    a, b, c = (world.start(id) for id in "abc")
    assert statuses(world, a, b, c) == ["running", "pending", "pending"]
    assert world.store.claimable(WORKFLOWS, ["default"], limit=9) == [a.run]
    committed = world.commit(closing(a.run, first=2, claim=1))
    assert committed.has_admitted
    assert statuses(world, b, c) == ["running", "pending"]
    assert world.store.claimable(WORKFLOWS, ["default"], limit=9) == [b.run]
    assert world.row(b.run).reason is None


def test_a_batch_that_ends_several_admits_as_many(world: World):
    limit(world, Limit(max_open=3, on_limit="queue"))
    runs = [world.start(str(n)) for n in range(8)]
    world.commit(*[closing(one.run, first=2, claim=1) for one in runs[:2]])
    assert statuses(world, *runs[2:]) == ["running"] * 3 + ["pending"] * 3


def test_a_dropped_end_frees_nothing(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    world.post("a")
    committed = world.commit(closing(a.run, first=2, claim=1))
    assert committed.reopened == {a.run}
    assert statuses(world, a, b) == ["running", "pending"]


def test_the_queue_is_ordered_by_priority_and_then_by_time(world: World):
    limit(world, ONE)
    last = world.start("first")
    waiting_ = [world.start(f"{n}", priority=n % 2) for n in range(4)]
    order: list[str] = []
    for _ in waiting_:
        end(world, last)
        [last] = [one for one in waiting_ if world.row(one.run).status is Status.RUNNING]
        order.append(last.workflow_id)
    assert order == ["1", "3", "0", "2"]


def test_a_full_key_holds_back_its_own_only(world: World):
    limit(world, Limit(max_open=2, max_per_key=1, on_limit="queue"))
    a1, a2, a3 = (world.start(f"a{n}", key="a", priority=9) for n in range(3))
    b1 = world.start("b1", key="b")
    b2 = world.start("b2", key="b")
    none = world.start("none")
    assert statuses(world, a1, a2, a3, b1, b2, none) == [
        "running",
        "pending",
        "pending",
        "running",
        "pending",
        "pending",
    ]
    end(world, b1)
    assert statuses(world, a2, b2, none) == ["pending", "pending", "running"]  # it was ready first
    end(world, a1)
    assert statuses(world, a2, a3, b2) == ["running", "pending", "pending"]
    end(world, none)
    assert statuses(world, a3, b2) == ["pending", "running"]


def test_within_a_key_the_higher_priority_is_first_though_it_came_later(world: World):
    limit(world, Limit(max_open=1, max_per_key=1, on_limit="queue"))
    first = world.start("first")
    low, high = world.start("low", key="a"), world.start("high", key="a", priority=1)
    end(world, first)
    assert statuses(world, low, high) == ["pending", "running"]


def test_all_workflows_of_a_pool_share_its_slots(world: World):
    shared = Limit(on_limit="queue", pool="both", pool_max=2)
    limit(world, shared, shared)
    a, b = world.start("a"), world.start("b", workflow="bill")
    c = world.start("c")
    d = world.start("d", workflow="bill", priority=1)
    assert statuses(world, a, b, c, d) == ["running", "running", "pending", "pending"]
    end(world, a)
    assert statuses(world, c, d) == ["pending", "running"]


def test_other_workflows_are_not_limited(world: World):
    limit(world, Limit(max_open=1))
    world.start("a")
    assert world.start("b", workflow="bill").created


def test_a_lower_limit_admits_nobody_until_enough_have_ended(world: World):
    limit(world, Limit(max_open=3, on_limit="queue"))
    a, b, c, d = (world.start(id) for id in "abcd")
    limit(world, ONE)
    end(world, a)
    end(world, b)
    assert statuses(world, c, d) == ["running", "pending"]
    end(world, c)
    assert statuses(world, d) == ["running"]


def test_a_higher_limit_admits_at_once(world: World):
    limit(world, ONE)
    a, b, c, d = (world.start(id) for id in "abcd")
    limit(world, Limit(max_open=3, on_limit="queue"))
    assert statuses(world, a, b, c, d) == ["running", "running", "running", "pending"]


def test_a_limit_that_is_lifted_admits_everybody(world: World):
    limit(world, Limit(max_open=1, max_per_key=1, on_limit="queue"))
    runs = [world.start(str(n), key="k" if n % 2 else "") for n in range(6)]
    late = world.start("late", not_before=world.now + 50)
    limit(world, Limit())
    assert statuses(world, *runs) == ["running"] * 6
    row = world.row(late.run)
    assert (row.status, row.reason, row.wake_at) == (Status.PENDING, None, world.now + 50)
    assert world.store.standing(late.execution) is None


def test_a_new_limit_counts_what_runs_already(world: World):
    before = world.owned("before")
    ended = world.start("ended")
    end(world, ended)
    late = world.start("late", not_before=world.now + 50)
    limit(world, ONE)
    after = world.start("after")
    assert statuses(world, before, after) == ["running", "pending"]
    assert world.row(late.run).reason == Queued.DELAYED
    world.commit(closing(before.run))
    assert statuses(world, after) == ["running"]


def test_a_new_limit_lets_those_that_nobody_has_begun_in_one_by_one(world: World):
    a, b, c = (world.start(id) for id in "abc")
    limit(world, ONE)
    assert statuses(world, a, b, c) == ["running", "pending", "pending"]
    assert world.row(c.run).reason == Queued.QUEUED
    lost = world.commit(turn(c.run, first=2, claim=1)).lost
    assert lost == {c.run}, "a worker had found it before the limit came"
    end(world, a)
    assert statuses(world, b, c) == ["running", "pending"]


def test_a_delayed_start_joins_the_queue_when_its_time_has_come(world: World):
    limit(world, ONE)
    late = world.start("late", not_before=world.now + 50, deadline=world.now + 90)
    due = world.now + 50
    a = world.start("a")
    assert statuses(world, late, a) == ["pending", "running"]
    assert world.row(late.run).wake_at == due
    assert not has_room(world, due - 1)
    assert world.store.admit(due - 1) == 0
    assert has_room(world, due)
    assert world.store.admit(due) == 1
    row = world.row(late.run)
    assert (row.status, row.reason, row.wake_at) == (Status.PENDING, Queued.QUEUED, due + 40)
    assert not has_room(world, due)
    end(world, a)
    assert statuses(world, late) == ["running"]


def test_a_delayed_start_is_never_refused(world: World):
    limit(world, Limit(max_open=1))
    late = world.start("late", not_before=world.now + 50)
    a = world.start("a")
    assert late.created
    world.store.admit(world.now + 50)
    assert statuses(world, a, late) == ["running", "pending"]
    end(world, a)
    assert statuses(world, late) == ["running"]


def later(started: Started, *, not_before: int = 0, **rest: Any) -> TurnWrite:
    """End a run that is followed by another of its execution."""
    following = request(
        started.workflow_id,
        run_id=f"later-{started.workflow_id}",
        execution=started.execution,
        not_before=not_before,
        attempt=2,
    )
    over = Status.CONTINUED_AS_NEW
    return closing(started.run, first=2, claim=1, status=over, continued=following, **rest)


def test_an_execution_that_continues_keeps_its_slot(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    committed = world.commit(later(a))
    assert not committed.has_admitted
    [following] = committed.children
    assert statuses(world, following, b) == ["running", "pending"]
    end(world, following)
    assert statuses(world, b) == ["running"]


def test_one_that_goes_on_later_gives_its_slot_up_and_queues_again(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    due = world.now + 50
    committed = world.commit(later(a, not_before=due))
    [following] = committed.children
    assert statuses(world, following, b) == ["pending", "running"]
    world.store.admit(due)
    assert world.row(following.run).reason == Queued.QUEUED
    end(world, b)
    assert statuses(world, following) == ["running"]


def test_a_queued_run_that_is_followed_by_another_stays_in_the_queue(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    [following] = world.commit(later(b, applied=False)).children
    assert statuses(world, a, following) == ["running", "pending"]
    end(world, a)
    assert statuses(world, following) == ["running"]


def test_a_queued_run_that_is_paused_is_passed_over(world: World):
    limit(world, ONE)
    a, b, c = (world.start(id) for id in "abc")
    paused(world, b)
    end(world, a)
    assert statuses(world, b, c) == ["paused", "running"]
    state = StateWrite(status=Status.PENDING, owned=False, length=3, wake_at=0)
    world.commit(turn(b.run, first=3, claim=2, applied=False, state=state))
    assert (world.row(b.run).status, world.row(b.run).reason) == (Status.PENDING, Queued.QUEUED)
    assert world.row(b.run).wake_at is None
    end(world, c)
    assert statuses(world, b) == ["running"]


@pytest.mark.parametrize("on_limit", ["queue", "reject"])
def test_what_is_started_paused_stands_aside_until_it_is_resumed(world: World, on_limit: str):
    limit(world, Limit(max_open=1, on_limit=on_limit))
    state = StateWrite(status=Status.PAUSED, owned=False, length=1, reason="paused", wake_at=9)
    first = world.start("first", state=state)
    row = world.row(first.run)
    assert (row.status, row.reason, row.wake_at) == (Status.PAUSED, Queued.PAUSED, 9)
    second, late = world.start("second"), world.start("late", state=state)
    assert statuses(world, second) == ["running"], "it has taken no slot"
    pending = StateWrite(status=Status.PENDING, owned=False, length=2, wake_at=0)
    world.commit(turn(first.run, first=2, claim=1, applied=False, state=pending))
    assert (world.row(first.run).status, world.row(first.run).reason) == ("pending", Queued.QUEUED)
    end(world, late)
    end(world, second)
    assert statuses(world, first) == ["running"]


def test_a_limit_does_not_count_what_was_started_paused_before_it(world: World):
    state = StateWrite(status=Status.PAUSED, owned=False, length=1, reason="paused", wake_at=9)
    first, begun = world.start("first", state=state), world.start("begun")
    stopped = StateWrite(status=Status.PAUSED, owned=False, length=2, reason="paused")
    world.commit(turn(begun.run, first=2, claim=1, state=stopped))
    limit(world, Limit(max_open=2, on_limit="queue"))
    row = world.row(first.run)
    assert (row.status, row.reason, row.wake_at) == (Status.PAUSED, Queued.PAUSED, 9)
    assert world.row(begun.run).reason == "paused", "it has begun, and holds a slot"
    second = world.start("second")
    assert statuses(world, second) == ["running"]
    pending = StateWrite(status=Status.PENDING, owned=False, length=2, wake_at=0)
    world.commit(turn(first.run, first=2, claim=1, applied=False, state=pending))
    assert (world.row(first.run).status, world.row(first.run).reason) == ("pending", Queued.QUEUED)
    end(world, second)
    assert statuses(world, first) == ["running"]


def test_a_replaced_run_gives_its_slot_to_the_one_that_replaces_it(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    new = world.start("a", run_id="new", conflict="terminate_existing")
    assert statuses(world, a, b, new) == ["terminated", "pending", "running"]


def test_a_replaced_queued_run_leaves_the_queue(world: World):
    limit(world, ONE)
    a, b = world.start("a"), world.start("b")
    new = world.start("b", run_id="new", conflict="terminate_existing")
    assert statuses(world, b, new) == ["terminated", "pending"]
    end(world, a)
    assert statuses(world, new) == ["running"]


def test_a_takeover_leaves_the_slot_with_the_run(world: World):
    limit(world, ONE)
    a, b = world.owned("a"), world.start("b")
    assert world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    assert statuses(world, a, b) == ["running", "pending"]


def test_a_refused_child_is_told_its_parent_with_the_limit(world: World):
    limit(world, Limit(max_open=1))
    parent = world.start("parent", workflow="bill")
    world.start("a")
    failure = FailureInfo("the id is taken", "AlreadyExists", "AlreadyExists")
    refusal = events.ChildClosed(child=2, status="refused", failure=failure)
    child = request(
        "child",
        conflict="none",
        parent=(parent.execution, 2),
        refusal=events.encode_turn([refusal]),
    )
    world.commit(turn(parent.run, first=2, claim=1, state=waiting(2), children=[child]))
    [told] = [events.decode_turn(row)[0] for row in world.inbox(parent.run)]
    assert isinstance(told, events.ChildClosed)
    assert told.failure is not None
    assert (told.failure.kind, told.failure.type) == ("RateLimited", "ConcurrencyLimit")
    assert world.store.find("child") is None


def test_where_an_execution_stands_is_told(world: World):
    limit(world, Limit(max_open=2, max_per_key=1, on_limit="queue"))
    for id in ("a", "b", "c"):
        world.start(id)
    last = world.start("last", key="k")
    standing = world.store.standing(last.execution)
    assert standing is not None
    found = (standing.workflow, standing.key, standing.open, standing.open_of_key, standing.before)
    assert found == ("order", "k", 2, 0, 1)


@pytest.fixture
def crowd(world: World) -> World:
    limit(world, Limit(max_open=1, max_per_key=1, on_limit="queue"))
    world.start("first", key="other")
    world.store.start([request(f"a{n}", key="a") for n in range(2_000)], world.now)
    return world


def test_a_crowd_is_let_in_one_by_one_in_order(crowd: World):
    last = crowd.store.find("first")
    for n in range(5):
        assert last is not None
        crowd.commit(closing(last.run, first=2, claim=1))
        last = crowd.store.find(f"a{n}")
        assert last is not None
        assert last.status is Status.RUNNING
    assert crowd.store.admit(crowd.now) == 0
