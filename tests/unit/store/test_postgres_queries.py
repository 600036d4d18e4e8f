"""The two dialects have the same named queries."""

import re
from pathlib import Path

import pytest

import perdure.store
from perdure.store.queries import load_queries

STORES = Path(perdure.store.__file__).parent
SQLITE = load_queries(STORES / "sqlite" / "queries.sql")
POSTGRES = load_queries(STORES / "postgres" / "queries.sql")
ONLY_SQLITE = {"next_run"}  # PostgreSQL draws numbers of runs from a sequence
ONLY_POSTGRES = {
    "draw_runs",
    # Parts of others: arrays made of JSON, and what the journal may show.
    "numbers",
    "settled",
    "texts",
    # SQLite has one writer, who needs no other locks.
    "executions_of_human_tasks",
    "executions_of_ids",
    "hold_executions",
    "hold_human_tasks",
    "hold_ids",
    "hold_places",
    "hold_slots",
    "hold_workers",
    "relations",
    "end_silent",
    # A transactional activity looks at its deciding row first and takes it last.
    "find_open_tx",
    # The store has a clock of its own.
    "now",
}


def test_names_stand_in_both_dialects_but_for_those_that_are_said_here():
    assert set(SQLITE) - set(POSTGRES) == ONLY_SQLITE
    assert set(POSTGRES) - set(SQLITE) == ONLY_POSTGRES


def parameters(text: str) -> int:
    numbered = [int(number) for number in re.findall(r"[$?](\d+)", text)]
    return max(numbered, default=0) or text.count("?")


IGNORED_BY_SQLITE = {"extend": 1, "fence": 1}
"""The time that the worker thinks it is: leases are judged on the store's clock in PostgreSQL."""
MANY_ROWS = {
    "insert_audit",
    "insert_beats",
    "insert_history",
    "insert_inbox",
    "insert_mail",
    "insert_tasks",
}


@pytest.mark.parametrize("name", sorted((set(SQLITE) & set(POSTGRES)) - MANY_ROWS))
def test_a_query_has_as_many_parameters_in_both(name: str):
    expected = parameters(POSTGRES[name]) - IGNORED_BY_SQLITE.get(name, 0)
    assert parameters(SQLITE[name]) == expected


@pytest.mark.parametrize("name", sorted(MANY_ROWS))
def test_rows_with_bytes_have_an_array_for_each_column(name: str):
    columns = SQLITE[name].partition("(")[2].partition(")")[0].split(",")
    assert len(columns) == parameters(POSTGRES[name])
