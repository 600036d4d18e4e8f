"""Retry policies: what is left out, how long to wait, when to stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import ApplicationError, errors
from perdure.values import failures
from perdure.values.duration import SECOND
from perdure.values.retry import ACTIVITY_DEFAULT, Retry, RetryPolicy


def failure(message="no luck", **options):
    return failures.from_exception(ApplicationError(message, **options))


def test_activities_retry_without_limit_from_one_second_doubling_to_a_hundred():
    delays = [ACTIVITY_DEFAULT.delay_after(attempt) for attempt in range(1, 10)]
    assert delays == [seconds * SECOND for seconds in (1, 2, 4, 8, 16, 32, 64, 100, 100)]
    assert ACTIVITY_DEFAULT.allows(failure(), 1_000_000)


def test_what_is_left_out_comes_from_the_default():
    base = RetryPolicy(max_attempts=1, interval=5, backoff=3.0, max_interval=7, retry_on=("A",))
    assert Retry(max_attempts=4).resolve(base) == RetryPolicy(
        max_attempts=4, interval=5, backoff=3.0, max_interval=7, retry_on=("A",)
    )
    assert Retry().resolve(base) == base
    assert Retry(interval="2s", non_retryable=["B"]).resolve() == RetryPolicy(
        interval=2 * SECOND, non_retryable=("B",)
    )


def test_the_last_attempt_is_the_last():
    policy = Retry(max_attempts=3).resolve()
    assert [policy.allows(failure(), attempt) for attempt in (1, 2, 3, 4)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_failure_that_forbids_it_is_not_tried_again():
    assert not ACTIVITY_DEFAULT.allows(failure(retryable=False), 1)


@pytest.mark.parametrize("pattern", ["InvalidCard", "ApplicationError", "declined by"])
def test_a_kind_a_class_or_text_in_the_message_stops_retries(pattern):
    policy = Retry(non_retryable=(pattern,)).resolve()
    assert not policy.allows(failure("declined by the bank", kind="InvalidCard"), 1)
    assert policy.allows(failures.from_exception(OSError("reset")), 1)


def test_with_retry_on_nothing_else_is_tried_again():
    policy = Retry(retry_on=("Unavailable", "OSError")).resolve()
    assert policy.allows(failure(kind="Unavailable"), 1)
    assert policy.allows(failures.from_exception(OSError("reset")), 1)
    assert not policy.allows(failure(kind="Conflict"), 1)


def test_non_retryable_wins_over_retry_on():
    policy = Retry(retry_on=("Unavailable",), non_retryable=("maintenance",)).resolve()
    assert not policy.allows(failure("maintenance", kind="Unavailable"), 1)


@given(
    st.integers(1, 10**9),
    st.integers(0, 10**12),
    st.floats(1.0, 1000.0),
    st.integers(0, 10**12),
)
def test_a_delay_is_never_negative_and_never_over_the_cap(attempt, interval, backoff, cap):
    policy = RetryPolicy(interval=interval, backoff=backoff, max_interval=cap)
    assert 0 <= policy.delay_after(attempt) <= cap


@given(st.integers(1, 100), st.floats(1.0, 10.0))
def test_delays_never_shrink(attempt, backoff):
    policy = RetryPolicy(backoff=backoff)
    assert policy.delay_after(attempt) <= policy.delay_after(attempt + 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": -1},
        {"max_attempts": 10**30},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"backoff": 0.5},
        {"backoff": 1001},
        {"interval": "soon"},
        {"max_interval": -1},
    ],
)
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(errors.Invalid, match="retry"):
        Retry(**bad)


def test_it_shows_what_was_given():
    assert repr(Retry(max_attempts=2, backoff=1.5)) == "Retry(max_attempts=2, backoff=1.5)"
