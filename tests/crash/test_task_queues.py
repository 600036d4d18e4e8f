"""The worker that carries out an activity of another task queue is killed in the middle of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill

from perdure import Client

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import queued

async def main():
    url, name, queue = sys.argv[1:]
    known = [queued.film] if queue == "default" else [queued.render]
    async with Engine(url, known, name=name, lease="8s", task_queues=[queue]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def _lines(place: Place, count: int) -> list[list[str]]:
    async with asyncio.timeout(60):
        while len(place.lines()) < count:
            await asyncio.sleep(0.005)  # sleep: polls a file that another process writes
    return place.lines()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_what_a_killed_worker_carried_out_is_lost_once_and_done_again_by_another(
    tmp_path: Path, request: pytest.FixtureRequest, database: str
):
    url = request.getfixturevalue("postgres_url") if database == "postgres" else ""
    place = Place(tmp_path, url)
    home = place.start(WORKER, "home", "default")
    first = place.start(WORKER, "first", "gpu")
    second = None
    try:
        async with Client(place.url) as client:
            handle = await client.start("film", "alien", id="alien")
            lines = await _lines(place, 6)
            assert {line[-1] for line in lines} == {str(first.pid)}

            async def completed() -> int:
                return sum(event.kind == "activity_completed" for event in await handle.history())

            async with asyncio.timeout(60):
                while await completed() < 5:
                    await asyncio.sleep(0.01)  # sleep: polls what another process writes
            kill(first)
            second = place.start(WORKER, "second", "gpu")
            assert await handle.result("60s") == 15
            history = await handle.history()
            assert {worker.name for worker in await client.workers()} == {"home", "second"}
    finally:
        for process in (home, first, second):
            if process is not None:
                kill(process)
    kinds = [event.kind for event in history]
    assert kinds.count("activity_completed") == 6
    assert kinds.count("attempt_lost") == 1
    numbers = [event.data["activity"] for event in history if event.kind == "activity_completed"]
    assert len(set(numbers)) == 6, "nothing is recorded twice"
    done = [(line[2], line[3]) for line in place.lines()]
    assert len(done) == 7
    assert sorted(done) == sorted({*done}), "no attempt began twice"
    keys = {line[4] for line in place.lines() if line[2] == "3"}
    assert len(keys) == 1, "all attempts of a call have one key"
