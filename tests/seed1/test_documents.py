"""The page of messages and children says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.client import _OPTIONS
from perdure.values.options import ALIASES, SHARED

PAGE = Path(__file__).parents[2] / "docs" / "messages-and-children.md"
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+)(?: \(`(\w+)`\))? \|.* \|$", re.MULTILINE)


def rows_of_options() -> list[tuple[list[str], str, str]]:
    table = PAGE.read_text().partition("## Start options")[2]
    return [
        (re.findall(r"`(\w+)`", found[1]), found[2] or "", found[0])
        for found in ROW.finditer(table)
    ]


def test_the_table_of_start_options_has_each_one_under_both_of_its_names():
    rows = rows_of_options()
    named = [name for names, _, _ in rows for name in names]
    assert sorted(named) == sorted(_OPTIONS)
    assert {long: names[0] for names, long, _ in rows if long} == ALIASES


def test_the_table_of_start_options_says_which_ones_children_do_not_take():
    for names, _, text in rows_of_options():
        assert all((name not in SHARED) is ("clients only" in text) for name in names), text


def test_the_examples_that_the_page_names_are_there():
    named = re.findall(r"\]\(\.\./(examples/\w+\.py)\)", PAGE.read_text())
    assert len(set(named)) >= 4
    assert [name for name in named if not (PAGE.parents[1] / name).exists()] == []
