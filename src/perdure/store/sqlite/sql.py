"""Running the named queries on a connection of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from perdure.store.port import Batch
from perdure.store.queries import load_queries

SQL = load_queries(Path(__file__).with_name("queries.sql"))

CHUNK = 100
"""Rows of one multi-row INSERT: beyond, the statement only gets slower to prepare."""


class ManyRows:
    """``INSERT ... VALUES`` of several rows that hold bytes; the texts are made once per size."""

    def __init__(self, name: str, columns: int) -> None:
        self.columns = columns
        self._head = SQL[name]
        self._row = "(" + ",".join("?" * columns) + ")"
        self._texts: dict[int, str] = {}

    def statements(self, flat: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield statements and their parameters for rows laid end to end in ``flat``."""
        size = CHUNK * self.columns
        for start in range(0, len(flat), size):
            part = flat if len(flat) <= size else flat[start : start + size]
            rows = len(part) // self.columns
            text = self._texts.get(rows)
            if text is None:
                text = self._texts[rows] = f"{self._head} {','.join([self._row] * rows)}"
            yield text, part


_many_rows: dict[str, ManyRows] = {}


class Statements:
    """Named queries on a connection: see ``perdure.store.sql.database.Writing``.

    Whoever writes holds the only write lock, from the begin of the transaction to its end: nothing
    else has to be held.
    """

    sql: Mapping[str, str] = SQL

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> sqlite3.Cursor:
        """Run a statement."""
        raise NotImplementedError

    def run(self, query: str, *parameters: Any) -> sqlite3.Cursor:
        # For the driver ?1, ?2 ... are names, which it binds from a mapping only (a warning since
        # Python 3.12, an error in 3.14).
        named = {str(n): value for n, value in enumerate(parameters, 1)}
        return self.execute(SQL[query], named)

    def ask(self, text: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        return self.execute(text, parameters)

    def insert(self, query: str, columns: int, flat: Sequence[Any]) -> Sequence[int]:
        many = _many_rows.get(query)
        if many is None:
            many = _many_rows[query] = ManyRows(query, columns)
        ids: list[range] = []
        for text, part in many.statements(flat):
            last = self.execute(text, part).lastrowid or 0
            ids.append(range(last - len(part) // columns + 1, last + 1))
        return ids[0] if len(ids) == 1 else list(chain(*ids))

    def foresee(self, batch: Batch) -> None:
        pass

    def hold(self, foreseen: None, *, limits: bool) -> None:
        pass

    def hold_anew(self) -> None:
        pass

    def hold_slots(self) -> None:
        pass

    def hold_human_tasks(self, ids: Sequence[str]) -> None:
        pass

    def hold_executions(self, executions: Sequence[int]) -> bool:
        return False

    def guess_runs(self, count: int, after: int) -> Sequence[int]:
        return range(after + 1, after + 1 + count)

    def draw_runs(self, count: int) -> sqlite3.Cursor:
        raise AssertionError("numbers can always be guessed here")

    def new_runs(self, guess: Sequence[int], above: int) -> Sequence[int]:
        first: int = self.run("next_run").fetchone()[0]
        return range(first, first + len(guess))
