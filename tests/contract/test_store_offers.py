"""Activities on offer in task queues: who claims them, what comes of them, and who may say so."""

from collections import Counter
from typing import Any

import pytest
from tests.contract.store_contract import World, closing, request, turn, waiting

from perdure.errors import LeaseLost
from perdure.store.offers import Carried, Claimed, Offer, OfferKey, Outcome, Stage, Then, Wanted
from perdure.store.port import Beat, Definition, StateWrite, Worker
from perdure.values import events
from perdure.values.queues import QueueLimit, TaskQueue
from perdure.values.states import Status

GPU = "gpu"
DONE = events.encode_turn([events.ActivityCompleted(activity=2)])
SECOND = 1_000_000


def offer(activity: int = 2, **rest: Any) -> Offer:
    rest.setdefault("queue", GPU)
    rest.setdefault("name", "transcode")
    rest.setdefault("call", b"call")
    return Offer(activity, **rest)


def offering(world: World, workflow_id: str = "order-1", *offers: Offer, **rest: Any) -> int:
    """Start a run whose first turn offers an activity and then waits; return the run."""
    first = turn(
        0, first=1, count=2, state=waiting(2), offers=offers or [offer()], payload=b"first"
    )
    return world.commit(starts=[request(workflow_id, first=first, **rest)]).started[0].run


def claim(
    world: World,
    free: int = 10,
    *,
    worker: Worker | None = None,
    after: str | None = None,
    names: tuple[str, ...] = ("transcode",),
    queue: str = GPU,
) -> Claimed:
    worker = worker or world.worker
    wanted = [Wanted(queue, free, after)]
    return world.store.claim(
        worker.id, worker.epoch, now=world.now, wanted=wanted, activities=names
    )


def keys(claimed: Claimed) -> list[OfferKey]:
    return [(it.run, it.activity, it.attempt) for it in claimed.carried]


def outcome(carried: Carried, event: bytes = DONE, **rest: Any) -> Outcome:
    place = (carried.run, carried.execution, carried.activity, carried.attempt)
    return Outcome(*place, event, **rest)


def facts(world: World, run: int) -> list[events.Event]:
    return [events.decode_fact(event) for event in world.inbox(run)]


def flood(world: World, tenant: str, count: int, **rest: Any) -> int:
    """Put that many activities of a tenant on offer, by one run; return the run."""
    offers = [offer(n + 2, lane=tenant, **rest) for n in range(count)]
    first = turn(0, first=1, count=count + 1, state=waiting(count + 1), offers=offers)
    return world.commit(starts=[request(f"of-{tenant}-{world.now}", first=first)]).started[0].run


# -- offers and claims ---------------------------------------------------------------------------


def test_an_offer_comes_with_its_turn_and_is_claimed_once_with_whose_it_is(world: World):
    run = offering(world, "order-1", offer(lane="acme", priority=3))
    [row] = world.store.offers_of(run)
    assert (row.activity, row.attempt, row.queue, row.name) == (2, 1, GPU, "transcode")
    assert (row.stage, row.owner) == (Stage.READY, None)
    [carried] = claim(world).carried
    assert (carried.run, carried.activity, carried.call) == (run, 2, b"call")
    assert (carried.workflow_id, carried.run_id) == ("order-1", "run-of-order-1")
    assert (carried.workflow, carried.lane, carried.details) == ("order", "acme", None)
    [row] = world.store.offers_of(run)
    assert (row.stage, row.owner, row.claimed_at) == (Stage.CLAIMED, world.worker.id, world.now)
    assert world.store.carried_by(world.worker.id) == [(run, 2, 1)]
    assert claim(world).carried == []
    assert world.load(run).offers == [row]


def test_only_who_serves_the_queue_and_knows_the_activity_claims_it(world: World):
    run = offering(world)
    assert claim(world, queue="other").carried == []
    assert claim(world, names=("other",)).carried == []
    assert claim(world, 0).carried == []
    assert keys(claim(world, names=("other", "transcode"))) == [(run, 2, 1)]


def test_a_worker_without_its_lease_claims_and_hands_back_nothing(world: World):
    run = offering(world)
    other = world.join("other")
    assert world.store.take_over(other.id, other.epoch, world.now)
    with pytest.raises(LeaseLost):
        claim(world, worker=other)
    with pytest.raises(LeaseLost):
        world.store.hand_back(other.id, other.epoch, [(run, 2, 1)])
    assert world.store.offers_of(run)[0].stage is Stage.READY


def test_what_is_claimed_and_not_begun_is_handed_back_by_its_worker_only(world: World):
    run, other = offering(world), world.join("other")
    [key] = keys(claim(world))
    world.store.hand_back(other.id, other.epoch, [key])
    assert world.store.offers_of(run)[0].stage is Stage.CLAIMED
    world.store.hand_back(world.worker.id, world.worker.epoch, [key])
    world.store.hand_back(world.worker.id, world.worker.epoch, [key])
    assert keys(claim(world, worker=other)) == [(run, 2, 1)]


def test_a_higher_priority_comes_first_and_then_the_oldest(world: World):
    runs = [offering(world, f"o{n}", offer(priority=n % 2)) for n in range(6)]
    found = [it.run for it in [*claim(world, 2).carried, *claim(world, 9).carried]]
    assert Counter(found[:2]) == Counter([runs[1], runs[3]])
    assert Counter(found[2:]) == Counter([runs[5], runs[0], runs[2], runs[4]])


def test_news_tell_of_ready_offers_and_of_what_is_due(world: World):
    def news(names: tuple[str, ...] = ("transcode",), queue: str = GPU) -> tuple[bool, int | None]:
        found = world.store.news(9, 9, ["order"], [queue], world.worker.id, names)
        assert world.store.offers([queue], names) == (found.has_offers, found.offers_due)
        return found.has_offers, found.offers_due

    assert news() == (False, None)
    offering(world, "o1", offer(due=700))
    assert news() == (True, 700)
    assert news(("other",)) == (False, 700)
    assert news(queue="other") == (False, 700)
    offering(world, "o2", offer(not_before=600, due=900))
    assert news() == (True, 600)
    claim(world)
    assert news() == (False, None)


def test_an_offer_with_a_pause_is_claimed_when_that_is_over(world: World):
    run = offering(world, "o1", offer(not_before=world.now + 500))
    assert claim(world).carried == []
    world.now += 501
    assert keys(claim(world)) == [(run, 2, 1)]


def test_offers_that_are_due_are_found_until_somebody_carries_them_out(world: World):
    run = offering(world, "o1", offer(due=5_000))
    assert world.store.overdue_offers(4_999, limit=9) == []
    [row] = world.store.overdue_offers(5_000, limit=9)
    assert (row.run, row.activity, row.call, row.due) == (run, 2, b"call", 5_000)
    claim(world)
    assert world.store.overdue_offers(9_000, limit=9) == []


# -- outcomes ------------------------------------------------------------------------------------


def test_an_outcome_takes_the_offer_away_and_goes_into_the_inbox(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    committed = world.commit(outcomes=[outcome(carried)])
    assert committed.void == frozenset()
    [fed] = committed.told
    assert (fed.run, fed.execution, fed.event) == (run, carried.execution, DONE)
    assert [row.id for row in world.load(run).inbox] == [fed.id]
    assert world.inbox(run) == [DONE]
    assert world.store.offers_of(run) == []
    served = ["order"], ["default"]
    other = world.join("other")
    assert [row.run for row in world.store.inbox(*served, other.id, limit=9)] == [run]


def test_the_same_outcome_counts_once(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    world.commit(outcomes=[outcome(carried)])
    again = world.commit(outcomes=[outcome(carried)])
    assert again.void == {(run, 2, 1)}
    assert again.told == []
    assert len(world.inbox(run)) == 1


def test_an_outcome_of_somebody_else_or_of_another_attempt_is_void(world: World):
    run, other = offering(world), world.join("other")
    [carried] = claim(world).carried
    assert world.commit(worker=other, outcomes=[outcome(carried)]).void == {(run, 2, 1)}
    carried.attempt = 2
    assert world.commit(outcomes=[outcome(carried)]).void == {(run, 2, 2)}
    assert world.commit(outcomes=[outcome(carried, is_unclaimed=True)]).void == {(run, 2, 2)}
    carried.attempt = 1
    assert world.commit(outcomes=[outcome(carried, is_unclaimed=True)]).void == {(run, 2, 1)}
    assert world.inbox(run) == []
    assert world.store.offers_of(run)[0].stage is Stage.CLAIMED


def test_a_failed_attempt_is_followed_by_the_next_with_what_it_left(world: World):
    run = offering(world, "o1", offer(due=100_000))
    [carried] = claim(world).carried
    later = world.now + 500
    again = outcome(carried, then=Then.AGAIN, not_before=later, due=300_000, details=b"half")
    world.commit(outcomes=[again])
    [row] = world.store.offers_of(run)
    assert (row.stage, row.attempt, row.not_before) == (Stage.DELAYED, 2, later)
    assert (row.owner, row.due) == (None, 300_000)
    assert world.inbox(run) == [DONE]
    assert claim(world).carried == []
    world.now = later
    [carried] = claim(world, worker=world.join("other")).carried
    assert (carried.attempt, carried.details) == (2, b"half")


def test_an_offer_that_nobody_took_in_time_ends_by_anybodys_word(world: World):
    run, other = offering(world), world.join("other")
    [row] = world.store.offers_of(run)
    late = Outcome(run, row.execution, 2, 1, DONE, is_unclaimed=True)
    assert world.commit(worker=other, outcomes=[late]).void == frozenset()
    assert world.inbox(run) == [DONE]
    assert claim(world).carried == []


def test_many_outcomes_go_in_one_batch_with_turns(world: World):
    runs = [offering(world, f"o{n}") for n in range(150)]
    carried = [*claim(world, 200).carried, *claim(world, 200).carried]
    assert len(carried) == 150
    other = world.owned("other").run
    committed = world.commit(turn(other), outcomes=[outcome(it) for it in carried])
    assert sorted(told.run for told in committed.told) == sorted(runs)
    assert all(world.inbox(run) == [DONE] for run in (runs[0], runs[149]))


# -- what takes an offer away --------------------------------------------------------------------


def test_a_turn_that_withdraws_an_offer_makes_its_outcome_void(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    world.commit(turn(run, claim=2, state=waiting(3), withdraws=(2,)))
    assert world.store.offers_of(run) == []
    assert world.store.carried_by(world.worker.id) == []
    assert world.commit(outcomes=[outcome(carried)]).void == {(run, 2, 1)}
    assert world.inbox(run) == []


def test_a_turn_that_withdraws_and_offers_again_replaces_the_offer(world: World):
    run = offering(world)
    again = offer(attempt=2, lost=1)
    world.commit(turn(run, claim=2, state=waiting(3), withdraws=(2,), offers=[again]))
    [carried] = claim(world).carried
    assert (carried.attempt, carried.lost) == (2, 1)


def test_a_turn_that_is_dropped_takes_its_offers_with_it(world: World):
    run = offering(world)
    lost = world.commit(turn(run, claim=7, state=waiting(3), withdraws=(2,), offers=[offer(3)]))
    assert lost.lost == {run}
    assert [row.activity for row in world.store.offers_of(run)] == [2]


def test_an_outcome_that_came_first_keeps_a_run_from_closing_unread(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    world.commit(outcomes=[outcome(carried)])
    late = world.commit(closing(run, claim=2, withdraws=(2,)))
    assert late.reopened == {run}
    assert world.inbox(run) == [DONE]


def test_an_outcome_after_the_end_of_the_run_is_void_in_the_same_batch_and_later(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    together = world.commit(closing(run, claim=2, withdraws=(2,)), outcomes=[outcome(carried)])
    assert together.void == {(run, 2, 1)}
    assert world.commit(outcomes=[outcome(carried)]).void == {(run, 2, 1)}
    assert world.inbox(run) == []
    assert world.row(run).status is Status.COMPLETED


def test_a_start_that_replaces_a_run_takes_its_offers_away(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    started = world.start(conflict="terminate_existing", run_id="another")
    assert started.replaced == run
    assert world.store.offers_of(run) == []
    assert world.commit(outcomes=[outcome(carried)]).void == {(run, 2, 1)}


# -- leases --------------------------------------------------------------------------------------


def test_a_worker_that_leaves_puts_what_it_had_not_begun_on_offer_again(world: World):
    run, other = offering(world), world.join("other")
    claim(world)
    world.store.leave(world.worker.id, world.worker.epoch, world.now)
    assert world.inbox(run) == []
    [carried] = claim(world, worker=other).carried
    assert (carried.attempt, carried.lost) == (1, 0)


def test_a_takeover_tells_the_run_of_each_attempt_and_offers_nothing_by_itself(world: World):
    run, other = offering(world, "o1", offer(2), offer(3)), world.join("other")
    [carried, _] = claim(world).carried
    beat = [Beat(run, 2, b"half")]
    worker = world.worker
    world.store.extend(worker.id, worker.epoch, now=5, lease_until=99, beats=beat)
    assert world.store.take_over(worker.id, worker.epoch, world.now)
    lost = events.AttemptLost(activity=2, attempt=1, worker=str(worker.id), in_a_row=1)
    lost.heartbeat = b"half"
    also = events.AttemptLost(activity=3, attempt=1, worker=str(worker.id), in_a_row=1)
    assert facts(world, run) == [lost, also]
    rows = world.store.offers_of(run)
    assert [(row.stage, row.owner, row.lost) for row in rows] == [(Stage.LOST, None, 1)] * 2
    assert claim(world, worker=other).carried == []
    late = world.commit(worker=other, outcomes=[outcome(carried, is_unclaimed=True)])
    assert late.void == {(run, 2, 1)}
    with pytest.raises(LeaseLost):
        world.commit(outcomes=[outcome(carried)])


def test_an_attempt_that_was_cut_off_by_a_stop_is_left_to_the_run(world: World):
    run = offering(world)
    [carried] = claim(world).carried
    world.commit(outcomes=[outcome(carried, then=Then.LOST, details=b"half")])
    [row] = world.store.offers_of(run)
    assert (row.stage, row.attempt, row.lost) == (Stage.LOST, 1, 0)
    assert world.inbox(run) == [DONE]
    assert claim(world).carried == []


def test_what_a_worker_knows_and_serves_is_said_of_it(world: World):
    worker = world.store.join(
        "w",
        1,
        "h",
        now=world.now,
        lease_until=world.now + 9,
        workflows=[],
        queues=[GPU],
        definitions=(),
        activities=["transcode"],
    )
    [found] = [one for one in world.store.workers() if one.id == worker.id]
    assert (found.queues, found.activities) == ((GPU,), ("transcode",))


# -- limits of queues ----------------------------------------------------------------------------


def limited(world: World, *queues: TaskQueue) -> Worker:
    world.now += 1
    worker = world.store.join(
        "limited",
        1,
        "h",
        now=world.now,
        lease_until=world.now + 10_000,
        workflows=[],
        queues=[queue.name for queue in queues],
        definitions=[Definition("order", "1")],
        limits=[queue.limit for queue in queues],
    )
    world.numbers[worker.id] = 0
    return worker


def test_no_more_attempts_are_under_way_than_a_queue_allows_whoever_claims(world: World):
    other = limited(world, TaskQueue(GPU, max_concurrent=3))
    flood(world, "a", 9)
    first = claim(world, 2).carried
    assert len(first) == 2
    assert len(claim(world, 9, worker=other).carried) == 1
    assert claim(world).carried == []
    assert claim(world).is_short is False
    world.commit(outcomes=[outcome(first[0])])
    assert len(claim(world, worker=other).carried) == 1
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    assert len(claim(world, worker=other).carried) == 1


def test_the_last_to_join_says_what_a_queue_allows_and_one_without_limits_lifts_them(world: World):
    flood(world, "a", 9)
    limited(world, TaskQueue(GPU, max_concurrent=3))
    limited(world, TaskQueue(GPU, max_concurrent=1))
    assert len(claim(world).carried) == 1
    limited(world, TaskQueue(GPU))
    assert len(claim(world, 99).carried) == 8


def test_a_lane_that_has_what_a_key_may_have_stands_in_nobodys_way(world: World):
    limited(world, TaskQueue(GPU, max_per_key=2))
    flood(world, "a", 50)
    flood(world, "b", 1)
    found = Counter(it.lane for it in claim(world, 2).carried)
    found += Counter(it.lane for it in claim(world, 40).carried)
    assert found == Counter(a=2, b=1)
    assert claim(world).carried == []


def test_a_rate_spreads_attempts_evenly_and_says_when_the_next_may_begin(world: World):
    limited(world, TaskQueue(GPU, rate="10/s"))
    flood(world, "a", 9)
    begun = world.now
    first = claim(world, 9)
    assert len(first.carried) == 1
    assert first.again_at == begun + SECOND // 10
    assert claim(world).carried == []
    world.now = begun + SECOND // 10 - 1
    assert claim(world).carried == []
    world.now += 1
    assert len(claim(world).carried) == 1
    world.now += 5 * SECOND
    assert len(claim(world, 9).carried) == 1


def test_a_burst_may_begin_at_once_after_a_pause_and_no_more(world: World):
    limited(world, TaskQueue(GPU, rate="10/s burst 4"))
    flood(world, "a", 99)
    assert len(claim(world, 9).carried) == 4
    assert claim(world, 9).carried == []
    world.now += 10 * SECOND
    assert len(claim(world, 9).carried) == 4


def test_a_rate_survives_workers_that_die_and_gives_back_what_was_not_begun(world: World):
    other = limited(world, TaskQueue(GPU, rate="1/minute"))
    flood(world, "a", 9)
    [key] = keys(claim(world))
    world.store.hand_back(world.worker.id, world.worker.epoch, [key])
    assert len(claim(world).carried) == 1
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    assert claim(world, worker=other).carried == []
    world.now += 60 * SECOND
    assert len(claim(world, 9, worker=other).carried) == 1


def test_limits_of_one_queue_do_not_touch_another(world: World):
    limited(world, TaskQueue("slow", max_concurrent=1, rate="1/day"))
    flood(world, "a", 3)
    flood(world, "a", 3, queue="slow")
    assert QueueLimit("x").limits is False
    wanted = [Wanted("slow", 9), Wanted(GPU, 9)]
    worker = world.worker
    found = world.store.claim(
        worker.id, worker.epoch, now=world.now, wanted=wanted, activities=["transcode"]
    )
    assert Counter(it.queue for it in found.carried) == {"slow": 1, GPU: 3}


# -- fairness ------------------------------------------------------------------------------------


def taken_one_by_one(world: World, count: int, each: int = 1) -> list[str]:
    """Claim so many, ``each`` at a time, and return whose they were, in order."""
    lanes: list[str] = []
    after: str | None = None
    while len(lanes) < count:
        claimed = claim(world, each, after=after)
        assert claimed.carried, lanes
        lanes += [it.lane for it in claimed.carried]
        after = claimed.after[GPU]
    return lanes


@pytest.mark.parametrize("each", [1, 3, 100])
def test_a_flood_of_one_tenant_delays_anothers_by_one_of_its_own(world: World, each: int):
    flood(world, "flooding", 20_000)
    flood(world, "small", 1)
    lanes = taken_one_by_one(world, max(each, 2), each)
    assert "small" in lanes[: max(each, 2)]


@pytest.mark.parametrize("each", [1, 2, 7])
def test_no_other_tenant_is_taken_twice_before_one_that_waits(world: World, each: int):
    for tenant in "abcdefghij":
        flood(world, tenant, 20)
    lanes = taken_one_by_one(world, 150, each)
    waits = dict.fromkeys("abcdefghij", 0)
    for start in range(0, 140, 10):
        # Within a claim rows come by age: what is fair is which ones it takes.
        assert len(set(lanes[start : start + 10])) >= 10 - each + 1
    for lane in lanes:
        waits[lane] += 1
    assert max(waits.values()) - min(waits.values()) <= 1 or each > 1


def test_a_tenant_that_comes_late_waits_for_one_of_each_other_only(world: World):
    for tenant in ("", "b", "c", "e"):
        flood(world, tenant, 30)
    before = claim(world, 1)
    flood(world, "d", 1)
    after, lanes = before.after[GPU], list[str]()
    while "d" not in lanes:
        claimed = claim(world, 1, after=after)
        lanes += [it.lane for it in claimed.carried]
        after = claimed.after[GPU]
    assert max(Counter(lanes).values()) == 1


def test_activities_that_a_worker_does_not_know_stand_in_nobodys_way(world: World):
    flood(world, "a", 300, name="unknown", priority=5)
    flood(world, "a", 300, name="unknown")
    flood(world, "b", 1)
    assert [it.lane for it in claim(world, 1).carried] == ["b"]


def test_state_of_a_run_that_waits_for_offers_is_nobodys(world: World):
    run = offering(world)
    row = world.row(run)
    assert (row.status, row.owner) == (Status.WAITING, None)
    assert StateWrite(Status.WAITING, owned=False, length=2).owned is False
