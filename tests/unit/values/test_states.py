"""The life of an execution: the table is whole and closed."""

import pytest

from perdure.values.states import (
    BY_CODE,
    CODES,
    OPEN,
    TERMINAL,
    TRANSITIONS,
    ParkReason,
    Status,
    may,
)


def test_every_status_has_a_row_and_rows_name_statuses_only():
    assert TRANSITIONS.keys() == set(Status)
    assert set().union(*TRANSITIONS.values()) <= set(Status)


def test_nothing_follows_an_end():
    assert all(not TRANSITIONS[status] for status in TERMINAL)
    assert all(status.is_terminal for status in TERMINAL)


def test_every_open_status_has_a_way_on_and_can_be_ended_from_outside():
    assert frozenset(Status) == OPEN | TERMINAL
    for status in OPEN:
        assert {Status.TERMINATED, Status.TIMED_OUT} <= TRANSITIONS[status]
        assert not status.is_terminal


def test_every_status_but_the_first_can_be_reached():
    reached = {Status.PENDING}
    while more := set().union(*(TRANSITIONS[status] for status in reached)) - reached:
        reached |= more
    assert reached == set(Status)


def test_staying_is_always_allowed_and_ends_are_final():
    assert all(may(status, status) for status in Status)
    assert may(Status.RUNNING, Status.WAITING)
    assert not may(Status.COMPLETED, Status.RUNNING)


def test_codes_are_those_that_stored_rows_hold():
    assert {status.value: code for status, code in CODES.items()} == {
        "pending": 0,
        "running": 1,
        "waiting": 2,
        "paused": 3,
        "parked": 4,
        "completed": 5,
        "failed": 6,
        "cancelled": 7,
        "terminated": 8,
        "timed_out": 9,
        "continued_as_new": 10,
    }
    assert all(BY_CODE[code] is status for status, code in CODES.items())


def test_a_status_is_its_bare_value_as_text():
    assert str(Status.TIMED_OUT) == "timed_out"
    assert f"{Status.PARKED}" == "parked"
    assert Status("canceled") is Status.CANCELLED
    assert str(ParkReason.NONDETERMINISM) == "nondeterminism"


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="gone"):
        Status("gone")
