"""Runs that wait: what they cost in memory, at a restart, and when they wake."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from harness import Figure, measure, scenario, seconds_since_process_start, settled_rss_mb, until
from scenarios.programs import engine_in, nap, steps

ASLEEP = 100_000
AT_ONCE = 1_000
HOUR = 3_600.0


@scenario(
    Figure("memory of the starter", "MB", at_most=150),
    Figure("memory after reopening", "MB", at_most=150),
    Figure("restart", "s", at_most=1.0),
    Figure("started", "runs/s"),
    heavy=True,
)
async def hundred_thousand_asleep(folder: Path) -> dict[str, float]:
    """100,000 runs asleep for an hour, in the process that started them and in a new one."""
    async with engine_in(folder) as engine:
        client = engine.client
        begin = time.perf_counter()
        for _ in range(ASLEEP // AT_ONCE):
            handles = await asyncio.gather(*(client.start(nap, HOUR) for _ in range(AT_ONCE)))
        started = ASLEEP / (time.perf_counter() - begin)
        last = handles[-1]
        del handles

        async def last_is_asleep() -> bool:
            return str(await last.status()) == "waiting"

        await until(last_is_asleep)
        memory = await settled_rss_mb(quiet_seconds=10)
    reopened = await asyncio.to_thread(measure, "scenarios.sleeping:reopen", folder)
    return {"memory of the starter": memory, "started": started} | reopened


async def reopen(folder: Path) -> dict[str, float]:
    """Open the database and run one step; in a new process."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 1)
        restart = seconds_since_process_start()
        memory = await settled_rss_mb(quiet_seconds=3)
    return {"restart": restart, "memory after reopening": memory}


async def _sleep_together(folder: Path, count: int) -> tuple[float, float]:
    """Return seconds to the last result, from the first start and from the last one."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        first = time.perf_counter()
        handles = await asyncio.gather(*(engine.client.start(nap, 1.0) for _ in range(count)))
        last = time.perf_counter()
        await asyncio.gather(*(handle.result() for handle in handles))
        end = time.perf_counter()
    return end - first, end - last


NAPS = Figure("from first start", "s", peer="sleep_1s_1000", lower_is_better=True)


@scenario(NAPS, postgres=[NAPS])
async def thousand_naps(folder: Path) -> dict[str, float]:
    """1,000 runs that sleep one second, at once."""
    from_first, _ = await _sleep_together(folder, 1_000)
    return {"from first start": from_first}


@scenario(Figure("from first start", "s", at_most=2.5), Figure("from last start", "s"))
async def ten_thousand_naps(folder: Path) -> dict[str, float]:
    """10,000 runs that sleep one second, at once."""
    from_first, from_last = await _sleep_together(folder, 10_000)
    return {"from first start": from_first, "from last start": from_last}
