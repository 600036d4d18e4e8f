"""Running the named queries on a connection of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from perdure.store.port import Batch
from perdure.store.postgres.connect import Connection
from perdure.store.postgres.holding import Foreseen, Overtaken, hold_executions
from perdure.store.queries import load_queries
from perdure.store.sql.encoding import to_json

QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
_OURS = re.compile(r"""(?<!['".\w])perdure_\w+""")
_WITH_IDS = frozenset({"insert_inbox"})


@cache
def queries_in(schema: str) -> Mapping[str, str]:
    """Return the named queries with every table named by its schema."""
    texts = {name: _OURS.sub(rf'"{schema}".\g<0>', text) for name, text in QUERIES.items()}
    sequence = "nextval('"
    return {name: text.replace(sequence, f"{sequence}{schema}.") for name, text in texts.items()}


class Statements:
    """Named queries on a connection: see ``perdure.store.sql.database.Writing``."""

    connection: Connection
    sql: Mapping[str, str]
    schema: str
    pipeline: psycopg.Pipeline | None = None

    def run(self, query: str, *parameters: Any) -> Any:
        answer = self.execute(self.sql[query], parameters)
        return answer if self.pipeline is None else Sent(answer, self.pipeline)

    def ask(self, text: str, parameters: Sequence[Any]) -> Any:
        # Which index is right depends on the values, and these sessions make generic plans of
        # whatever has parameters, prepared or not. So the driver writes the values into the text.
        named = _OURS.sub(rf'"{self.schema}".\g<0>', text).replace("%", "%%").replace("?", "%s")
        cursor = psycopg.ClientCursor(self.connection, row_factory=tuple_row)
        answer = cursor.execute(named.encode(), parameters)
        return answer if self.pipeline is None else Sent(answer, self.pipeline)

    def insert(self, query: str, columns: int, flat: Sequence[Any]) -> Sequence[int]:
        arrays = [_column(flat[n::columns]) for n in range(columns)]
        answer = self.execute(self.sql[query], arrays)
        if query not in _WITH_IDS:
            return ()
        if self.pipeline is not None:
            answer = Sent(answer, self.pipeline)
        return [row[0] for row in answer.fetchall()]

    def execute(
        self, text: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None
    ) -> Any:
        """Run a statement; ``$1`` is the first of its parameters.

        In a pipeline it is sent, and whoever wants the answer waits for it.
        """
        cursor = self.connection.cursor(binary=True)
        return cursor.execute(text.encode(), parameters or None, prepare=prepare)

    def foresee(self, batch: Batch) -> Foreseen:
        return Foreseen(self, batch)

    def hold(self, foreseen: Foreseen, *, limits: bool) -> None:
        foreseen.hold(limits=limits)

    def hold_anew(self) -> None:
        raise Overtaken

    def hold_slots(self) -> None:
        self.run("hold_slots")

    def hold_human_tasks(self, ids: Sequence[str]) -> None:
        wanted = to_json(list(ids))
        found = self.run("executions_of_human_tasks", wanted).fetchall()
        if found:
            hold_executions(self, [row[0] for row in found])
        self.run("hold_human_tasks", wanted)

    def hold_executions(self, executions: Sequence[int]) -> bool:
        hold_executions(self, executions)
        return True

    def guess_runs(self, count: int, after: int) -> None:
        return None

    def draw_runs(self, count: int) -> Any:
        return self.run("draw_runs", count)

    def new_runs(self, guess: Sequence[int], above: int) -> Sequence[int]:
        if not guess or guess[0] > above:
            return guess
        return [row[0] for row in self.run("draw_runs", len(guess)).fetchall()]


class Sent:
    """A statement that was sent; asking for its answer waits for it.

    Who waits says that nothing more comes for now (a sync, where a flush would do). Then the server
    knows a transaction that is idle when it sees one, and ends it in time: that of a process that
    was stopped would hold its locks for ever.
    """

    __slots__ = ("_cursor", "_pipeline")

    def __init__(self, cursor: Any, pipeline: psycopg.Pipeline) -> None:
        self._cursor = cursor
        self._pipeline = pipeline

    @property
    def rowcount(self) -> int:
        self._wait()
        return int(self._cursor.rowcount)

    def fetchone(self) -> Any:
        self._wait()
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        self._wait()
        return self._cursor.fetchall()

    def _wait(self) -> None:
        if self._cursor.pgresult is None:
            self._pipeline.sync()


def _column(values: Sequence[Any]) -> list[Any]:
    """Return a column as a list of one type: a flag is a number."""
    if values and isinstance(values[0], int):
        to_number: Callable[[Any], int] = int
        return list(map(to_number, values))
    return list(values)
