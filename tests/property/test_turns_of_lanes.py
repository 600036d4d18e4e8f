"""Nobody has a second turn before everybody had one, whatever waits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from perdure.store.sql.turns import circle, pick
from perdure.values.rates import Rate

waiting = st.dictionaries(st.text(max_size=2), st.integers(0, 6), min_size=1, max_size=6).map(
    lambda lanes: {
        lane: [100 * n + i for i in range(count)] for n, (lane, count) in enumerate(lanes.items())
    }
)


@given(waiting, st.integers(0, 30), st.integers(0, 4))
def test_turns_go_round_and_stop_where_there_is_no_more_room(
    lanes: dict[str, list[int]], free: int, most: int
):
    picked, last = pick(lanes, free, lambda _: most, is_cut=False)
    of = {id: lane for lane, ids in lanes.items() for id in ids}
    taken = Counter(of[id] for id in picked)
    could = {lane: min(len(ids), most) for lane, ids in lanes.items()}
    assert len(picked) == min(free, sum(could.values()))
    assert len(set(picked)) == len(picked)
    assert last == (of[picked[-1]] if picked else None)
    for lane, ids in lanes.items():
        assert [id for id in picked if of[id] == lane] == ids[: taken[lane]], "the oldest first"
        if taken[lane] < could[lane]:
            assert all(count <= taken[lane] + 1 for count in taken.values())


@given(waiting, st.integers(0, 30))
def test_one_round_only_where_some_lanes_were_not_looked_at(lanes: dict[str, list[int]], free: int):
    picked, _ = pick(lanes, free, lambda _: 99, is_cut=True)
    of = {id: lane for lane, ids in lanes.items() for id in ids}
    assert max(Counter(of[id] for id in picked).values(), default=0) <= 1


def test_a_lane_that_may_not_be_whole_is_left_out_unless_it_is_alone():
    found = [("a", "x"), ("a", "y"), ("b", "x")]
    assert circle(found, is_cut=False) == {"a": ["x", "y"], "b": ["x"]}
    assert circle(found, is_cut=True) == {"a": ["x", "y"]}
    assert circle(found[:2], is_cut=True) == {"a": ["x", "y"]}


@given(
    st.integers(1, 1_000),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 30)), max_size=60),
)
def test_a_rate_never_lets_more_begin_than_it_says(
    interval: int, burst: int, asked: list[tuple[int, int]]
):
    rate, now, arrival = Rate("", interval, burst), 1_000_000, 0
    begun: list[int] = []
    for later, wanted in asked:
        now += later
        count = min(wanted, rate.left(arrival, now))
        if count:
            arrival = rate.paid(arrival, now, count)
            begun += [now] * count
        if not rate.left(arrival, now):
            assert rate.left(arrival, rate.next_at(arrival)) >= 1
            assert rate.left(arrival, rate.next_at(arrival) - 1) == 0
    for first in range(len(begun)):
        for last in range(first, len(begun)):
            span = begun[last] - begun[first]
            assert last - first + 1 <= burst + span // interval + 1
