"""What retention costs those who work while it deletes."""

from __future__ import annotations

import asyncio
import statistics
from datetime import UTC, datetime
from pathlib import Path

from harness import BenchError, Figure, database, say, scenario
from perdure import Engine
from perdure.engine.retention import FIRST_SECONDS
from population import fill
from scenarios.programs import steps
from scenarios.throughput import steps_per_second

OLD = 200_000
ROUNDS = 3
FIGURES = (
    Figure("rate beside deletion over rate alone", "ratio", at_least=0.8),
    Figure("rate beside deletion", "steps/s"),
    Figure("deleted", "runs/s"),
)


@scenario(*FIGURES, postgres=FIGURES, heavy=True)
async def deletion_beside(folder: Path) -> dict[str, float]:
    """1,000 workflows of 10 steps beside the deletion of 200,000 old runs, and alone."""
    url = database(folder)
    await asyncio.to_thread(fill, url, OLD, say)
    filled = datetime.now(UTC)
    alone = await _rates(url, retention=0)
    async with Engine(url, [steps], retention="1h") as engine:
        await asyncio.sleep(FIRST_SECONDS + 1)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), await _old(engine, filled)
        beside = [await steps_per_second(engine) for _ in range(ROUNDS)]
        after, ended = await _old(engine, filled), loop.time()
    if not 0 < after < before:
        raise BenchError(f"{before} old runs before the measured rounds and {after} after")
    alone += await _rates(url, retention=0)
    rate = statistics.median(beside)
    return {
        "rate beside deletion over rate alone": rate / statistics.median(alone),
        "rate beside deletion": rate,
        "deleted": (before - after) / (ended - began),
    }


async def _rates(url: str, *, retention: int) -> list[float]:
    async with Engine(url, [steps], retention=retention) as engine:
        return [await steps_per_second(engine) for _ in range(ROUNDS)]


async def _old(engine: Engine, until: datetime) -> int:
    return await engine.client.count(started_before=until, exact=True)
