"""Many workers on one PostgreSQL database, which die, stand still, leave and lose the database."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tests.crash.fleet import (
    WORKER,
    Fleet,
    check_histories,
    results_of,
    size,
    start_runs,
)
from tests.crash.processes import EndedEarly
from tests.crash.programs import STEPS
from tests.support.postgres import Cluster
from tests.support.proxy import Proxy

from perdure import Client, ends
from perdure.store.postgres import store
from perdure.store.postgres.hints import Hints
from perdure.store.postgres.store import MIGRATIONS

SEED = 20261122
RUNS = 60
ROWS_OF = "SELECT count(*) FROM perdure.perdure_history WHERE worker = %s"
HANDED_OVER = """
-- Starts are written by clients: worker 0.
SELECT count(*) FROM (SELECT FROM perdure.perdure_history GROUP BY run
                      HAVING bool_or(worker = %s) AND bool_or(worker NOT IN (0, %s))) AS moved"""


pytestmark = pytest.mark.slow


async def test_runs_of_a_killed_worker_are_taken_over_after_its_lease(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url)
    with fleet.killed_at_the_end():
        await fleet.start("a", "b", "c")
        async with Client(postgres_url) as client:
            handles = await start_runs(client, RUNS)
            await fleet.lines_come(RUNS)
            victim, dead = await _busiest(fleet)
            fleet.kill(victim)
            await fleet.until(lambda: fleet.is_dead(dead))
            assert fleet.owned_by(dead) == 0
            fleet.go_on()
            assert await results_of(client, handles, 60) == [STEPS] * RUNS
            assert await check_histories(fleet, handles) > 0, "nothing was under way"
        await fleet.stop()
        fleet.check_nothing_is_left()


async def test_a_worker_that_stood_still_past_its_lease_commits_nothing_and_joins_anew(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url)
    with fleet.killed_at_the_end():
        await fleet.start("a", "b")
        async with Client(postgres_url) as client:
            handles = await start_runs(client, RUNS)
            await fleet.lines_come(RUNS)
            victim, before = await _busiest(fleet)
            other = "b" if victim == "a" else "a"
            fleet.signal(victim, signal.SIGSTOP)
            await fleet.until(lambda: fleet.is_dead(before))
            written = fleet.select(ROWS_OF, before)
            fleet.signal(victim, signal.SIGCONT)
            fleet.go_on()
            assert await results_of(client, handles, 60) == [STEPS] * RUNS
            await fleet.until(lambda: fleet.has_joined(victim))
            assert fleet.select(ROWS_OF, before) == written
            assert await check_histories(fleet, handles) > 0, "nothing was under way"
            await fleet.stop(other)
            again = await start_runs(client, 5, prefix="again")
            assert await results_of(client, again, 30) == [STEPS] * 5
        await fleet.stop()
        fleet.check_nothing_is_left()


STOPS_WITHIN = """
import os, signal
from perdure.store.postgres.holding import Foreseen
real, count = Foreseen.hold, 0

def hold(self, **options):
    global count
    real(self, **options)
    count += 1
    if count == 20:
        os.kill(os.getpid(), signal.SIGSTOP)

Foreseen.hold = hold
"""


async def test_a_worker_that_stands_still_within_its_commit_does_not_hold_up_the_others(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url)
    with fleet.killed_at_the_end():
        await fleet.start("a", code=STOPS_WITHIN + WORKER)
        still = fleet.id_of("a")
        async with Client(postgres_url) as client:
            starting = asyncio.create_task(start_runs(client, RUNS, workflow="guarded"))
            await fleet.until(lambda: fleet.is_stopped("a"))
            await fleet.start("b", "c")
            handles = await asyncio.wait_for(starting, 20)
            await fleet.until(lambda: fleet.is_dead(still))
            assert await results_of(client, handles, 60) == [STEPS] * RUNS
            fleet.signal("a", signal.SIGCONT)
            await fleet.until(lambda: fleet.has_joined("a"))
            assert await check_histories(fleet, handles) > 0, "nothing was under way"
        await fleet.stop()
        fleet.check_nothing_is_left()


async def test_runs_of_a_worker_that_is_stopped_go_on_elsewhere_at_once(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url, lease=100)
    with fleet.killed_at_the_end():
        await fleet.start("a", "b")
        async with Client(postgres_url) as client:
            handles = await start_runs(client, 5 * RUNS)
            await fleet.lines_come(RUNS)
            leaver, id = await _busiest(fleet)
            stopping = asyncio.create_task(fleet.stop(leaver))
            await asyncio.sleep(0)  # sleep: none, it lets the stop begin
            fleet.go_on()
            await stopping
            assert fleet.owned_by(id) == 0
            # Far less than the lease: nobody waits for its end.
            assert await results_of(client, handles, 30) == [STEPS] * 5 * RUNS
            assert await check_histories(fleet, handles) == 0, "attempts had their grace"
            assert len(fleet.lines()) == 5 * RUNS * STEPS
            [(moved,)] = fleet.select(HANDED_OVER, id, id)
            assert moved > 0, "it left when all its runs had ended"
        await fleet.stop()
        fleet.check_nothing_is_left()


async def test_workers_go_on_by_themselves_when_the_server_has_crashed_and_is_back(
    tmp_path: Path, postgres_cluster: Cluster
):
    fleet = Fleet(tmp_path, postgres_cluster.create_database("fleet"), lease=10)
    runs = 100
    with fleet.killed_at_the_end():
        await fleet.start("a", "b")
        async with Client(fleet.url) as client:
            handles = await start_runs(client, runs)
            for _ in range(2):
                await fleet.lines_come(runs)
                await asyncio.to_thread(postgres_cluster.restart, "immediate")
            fleet.go_on()
            assert await results_of(client, handles, 60) == [STEPS] * runs
            assert await check_histories(fleet, handles) == 0, "no worker lost its lease"
        await fleet.stop()
        fleet.check_nothing_is_left()


async def test_connections_that_are_cut_lose_nothing_and_double_nothing(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url, lease=10)
    chance = random.Random(int(size("SEED", SEED)))
    runs = 200
    with Proxy(postgres_url) as proxy, fleet.killed_at_the_end():
        await fleet.start("a", "b", url=proxy.url)
        async with Client(postgres_url) as client:
            handles = await start_runs(client, runs)
            waiting = asyncio.create_task(results_of(client, handles, 90))
            while not waiting.done():
                await asyncio.wait([waiting], timeout=chance.uniform(0, 0.1))
                await asyncio.to_thread(proxy.cut, chance, 0.3)
            assert await waiting == [STEPS] * runs
            assert proxy.cuts > 5
            assert await check_histories(fleet, handles) == 0, "no worker lost its lease"
        await fleet.stop()
        fleet.check_nothing_is_left()


@pytest.mark.timeout(900)
async def test_a_fleet_under_all_of_it_at_once_ends_every_run_and_records_nothing_twice(
    tmp_path: Path, postgres_cluster: Cluster
):
    runs, workers = int(size("RUNS", 400)), int(size("WORKERS", 4))
    seconds, restarts = size("SECONDS", 400), int(size("RESTARTS", 1))
    fleet = Fleet(tmp_path, postgres_cluster.create_database("fleet"))
    chance = random.Random(int(size("SEED", SEED)))
    with Proxy(fleet.url) as proxy, fleet.killed_at_the_end():
        await fleet.start("first")
        await fleet.stop()  # the definitions are there, and nobody takes the runs away from us
        async with Client(fleet.url) as client:
            half = runs // 2
            handles = await start_runs(client, half)
            handles += await start_runs(client, runs - half, workflow="guarded", prefix="rg")
            await fleet.start(*(f"w{n}" for n in range(workers)), url=proxy.url)
            waiting = asyncio.create_task(results_of(client, handles, seconds))
            kills = await _plague(fleet, proxy, postgres_cluster, chance, waiting, restarts)
            assert await waiting == [STEPS] * runs
            lost = await check_histories(fleet, handles)
        print(f"{kills} kills, {proxy.cuts} cuts, {lost} attempts lost")
        assert kills > 1
        assert proxy.cuts > 1
        await fleet.until(fleet.has_no_ghosts)
        await fleet.stop()
        fleet.check_nothing_is_left()


async def _plague(
    fleet: Fleet,
    proxy: Proxy,
    cluster: Cluster,
    chance: random.Random,
    waiting: asyncio.Task[list[object]],
    restarts: int,
) -> int:
    """Kill a worker every two seconds and start another; between that, everything else."""
    kills = 0
    still = min(fleet.processes)
    tasks = [asyncio.create_task(_stand_still(fleet, still))]
    while not waiting.done():
        if others := [name for name in sorted(fleet.processes) if name != still]:
            fleet.kill(chance.choice(others))
            kills += 1
            tasks.append(asyncio.create_task(_replace(fleet, f"v{kills}", proxy.url)))
        for _ in range(4):
            await asyncio.wait([waiting], timeout=0.5)
            await asyncio.to_thread(proxy.cut, chance, 0.1)
        if kills % 3 == 2 and kills // 3 < restarts:
            await asyncio.to_thread(cluster.restart, "immediate")
    await asyncio.gather(*tasks)
    return kills


async def _replace(fleet: Fleet, name: str, url: str) -> None:
    """Start a worker, again if it could not reach the server: as a supervisor would."""
    for _ in range(10):
        with suppress(EndedEarly):
            return await fleet.start(name, url=url)
    raise AssertionError(f"{name} never began")


async def _stand_still(fleet: Fleet, name: str) -> None:
    """SIGSTOP a worker until another has taken it for dead, and let it go on."""
    id = fleet.id_of(name)
    fleet.signal(name, signal.SIGSTOP)
    await fleet.until(lambda: fleet.is_dead(id))
    fleet.signal(name, signal.SIGCONT)


async def _busiest(fleet: Fleet) -> tuple[str, int]:
    """Return the worker that owns the most runs, by name and number."""
    ids = {name: fleet.id_of(name) for name in fleet.processes}
    name = max(ids, key=lambda name: fleet.owned_by(ids[name]))
    assert fleet.owned_by(ids[name]) > 0
    return name, ids[name]


# -- hints -----------------------------------------------------------------------------------------

ROUNDS = 20
WELL_BEFORE = 60.0
"""Seconds for all rounds: the looks of `SELDOM` would take several times that."""

SELDOM = """
from perdure import ends
from perdure.engine import intake
from perdure.store.postgres import store
ends._SAFETY_SECONDS = intake.SAFETY_SECONDS = store._POLL = 10.0
"""

DEAF = """
from perdure.store.postgres.hints import Hints
Hints.send = lambda self: None
Hints.listen = lambda self, told: None
"""


async def test_messages_answers_and_ends_are_told_by_hints(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    fleet = Fleet(tmp_path, postgres_url)
    monkeypatch.setattr(ends, "_SAFETY_SECONDS", 10.0)
    monkeypatch.setattr(store, "_POLL", 10.0)
    with fleet.killed_at_the_end():
        await fleet.start("near", code=SELDOM + WORKER)
        await fleet.start("far", queues=["far"], code=SELDOM + WORKER)
        async with Client(postgres_url) as client:
            clock = asyncio.get_running_loop().time
            handle = await client.start("echo", ROUNDS, id="echo")
            began = clock()
            for number in range(ROUNDS):
                await handle.send("number", number)
                while await handle.query("last") != number:
                    pass
            assert await handle.result("60s") == ROUNDS - 1
            assert clock() - began < WELL_BEFORE

            began = clock()
            for number in range(ROUNDS):
                handle = await client.start("patient", id=f"p{number}")
                await handle.send("go", number)
                assert await handle.result("60s") == str(number)
            assert clock() - began < WELL_BEFORE

            began = clock()
            handle = await client.start("faraway", ROUNDS, id="faraway")
            assert await handle.result("60s") == [str(number) for number in range(ROUNDS)]
            assert clock() - began < WELL_BEFORE
        await fleet.stop()
        fleet.check_nothing_is_left()


@pytest.mark.parametrize("how", ["lost", "pooler"])
async def test_without_hints_everything_comes_all_the_same(
    tmp_path: Path, postgres_url: str, how: str, monkeypatch: pytest.MonkeyPatch
):
    url = f"{postgres_url}?pooler=true" if how == "pooler" else postgres_url
    fleet = Fleet(tmp_path, postgres_url)
    code = WORKER if how == "pooler" else DEAF + WORKER
    with fleet.killed_at_the_end():
        await fleet.start("near", url=url, code=code)
        await fleet.start("far", url=url, queues=["far"], code=code)
        if how == "lost":
            monkeypatch.setattr(Hints, "listen", lambda *_: None)
        async with Client(url) as client:
            echo = await client.start("echo", 2, id="echo")
            handles = [await client.start("faraway", 1, id=f"f{n}") for n in range(3)]
            await echo.send("number", 1)
            assert await echo.query("last") in (0, 1)
            await echo.send("number", 2)
            assert await echo.result("30s") == 2
            for handle in handles:
                assert await handle.result("30s") == ["0"]
        await fleet.stop()
        fleet.check_nothing_is_left()


# -- beginning -------------------------------------------------------------------------------------


async def test_ten_workers_that_start_at_once_on_an_empty_database_all_serve(
    tmp_path: Path, postgres_url: str
):
    fleet = Fleet(tmp_path, postgres_url, lease=10)
    names = [f"w{n}" for n in range(10)]
    with fleet.killed_at_the_end():
        await fleet.start(*names, queues=["default", "of-{}"])
        applied = fleet.select("SELECT number FROM perdure.perdure_migration ORDER BY number")
        assert [number for (number,) in applied] == [one.number for one in MIGRATIONS]
        async with Client(postgres_url) as client:
            assert sorted(worker.name for worker in await client.workers()) == names
            handles = [
                await client.start("ten_steps", name, id=name, task_queue=f"of-{name}")
                for name in names
            ]
            assert await results_of(client, handles, 60) == [STEPS] * 10
            assert len({line[-1] for line in fleet.lines()}) == 10
        await fleet.stop()
        fleet.check_nothing_is_left()
