"""The bound on waiting in a queue holds whatever comes, ends, pauses and however long lanes are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.store_contract import OPENERS, World, closing

from perdure.store.port import Definition, Limit, Started
from perdure.store.sql import ranks
from perdure.store.sqlite.store import SqliteStore
from perdure.values.concurrency import Place

LANES = ["", "a", "b", "c", "d"]
STARTS = st.tuples(
    st.just("start"), st.sampled_from(LANES), st.sampled_from(["", "k1", "k2"]), st.integers(0, 1)
)
FLOODS = st.tuples(st.just("flood"), st.sampled_from(LANES), st.integers(1, 12), st.just(0))
ENDS = st.tuples(st.just("end"), st.integers(0, 9), st.just(0), st.just(0))
LEAVES = st.tuples(st.just("leave"), st.integers(0, 30), st.just(0), st.just(0))
STEPS = st.lists(st.one_of(STARTS, FLOODS, ENDS, ENDS, ENDS, LEAVES), max_size=60)
LIMITS = st.builds(
    Limit,
    max_open=st.integers(1, 3),
    max_per_key=st.integers(0, 2),
    on_limit=st.just("queue"),
)


class Waiting:
    """One that is ready: how many may still be let in before it."""

    def __init__(self, priority: int, left: int) -> None:
        self.priority = priority
        self.left = left


class Queue:
    """The queue of one workflow, watched from outside after every step."""

    def __init__(self, world: World, limit: Limit) -> None:
        self.world = world
        self.limit = limit
        self.started: dict[int, Started] = {}
        self.lanes: dict[int, tuple[str, int]] = {}
        self.ready: dict[int, Waiting] = {}
        world.join("limiting", Definition("order", "1", limit=limit))

    def places(self) -> dict[int, tuple[int, int, int]]:
        database: Any = self.world.store.database  # type: ignore[attr-defined]
        rows = database.execute("SELECT execution, place, rank, turn FROM perdure_slot").fetchall()
        return {row[0]: tuple(row[1:]) for row in rows}

    def start(self, lane: str, key: str = "", priority: int = 0) -> None:
        number = len(self.lanes)
        self.world.now += 1
        started = self.world.start(f"w{number}", tenant=lane or None, key=key, priority=priority)
        self.started[started.execution] = started
        self.lanes[started.execution] = (lane or key, priority)
        self.look()

    def end(self, place: Place, number: int) -> None:
        found = sorted(one for one, (at, *_) in self.places().items() if at == place)
        if found:
            started = self.started[found[number % len(found)]]
            self.ready.pop(started.execution, None)
            ends = closing(started.run, first=2, claim=1, execution=started.execution)
            self.world.commit(ends)
            self.look()

    def look(self) -> None:
        """Count who was let in, and note the bound of those who have got ready."""
        places = self.places()
        let_in = [one for one in self.ready if places[one][0] == Place.TAKEN]
        for one in let_in:
            waiting = self.ready.pop(one)
            # Several are let in at once: those of them that stood before it count.
            before = [
                other
                for other in let_in
                if other != one and places[other][1:] < places[one][1:]
                if self.lanes[other][1] == waiting.priority
            ]
            assert len(before) <= waiting.left
        for waiting in self.ready.values():
            waiting.left -= sum(self.lanes[one][1] == waiting.priority for one in let_in)
            assert waiting.left >= 0
        ready = {one for one, (place, *_) in places.items() if place == Place.READY}
        for one in set(self.ready) - ready:
            del self.ready[one]  # its key is full again
        for one in ready - set(self.ready):
            lane, priority = self.lanes[one]
            beside = {self.lanes[other] for other in ready}
            lanes = {other for other, level in beside if level == priority}
            mates = [o for o in ready if o != one and self.lanes[o] == (lane, priority)]
            if not [o for o in mates if places[o][1:] < places[one][1:]]:
                self.ready[one] = Waiting(priority, 2 * (len(lanes) - 1))

    def check_ranks(self) -> None:
        """No lane has two of one rank; and what ranks say is what is let in next."""
        places = self.places()
        seen: set[Any] = set()
        for one, (place, rank, turn) in places.items():
            if place == Place.READY:
                assert rank >= 0
                assert turn >= 0
                assert (*self.lanes[one], rank) not in seen
                seen.add((*self.lanes[one], rank))


@contextmanager
def queue(limit: Limit) -> Iterator[Queue]:
    opened = OPENERS["memory"](None)  # type: ignore[arg-type]
    assert isinstance(opened, SqliteStore)
    world = World(opened)
    try:
        yield Queue(world, limit)
    finally:
        opened.close()


def play(limit: Limit, steps: list[Any]) -> None:
    with queue(limit) as line:
        for what, first, second, third in steps:
            if what == "start":
                line.start(first, second, third)
            elif what == "flood":
                for _ in range(second):
                    line.start(first)
            elif what == "end":
                line.end(Place.TAKEN, first)
            else:
                line.end(Place.READY, first)
            line.check_ranks()


@settings(max_examples=60, deadline=None)
@given(LIMITS, STEPS)
def test_the_first_of_a_lane_is_let_in_after_two_of_each_other_at_most(
    limit: Limit, steps: list[Any]
):
    play(limit, steps)


def test_the_bound_is_met_and_no_better_one_is_true():
    with queue(Limit(max_open=1, on_limit="queue")) as line:
        line.start("x")
        for lane in "abc":
            for _ in range(5):
                line.start(lane)
        line.end(Place.TAKEN, 0)  # the lanes stand side by side now
        line.start("late")
        late = max(line.started)
        assert line.ready[late].left == 2 * 3
        for left in (5, 4, 3, 2, 1, 0):
            line.end(Place.TAKEN, 0)
            assert line.ready[late].left == left
        line.end(Place.TAKEN, 0)
        assert line.places()[late][0] == Place.TAKEN


def test_lanes_that_always_come_back_do_not_keep_the_second_of_another_waiting():
    with queue(Limit(max_open=1, on_limit="queue")) as line:
        for lane in ("a", "b", "c"):
            line.start(lane)
        line.start("x")
        line.start("x")
        second = max(line.started)
        for _ in range(12):
            [running] = [one for one, (at, *_) in line.places().items() if at == Place.TAKEN]
            if running == second:
                return
            lane = line.lanes[running][0]
            line.end(Place.TAKEN, 0)
            if lane != "x":
                line.start(lane)
        pytest.fail("it was passed over again and again")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(LANES), min_size=1, max_size=200))
def test_ranks_of_many_at_once_are_those_of_one_after_the_other(lanes: list[str]):
    at_once = ranks.Ranks([])
    given_at_once = [at_once.enter(ranks.Entrant(n, "w", 0, lane)) for n, lane in enumerate(lanes)]
    seen: dict[str, int] = {}
    lowest: int | None = None
    for lane, rank in zip(lanes, given_at_once, strict=True):
        again = ranks.Ranks([("w", 0, lane, lowest, seen.get(lane))])
        assert again.enter(ranks.Entrant(0, "w", 0, lane)) == rank
        assert rank is not None
        seen[lane] = rank
        lowest = rank if lowest is None else min(lowest, rank)
