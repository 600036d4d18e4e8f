"""Step machines, held against the same steps as a function."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from harness import Figure, scenario
from perdure import Engine
from perdure.graph import flow
from scenarios.programs import steps

RUNS, STEPS = 1_000, 10


async def handler(number: Any, ctx: Any) -> int:
    """Do nothing, durably."""
    return number


def machine() -> Any:
    """Return a machine of ten steps in a row."""
    made = flow("machine")
    for number in range(STEPS):
        made = made.task(f"step{number}", handler)
    return made.build()


async def seconds_for(engine: Engine, definition: Any, input: Any) -> float:
    """Run a workflow 1,000 times at once and return how long it took."""
    begin = time.perf_counter()
    client = engine.client
    handles = await asyncio.gather(*(client.start(definition, input) for _ in range(RUNS)))
    await asyncio.gather(*(handle.result() for handle in handles))
    return time.perf_counter() - begin


@scenario(
    Figure("over function", "ratio", at_least=0.6),
    Figure("rate", "steps/s", peer="machine_of_ten", whose="litestar-workflows", times_peer=20),
    Figure("function", "steps/s"),
)
async def machine_of_ten(folder: Path) -> dict[str, float]:
    """1,000 step machines of 10 steps at once, over 1,000 functions of 10 steps."""
    played = machine()
    engine = Engine(f"sqlite:///{folder / 'bench.db'}", definitions=[steps, played])
    async with engine:
        await engine.client.execute(steps, 3)
        await engine.client.execute(played, 1)
        as_function = await seconds_for(engine, steps, STEPS)
        as_machine = await seconds_for(engine, played, 1)
    return {
        "over function": as_function / as_machine,
        "rate": RUNS * STEPS / as_machine,
        "function": RUNS * STEPS / as_function,
    }
