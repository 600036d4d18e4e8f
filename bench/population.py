"""A database with a million runs as a busy installation has them: for lists, plans and retention.

    python bench/population.py sqlite:////tmp/large.db --runs 1000000

Rows are written past the port, in bulk, as the store writes them: few workflows and tenants have
most of the runs, most runs have ended, and some values are only found among the oldest. The numbers
come from a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any
from zlib import crc32

from perdure.store.opening import open_store
from perdure.values import events as ev
from perdure.values.ids import uuid7
from perdure.values.states import CODES, Status

SECOND = 1_000_000
DAYS = 25
"""Over how long the runs were started: all are younger than what retention deletes."""
WORKFLOWS = tuple(f"shop.workflow_{n}" for n in range(12))
TENANTS = tuple(f"tenant-{n:03}" for n in range(200))
PEOPLE = tuple(f"user-{n}" for n in range(50))
REGIONS = ("north", "south", "east", "west")
STATUSES = {
    Status.COMPLETED: 88.0,
    Status.FAILED: 6.0,
    Status.WAITING: 3.5,
    Status.CANCELLED: 1.0,
    Status.TERMINATED: 0.5,
    Status.TIMED_OUT: 0.5,
    Status.PARKED: 0.3,
    Status.PAUSED: 0.2,
}
RUN_COLUMNS = (
    "run, run_id, execution, namespace, workflow_id, workflow, version, queue, attempt, "
    "parent_close, created_at, created_by, correlation_id, tenant, tags"
)
STATE_COLUMNS = "run, execution, status, wake_at, length, closed_at, reason, since"
TAG_COLUMNS = "namespace, tag, run"
ATTR_COLUMNS = "namespace, key, value, run, form"
HISTORY_COLUMNS = "id, run, first, count, time, applied, worker, crc, payload"
CHUNK = 20_000
_TURNS = 3
_FAR = 4_000_000_000_000_000


class Shares:
    """Draws from values, the first ones most often (or as weights say)."""

    def __init__(self, values: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.values = values
        self._weights = list(accumulate(weights or [1 / (n + 1) for n in range(len(values))]))

    def draw(self, chance: random.Random) -> Any:
        """Return one of the values."""
        return chance.choices(self.values, cum_weights=self._weights)[0]


class Population:
    """The rows of ``count`` runs, in chunks."""

    def __init__(self, count: int, until: int) -> None:
        self.count = count
        self.began = until - DAYS * 86_400 * SECOND
        self._step = DAYS * 86_400 * SECOND // count
        self._chance = random.Random(7)
        self._workflows, self._tenants = Shares(WORKFLOWS), Shares(TENANTS)
        self._people = Shares(PEOPLE)
        self._statuses = Shares(list(STATUSES), list(STATUSES.values()))
        self._payload = ev.encode_turn(
            [ev.ActivityCompleted(activity=2, result=b'"' + b"x" * 150 + b'"')]
        )
        self._crc = crc32(self._payload)

    def chunks(self) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
        """Yield rows by table."""
        for first in range(1, self.count + 1, CHUNK):
            rows: dict[str, list[tuple[Any, ...]]] = {
                "run": [],
                "tag": [],
                "state": [],
                "attr": [],
                "history": [],
            }
            for run in range(first, min(first + CHUNK, self.count + 1)):
                self._add(run, rows)
            rows["tag"].sort()
            rows["attr"].sort(key=lambda row: (row[0], row[1], str(row[2]), row[3]))
            yield rows

    def _add(self, run: int, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        chance = self._chance
        created = self.began + run * self._step
        workflow = self._workflows.draw(chance)
        if run < self.count // 20 and chance.random() < 0.3:
            workflow = "shop.retired"
        workflow_id = "nightly" if run % 1_000 == 0 else f"{workflow}-{run}"
        namespace = "default" if run % 10 else ("rare" if run % 1_000 == 10 else "other")
        status: Status = self._statuses.draw(chance)
        closed = created + chance.randrange(1, 600) * SECOND if status.is_terminal else None
        # No run has both.
        tags = ["eu" if chance.random() < 0.5 else "us", f"batch-{run * 1_000 // self.count}"]
        if chance.random() < 0.02:
            tags.append("vip")
        rows["run"].append((
            run,
            uuid7(created // 1_000, run.to_bytes(10, "big")),
            run,
            namespace,
            workflow_id,
            workflow,
            "1",
            "default",
            1,
            "terminate",
            created,
            self._people.draw(chance) if run % 3 else None,
            f"order-{run // 3}" if run % 2 else None,
            self._tenants.draw(chance),
            json.dumps(tags, separators=(",", ":")),
        ))  # fmt: skip
        rows["tag"] += [(namespace, tag, run) for tag in tags]
        reason = "nondeterminism" if status is Status.PARKED else None
        wake = _FAR if status is Status.WAITING else None
        length = 2 * _TURNS
        rows["state"].append(
            (run, run, CODES[status], wake, length, closed, reason, closed or created)
        )
        amount = int(chance.paretovariate(1.2) * 100)
        rows["attr"] += [
            (namespace, "region", chance.choice(REGIONS), run, None),
            (namespace, "amount", amount, run, None),
            (namespace, "express", int(chance.random() < 0.05), run, -1),
        ]
        for turn in range(_TURNS):
            first = 1 + 2 * turn
            rows["history"].append(
                (run * _TURNS + turn, run, first, 2, created, 1, 1, self._crc, self._payload)
            )


def fill(url: str, count: int, told: Callable[[str], None] = lambda _: None) -> None:
    """Fill a new database.

    The tables know nothing of what was put in (no ``ANALYZE``), as after a long time without one.
    """
    now = int(time.time()) * SECOND
    store: Any = open_store(url)
    try:
        store.migrate(now)
        write = _sqlite_writer(store) if url.startswith("sqlite") else _postgres_writer(store)
        done = 0
        for rows in Population(count, now).chunks():
            write(rows)
            done += len(rows["run"])
            if done % 100_000 == 0:
                told(f"{done:,} runs")
        if url.startswith("postgres"):
            store.database.connection.execute(
                f"SELECT setval('{store.database.schema}.perdure_run_number', {count})"
            )
        store.tidy(idle=True)
    finally:
        store.close()


Writer = Callable[[dict[str, list[tuple[Any, ...]]]], None]
_TABLES = {
    "run": RUN_COLUMNS,
    "tag": TAG_COLUMNS,
    "state": STATE_COLUMNS,
    "attr": ATTR_COLUMNS,
    "history": HISTORY_COLUMNS,
}


def _sqlite_writer(store: Any) -> Writer:
    connection = store.database.connection
    connection.execute("PRAGMA synchronous=OFF")

    def write(rows: dict[str, list[tuple[Any, ...]]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in _TABLES.items():
            marks = ",".join("?" * len(columns.split(",")))
            text = f"INSERT INTO perdure_{table} ({columns}) VALUES ({marks})"
            connection.executemany(text, rows[table])
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return write


def _postgres_writer(store: Any) -> Writer:
    import psycopg

    # Not the store's connection: that gives up a server which takes nothing for three seconds, as
    # one does that writes a checkpoint while it is being filled.
    url, schema = store.database.settings.url, store.database.schema

    def write(rows: dict[str, list[tuple[Any, ...]]]) -> None:
        rows["attr"] = [
            (*row[:2], json.dumps(bool(row[2]) if row[4] == -1 else row[2]), *row[3:])
            for row in rows["attr"]
        ]
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            for table, columns in _TABLES.items():
                text = f'COPY "{schema}".perdure_{table} ({columns}) FROM STDIN'
                with cursor.copy(text.encode()) as copy:
                    for row in rows[table]:
                        copy.write_row(row)

    return write


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--runs", type=int, default=1_000_000)
    given = parser.parse_args()
    begin = time.perf_counter()
    fill(given.url, given.runs, lambda text: print(text, flush=True))
    print(f"{time.perf_counter() - begin:.0f} s")
