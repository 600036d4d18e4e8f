"""Workers: leases, what they leave behind, and the definitions they bring."""

import pytest
from tests.contract.store_contract import World, running, turn, waiting

from perdure.errors import LeaseLost
from perdure.store.port import Beat, Definition
from perdure.values.states import Status

MINUTE = 60_000_000


def test_a_worker_joins_with_an_id_of_its_own_and_is_alive(world: World):
    other = world.join("other", Definition("b", "1"), Definition("a", "2"))
    assert other.id > world.worker.id
    rows = {row.id: row for row in world.store.workers()}
    assert set(rows) == {world.worker.id, other.id}
    row = rows[other.id]
    assert (row.name, row.pid, row.host, row.epoch, row.state) == ("other", 4711, "host", 1, "live")
    assert (row.workflows, row.queues) == (("b", "a"), ("default",))
    assert row.alive_for_sure is not False


def test_a_lease_is_extended_by_its_holder_only(world: World):
    worker = world.worker
    world.store.extend(worker.id, worker.epoch, now=world.now, lease_until=world.now + MINUTE)
    extended = world.store.workers()[0].lease_until
    assert extended - worker.lease_until > MINUTE // 2
    with pytest.raises(LeaseLost):
        world.store.extend(worker.id, worker.epoch + 1, now=world.now, lease_until=2 * MINUTE)
    assert world.store.workers()[0].lease_until == extended


def test_heartbeat_details_come_with_the_lease_and_are_read_with_the_run(world: World):
    worker, run = world.worker, world.owned().run
    beats = [Beat(run, 3, b"10%"), Beat(run, 4, b"old")]
    world.store.extend(worker.id, worker.epoch, now=5, lease_until=99, beats=beats)
    world.store.extend(worker.id, worker.epoch, now=5, lease_until=99, beats=[Beat(run, 4, b"20%")])
    assert world.load(run).beats == [Beat(run, 3, b"10%"), Beat(run, 4, b"20%")]


def test_a_takeover_frees_the_runs_with_their_real_length_and_ends_the_lease(world: World):
    run, sleeping = world.owned().run, world.asleep("sleeping").run
    world.commit(turn(run, count=4))
    assert world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    row = world.row(run)
    assert (row.owner, row.length, row.status) == (None, 6, Status.RUNNING)
    assert row.lost_by == world.worker.id
    assert world.row(sleeping).lost_by is None
    assert world.store.workers() == []
    assert world.store.claimable(["order"], ["default"], limit=9) == [run]
    with pytest.raises(LeaseLost):
        world.store.extend(world.worker.id, world.worker.epoch, now=5, lease_until=9)


def test_the_next_state_forgets_who_lost_the_run(world: World):
    runs = [world.owned("one").run, world.owned("two").run]
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    other = world.join("other")
    world.commit(turn(runs[0], claim=2, state=running(3)), turn(runs[1], claim=2), worker=other)
    assert [world.row(run).lost_by for run in runs] == [None, None]


def test_a_state_that_says_nothing_of_lost_attempts_keeps_who_lost_the_run(world: World):
    run = world.owned().run
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    other = world.join("other")
    state = waiting(3, wake_at=5_000_000)
    state.keeps_lost = True
    world.commit(turn(run, claim=2, state=state), worker=other)
    assert world.row(run).lost_by == world.worker.id
    world.commit(turn(run, first=4, claim=3, state=running(4)), worker=other)
    assert world.row(run).lost_by is None


def test_only_one_of_two_takes_over(world: World):
    worker = world.worker
    assert world.store.take_over(worker.id, worker.epoch + 1, world.now) is False
    assert world.store.take_over(worker.id, worker.epoch, world.now) is True
    assert world.store.take_over(worker.id, worker.epoch, world.now) is False
    assert world.store.take_over(worker.id, worker.epoch + 1, world.now) is False


def test_a_lease_that_was_extended_since_it_was_seen_to_end_is_not_taken_over(world: World):
    worker, run = world.worker, world.owned().run
    seen = world.store.workers()[0].lease_until
    world.store.extend(worker.id, worker.epoch, now=world.now, lease_until=world.now + 1)
    extended = world.store.workers()[0].lease_until
    assert extended != seen
    take_over = world.store.take_over
    assert take_over(worker.id, worker.epoch, world.now, lease_until=seen) is False
    assert world.row(run).owner == worker.id
    assert take_over(worker.id, worker.epoch, world.now, lease_until=extended) is True


def test_leaving_hands_the_runs_back_and_loses_nothing(world: World):
    run = world.owned().run
    world.commit(turn(run))
    world.store.leave(world.worker.id, world.worker.epoch, world.now)
    row = world.row(run)
    assert (row.owner, row.length, row.lost_by) == (None, 3, None)
    assert world.store.workers() == []
    assert world.store.claimable(["order"], ["default"], limit=9) == [run]
    with pytest.raises(LeaseLost):
        world.store.leave(world.worker.id, world.worker.epoch, world.now)


def test_a_run_that_waited_with_work_in_flight_can_be_claimed_after_a_takeover(world: World):
    run = world.owned().run
    state = waiting(3, wake_at=5_000_000)
    state.owned = True
    world.commit(turn(run, state=state))
    assert world.store.due(9_000_000, ["order"], ["default"], limit=9) == []
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    assert world.store.claimable(["order"], ["default"], limit=9) == [run]


def test_definitions_are_registered_once_and_follow_their_code(world: World):
    world.join("two", Definition("order", "2", "abc", "source text", "slow"))
    world.now += 50
    world.join("three", Definition("order", "2", "def", "new text", "slow"))
    found = world.store.definitions()
    assert [(one.name, one.version) for one in found] == [("order", "1"), ("order", "2")]
    assert (found[1].code, found[1].queue, found[1].source) == ("def", "slow", "")
    assert found[1].is_active is True
    assert found[1].registered_at == world.now - 50


def test_a_definition_may_come_after_its_worker_has_joined(world: World):
    late = Definition("late", "1", "abc", "text", "slow")
    world.store.define([late], world.now)
    world.now += 50
    world.store.define([late, Definition("late", "2")], world.now)
    found = [(one.name, one.version, one.registered_at) for one in world.store.definitions()]
    assert found[:2] == [("late", "1", world.now - 50), ("late", "2", world.now)]


def test_a_version_is_deactivated_until_it_is_activated_and_joining_changes_nothing_of_it(
    world: World,
):
    assert world.store.activate("order", "1", is_active=False) is True
    world.join("two", Definition("order", "1", "new code"))
    assert [one.is_active for one in world.store.definitions()] == [False]
    assert world.store.activate("order", "1", is_active=True) is True
    assert [one.is_active for one in world.store.definitions()] == [True]
    assert world.store.activate("order", "2", is_active=False) is False


def test_workers_that_are_long_gone_are_forgotten_but_their_ids_stay_used(world: World):
    world.store.leave(world.worker.id, world.worker.epoch, world.now)
    world.now += 30 * 86_400 * 1_000_000
    again = world.join("again")
    assert again.id > world.worker.id
