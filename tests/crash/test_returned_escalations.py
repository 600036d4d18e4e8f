"""Workers that are killed while runs end with escalations, and while answers start them again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill

from perdure import Client

WORKER = """
import asyncio, sys
from perdure import Engine, human, workflow

@workflow.define(name="review")
async def review(envelope: dict) -> object:
    if "resolver" in envelope:
        return envelope["resolver"]
    return human.Escalation(envelope["data"], "Is this all right?", "reviewer")

async def main():
    async with Engine(sys.argv[1], [review]):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
RUNS = 30


async def count(client: Client, least: int, **filters: Any) -> int:
    """Wait until so many runs are there."""
    async with asyncio.timeout(60):
        while (found := int(await client.count(**filters))) < least:
            await asyncio.sleep(0.002)  # sleep: polls what another process writes
    return found


@pytest.mark.parametrize("where", ["file", "postgres"])
async def test_each_is_asked_once_and_started_again_once(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
):
    place = Place(tmp_path, request.getfixturevalue("postgres_url") if where == "postgres" else "")
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            process = place.start(WORKER)
            stack.callback(kill, process)
            return process

        await killed_at_each_step(place.url, start)


async def killed_at_each_step(url: str, start: Callable[[], subprocess.Popen[str]]) -> None:
    async with Client(url, identity="ada") as client:
        people = client.human_tasks
        first = start()
        starts = [client.start("review", {"data": n}, id=f"r-{n}") for n in range(RUNS)]
        starting = asyncio.ensure_future(asyncio.gather(*starts))
        await count(client, 1, workflow="perdure.escalation")
        kill(first)  # some have ended, and some of those have asked
        await starting
        second = start()
        await count(client, RUNS, workflow="perdure.escalation")
        async with asyncio.timeout(60):
            while await people.count() < RUNS:
                await asyncio.sleep(0.002)  # sleep: polls what another process writes
        tasks = (await people.list(limit=RUNS + 9)).items
        assert sorted(task.name for task in tasks) == sorted(f"r-{n}" for n in range(RUNS))
        assert all(f"r-{task.data}" == task.name for task in tasks)
        answering = asyncio.ensure_future(
            asyncio.gather(*(people.complete(task.id, task.data) for task in tasks))
        )
        await count(client, RUNS + 1, workflow="review")
        kill(second)
        await answering
        start()
        await count(client, 2 * RUNS, workflow="review", status="completed")
        await count(client, RUNS, workflow="perdure.escalation", status="completed")
        for task in tasks:
            assert await client.get(f"rerun-{task.id}").result(timeout="60s") == task.data
        assert await client.count() == 3 * RUNS
