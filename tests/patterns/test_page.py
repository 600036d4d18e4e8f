"""docs/patterns.md shows the code that the tests run, for every pattern."""

from __future__ import annotations

import re

from tests.patterns.page import PAGE, PATTERNS, blocks, code_of


def test_all_43_patterns_are_tried():
    assert sorted(PATTERNS) == list(range(1, 44))


def test_the_page_shows_the_code_that_the_tests_run():
    shown = dict(blocks(PAGE.read_text()))
    assert sorted(shown) == sorted(["Steps", *map(str, PATTERNS)])
    for about, code in shown.items():
        assert code == code_of(about), f"{about}: run python -m tests.patterns.page"


def test_the_table_has_each_pattern_by_the_name_of_its_section():
    page = PAGE.read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|", page, re.MULTILINE))
    assert rows == dict(re.findall(r"^## (\d+) (.+)$", page, re.MULTILINE))
    assert [int(number) for number in rows] == list(range(1, 44))
