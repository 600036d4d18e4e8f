"""Several workers on one file: who owns a run, who takes over, and who may not commit."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.crash.processes import Place, kill

from perdure import Client

SLOW = """
import asyncio, sys
from perdure import Engine
from tests.engine import slow

async def main():
    async with Engine(sys.argv[1], [slow], lease=sys.argv[2], name=sys.argv[3]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def _lines(place: Place, count: int) -> list[list[str]]:
    async with asyncio.timeout(30):
        while len(place.lines()) < count:
            await asyncio.sleep(0.005)  # sleep: polls a file that another process writes
    return place.lines()


async def test_a_killed_workers_run_goes_on_elsewhere_within_moments(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        first = place.start(SLOW, "1h", "first")
        handle = await client.start("slow", "quick")
        await _lines(place, 1)
        second = place.start(SLOW, "1h", "second")
        kill(first)
        try:
            lines = await _lines(place, 2)  # the lease of an hour is not waited for
            assert await handle.result("20s") == "attempt 2"
        finally:
            kill(second)
    assert lines[0][-1] != lines[1][-1], "another process went on"


async def test_a_worker_that_was_stopped_past_its_lease_cannot_commit_and_rejoins(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        first = place.start(SLOW, "600ms", "first")
        handle = await client.start("slow", "held")
        await _lines(place, 1)
        os.kill(first.pid, signal.SIGSTOP)
        second = place.start(SLOW, "1h", "second")  # it may stand still, too
        try:
            await _lines(place, 2)
            os.kill(first.pid, signal.SIGCONT)
            (tmp_path / "release").touch()
            assert await handle.result("20s") == "attempt 2"
            events = await handle.history()
            completed = [e for e in events if e.kind == "activity_completed"]
            assert len(completed) == 1
            assert completed[0].data["worker"].startswith("second")
            async with asyncio.timeout(20):
                while {w.name for w in await client.workers()} != {"first", "second"}:
                    await asyncio.sleep(0.02)  # sleep: polls until the stopped worker is back
        finally:
            kill(first)
            kill(second)
