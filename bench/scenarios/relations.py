"""Executions that start each other and write to each other."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from harness import Figure, scenario
from scenarios.programs import engine_in, parent, ping, pong, steps

PARENTS, CHILDREN = 1_000, 10
PAIRS, ROUNDS = 1_000, 10


CHILDREN_RATE = Figure("rate", "children/s", peer="children_per_s")
MESSAGE_RATE = Figure("rate", "messages/s", peer="ping_pong_per_s")


@scenario(CHILDREN_RATE, postgres=[CHILDREN_RATE])
async def thousand_parents(folder: Path) -> dict[str, float]:
    """1,000 workflows that start 10 children each and wait for them."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)  # warm
        begin = time.perf_counter()
        handles = await asyncio.gather(
            *(engine.client.start(parent, CHILDREN) for _ in range(PARENTS))
        )
        sums = await asyncio.gather(*(handle.result() for handle in handles))
        seconds = time.perf_counter() - begin
    assert set(sums) == {CHILDREN * (CHILDREN - 1)}
    return {"rate": PARENTS * CHILDREN / seconds}


@scenario(MESSAGE_RATE, postgres=[MESSAGE_RATE])
async def thousand_ping_pongs(folder: Path) -> dict[str, float]:
    """1,000 pairs of workflows that send 10 messages to and fro, one at a time."""
    async with engine_in(folder) as engine:
        await engine.client.execute(steps, 3)
        begin = time.perf_counter()
        await asyncio.gather(
            *(engine.client.start(pong, ROUNDS, id=f"pong-{n}") for n in range(PAIRS))
        )
        handles = await asyncio.gather(
            *(engine.client.start(ping, (f"pong-{n}", ROUNDS)) for n in range(PAIRS))
        )
        await asyncio.gather(*(handle.result() for handle in handles))
        seconds = time.perf_counter() - begin
    return {"rate": PAIRS * ROUNDS * 2 / seconds}
