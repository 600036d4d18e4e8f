"""Many runs at once, and one run alone."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from harness import Figure, cpu_bound_thread, scenario
from perdure import Engine
from scenarios.programs import engine_in, marked_steps, marks, receiver, steps

RUNS, STEPS = 1_000, 10


async def steps_per_second(engine: Engine) -> float:
    """Run 1,000 workflows of 10 steps at once and return their rate."""
    await engine.client.execute(steps, 3)  # warm
    begin = time.perf_counter()
    handles = await asyncio.gather(*(engine.client.start(steps, STEPS) for _ in range(RUNS)))
    await asyncio.gather(*(handle.result() for handle in handles))
    return RUNS * STEPS / (time.perf_counter() - begin)


@scenario(
    Figure("rate", "steps/s", at_least=12_000, peer="thousand_by_ten"),
    postgres=[Figure("rate", "steps/s", at_least=6_000, peer="thousand_by_ten")],
)
async def thousand_by_ten(folder: Path) -> dict[str, float]:
    """1,000 workflows of 10 steps at once."""
    async with engine_in(folder) as engine:
        return {"rate": await steps_per_second(engine)}


@scenario(Figure("rate", "steps/s", at_least=8_000))
async def thousand_by_ten_beside_a_cpu_bound_thread(folder: Path) -> dict[str, float]:
    """The same beside one CPU-bound Python thread."""
    async with engine_in(folder) as engine:
        with cpu_bound_thread():
            return {"rate": await steps_per_second(engine)}


@scenario(
    Figure("rate", "steps/s", at_least=1_200, peer="sequential_hundred"),
    postgres=[Figure("rate", "steps/s", at_least=700, peer="sequential_hundred")],
)
async def sequential_hundred(folder: Path) -> dict[str, float]:
    """One workflow of 100 steps, the median of three."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        seconds = [await _timed(engine, 100) for _ in range(3)]
        return {"rate": 100 / statistics.median(seconds)}


@scenario(
    Figure("p50", "ms", at_most=1.5, peer="one_step_p50_ms"),
    postgres=[Figure("p50", "ms", at_most=3, peer="one_step_p50_ms")],
)
async def one_step(folder: Path) -> dict[str, float]:
    """Start to result of a workflow of one step, the median of 50."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        seconds = [await _timed(engine, 1) for _ in range(50)]
        return {"p50": statistics.median(seconds) * 1_000}


@scenario(
    Figure("rate", "messages/s", at_least=5_000, peer="messages_per_s"),
    postgres=[Figure("rate", "messages/s", at_least=2_000, peer="messages_per_s")],
)
async def messages(folder: Path) -> dict[str, float]:
    """1,000 messages sent at once to one workflow that receives them all."""
    count = 1_000
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        begin = time.perf_counter()
        handle = await engine.client.start(receiver, count)
        await asyncio.gather(*(handle.send("number", number) for number in range(count)))
        total = await handle.result()
        seconds = time.perf_counter() - begin
    assert total == count * (count - 1) // 2
    return {"rate": count / seconds}


@scenario(Figure("late over early", "ratio", at_most=1.3))
async def flat_cost(folder: Path) -> dict[str, float]:
    """What a run's 5,000th step costs over its 10th: medians of the 100 steps from there."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        await engine.client.execute(marked_steps, 5_100)
    costs = [after - before for before, after in itertools.pairwise(marks)]
    early, late = statistics.median(costs[10:110]), statistics.median(costs[4_990:5_090])
    return {"late over early": late / early}


async def _timed(engine: Engine, count: int) -> float:
    begin = time.perf_counter()
    handle: Any = await engine.client.start(steps, count)
    await handle.result()
    return time.perf_counter() - begin
