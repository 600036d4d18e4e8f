"""Rates: texts, and how many begin in a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.values.rates import parse_rate

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("100/minute", 600_000, 1),
        ("100/m", 600_000, 1),
        ("100 / min", 600_000, 1),
        ("10/s", 100_000, 1),
        ("10/seconds", 100_000, 1),
        ("1/hour", 3_600 * SECOND, 1),
        ("24/day", 3_600 * SECOND, 1),
        ("7/second", 142_858, 1),
        ("1000/s", 1_000, 100),
        ("10/s burst 20", 100_000, 20),
        ("1000/s, burst 1", 1_000, 1),
    ],
)
def test_a_rate_is_an_interval_and_a_burst(text: str, interval: int, burst: int):
    rate = parse_rate(text)
    assert (rate.interval, rate.burst, rate.text) == (interval, burst, text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a rate"),
        ("100", "is not a rate"),
        ("100/week", "is not a rate"),
        ("-1/s", "is not a rate"),
        ("1.5/s", "is not a rate"),
        ("0/s", "lets nobody begin"),
        ("10001/s", "more than 10,000 a second"),
        ("1/s burst 0", "a burst is a number"),
    ],
)
def test_what_is_no_rate_is_refused_with_its_name(text: str, why: str):
    with pytest.raises(Invalid, match=f"^rate_per_key: .*{why}"):
        parse_rate(text, what="rate_per_key")


RATES = ["1/s", "10/s burst 5", "100/minute", "999/s", "3/hour burst 2"]


@given(
    st.sampled_from(RATES),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 9)), max_size=60),
)
def test_in_no_span_do_more_begin_than_the_burst_and_the_rate(
    text: str, arrivals: list[tuple[int, int]]
):
    rate, now, paid_until = parse_rate(text), 0, 0
    begun: list[int] = []
    for pause, wanted in arrivals:
        now += pause
        count = min(wanted, rate.left(paid_until, now))
        paid_until = rate.paid(paid_until, now, count) if count else paid_until
        begun += [now] * count
    for first, since in enumerate(begun):
        for last in range(first, len(begun)):
            span = begun[last] - since
            assert last - first + 1 <= rate.burst + span // rate.interval


@given(st.sampled_from(RATES), st.integers(0, 10**10), st.integers(0, 10**10))
def test_the_next_may_begin_exactly_when_it_is_said(text: str, paid_until: int, now: int):
    rate = parse_rate(text)
    at = rate.next_at(paid_until)
    assert (rate.left(paid_until, now) > 0) is (now >= at)
    assert rate.left(paid_until, at - 1) == 0
    assert 0 <= rate.left(paid_until, now) <= rate.burst
