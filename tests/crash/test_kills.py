"""Workers are killed again and again; nothing is lost, and nothing recorded runs twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill, steps_of
from tests.crash.programs import STEPS

from perdure import Client
from perdure.views import HistoryEvent

RUNS = 100
MIN_KILLS = 8
SEED = 20261121

pytestmark = pytest.mark.slow


def _recorded_steps(history: list[HistoryEvent]) -> dict[int, int]:
    """Return, per step number, the attempt whose outcome is recorded."""
    scheduled: dict[int, int] = {}
    recorded: dict[int, int] = {}
    for event in history:
        if event.kind == "activity_scheduled":
            scheduled[event.id] = event.data["args"][1]
        elif event.kind == "activity_completed":
            number = scheduled[event.data["activity"]]
            assert number not in recorded, f"step {number}: an outcome was recorded twice"
            recorded[number] = event.data.get("attempt", 1)
    return recorded


def _brief(run: str, lines: list[list[str]], history: list[HistoryEvent]) -> str:
    """Show what a run's steps did outside, and what its history says of it."""
    outside = [" ".join(line) for line in lines if line[1] == run]
    inside = [
        f"{event.id} by worker {event.worker}: {event.kind} {event.data}" for event in history
    ]
    return "\n".join(["effects:", *outside, "history:", *(line[:160] for line in inside)])


async def _is_over(place: Place, client: Client) -> bool:
    """Tell whether every run has ended or is parked."""
    if len(steps_of(place.lines())) == RUNS * STEPS:
        return True
    return await client.count(status=["running", "waiting"]) == 0


async def _wait_for_lines(place: Place, client: Client, count: int) -> None:
    async with asyncio.timeout(60):
        while len(place.lines()) < count and not await _is_over(place, client):
            await asyncio.sleep(0.002)  # sleep: polls a file that another process writes


async def _unpark_all(client: Client) -> None:
    """Ask again and again: the last worker parks what it finds when it has taken over."""
    while True:
        for run in (await client.list(status="parked", limit=RUNS)).items:
            assert run.reason == "worker_lost"
            await client.get(run.id).unpark()
        await asyncio.sleep(0.1)  # sleep: polls, within the limit of the results


async def test_a_hundred_runs_of_ten_steps_survive_kill_after_kill(tmp_path: Path):
    place = Place(tmp_path)
    chance = random.Random(SEED)
    async with Client(place.url) as client:
        first = place.start()
        handles = await asyncio.gather(
            *(client.start("ten_steps", f"r{n}", id=f"r{n}") for n in range(RUNS))
        )
        worker = first
        kills = 0
        while not await _is_over(place, client):
            # Every other worker lives long enough to record something: three losses in a row of one
            # attempt park its run.
            grace = 0 if kills % 2 else RUNS + RUNS // 4
            count = len(place.lines()) + grace + chance.randint(1, 60)
            place.limit(count + RUNS // 2)
            await _wait_for_lines(place, client, count)
            kill(worker)
            kills += 1
            worker = place.start()
        assert kills >= MIN_KILLS
        place.unlimit()
        try:
            # Some may have met three in a row all the same: they say so, and go on when asked to.
            asking = asyncio.create_task(_unpark_all(client))
            results = await asyncio.wait_for(asyncio.gather(*handles), 60)
            asking.cancel()
        finally:
            kill(worker)
        assert results == [STEPS] * RUNS

        effects = steps_of(place.lines())
        for handle in handles:
            history = await handle.history()
            recorded = _recorded_steps(history)
            told = _brief(handle.id, place.lines(), history)
            assert sorted(recorded) == list(range(STEPS)), told
            for number, attempt in recorded.items():
                lines = effects[handle.id, number]
                attempts = [int(line[3]) for line in lines]
                assert max(attempts) == attempt, f"step {number} is recorded and ran again\n{told}"
                keys = {line[4] for line in lines}
                assert len(keys) == 1, f"the attempts of step {number} differ in their key\n{told}"
                is_once = len(attempts) == len(set(attempts))
                assert is_once, f"an attempt of step {number} ran twice\n{told}"


KILLED_AT_COMMIT = """
import asyncio, os, signal, sys
from perdure import Engine
from perdure.store.sqlite.store import SqliteStore
from tests.crash import programs

at, after = int(sys.argv[2]), sys.argv[3] == "after"
real, count = SqliteStore.commit, 0

def commit(self, batch):
    global count
    count += 1
    if count == at and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(self, batch)
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

SqliteStore.commit = commit

async def main():
    async with Engine(sys.argv[1], [programs]) as engine:
        print("ready", flush=True)
        handle = await engine.client.start("ten_steps", "only", id="only")
        await handle.result()

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_run_killed_at_its_nth_commit_ends_as_one_that_was_not(tmp_path: Path, moment: str):
    at = 0
    while True:
        at += 1
        folder = tmp_path / f"{moment}-{at}"
        folder.mkdir()
        place = Place(folder)
        process = place.start(KILLED_AT_COMMIT, at, moment)
        was_killed = process.wait() != 0
        kill(process)
        if not was_killed:
            break
        async with Client(place.url) as client:
            found = await client.list()
            if not found.items:
                assert (at, moment) == (1, "before"), "an acknowledged start was lost"
                continue
            with place.worker():
                assert await client.get("only").result("30s") == STEPS
            recorded = _recorded_steps(await client.get("only").history())
        assert sorted(recorded) == list(range(STEPS))
        effects = steps_of(place.lines())
        assert all(
            max(int(line[3]) for line in effects["only", number]) == attempt
            for number, attempt in recorded.items()
        ), "a recorded step ran again"
    assert at > STEPS, "every commit was tried"


CLIENT = """
import asyncio, sys
from perdure import Client

async def main():
    async with Client(sys.argv[1]) as client:
        print("ready", flush=True)
        for n in range(1000):
            handle = await client.start("patient", id=f"p{n}")
            await handle.send("go", n)
            print(n, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_to_a_killed_client_is_there(tmp_path: Path):
    place = Place(tmp_path)
    kill(place.start())  # the definitions are registered; no worker is left
    client_process = place.start(CLIENT)
    assert client_process.stdout is not None
    acknowledged = -1
    for line in client_process.stdout:
        acknowledged = int(line)
        if acknowledged == 50:
            break
    kill(client_process)
    async with Client(place.url) as client:
        with place.worker():
            for n in range(acknowledged + 1):
                assert await client.get(f"p{n}").result("30s") == str(n)


async def test_messages_sent_while_the_worker_is_killed_arrive_once_and_in_order(tmp_path: Path):
    place = Place(tmp_path)
    count = 200
    async with Client(place.url) as client:
        worker = place.start()
        handle = await client.start("collector", count, id="c")
        for n in range(count):
            await handle.send("number", n)
            if n % 25 == 24:
                kill(worker)
                worker = place.start()
        try:
            assert await handle.result("60s") == list(range(count))
        finally:
            kill(worker)
