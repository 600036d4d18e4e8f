"""Executions with a retention of their own: what is written with their start, and when they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.contract.store_contract import World, closed, closing, request, turn, waiting
from tests.contract.test_store_journal import copied
from tests.contract.test_store_pruning import ended, goes_on, runs
from tests.contract.test_store_schedules import CHANCE, S, put

from perdure.store.port import Place, Prune, Pruned, Started, Sweep
from perdure.values.schedules import Template
from perdure.values.states import Status
from perdure.values.terms import Terms


def keeps(world: World) -> dict[int, tuple[int, int | None]]:
    """Return what is written: how long, and when it is due, by execution."""
    database: Any = world.store.database  # type: ignore[attr-defined]
    rows = database.ask("SELECT execution, keep_for, due FROM perdure_keep", []).fetchall()
    return {execution: (keep_for, due) for execution, keep_for, due in rows}


def own(now: int, **more: Any) -> Prune:
    """Those whose own retention is over at a time."""
    return Prune(now, scope="own", **more)


def others(before: int) -> Prune:
    return Prune(before, scope="others")


def last_ends(world: World, run: int, execution: int, *, at: int) -> None:
    state = closed(2)
    state.closed_at = at
    world.commit(turn(run, first=2, claim=1, execution=execution, closes=True, state=state))


def test_a_start_writes_how_long_its_execution_is_kept_and_when_it_is_due(world: World):
    world.start("as others")
    week = world.start("week", keep_for=70)
    ever = world.start("ever", keep_for=0)
    at = world.now
    assert keeps(world) == {week.execution: (70, at + 70), ever.execution: (0, None)}


def test_how_long_an_execution_is_kept_is_its_own_or_as_the_last_worker_keeps_others(world: World):
    other, week = world.start("other"), world.start("week", keep_for=70)
    ever = world.start("ever", keep_for=0)

    def kept() -> list[int | None]:
        return [world.store.kept_for(one.execution) for one in (other, week, ever)]

    assert kept() == [None, 70, 0]
    for code, said in (("", None), ("50", 50), ("0", 0)):  # a mark of an older worker says nothing
        assert world.store.sweep(Sweep("", "retention", code, began_at=1))
        assert kept() == [said, 70, 0]


def test_starts_of_a_worker_of_a_turn_and_of_a_schedule_are_kept_as_they_say(world: World):
    parent = world.owned("parent", keep_for=10)
    at = world.now
    child = request("child", keep_for=20, parent=(parent.execution, 3))
    [begun] = world.commit(turn(parent.run, state=waiting(3), children=[child])).children
    assert keeps(world) == {
        parent.execution: (10, at + 10),
        begun.execution: (20, world.now + 20),
    }
    put(world, template={"terms": Terms(retention=30)})
    assert world.store.fire(10 * S, CHANCE).happened
    row = world.store.find("s-1970-01-01T00:00:10Z")
    assert row is not None
    assert keeps(world)[row.execution] == (30, 10 * S + 30)
    assert Template("order").terms.retention is None


def test_an_execution_that_goes_on_at_once_is_kept_once(world: World):
    state = closed(2, Status.CONTINUED_AS_NEW)
    after = request("chain", run_id="r2", execution=0, event=b"goes on")
    first = turn(0, first=1, count=2, closes=True, state=state, continued=after)
    one = world.commit(starts=[request("chain", run_id="r1", first=first, keep_for=5)]).started[0]
    assert keeps(world) == {one.execution: (5, world.now + 5)}
    assert runs(world) == {"r1", "r2"}


def test_a_start_that_uses_what_is_there_changes_nothing(world: World):
    there = world.start("a", keep_for=5)
    before = keeps(world)
    assert list(before) == [there.execution]
    again = world.start("a", run_id="other", conflict="use_existing", keep_for=9)
    assert (again.created, again.execution) == (False, there.execution)
    assert world.start("a", run_id="third", keep_for=9).refused == "already_exists"
    assert world.start("a", keep_for=9).run == there.run, "repeated after a lost answer"
    assert keeps(world) == before


def test_an_execution_goes_when_its_own_retention_is_over(world: World):
    short = ended(world, "short", at=2_000, keep_for=50)
    ended(world, "other", at=2_000)
    world.start("newest")
    assert world.store.prune(own(2_049)) == Pruned(0)
    assert world.store.prune(own(2_050)) == Pruned(1, 2)
    assert runs(world) == {"run-of-other", "run-of-newest"}
    assert short.execution not in keeps(world)


def test_whoever_goes_by_the_engines_retention_leaves_them_alone(world: World):
    ended(world, "long", keep_for=10_000)
    ended(world, "ever", keep_for=0)
    ended(world, "other")
    world.start("newest")
    assert world.store.prune(others(1_000)) == Pruned(1, 2)
    assert runs(world) == {"run-of-long", "run-of-ever", "run-of-newest"}
    assert len(keeps(world)) == 2


def test_whoever_deletes_by_hand_takes_them_with_their_rows(world: World):
    ended(world, "long", keep_for=10_000)
    ended(world, "ever", keep_for=0)
    world.start("newest")
    assert world.store.prunable(Prune(1_000)) == Pruned(2)
    assert world.store.prune(Prune(1_000)) == Pruned(2, 4)
    assert (runs(world), keeps(world)) == ({"run-of-newest"}, {})


def test_what_is_kept_for_ever_is_never_due(world: World):
    ended(world, "ever", keep_for=0)
    world.start("newest")
    assert world.store.prune(own(10**15)) == Pruned(0)
    assert runs(world) == {"run-of-ever", "run-of-newest"}


def test_an_open_execution_is_looked_at_again_when_it_could_go(world: World):
    one = world.asleep("open", keep_for=50)
    assert world.store.prune(own(5_000)) == Pruned(0)
    assert keeps(world) == {one.execution: (50, 5_050)}
    assert runs(world) == {"run-of-open"}


def test_one_that_ended_lately_is_looked_at_again_when_it_goes(world: World):
    one = ended(world, "a", at=4_990, keep_for=50)
    world.start("newest")
    assert world.store.prune(own(5_000)) == Pruned(0)
    assert keeps(world) == {one.execution: (50, 5_040)}
    assert world.store.prune(own(5_039)) == Pruned(0)
    assert world.store.prune(own(5_040)) == Pruned(1, 2)


def test_of_an_open_execution_the_runs_between_go_each_by_its_own_end(world: World):
    first = world.asleep("chain", run_id="r1", keep_for=100)
    execution = first.execution
    second = goes_on(world, first.run, execution, "r2", at=1_000, first=3)
    third = goes_on(world, second, execution, "r3", at=2_000)
    fourth = goes_on(world, third, execution, "r4", at=3_000)
    world.start("newest")
    assert world.store.prune(own(2_100)) == Pruned(1, 2)
    assert runs(world) == {"r1", "r3", "r4", "run-of-newest"}
    assert keeps(world) == {execution: (100, 3_100)}
    assert world.store.prune(own(3_100)) == Pruned(1, 2)
    assert keeps(world) == {execution: (100, 3_200)}
    last_ends(world, fourth, execution, at=3_150)
    world.start("newer")
    assert world.store.prune(own(3_200)) == Pruned(0)
    assert keeps(world) == {execution: (100, 3_250)}
    assert world.store.prune(own(3_250)) == Pruned(2, 4)
    assert (runs(world), keeps(world)) == ({"run-of-newest", "run-of-newer"}, {})


def ended_chain(world: World, length: int, **rest: Any) -> Started:
    """An execution of many runs that has ended."""
    first = world.asleep("chain", run_id="r1", **rest)
    run = goes_on(world, first.run, first.execution, "r2", at=1_000, first=3)
    for n in range(3, length + 1):
        run = goes_on(world, run, first.execution, f"r{n}", at=1_000 + n)
    last_ends(world, run, first.execution, at=1_100)
    return first


def all_batches(world: World, now: int, size: int) -> Iterator[int]:
    """Delete until nothing is left to do; yield how many runs went each time."""
    found = world.store.prune(own(now, runs=size))
    for _ in range(30):
        yield found.runs
        if found.goes_on is None:
            return
        found = world.store.prune(own(now, after=found.goes_on, runs=size))
    raise AssertionError("it has to come to an end")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("length", [9, 10, 11, 12])
def test_a_long_chain_goes_batch_by_batch_and_others_after_it(world: World, size: int, length: int):
    ended_chain(world, length, keep_for=1)
    ended(world, "after", at=1_500, keep_for=1_000)
    world.start("newest")
    sizes = list[int]()
    for deleted in all_batches(world, 5_000, size):
        left = runs(world) - {"run-of-after", "run-of-newest"}
        assert not left or {"r1", f"r{length}"} <= left, "the latest goes with the first"
        sizes.append(deleted)
    assert (sum(sizes), max(sizes) <= 5) == (length + 1, True)
    assert (runs(world), keeps(world)) == ({"run-of-newest"}, {})


def test_a_long_chain_of_which_nothing_may_go_holds_up_nobody(world: World):
    first = world.asleep("chain", run_id="r1", keep_for=3_000)
    execution = first.execution
    run = goes_on(world, first.run, execution, "r2", at=2_500, first=3)
    for n in range(3, 8):
        run = goes_on(world, run, execution, f"r{n}", at=2_500 + n)
    ended(world, "after", at=1_500, keep_for=3_001)
    world.start("newest")
    found = world.store.prune(own(5_000, runs=2))
    assert (found.runs, found.goes_on is not None) == (0, True)
    assert world.store.prune(own(5_000, after=found.goes_on, runs=2)) == Pruned(1, 2)
    # When the second run may go, since nothing of the others could before.
    assert keeps(world) == {execution: (3_000, 5_503)}


def test_batches_go_on_in_the_order_in_which_they_are_due(world: World):
    for n, keep_for in enumerate((90, 20, 10, 80, 70)):
        ended(world, f"w{n}", at=50, keep_for=keep_for)
    world.start("newest")
    some = world.store.prune(own(5_000, runs=2))
    assert some.runs == 2
    assert runs(world) == {"run-of-w0", "run-of-w3", "run-of-w4", "run-of-newest"}
    assert isinstance(some.goes_on, Place)
    few = world.store.prune(own(5_000, after=some.goes_on, events=1))
    assert (few.runs, few.goes_on is not None) == (1, True)
    assert world.store.prune(own(5_000, after=few.goes_on)) == Pruned(2, 4)


def test_the_newest_run_stays_and_stays_due(world: World):
    ended(world, "old", at=10, keep_for=5)
    newest = ended(world, "newest", at=10, keep_for=1)
    due = keeps(world)[newest.execution]
    assert world.store.prune(own(9_000)) == Pruned(1, 2)
    assert runs(world) == {"run-of-newest"}
    assert keeps(world) == {newest.execution: due}
    world.start("newer")
    assert world.store.prune(own(9_000)) == Pruned(1, 2)


@pytest.mark.parametrize("size", [1, 2])
def test_what_stays_due_holds_up_nobody(world: World, size: int):
    ended_chain(world, 9, keep_for=1_000)
    ended(world, "between", at=10, keep_for=100)
    ended(world, "newest", at=10, keep_for=1)
    assert sum(all_batches(world, 9_000, size)) == 10
    assert runs(world) == {"run-of-newest"}


def test_a_run_between_with_the_newest_row_stays(world: World):
    first = world.asleep("chain", run_id="r1", keep_for=1)
    second = goes_on(world, first.run, first.execution, "r2", at=2_000, first=3)
    goes_on(world, second, first.execution, "r3", at=2_010)
    assert world.store.prune(own(9_000)) == Pruned(0)
    assert runs(world) == {"r1", "r2", "r3"}
    world.start("newest")
    assert world.store.prune(own(9_001)) == Pruned(1, 2)
    assert runs(world) == {"r1", "r3", "run-of-newest"}


def test_a_run_that_was_retried_keeps_its_execution_for_as_long_after_its_end(world: World):
    one = ended(world, "a", at=1_000, status=Status.FAILED, keep_for=50)
    rest = {"run_id": "again", "execution": one.execution, "retries": one.run}
    again = world.start("a", copied=copied(b"a"), **rest)
    world.start("newest")
    assert world.store.prune(own(5_000)) == Pruned(0)
    assert keeps(world) == {one.execution: (50, 5_050)}
    world.commit(closing(again.run, first=2, claim=1, execution=one.execution))
    world.start("newer")
    assert world.store.prune(own(5_100)) == Pruned(2, 4)


def test_a_copy_is_kept_as_others(world: World):
    origin = ended(world, "origin", keep_for=0)
    fork = world.start("fork", copied=copied(b"a", b"b"), origin=(origin.run, 1, "fork"))
    assert (list(keeps(world)), fork.created) == ([origin.execution], True)
