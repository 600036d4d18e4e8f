"""Activities of another task queue, under faults: every run ends, and nothing counts twice.

One world per seed: workers of two queues that are killed, frozen and started anew over a database
whose answers fail, get lost and come late.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from random import Random
from typing import Any

import pytest

from perdure import Retry, Status, TaskQueue, activity, workflow
from perdure.errors import PerdureError
from perdure.testing.faults import RandomFaults
from perdure.testing.simulator import Simulation

SEEDS = int(os.environ.get("PERDURE_SIM_SEEDS", "60"))
CHUNK = 20
RUNS = 4


@activity.define(task_queue="gpu", retry=Retry(interval="100ms", max_interval="1s"))
async def shaky(number: int) -> int:
    if number % 3 == 1 and activity.info().attempt % 2:
        raise ValueError("every other time")
    activity.heartbeat(number)
    await asyncio.sleep(number % 4)  # sleep: virtual time
    return number


@activity.define
async def near(number: int) -> int:
    await asyncio.sleep(0.1)  # sleep: virtual time
    return number


@activity.define(task_queue="gpu")
async def long() -> None:
    await asyncio.sleep(500)  # sleep: the workflow gives it up, in virtual time


@workflow.define
async def mixed(start: int) -> int:
    found = list(await asyncio.gather(*(shaky(start + n) for n in range(3)), near(start)))
    try:
        async with asyncio.timeout(2):
            await long()
    except TimeoutError:
        pass
    return sum(found) + await shaky(start)


async def _churn(sim: Simulation, chance: Random, kind: str, number: list[int]) -> None:
    """Keep a worker of a kind running; end it again and again."""
    queues: list[Any] = ["default"] if kind == "home" else [TaskQueue("gpu", 0, 3)]
    known = [mixed, near] if kind == "home" else [shaky, long]
    if chance.random() < 0.3:
        queues, known = ["default", TaskQueue("gpu", 0, 3)], [mixed, near, shaky, long]
    while True:
        number[0] += 1
        worker = sim.worker(f"{kind}{number[0]}", known, task_queues=queues)
        await worker.start()
        await asyncio.sleep(chance.random() * 12)  # sleep: virtual time
        if number[0] > 14:
            return
        how = chance.random()
        if how < 0.4:
            worker.kill()
        elif how < 0.6:
            worker.freeze()
            await asyncio.sleep(chance.random() * 25)  # sleep: virtual time
            worker.thaw()
        elif how < 0.8:
            await worker.stop("500ms")


async def _world(sim: Simulation, plan: RandomFaults, seed: int) -> list[str]:
    chance = sim.chance("world")
    number = [0]
    churns = [
        asyncio.ensure_future(_churn(sim, chance, kind, number)) for kind in ("home", "gpu", "gpu")
    ]
    process, client = sim.foreign_client("c")
    handles: list[Any] = []
    for index in range(RUNS):
        while True:
            try:
                found = await process.spawn(client.start("mixed", index, id=f"r{index}"))
            except PerdureError:
                await asyncio.sleep(0.5)  # sleep: virtual time
            else:
                handles.append(found)
                break
    await asyncio.gather(*churns)
    plan.calm()
    await sim.worker("last-home", [mixed, near]).start()
    await sim.worker("last-gpu", [shaky, long], task_queues=["gpu"]).start()
    return [
        it for index, handle in enumerate(handles) for it in await _judge(process, index, handle)
    ]


async def _judge(process: Any, index: int, handle: Any) -> list[str]:
    found: list[str] = []
    while True:
        status = (await process.spawn(handle.describe())).status
        if status is Status.PARKED:
            await process.spawn(handle.unpark())  # its workers were lost three times in a row
        if status.is_terminal:
            break
        await asyncio.sleep(1)  # sleep: virtual time
    result = await process.spawn(handle.result("5s"))
    if result != 5 * index + 3:
        found.append(f"run {index} gave {result}")
    history = await process.spawn(handle.history())
    outcomes: Counter[int] = Counter()
    for event in history:
        if event.kind in ("activity_completed", "activity_failed"):
            outcomes[event.data["activity"]] += 1
    if any(count > 1 for count in outcomes.values()):
        found.append(f"run {index}: an outcome is recorded twice: {outcomes}")
    ended: dict[tuple[int, int], list[str]] = {}
    for event in history:
        if event.kind in ("attempt_failed", "attempt_lost", "activity_completed"):
            key = event.data["activity"], event.data.get("attempt", 1)
            ended.setdefault(key, []).append(event.kind)
    if any(len(kinds) > 1 for kinds in ended.values()):
        found.append(f"run {index}: an attempt ended twice: {ended}")
    return found


def trouble_in(seed: int) -> str:
    chance = Random(f"{seed}/plan")
    plan = RandomFaults(
        Random(f"{seed}/faults"),
        error=chance.choice([0, 0.01, 0.03]),
        lost_ack=chance.choice([0, 0.01, 0.03]),
        slow=chance.choice([0, 0.2]),
        stuck=chance.choice([0, 0.003]),
        lost_hint=chance.choice([0, 0.3, 1]),
    )
    with Simulation(seed, plan=plan, limit_seconds=3_000) as sim:
        try:
            found = sim.run(_world(sim, plan, seed))
            left = sim.store.database.execute(
                "SELECT run, activity, stage FROM perdure_task"
            ).fetchall()
            if left:
                found.append(f"offers are left behind: {left}")
        except Exception as exc:
            found = [f"{type(exc).__name__}: {exc}"]
        found += sim.alarms
        return "\n".join([sim.report(60), f"seed {seed}:", *found]) if found else ""


@pytest.mark.parametrize(
    "seeds", [range(n, min(n + CHUNK, SEEDS)) for n in range(0, SEEDS, CHUNK)], ids=str
)
def test_every_world_ends_well(seeds: range):
    for seed in seeds:
        trouble = trouble_in(seed)
        assert not trouble, f"\n{trouble}"
