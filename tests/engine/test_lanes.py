"""Lanes take turns inside a worker; threads are given out in the same order."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from perdure.engine.lanes import LANE_FULL, Lanes, full_lanes, is_any_short
from perdure.engine.threads import ThreadPool


class Item:
    def __init__(self, lane: str, priority: int = 0) -> None:
        self.lane = lane
        self.priority = priority


def filled(*items: Item) -> Lanes[Item]:
    lanes: Lanes[Item] = Lanes()
    for item in items:
        lanes.append(item, item.lane, item.priority)
    return lanes


def drained(lanes: Lanes[Item]) -> str:
    return "".join(lanes.popleft().lane for _ in range(len(lanes)))


def test_lanes_take_turns_and_the_higher_priority_is_first():
    items = [Item(lane) for lane in "aaaabbc"]
    assert drained(filled(*items, Item("z", 5), Item("z", -1))) == "zabcabaaz"


def test_one_that_is_taken_away_is_in_nobodys_way():
    items = [Item(lane) for lane in "aabb"]
    lanes = filled(*items)
    lanes.remove(items[0], "a", 0)
    lanes.remove(items[3], "b", 0)
    assert (len(lanes), lanes.lengths(), drained(lanes)) == (2, {"a": 1, "b": 1}, "ab")


@given(st.lists(st.one_of(st.sampled_from("abcd"), st.none()), max_size=80))
def test_the_first_of_a_lane_is_behind_one_of_each_other_at_most(steps: list[str | None]):
    lanes: Lanes[Item] = Lanes()
    waiting: dict[str, int] = {}
    count = 0
    for step in steps:
        if step is not None:
            if not lanes.length(step):
                waiting[step] = len(lanes.lengths())
            lanes.append(Item(step), step, 0)
            count += 1
        elif count:
            count -= 1
            lane = lanes.popleft().lane
            waiting.pop(lane, None)
            waiting = {other: left - 1 for other, left in waiting.items()}
            assert all(left >= 0 for left in waiting.values())
            if lanes.length(lane):
                waiting.setdefault(lane, len(lanes.lengths()))
        assert len(lanes) == count == sum(lanes.lengths().values())


def test_a_lane_is_full_by_what_waits_anywhere_and_short_at_half_of_it():
    half = [Item("a") for _ in range(LANE_FULL // 2)]
    lines = [filled(*half), filled(*half, Item("b"))]
    assert full_lanes(lines) == ["a"]
    assert not is_any_short(lines, ["a"])
    for item in half:
        lines[0].remove(item, "a", 0)
    assert full_lanes(lines) == []
    assert is_any_short(lines, ["a"])


async def test_threads_are_given_to_lanes_in_turns():
    pool = ThreadPool(1)
    gate, order = threading.Event(), list[str]()
    first = pool.submit(gate.wait)
    others = [pool.submit(order.append, lane, lane=lane) for lane in "aaab"]
    others.append(pool.submit(order.append, "z", lane="a", priority=1))
    gate.set()
    await asyncio.gather(first, *others)
    pool.close()
    assert "".join(order) == "zabaa"
