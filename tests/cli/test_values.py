"""How typed values are read, and how tables are drawn."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.cli import given as reading
from perdure.cli import table
from perdure.cli.out import took
from perdure.errors import Invalid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
def test_whatever_json_writes_is_read_back(value: object):
    text = msgspec.json.encode(value).decode()
    assert reading.value(text) == value
    assert reading.payload([f"key={text}"]) == {"key": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.5", 1.5), ("true", True), ("null", None), ("007", "007"), ("1e", "1e"),
     ("a b", "a b"), ("", ""), ("NaN", "NaN"), ('"1"', "1"), ("True", "True")],
)  # fmt: skip
def test_a_field_is_json_if_it_can_be_and_text_if_not(text: str, value: object):
    assert reading.scalar(text) == value


@pytest.mark.parametrize("text", ["{", '{"a": }', "[1,", '"open'])
def test_what_looks_like_a_document_must_be_one(text: str):
    with pytest.raises(Invalid, match="not JSON"):
        reading.value(text)


def test_fields_are_laid_over_the_document():
    assert reading.payload(['{"a": 1, "b": 2}', "b=3", "c-d=4"]) == {"a": 1, "b": 3, "c-d": 4}


def test_a_document_that_holds_an_equals_sign_is_no_field():
    assert reading.payload(['{"a": "b=c"}']) == {"a": "b=c"}


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3), max_size=5))
def test_a_table_has_one_line_per_row_whatever_the_cells_hold(rows: list[list[str]]):
    lines = table.render(["A", "B", "C"], rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)


def test_columns_are_aligned_by_what_is_shown():
    lines = table.render(["A", "B"], [["日本", "x"], ["abcd", "y"], ["é", "z"]]).split("\n")
    assert lines == ["A     B", "日本  x", "abcd  y", "é     z"]


def test_what_would_move_the_cursor_is_shown_as_code():
    assert table.clean("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert table.clean("two\n lines") == "two lines"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0ms"), (0, "0ms"), (0.25, "250ms"), (3.21, "3.21s"), (59.9, "59s"), (60, "1m"),
     (3_600, "1h"), (3_661, "1h1m"), (90_000, "1d1h"), (86_400 + 5, "1d")],
)  # fmt: skip
def test_spans_have_two_units_at_most(seconds: float, text: str):
    assert took(seconds) == text
