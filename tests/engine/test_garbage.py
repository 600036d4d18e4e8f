"""What a run leaves to the garbage collector when it ends or falls asleep: next to nothing."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.engine.support import engine_on

from perdure import Status, activity, workflow


@contextmanager
def uncollected() -> Iterator[Counter[str]]:
    """Count, by type, Perdure's objects that only a collection could free."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = (it for it in gc.garbage if type(it).__module__.startswith("perdure"))
        found.update(type(it).__name__ for it in ours)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@activity.define
async def double(n: int) -> int:
    await asyncio.sleep(0)  # sleep: lets others in
    return 2 * n


@activity.define(timeout="10s")
async def timed(n: int) -> int:
    return n


@workflow.define
async def works(n: int) -> int:
    async with asyncio.timeout(60):
        return await timed(await double(n))


@workflow.define
async def sleeps() -> None:
    task = workflow.spawn(workflow.sleep("2h"))
    async with asyncio.timeout(3600):
        await workflow.sleep("1h")
    await task


@pytest.mark.skipif(
    bool(os.environ.get("PERDURE_ALWAYS_REPLAY")), reason="every turn leaves what a sleep leaves"
)
async def test_runs_that_end_leave_nothing_to_collect(tmp_path: Path):
    async with engine_on(tmp_path, works) as engine:
        with uncollected() as found:
            for n in range(5):
                assert await engine.client.execute(works, n) == 2 * n
    assert found == Counter()


async def test_runs_that_fall_asleep_leave_their_suspended_tasks_only(tmp_path: Path):
    async with engine_on(tmp_path, sleeps) as engine:
        with uncollected() as found:
            handles = [await engine.client.start(sleeps) for _ in range(5)]
            assert [await handle.status() for handle in handles] == [Status.WAITING] * 5
    assert set(found) <= {"DeterministicLoop", "Main", "OrderedTask"}
