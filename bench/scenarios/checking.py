"""``perdure check``: how long the open runs of a database take against code to be deployed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from harness import Figure, database, scenario
from perdure import Client
from perdure.engine.checking import FITS, Checker
from perdure.engine.registry import Registry
from scenarios.programs import engine_in, nap

OPEN = 10_000
AT_ONCE = 1_000


@scenario(Figure("all verdicts", "s", at_most=60.0))
async def check_ten_thousand(folder: Path) -> dict[str, float]:
    """10,000 runs that wait, each replayed against its definition."""
    async with engine_in(folder) as engine:
        for _ in range(OPEN // AT_ONCE):
            await asyncio.gather(*(engine.client.start(nap, 3_600.0) for _ in range(AT_ONCE)))
    registry = Registry(())
    registry.register(nap)
    async with Client(database(folder)) as client:
        begin = time.perf_counter()
        verdicts = [verdict async for verdict in Checker(client.door, registry).verdicts()]
        seconds = time.perf_counter() - begin
    assert [verdict.verdict for verdict in verdicts] == [FITS] * OPEN
    return {"all verdicts": seconds}
