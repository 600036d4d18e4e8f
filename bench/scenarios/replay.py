"""The kernel alone: stored turns in, the same state out."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import NamedTuple

from harness import Figure, scenario
from perdure.kernel.instance import Instance, StoredTurn
from perdure.values import events as ev
from scenarios.programs import steps

BEGIN = 1_750_000_000_000_000
REPEATS = 5


class Row(NamedTuple):
    """A history row as a store keeps it."""

    payload: bytes
    time: int


def record(count: int) -> list[Row]:
    """Return the history of one run of ``count`` steps."""
    instance = Instance(steps)
    facts: list[ev.Event] = [
        ev.RunStarted(
            workflow=steps.name,
            version=steps.version,
            workflow_id="bench",
            run_id="01977420-dc00-7000-8000-000000000000",
            seed=bytes(16),
            input=str(count).encode(),
            code=steps.code,
            started_at=BEGIN,
            first_started_at=BEGIN,
        )
    ]
    rows: list[Row] = []
    moment = BEGIN
    while instance.closed is None:
        turn = instance.apply(facts, moment)
        rows.append(Row(ev.encode_turn([*facts, *turn.commands]), moment))
        facts = [ev.ActivityCompleted(activity=instance.length, result=b"1")]
        moment += 1_000
    return rows


def decode(rows: list[Row]) -> list[StoredTurn]:
    """Decode history rows."""
    return [
        StoredTurn(ev.decode_turn(row.payload), row.time, applied=True, size=len(row.payload))
        for row in rows
    ]


def replay(turns: list[StoredTurn]) -> int:
    """Replay a history and return its length."""
    instance = Instance(steps)
    instance.replay(turns)
    assert instance.closed is not None
    return instance.length


@scenario(
    Figure("long run", "events/s", at_least=100_000),
    Figure("long run, decoded too", "events/s"),
    Figure("1,000 short runs", "events/s"),
)
async def kernel_replay(_folder: Path) -> dict[str, float]:
    """Replay of a run of 5,000 steps, and of 1,000 runs of 10 steps."""
    rows, short = record(5_000), decode(record(10))
    turns = decode(rows)
    rates: dict[str, list[float]] = {}

    def note(name: str, events: int, begin: float) -> None:
        rates.setdefault(name, []).append(events / (time.perf_counter() - begin))

    for _ in range(REPEATS):
        begin = time.perf_counter()
        note("long run", replay(turns), begin)
        begin = time.perf_counter()
        note("long run, decoded too", replay(decode(rows)), begin)
        begin = time.perf_counter()
        note("1,000 short runs", sum(replay(short) for _ in range(1_000)), begin)
    return {name: statistics.median(found) for name, found in rates.items()}
