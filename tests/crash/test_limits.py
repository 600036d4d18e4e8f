"""The holders of slots are killed with SIGKILL; the queue goes on, two at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill
from tests.crash.programs import STEPS

from perdure import Client

RUNS = 12
MOST = 2
KILLS = 4

LIMITED_WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import programs

async def main():
    engine = Engine(sys.argv[1], [programs.step])
    engine.register(programs.ten_steps, max_concurrent=2, on_limit="queue")
    async with engine:
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

pytestmark = pytest.mark.slow


def admitted(place: Place) -> int:
    """Return how many runs have begun and not ended, in one snapshot."""
    connection = sqlite3.connect(place.url.removeprefix("sqlite:///"))
    try:
        sql = "SELECT count(*) FROM perdure_state WHERE status IN (1, 2, 3, 4)"
        return connection.execute(sql).fetchone()[0]
    finally:
        connection.close()


async def test_killed_holders_keep_their_slots_and_everybody_has_a_turn(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        worker = place.start(LIMITED_WORKER)
        try:
            handles = await asyncio.gather(
                *(client.start("ten_steps", f"r{n}", id=f"r{n}") for n in range(RUNS))
            )
            most = 0
            for n in range(KILLS):
                lines = len(place.lines()) + 7 + 3 * n
                place.limit(lines + MOST)
                async with asyncio.timeout(60):
                    while len(place.lines()) < lines:
                        most = max(most, admitted(place))
                        await asyncio.sleep(0.002)  # sleep: polls a file of another process
                kill(worker)
                most = max(most, admitted(place))
                worker = place.start(LIMITED_WORKER)
            place.unlimit()
            results = await asyncio.wait_for(asyncio.gather(*handles), 120)
        finally:
            kill(worker)
        assert results == [STEPS] * RUNS
        assert most == MOST
        assert {line[1] for line in place.lines()} == {f"r{n}" for n in range(RUNS)}
