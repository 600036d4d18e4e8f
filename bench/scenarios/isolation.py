"""What two CPU-bound handlers cost the runs beside them: in subprocesses, and inline."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from harness import Figure, scenario, until
from perdure import Engine, Retry, activity, workflow
from scenarios.programs import engine_in, steps

PROBES, BURNERS = 200, 2
_BURN_SECONDS = 0.05


def burn(seconds: float) -> int:
    """Compute for a while and return how far it came."""
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        rounds += sum(range(1_000)) > 0
    return rounds


@activity.define(isolation="process", retry=Retry(max_attempts=1))
async def burn_apart(seconds: float) -> int:
    """Hold a subprocess."""
    return burn(seconds)


@activity.define(retry=Retry(max_attempts=1))
async def burn_inline(seconds: float) -> int:
    """Hold the engine's event loop."""
    return burn(seconds)


@workflow.define
async def burning_apart() -> None:
    """Compute in a subprocess without an end."""
    while True:
        await burn_apart(_BURN_SECONDS)


@workflow.define
async def burning_inline() -> None:
    """Compute in the engine's process without an end."""
    while True:
        await burn_inline(_BURN_SECONDS)


async def _latencies(engine: Engine, burner: Any) -> dict[str, float]:
    await engine.client.execute(steps, 3)
    engine.register(burner)
    handles = [await engine.client.start(burner) for _ in range(BURNERS)]

    async def all_burn() -> bool:
        histories = [await handle.history() for handle in handles]
        return all(any(e.kind == "activity_completed" for e in found) for found in histories)

    await until(all_burn)
    seconds: list[float] = []
    for _ in range(PROBES):
        begin = time.perf_counter()
        await engine.client.execute(steps, 1)
        seconds.append(time.perf_counter() - begin)
        await asyncio.sleep(0)
    for handle in handles:
        await handle.terminate()
    ordered = statistics.quantiles(seconds, n=20)
    return {"p50": statistics.median(seconds) * 1_000, "p95": ordered[-1] * 1_000}


@scenario(Figure("p50", "ms"), Figure("p95", "ms"))
async def one_step_beside_isolated_cpu_bound_handlers(folder: Path) -> dict[str, float]:
    """One-step runs beside 2 CPU-bound handlers in subprocesses, 200 one after the other."""
    async with engine_in(folder) as engine:
        return await _latencies(engine, burning_apart)


@scenario(Figure("p50", "ms"), Figure("p95", "ms"))
async def one_step_beside_inline_cpu_bound_handlers(folder: Path) -> dict[str, float]:
    """The same with the handlers in the engine's own process."""
    async with engine_in(folder) as engine:
        return await _latencies(engine, burning_inline)
