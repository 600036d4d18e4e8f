"""Durations: every way to write them, and what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.values.duration import SECOND, microseconds, optional_microseconds, to_text

HOUR = 3600 * SECOND
CENTURY = 100 * 366 * 24 * HOUR


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("200ms", 200_000),
        ("5s", 5 * SECOND),
        ("1h30m", 90 * 60 * SECOND),
        ("7d", 7 * 24 * HOUR),
        ("2w", 14 * 24 * HOUR),
        ("750us", 750),
        ("1.5s", 1_500_000),
        ("1h 30m", 90 * 60 * SECOND),
        (" 5s ", 5 * SECOND),
        ("PT1H", HOUR),
        ("PT1H30M", HOUR + HOUR // 2),
        ("P1DT12H", 36 * HOUR),
        ("P2W", 14 * 24 * HOUR),
        ("PT0.5S", SECOND // 2),
        ("90", 90 * SECOND),
        ("0", 0),
        (90, 90 * SECOND),
        (0.25, SECOND // 4),
        (0, 0),
        (timedelta(hours=1, microseconds=1), HOUR + 1),
        (timedelta(days=3), 72 * HOUR),
    ],
)
def test_a_duration_can_be_written_in_these_ways(written, expected):
    assert microseconds(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "soon",
        "5 parsecs",
        "5s3",
        "h",
        "P",
        "PT",
        "P1H",
        "PTS",
        "--5s",
        "5m!",
        "1e",
        "s5",
        "nan",
    ],
)
def test_text_that_is_no_duration_is_refused(written):
    with pytest.raises(Invalid, match="is not a"):
        microseconds(written)


@pytest.mark.parametrize("written", [True, None, [], {}, object(), b"5s"])
def test_other_types_are_refused(written):
    with pytest.raises(Invalid, match="is not a duration"):
        microseconds(written)


@pytest.mark.parametrize("written", [float("nan"), float("inf"), float("-inf"), "inf", "1e999"])
def test_what_is_not_finite_is_refused(written):
    with pytest.raises(Invalid, match="not a"):
        microseconds(written)


@pytest.mark.parametrize("written", [-1, -0.5, "-5", timedelta(seconds=-1)])
def test_a_negative_duration_is_refused(written):
    with pytest.raises(Invalid, match="is negative"):
        microseconds(written)


@pytest.mark.parametrize("written", ["40000d", 1e12, timedelta(days=40_000), "P6000W"])
def test_more_than_a_hundred_years_is_refused(written):
    with pytest.raises(Invalid, match="over 100 years"):
        microseconds(written)


def test_a_hundred_years_are_allowed():
    assert microseconds("36600d") == CENTURY


def test_the_error_names_what_the_duration_is_for():
    with pytest.raises(Invalid, match=r"^retry interval: 'x' is not a duration; write '200ms'"):
        microseconds("x", what="retry interval")


def test_an_optional_duration_may_be_none():
    assert optional_microseconds(None) is None
    assert optional_microseconds("2s") == 2 * SECOND


@given(st.integers(min_value=0, max_value=CENTURY))
def test_text_made_of_a_duration_is_read_back_as_the_same(value):
    assert microseconds(to_text(value)) == value


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_600)))
def test_a_timedelta_keeps_every_microsecond(value):
    assert microseconds(value) == value // timedelta(microseconds=1)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_invalid(text):
    try:
        assert 0 <= microseconds(text) <= CENTURY
    except Invalid:
        pass
