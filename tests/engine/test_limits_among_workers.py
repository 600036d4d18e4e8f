"""Concurrency limits when there are several workers, when they die, and when commits get lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Client, Engine, Status, activity, workflow
from perdure.errors import ConcurrencyLimit, Unavailable
from perdure.testing import checks
from perdure.testing.faults import Fault, FaultyDesk, RandomFaults
from perdure.testing.simulator import SimulatedWorker, Simulation

MOST = 3
ADMITTED = (Status.RUNNING, Status.WAITING, Status.PAUSED, Status.PARKED)


@activity.define
async def rest() -> None:
    await asyncio.sleep(1)  # sleep: work that takes a moment, in virtual time


@workflow.define
async def job(number: int) -> int:
    await rest()
    await workflow.sleep("500ms")
    return number


@workflow.define
async def holder(_: str) -> str:
    await workflow.listen("go").receive()
    return "gone"


class Watcher:
    """Counts, after everything that is written, how many jobs are admitted."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.most = 0
        sim.sea.on_written = self._written

    def _written(self, *_: object) -> None:
        database = self._sim.store.database
        sql = (
            "SELECT count(*) FROM perdure_state s JOIN perdure_run r USING (run) "
            "WHERE r.workflow = 'job' AND s.status IN (1, 2, 3, 4)"
        )
        self.most = max(self.most, database.execute(sql).fetchone()[0])


def limited(sim: Simulation, name: str, **options: Any) -> SimulatedWorker:
    def prepare(engine: Engine) -> None:
        engine.register(job, max_concurrent=MOST, on_limit="queue")

    return sim.worker(name, [], lease="2s", prepare=prepare, **options)


def test_two_workers_never_admit_more_than_the_limit_and_finish_everything():
    async def story(sim: Simulation) -> None:
        watcher = Watcher(sim)
        a, b = limited(sim, "a"), limited(sim, "b")
        await asyncio.gather(a.start(), b.start())

        async def starts(worker: SimulatedWorker, first: int) -> list[int]:
            return await asyncio.gather(
                *(worker.client.execute(job, n) for n in range(first, first + 15))
            )

        done = await asyncio.gather(a.spawn(starts(a, 0)), b.spawn(starts(b, 15)))
        assert done == [list(range(15)), list(range(15, 30))]
        assert watcher.most == MOST
        began = sim.loop.time()
        assert began < 30 / MOST * 1.5 + 3  # nobody waited for a safety look

    with Simulation(seed=1) as sim:
        sim.run(story(sim))
        assert checks.problems(sim.store, [job]) == []


def test_a_killed_workers_executions_keep_their_slots_and_free_them_when_they_end():
    async def story(sim: Simulation) -> None:
        watcher = Watcher(sim)
        a = limited(sim, "a")
        await a.start()
        process, client = sim.foreign_client("shop")

        async def all_jobs() -> list[int]:
            return await asyncio.gather(*(client.execute("job", n) for n in range(9)))

        jobs = process.spawn(all_jobs())
        await asyncio.sleep(0.5)  # sleep: virtual time, until three are under way
        a.kill()
        await asyncio.sleep(0.1)  # sleep: virtual time
        await limited(sim, "b").start()
        assert await jobs == list(range(9))
        assert watcher.most == MOST

    with Simulation(seed=1) as sim:
        sim.run(story(sim))


class DiesAfter:
    """One worker dies right after its n-th commit is written, before it hears of it."""

    def __init__(self, name: str, commits: int) -> None:
        self._name = name
        self._left = commits

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        if desk.process.name != self._name or verb != "commit":
            return Fault.NONE
        self._left -= 1
        return Fault.DIE_AFTER if self._left == 0 else Fault.NONE

    def delay(self, desk: FaultyDesk) -> float:
        return 0.0

    def hint(self, desk: FaultyDesk) -> float | None:
        return None  # nobody notices foreign commits: the look of each second must do


@pytest.mark.parametrize("commits", range(2, 10))
def test_whoever_dies_between_a_close_and_the_next_begin_blocks_nobody(commits: int):
    async def story(sim: Simulation) -> None:
        a, b = limited(sim, "a"), limited(sim, "b")
        await a.start()
        process, client = sim.foreign_client("shop")
        handles = await process.spawn(_starts(client, 8))
        await b.start()
        results = await asyncio.gather(*(process.spawn(h.result()) for h in handles))
        assert results == list(range(8))
        assert sim.store.database.execute("SELECT count(*) FROM perdure_slot").fetchone() == (0,)

    with Simulation(seed=1, plan=DiesAfter("a", commits)) as sim:
        sim.run(story(sim))


async def _starts(client: Client, count: int) -> list[Any]:
    return [await client.start("job", n) for n in range(count)]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_no_commit_admits_too_many_and_no_slot_leaks(seed: int):
    async def story(sim: Simulation) -> None:
        watcher = Watcher(sim)
        chance = Random(f"{seed}/limits")
        await limited(sim, "w0").start()
        process, client = sim.foreign_client("shop")
        jobs = [process.spawn(_patiently(client, n)) for n in range(20)]
        for n in range(1, 3):  # a third kill in a row could park a run
            await asyncio.sleep(chance.random() * 3)  # sleep: virtual time
            sim.workers[-1].kill()
            await limited(sim, f"w{n}").start()
        faults.calm()
        if not sim.workers[-1].process.is_alive:
            await limited(sim, "last").start()
        assert await asyncio.gather(*jobs) == list(range(20))
        assert 0 < watcher.most <= MOST
        assert sim.store.database.execute("SELECT count(*) FROM perdure_slot").fetchone() == (0,)

    faults = RandomFaults(
        Random(seed), error=0.05, lost_ack=0.1, slow=0.3, lost_hint=0.3, slow_seconds=0.3
    )
    with Simulation(seed=seed, plan=faults) as sim:
        sim.run(story(sim))


async def _patiently(client: Client, number: int) -> int:
    while True:
        try:
            return await client.execute("job", number, id=f"job{number}")
        except Unavailable:
            await asyncio.sleep(0.1)  # sleep: virtual time


async def test_fifty_starts_in_two_processes_find_as_many_slots_as_there_are(tmp_path: Path):
    def engine(**options: Any) -> Engine:
        one = engine_on(tmp_path, **options)
        one.register(holder, max_concurrent=5)
        return one

    async with engine() as a, engine(), Client(a.url) as outside:
        clients = [a.client, outside]
        answers = await asyncio.gather(
            *(clients[n % 2].start("holder", "", id=f"w{n}") for n in range(50)),
            return_exceptions=True,
        )
        refused = [one for one in answers if isinstance(one, ConcurrencyLimit)]
        assert len(refused) == 45
        assert await a.client.count() == 5


async def test_a_worker_of_another_process_takes_up_what_a_freed_slot_lets_in(tmp_path: Path):
    a = engine_on(tmp_path, task_queues=["a"])
    b = engine_on(tmp_path, task_queues=["b"])
    for engine in (a, b):
        engine.register(holder, max_concurrent=1, on_limit="queue")
    async with a, b:
        first = await a.client.start(holder, "", id="first", task_queue="a")
        second = await a.client.start(holder, "", id="second", task_queue="b")
        assert await second.status() is Status.PENDING
        await first.send("go")
        await until_status(second, Status.WAITING)
        await second.send("go")
        assert await second == "gone"


async def test_a_worker_that_joins_with_another_limit_changes_it_for_all(tmp_path: Path):
    a, b = engine_on(tmp_path), engine_on(tmp_path)
    a.register(holder, max_concurrent=1, on_limit="queue")
    b.register(holder, max_concurrent=2, on_limit="queue")
    async with a:
        await a.client.start(holder, "", id="first")
        second = await a.client.start(holder, "", id="second")
        third = await a.client.start(holder, "", id="third")
        async with b:
            await until_status(second, Status.WAITING)
            assert await third.status() is Status.PENDING
            assert "2 of 2 slots" in await third.why()


async def test_slots_outlive_every_worker(tmp_path: Path):
    def engine() -> Engine:
        one = engine_on(tmp_path)
        one.register(holder, max_concurrent=1, on_limit="queue")
        return one

    async with engine() as a:
        await a.client.start(holder, "", id="first")
        await a.client.start(holder, "", id="second")
    async with engine() as b:
        second = b.client.get("second")
        assert await second.status() is Status.PENDING
        await b.client.get("first").send("go")
        await second.send("go")
        assert await second.result() == "gone"
        await until(lambda: _count_is(b.client, 0))


async def _count_is(client: Client, count: int) -> bool:
    return await client.count(status=["running", "waiting", "pending"]) == count
