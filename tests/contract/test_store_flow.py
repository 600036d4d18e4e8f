"""Who is next where many wait, and how many may begin in a time: lanes, ranks and rates."""

from typing import Any

import pytest
from tests.contract.store_contract import WORKFLOWS, World, closing, request, running, turn, waiting
from tests.contract.test_store_limits import end, limit, paused, statuses

from perdure.store.port import Definition, Limit, Started, StateWrite
from perdure.values import events
from perdure.values.failures import FailureInfo
from perdure.values.states import Status

SECOND = 1_000_000
ONE = Limit(max_open=1, on_limit="queue")
PACED = Limit(rate="2/s", on_limit="queue")
"""One each half second."""
HALF = SECOND // 2


def order_of(world: World, last: Started, queued: list[Started]) -> list[str]:
    """End the only one that runs, again and again; return who got the slot."""
    order: list[str] = []
    for _ in queued:
        end(world, last)
        [last] = [one for one in queued if world.row(one.run).status is Status.RUNNING]
        order.append(last.workflow_id)
    return order


def test_lanes_take_turns_in_a_queue_however_many_one_has_queued(world: World):
    limit(world, ONE)
    first = world.start("first")
    many = [world.start(f"many{n}", tenant="many") for n in range(6)]
    one, two = world.start("one", tenant="one"), world.start("two", tenant="one")
    alone = world.start("alone", key="alone")
    assert order_of(world, first, [*many, one, two, alone]) == [
        *("many0", "many1", "one", "alone"),
        *("many2", "two", "many3", "many4", "many5"),
    ]


def test_a_lane_is_a_tenant_and_without_one_a_key(world: World):
    limit(world, ONE)
    first = world.start("first")
    same = [world.start(f"same{n}", tenant="t", key=f"k{n}") for n in range(3)]
    other = world.start("other", key="k0")
    assert order_of(world, first, [*same, other]) == ["same0", "same1", "other", "same2"]


def test_lanes_take_turns_within_a_priority_only(world: World):
    limit(world, ONE)
    first = world.start("first")
    high = [world.start(f"high{n}", tenant="a", priority=1) for n in range(3)]
    low = world.start("low", tenant="b")
    assert order_of(world, first, [*high, low]) == ["high0", "high1", "high2", "low"]


def test_who_gets_ready_late_goes_behind_those_who_were_ready(world: World):
    limit(world, Limit(max_open=3, max_per_key=1, on_limit="queue"))
    full = world.start("full", key="k", tenant="a")
    for n in range(2):
        world.start(f"run{n}")
    held = world.start("held", key="k", tenant="a")
    ready = [world.start(f"ready{n}", tenant="b") for n in range(3)]
    end(world, full)
    assert statuses(world, held, *ready) == ["pending", "running", "pending", "pending"]
    end(world, ready[0])
    assert statuses(world, held, *ready[1:]) == ["pending", "running", "pending"]
    end(world, ready[1])
    assert statuses(world, held, ready[2]) == ["running", "pending"]


def test_one_that_was_paused_in_the_queue_stands_where_it_stood(world: World):
    limit(world, ONE)
    first = world.start("first")
    a, b, c = (world.start(id, tenant="t") for id in "abc")
    paused(world, b)
    state = StateWrite(status=Status.PENDING, owned=False, length=3, wake_at=0)
    world.commit(turn(b.run, first=3, claim=2, applied=False, state=state))
    end(world, first)
    assert statuses(world, a, b, c) == ["running", "pending", "pending"]
    end(world, a)
    assert statuses(world, b, c) == ["running", "pending"]


def test_a_pool_goes_to_the_workflow_with_the_fewest_slots(world: World):
    shared = Limit(on_limit="queue", pool="both", pool_max=2)
    limit(world, shared, shared)
    first, second = world.start("a"), world.start("b")
    many = [world.start(f"many{n}") for n in range(4)]
    bill = world.start("bill", workflow="bill")
    end(world, first)
    assert statuses(world, *many, bill) == ["pending"] * 4 + ["running"]
    end(world, second)
    assert statuses(world, *many) == ["running"] + ["pending"] * 3


def test_limits_that_come_later_count_the_lanes_of_what_runs(world: World):
    first = world.start("first", tenant="a")
    late = world.start("late", tenant="a", not_before=world.now + 50)
    limit(world, ONE)
    queued = [world.start(f"a{n}", tenant="a") for n in range(2)]
    world.store.admit(world.now + 50)
    other = world.start("other", tenant="b")
    assert order_of(world, first, [*queued, late, other]) == ["a0", "a1", "other", "late"]


# -- rates ---------------------------------------------------------------------------------------


def news_at(world: World, now: int) -> tuple[bool, int | None]:
    news = world.store.news(now, now, WORKFLOWS, ["default"], world.worker.id)
    return news.has_room, news.next_at


def rates(world: World) -> list[Any]:
    database: Any = world.store.database  # type: ignore[attr-defined]
    sql = "SELECT workflow, key, paid_until, held_until FROM perdure_rate ORDER BY key"
    return [tuple(row) for row in database.ask(sql, ()).fetchall()]


def test_a_start_too_early_is_refused_with_the_time_to_try_again(world: World):
    limit(world, Limit(rate="2/s"))
    world.now = now = 10 * SECOND
    world.start("a")
    refused = world.start("b")
    assert (refused.created, refused.refused, refused.retry_at) == (False, "rate", now + HALF)
    assert refused.detail == "workflow 'order' has reached its rate limit (2/s)"
    assert world.store.find("b") is None
    world.now = now + HALF - 1
    assert world.start("b").refused == "rate"
    world.now = now + HALF
    assert world.start("b").created


def test_an_end_makes_no_room_in_a_rate(world: World):
    limit(world, Limit(rate="2/s"))
    end(world, world.start("a"))
    assert world.start("b").refused == "rate"


def test_executions_that_end_with_their_first_turn_count(world: World):
    limit(world, Limit(rate="2/s"))
    first = closing(0, first=1)
    [done, refused] = world.commit(
        starts=[request("a", first=first), request("b", first=first)]
    ).started
    assert (done.created, refused.refused) == (True, "rate")


def test_a_refused_start_pays_nothing(world: World):
    limit(world, Limit(max_open=1, rate="2/s burst 2"))
    world.start("a")
    before = rates(world)
    assert world.start("b").refused == "limit"
    assert rates(world) == before


def test_a_burst_may_begin_at_once_after_a_pause(world: World):
    limit(world, Limit(rate="2/s burst 3"))
    started = world.store.start([request(str(n)) for n in range(5)], world.now)
    assert [one.refused for one in started] == ["", "", "", "rate", "rate"]
    world.now += 2 * HALF
    started = world.store.start([request(str(n)) for n in range(3, 6)], world.now)
    assert [one.refused for one in started] == ["", "", "rate"]


def test_what_comes_too_early_waits_and_begins_at_its_time(world: World):
    limit(world, PACED)
    now = world.now
    a, b, c = world.store.start([request(id) for id in "abc"], now)
    assert statuses(world, a, b, c) == ["running", "pending", "pending"]
    assert news_at(world, now) == (False, now + HALF)
    assert world.store.admit(now + HALF - 1) == 0
    assert news_at(world, now + HALF) == (True, now + HALF)
    assert world.store.admit(now + HALF) == 1
    assert statuses(world, b, c) == ["running", "pending"]
    assert news_at(world, now + HALF) == (False, now + 2 * HALF)
    assert world.store.admit(now + 2 * HALF) == 1
    assert statuses(world, c) == ["running"]
    assert news_at(world, now + 2 * HALF) == (False, None)


def test_a_batch_says_when_the_next_may_begin(world: World):
    limit(world, PACED)
    payload = events.encode_turn([events.RunPaused(), events.RunResumed()])
    first = turn(0, first=1, count=2, state=waiting(2), payload=payload)
    committed = world.commit(starts=[request(id, first=first) for id in "ab"])
    assert [one.is_queued for one in committed.started] == [False, True]
    assert committed.next_at == world.now + HALF


def test_nobody_who_comes_later_passes_those_who_wait_for_a_rate(world: World):
    limit(world, PACED)
    now = world.now
    a, b = world.store.start([request(id) for id in "ab"], now)
    world.now = now + HALF
    c = world.start("c")
    assert statuses(world, a, b, c) == ["running", "running", "pending"]


def test_a_rate_of_a_key_holds_back_its_own_only(world: World):
    limit(world, Limit(rate_per_key="2/s", on_limit="queue"))
    now = world.now
    ids = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("none", ""), ("also", "")]
    started = world.store.start([request(id, key=key) for id, key in ids], now)
    assert statuses(world, *started) == ["running", "pending", "pending", *["running"] * 3]
    assert news_at(world, now) == (False, now + HALF)
    assert world.store.admit(now + HALF) == 1
    assert statuses(world, *started[1:3]) == ["running", "pending"]
    assert world.store.admit(now + 4 * HALF) == 1
    assert statuses(world, started[2]) == ["running"]


def test_slots_and_rates_hold_beside_each_other(world: World):
    limit(world, Limit(max_open=1, rate="2/s", on_limit="queue"))
    now = world.now
    a, b, c = world.store.start([request(id) for id in "abc"], now)
    assert world.store.admit(now + 4 * HALF) == 0  # the slot is taken
    assert news_at(world, now + 4 * HALF) == (False, None)
    world.now = now + 4 * HALF
    end(world, a)
    assert statuses(world, b, c) == ["running", "pending"]
    end(world, b)
    assert statuses(world, c) == ["pending"]  # there is a slot, but it is too early
    at = world.now
    assert news_at(world, at)[0] is False
    assert world.store.admit(now + 5 * HALF + 1) == 1
    assert statuses(world, c) == ["running"]


def test_what_waits_for_a_rate_keeps_its_place_when_a_worker_dies(world: World):
    limit(world, PACED)
    now = world.now
    a, b = world.owned("a"), world.start("b")
    paid = rates(world)
    assert world.store.take_over(world.worker.id, world.worker.epoch, now)
    assert (statuses(world, a, b), rates(world)) == (["running", "pending"], paid)
    assert world.store.admit(world.now + HALF) == 1
    assert statuses(world, b) == ["running"]


def test_a_row_of_a_rate_goes_when_its_time_is_over(world: World):
    limit(world, Limit(rate_per_key="2/s", on_limit="queue"))
    world.store.start([request(f"{n}", key=f"k{n}") for n in range(5)], world.now)
    assert len(rates(world)) == 5
    world.now += HALF
    world.start("last", key="last")
    assert [row[1] for row in rates(world)] == ["last"]


@pytest.mark.parametrize("how", ["ended", "terminated", "paused"])
def test_whoever_leaves_the_queue_lets_nobody_wait_for_a_rate_in_vain(world: World, how: str):
    limit(world, Limit(rate_per_key="2/s", on_limit="queue"))
    now = world.now
    _, b = world.store.start([request(id, key="k") for id in "ab"], now)
    assert news_at(world, now) == (False, now + HALF)
    if how == "ended":
        end(world, b, status=Status.CANCELLED, applied=False)
    elif how == "terminated":
        world.start("b", run_id="new", conflict="terminate_existing", key="other")
    else:
        paused(world, b)
    assert news_at(world, now) == (False, None)


def test_a_rate_that_is_lifted_lets_everybody_begin(world: World):
    limit(world, Limit(rate="1/day", rate_per_key="1/day", on_limit="queue"))
    runs = [world.start(str(n), key="k" if n % 2 else "") for n in range(6)]
    assert statuses(world, *runs).count("running") == 1
    limit(world, Limit())
    assert statuses(world, *runs) == ["running"] * 6
    assert rates(world) == []


def test_a_rate_that_is_changed_holds_for_those_who_wait(world: World):
    limit(world, Limit(rate="1/day", on_limit="queue"))
    now = world.now
    _, b, c = world.store.start([request(id) for id in "abc"], now)
    limit(world, Limit(rate="1/day burst 2", on_limit="queue"))
    assert statuses(world, b, c) == ["running", "pending"]
    limit(world, Limit(max_open=9, on_limit="queue"))
    assert statuses(world, c) == ["running"]
    assert news_at(world, now) == (False, None)


def test_an_execution_that_goes_on_later_pays_when_it_begins_again(world: World):
    limit(world, PACED)
    now = world.now
    a = world.start("a")
    following = request(
        "a", run_id="later", execution=a.execution, not_before=now + 8 * HALF, attempt=2
    )
    ends = closing(a.run, first=2, claim=1, status=Status.CONTINUED_AS_NEW, continued=following)
    [later] = world.commit(ends).children
    b = world.store.start([request("b")], now + 8 * HALF)[0]
    assert b.created
    world.store.admit(now + 8 * HALF)
    assert statuses(world, b, later) == ["running", "pending"]
    world.store.admit(now + 9 * HALF)
    assert statuses(world, later) == ["running"]


def test_a_child_too_early_is_told_its_parent(world: World):
    limit(world, Limit(rate="2/s"))
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
    assert (told.failure.kind, told.failure.type) == ("RateLimited", "RateLimited")


def test_where_an_execution_stands_says_when_a_rate_lets_it_begin(world: World):
    limit(world, Limit(rate="2/s", rate_per_key="1/s", on_limit="queue"))
    now = world.now
    ids = [("a", ""), ("b", ""), ("c", ""), ("k1", "k"), ("k2", "k"), ("k3", "k")]
    started = world.store.start([request(id, key=key) for id, key in ids], now)
    found = [world.store.standing(one.execution) for one in (started[2], started[5])]
    told = [(one.before, one.rate, one.rate_is_of_key, one.begins_at) for one in found if one]
    assert told[0] == (1, "2/s", False, now + 2 * HALF)
    assert told[1][:3] == (2, "1/s", True)


# -- claims --------------------------------------------------------------------------------------


def claimable(world: World, limit: int = 9, **rest: Any) -> list[int]:
    return world.store.claimable(WORKFLOWS, ["default"], limit=limit, **rest)


def test_claims_take_one_of_each_lane_in_turns(world: World):
    many = world.store.start([request(f"many{n}", tenant="many") for n in range(20)], 1)
    a, b = world.start("a", tenant="a"), world.start("b", key="z")
    assert claimable(world, 4) == [a.run, many[0].run, b.run, many[1].run]
    found = claimable(world, 100)
    assert found[:3] == [a.run, many[0].run, b.run]
    assert found[3:] == [one.run for one in many[1:]]


def test_the_next_page_goes_on_with_the_lanes_behind(world: World):
    runs = [world.start(f"{n}", tenant=f"t{n}").run for n in range(5)]
    assert claimable(world, 2) == runs[:2]
    assert claimable(world, 2, after=runs[1]) == runs[2:4]
    assert claimable(world, 2, after=runs[3]) == [runs[4], runs[0]]
    assert claimable(world, 9, after=runs[3]) == [runs[4], *runs[:4]]


def test_the_higher_priority_is_claimed_first_though_it_came_last(world: World):
    low = [world.start(f"low{n}", tenant="a").run for n in range(3)]
    high = [world.start(f"high{n}", tenant="z", priority=5).run for n in range(2)]
    assert claimable(world) == [*high, *low]
    assert claimable(world, 1, after=low[0]) == high[:1]


def test_lanes_that_are_passed_over_are_left_to_others(world: World):
    world.start("a", tenant="a")
    b, none = world.start("b", tenant="b"), world.start("none")
    assert claimable(world, passed_over=["a"]) == [none.run, b.run]
    assert claimable(world, passed_over=["", "a", "b"]) == []


def test_runs_that_are_not_served_are_in_nobodys_way(world: World):
    world.store.start([request(f"x{n}", tenant="a", workflow="unknown") for n in range(30)], 1)
    mine = [world.start(f"{n}", tenant="a").run for n in range(10)]
    assert claimable(world, 5) == mine[:5]


def test_runs_of_a_worker_that_died_or_left_are_claimed_by_their_lanes(world: World):
    first = turn(0, first=1, count=2, state=running(2), payload=b"first")
    starts = [request(f"many{n}", first=first, tenant="many") for n in range(20)]
    many = world.commit(starts=starts).started
    one = world.owned("one", tenant="one")
    assert claimable(world) == []
    world.store.leave(world.worker.id, world.worker.epoch, world.now)
    assert claimable(world, 3) == [many[0].run, one.run, many[1].run]


def test_a_later_run_of_an_execution_has_its_lane(world: World):
    world.store.start([request(f"many{n}", tenant="many") for n in range(9)], 1)
    a = world.start("a", tenant="a", priority=3)
    following = request("a", run_id="later", execution=a.execution, attempt=2)
    ends = closing(a.run, first=2, claim=1, status=Status.CONTINUED_AS_NEW, continued=following)
    [later] = world.commit(ends).children
    assert claimable(world, 1) == [later.run]


def test_definitions_keep_their_rates(world: World):
    world.join("again", Definition("order", "1", limit=PACED))
    world.join("again", Definition("order", "1", limit=PACED))
    world.start("a")
    queued = world.start("b")
    standing = world.store.standing(queued.execution)
    assert standing is not None
    assert standing.limit == PACED
