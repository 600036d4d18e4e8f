"""Exactly one execution for each tick: workers that race for it, and workers that are killed."""

from __future__ import annotations

import asyncio
import random
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill

from perdure import Client
from perdure.store.port import SchedulePut, ScheduleRow, ScheduleSteer
from perdure.values.schedules import Overlap, Spec, Template, ticks_after

WORKER = """
import asyncio, sys
from perdure import Engine
from tests.crash import scheduled

async def main():
    async with Engine(sys.argv[1], [scheduled], lease="2s"):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
DIES = """
import asyncio, os, signal, sys
from perdure import Engine
from perdure.engine.schedules import Schedules
from perdure.store.sql import firing
from tests.crash import scheduled

where, left = sys.argv[2], int(sys.argv[3])

def count_down():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

real_fire, real_tell = firing.fire, Schedules._tell

def fire(*args, **options):
    fired = real_fire(*args, **options)
    if fired.happened and where == "before":  # all is written, and not committed
        count_down()
    return fired

def tell(self, happened):
    if where == "after":  # it is committed, and nobody knows
        count_down()
    real_tell(self, happened)

firing.fire, Schedules._tell = fire, tell

async def main():
    async with Engine(sys.argv[1], [scheduled], lease="2s"):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
EVERY = 50_000
"""Microseconds: shorter than users may ask for, so that a tick is always near."""


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Place(tmp_path, url)


async def put(client: Client, overlap: Overlap = Overlap.ALLOW) -> ScheduleRow:
    spec = Spec(every=EVERY, overlap=overlap)
    return await client.door.put_schedule(SchedulePut("default", "s", spec, Template("ticked")))


async def row(client: Client) -> ScheduleRow:
    found = await client.door.read(lambda store: store.schedule("s"))
    assert found is not None
    return found


async def fired(client: Client, least: int) -> None:
    async with asyncio.timeout(60):
        while (await row(client)).standing.fired < least:
            await asyncio.sleep(0.02)  # sleep: polls what other processes write


async def check(client: Client, place: Place, made: ScheduleRow) -> None:
    """Each tick up to the last that was dealt with began one execution, and all of them end."""
    await client.door.steer_schedule(ScheduleSteer("default", "s", "pause"))
    standing = (await row(client)).standing
    ticks: list[int] = []
    for tick in ticks_after(made.spec, made.standing.done):
        if tick > standing.done:
            break
        ticks.append(tick)
    begun: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.list(workflow="ticked", limit=1000, cursor=cursor)
        begun += [one.id for one in page.items]
        if (cursor := page.cursor) is None:
            break
    assert (standing.fired, standing.skipped, standing.missed) == (len(ticks), 0, 0)
    assert len(begun) == len(set(begun)) == len(ticks)
    async with asyncio.timeout(60):
        while await client.count(workflow="ticked", status="completed") < len(ticks):
            await asyncio.sleep(0.02)  # sleep: polls what other processes write
    results = {await client.get(id).result() for id in begun}
    start = datetime(1970, 1, 1, tzinfo=UTC)
    assert results == {f"{start + timedelta(microseconds=tick):%H:%M:%S.%f}" for tick in ticks}
    keys = {key for _, _, key, _ in place.lines()}
    assert len(keys) == len(ticks)


async def test_eight_workers_that_race_for_ticks_begin_each_once(place: Place):
    async with Client(place.url) as client:
        made = await put(client)
        workers = await asyncio.gather(*(asyncio.to_thread(place.start, WORKER) for _ in range(8)))
        try:
            await fired(client, 150)
            await check(client, place, made)
        finally:
            for worker in workers:
                kill(worker)


async def test_workers_that_are_killed_around_ticks_lose_and_double_none(place: Place):
    chance = random.Random(7)
    async with Client(place.url) as client:
        made = await put(client)
        workers: list[subprocess.Popen[str]] = [place.start(WORKER) for _ in range(3)]
        try:
            for _ in range(8):
                await fired(client, (await row(client)).standing.fired + 3)
                await asyncio.sleep(chance.random() * 0.1)  # sleep: another moment between ticks
                kill(workers.pop(0))
                workers.append(await asyncio.to_thread(place.start, WORKER))
            await check(client, place, made)
        finally:
            for worker in workers:
                kill(worker)


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_kill_in_the_commit_that_begins_an_execution_leaves_it_whole(
    place: Place, where: str
):
    async with Client(place.url) as client:
        made = await put(client)
        for looks in (1, 2, 3):
            worker = await asyncio.to_thread(place.start, DIES, where, looks)
            assert await asyncio.to_thread(worker.wait) == -9
            kill(worker)
        worker = place.start(WORKER)
        try:
            await fired(client, (await row(client)).standing.fired + 3)
            await check(client, place, made)
        finally:
            kill(worker)


async def test_runs_that_must_not_overlap_do_not_whoever_is_killed(place: Place):
    async with Client(place.url) as client:
        await put(client, Overlap.BUFFER_ONE)
        workers = [place.start(WORKER) for _ in range(2)]
        try:
            for _ in range(4):
                await fired(client, (await row(client)).standing.fired + 3)
                kill(workers.pop(0))
                workers.append(await asyncio.to_thread(place.start, WORKER))
            await client.door.steer_schedule(ScheduleSteer("default", "s", "delete"))
            runs = (await client.list(workflow="ticked", limit=1000)).items
            assert len(runs) >= 12
            async with asyncio.timeout(60):
                for one in runs:
                    await client.get(one.id).result()
            journal = await client.door.read(lambda store: store.journal(limit=100_000))
            spans: dict[int, list[int]] = {}
            for number, turn in enumerate(journal.rows):
                spans.setdefault(turn.run, []).append(number)
            assert len(spans) == len(runs)
            # In the order of commits, but for event 1: on a server its number is drawn before the
            # transaction has waited for the end of the run before.
            own = sorted(rows[1:] for rows in spans.values())
            assert all(a[-1] < b[0] for a, b in pairwise(own))
        finally:
            for worker in workers:
                kill(worker)
