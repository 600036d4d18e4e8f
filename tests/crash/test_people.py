"""Decisions of people, processes that decide at once, and processes that are killed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill

from perdure import Client
from perdure.people import HumanTask
from perdure.values.people import HumanTaskStatus

RUNS = 12
PEOPLE = ["ada", "grace", "barbara"]

DECIDES = """
import asyncio, sys
from perdure import Client, errors

async def main():
    url, me, *ids = sys.argv[1:]
    async with Client(url, identity=me) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        for id in ids:
            try:
                await client.human_tasks.complete(id, f"from {me}")
                print("won", id, flush=True)
            except errors.TaskClosed as error:
                print("lost", id, error.details["by"], flush=True)
    print("over", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""

DECIDES_IN_A_WORKER = """
import asyncio, os, signal, sys
from perdure import Engine
from tests.crash import programs

async def main():
    async with Engine(sys.argv[1], [programs], identity="ada") as engine:
        print("ready", flush=True)
        await engine.client.human_tasks.complete(sys.argv[2], "from ada")
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


CLAIMS = """
import asyncio, sys
from perdure import Client, errors

async def main():
    url, me, *ids = sys.argv[1:]
    async with Client(url, identity=me) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        todo = list(reversed(ids))
        while todo:
            try:
                task = await client.human_tasks.claim(todo[-1], "1h")
                print("claimed", task.id, task.claimed_by, flush=True)
            except errors.TaskClaimed as error:
                print("held", todo[-1], error.details["by"], flush=True)
            except errors.Unavailable as error:  # this machine stood still for seconds
                print(me, "tries again:", error, file=sys.stderr)
                continue
            todo.pop()
    print("over", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


async def open_ones(client: Client, count: int) -> list[HumanTask]:
    async with asyncio.timeout(30):
        while len(items := (await client.human_tasks.list()).items) < count:
            await asyncio.sleep(0.005)  # sleep: polls what another process writes
    return items


async def test_of_processes_that_decide_at_once_one_wins_and_the_run_hears_that_one(
    tmp_path: Path,
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        with place.worker():
            handles = [await client.start("asking", f"a{n}", id=f"a{n}") for n in range(RUNS)]
            ids = [task.id for task in await open_ones(client, RUNS)]
            deciders = {me: place.start(DECIDES, me, *ids, stdin=True) for me in PEOPLE}
            for process in deciders.values():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            won: dict[str, str] = {}
            lost: list[tuple[str, str]] = []
            for me, process in deciders.items():
                assert process.stdout is not None
                while (line := process.stdout.readline().split()) != ["over"]:
                    assert line, f"{me} ended early, with code {kill(process)}"
                    if line[0] == "won":
                        assert line[1] not in won
                        won[line[1]] = me
                    else:
                        lost.append((line[1], line[2]))
                kill(process)
            assert set(won) == set(ids)
            assert len(lost) == RUNS * (len(PEOPLE) - 1)
            assert all(won[id] == by for id, by in lost)
            for handle in handles:
                by, value = await asyncio.wait_for(handle.result(), 30)
                [task] = (
                    await client.human_tasks.list(workflow_id=handle.id, status="completed")
                ).items
                assert by == won[task.id] == task.closed_by
                assert value == f"from {by}"


@pytest.mark.parametrize("where", ["file", "postgres"])
async def test_of_eight_processes_that_claim_at_once_one_holds_each(
    request: pytest.FixtureRequest, tmp_path: Path, where: str
):
    url = request.getfixturevalue("postgres_url") if where == "postgres" else ""
    place = Place(tmp_path, url)
    async with Client(place.url) as client:
        ids = [(await client.human_tasks.create(f"n{n}", role="r", by="it")).id for n in range(20)]
        people = [f"p{n}" for n in range(8)]
        racers = {me: place.start(CLAIMS, me, *ids, stdin=True) for me in people}
        held: dict[str, str] = {}
        told: list[tuple[str, str]] = []
        try:
            for racer in racers.values():
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            for me, racer in racers.items():
                assert racer.stdout is not None
                while (line := racer.stdout.readline().split()) != ["over"]:
                    assert line, f"{me} ended early, with code {kill(racer)}"
                    if line[0] == "claimed":
                        assert line[1] not in held
                        assert line[2] == me
                        held[line[1]] = me
                    else:
                        told.append((line[1], line[2]))
        finally:
            for racer in racers.values():
                kill(racer)
        assert set(held) == set(ids)
        assert len(told) == len(ids) * (len(people) - 1)
        assert all(held[id] == by for id, by in told)
        assert {task.id: task.claimed_by for task in await open_ones(client, 20)} == held


async def test_a_decision_that_was_acknowledged_is_there_after_the_processes_were_killed(
    tmp_path: Path,
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        worker = place.start()
        handle = await client.start("asking", "a", id="a")
        [task] = await open_ones(client, 1)
        kill(worker)
        process = place.start(DECIDES, "grace", task.id, stdin=True)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline().split() == ["won", task.id]
        kill(process)
        after = await client.human_tasks.get(task.id)
        assert (after.status, after.closed_by) == (HumanTaskStatus.COMPLETED, "grace")
        with place.worker():
            assert await asyncio.wait_for(handle.result(), 30) == ["grace", "from grace"]


async def test_a_worker_that_is_killed_when_it_has_acknowledged_a_decision_loses_nothing(
    tmp_path: Path,
):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        worker = place.start()
        handle = await client.start("asking", "a", id="a")
        [task] = await open_ones(client, 1)
        kill(worker)
        dying = place.start(DECIDES_IN_A_WORKER, task.id)
        assert dying.wait(timeout=30) == -9
        kill(dying)
        with place.worker():
            assert await asyncio.wait_for(handle.result(), 30) == ["ada", "from ada"]
        kinds = [event.kind for event in await handle.history()]
        assert kinds.count("human_task_decided") == 1
