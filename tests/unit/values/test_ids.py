"""Ids: UUIDv7 text for runs, checked text for executions."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.values.ids import check_workflow_id, uuid7


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=10, max_size=10))
def test_a_run_id_is_a_uuid_of_version_7_that_tells_its_time(milliseconds, chance):
    made = uuid.UUID(uuid7(milliseconds, chance))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == milliseconds


def test_run_ids_sort_by_time():
    made = [uuid7(milliseconds, b"\xff" * 10) for milliseconds in (1, 2, 10, 1_750_000_000_000)]
    assert made == sorted(made)


def test_the_same_time_and_chance_give_the_same_id():
    assert uuid7(5, b"0123456789") == uuid7(5, b"0123456789")
    assert uuid7(5, b"0123456789") != uuid7(5, b"9876543210")


@pytest.mark.parametrize("text", ["order-7", "a", "x" * 255, "Bestellung ü/7", "a@b", "0"])
def test_ordinary_text_can_be_an_executions_id(text):
    assert check_workflow_id(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 characters"),
        ("x" * 256, "256 characters"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
        ("a\x7f", "control characters"),
        ("\ud800", "is not valid UTF-8"),
        ("@box", "kept for mailboxes"),
        (7, "is not text"),
        (None, "is not text"),
        (b"order", "is not text"),
    ],
)
def test_other_ids_are_refused_with_the_reason(text, why):
    with pytest.raises(Invalid, match=why):
        check_workflow_id(text)
