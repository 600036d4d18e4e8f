"""How far open runs were checked, which runs are open, and a run that goes by another version."""

from __future__ import annotations

from tests.contract.store_contract import World, closing, parked, turn, waiting

from perdure.store.port import Definition, OpenRun, Sweep
from perdure.values.states import OPEN, Status

MARK = Sweep("order", "queues", "code-1", began_at=5, worker=1)


def found(world: World, *statuses: Status, limit: int = 100, after: int = 0) -> list[int]:
    return [run.run for run in world.store.open_runs(statuses, limit=limit, after=after)]


def test_open_runs_are_those_with_the_statuses_by_number(world: World):
    busy, asleep = world.owned("a").run, world.asleep("b").run
    stopped, ended = world.owned("c").run, world.owned("d").run
    elsewhere = world.asleep("e", namespace="elsewhere").run
    world.commit(turn(stopped, state=parked(3)), closing(ended))
    assert found(world, *OPEN) == [busy, asleep, stopped, elsewhere]
    assert found(world, Status.WAITING) == [asleep, elsewhere]
    assert found(world, Status.PARKED, Status.RUNNING) == [busy, stopped]
    assert found(world) == []


def test_open_runs_come_in_pages_whatever_their_statuses(world: World):
    runs = [(world.asleep if n % 3 else world.owned)(f"order-{n}").run for n in range(10)]
    seen: list[int] = []
    while page := found(world, Status.WAITING, Status.RUNNING, limit=3, after=max(seen, default=0)):
        assert len(page) <= 3
        seen += page
    assert seen == runs


def test_an_open_run_tells_who_may_run_it_and_since_when_it_is_so(world: World):
    run = world.asleep("a", version="2", queue="fast").run
    world.commit(turn(run, claim=2, state=waiting(3, since=77)))
    assert world.store.open_runs([Status.WAITING], limit=1) == [
        OpenRun(run, "order", "2", "fast", 77)
    ]


def test_a_sweep_is_kept_for_each_workflow_and_scope(world: World):
    other = Sweep("order", "other queues", "code-2", began_at=6, since=3, after=9, worker=2)
    assert world.store.sweeps() == []
    assert world.store.sweep(MARK)
    assert world.store.sweep(other)
    assert sorted(world.store.sweeps(), key=lambda sweep: sweep.scope) == [other, MARK]


def test_only_whoever_sweeps_goes_on_or_who_takes_its_place(world: World):
    theirs = Sweep("order", "queues", "code-2", began_at=6, after=4, worker=2)
    assert world.store.sweep(MARK)
    assert not world.store.sweep(theirs)
    assert not world.store.sweep(theirs, instead=3)
    assert world.store.sweeps() == [MARK]
    further = Sweep("order", "queues", "code-1", began_at=5, after=4, worker=1)
    assert world.store.sweep(further)
    assert world.store.sweeps() == [further]
    assert world.store.sweep(theirs, instead=1)
    assert not world.store.sweep(MARK)
    assert world.store.sweeps() == [theirs]


def test_a_sweep_that_is_done_is_nobodys(world: World):
    done = Sweep("order", "queues", "code-1", began_at=5)
    assert world.store.sweep(MARK)
    assert world.store.sweep(done, instead=1)
    assert world.store.sweep(Sweep("order", "queues", "code-3", began_at=9, worker=2))


def test_a_moved_run_is_served_by_who_defines_its_new_version(world: World):
    run = world.asleep(version="1", wake_at=5).run
    newer = world.join("newer", Definition("order", "2"))
    assert newer.id
    assert world.store.due(10, ["order 2"], ["default"], limit=9) == []
    world.commit(turn(run, claim=2, applied=False, version="2", state=waiting(3, 5)))
    assert world.row(run).version == "2"
    assert world.store.due(10, ["order 2"], ["default"], limit=9) == [(run, 5)]
    assert world.store.due(10, ["order 1"], ["default"], limit=9) == []


def test_a_move_whose_claim_is_lost_changes_no_version(world: World):
    run = world.asleep(version="1").run
    lost = world.commit(turn(run, claim=1, applied=False, version="2", state=waiting(3)))
    assert lost.lost == {run}
    assert world.row(run).version == "1"
