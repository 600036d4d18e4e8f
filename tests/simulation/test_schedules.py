"""Schedules under faults: every tick is dealt with once, whoever dies and whatever gets lost.

One world per seed: workers that are killed, frozen and started anew over a database whose answers
fail, get lost and come late; in every other world it is on a server, and the clocks of the workers'
machines are wrong.
"""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from random import Random

import pytest

from perdure import workflow
from perdure.errors import PerdureError
from perdure.store.port import Filter, ScheduleFilter, SchedulePut
from perdure.testing.faults import RandomFaults
from perdure.testing.simulator import Simulation
from perdure.values.schedules import Overlap, Spec, Template, stamp, ticks_after

SEEDS = int(os.environ.get("PERDURE_SIM_SEEDS", "60"))
CHUNK = 10
S = 1_000_000


@workflow.define
async def job(seconds: float) -> str:
    await workflow.sleep(seconds)
    return str(workflow.info().scheduled_at)


def _schedules(chance: Random) -> list[SchedulePut]:
    found: list[SchedulePut] = []
    for overlap in Overlap:
        spec = Spec(
            every=chance.choice((2, 3, 5)) * S,
            overlap=overlap,
            jitter=chance.choice((0, 1, 4)) * S,
            catch_up=chance.choice((1, 10, 1_000)) * S,
            max_executions=chance.choice((0, 0, 0, 3)),
        )
        seconds = chance.choice((b"0", b"1", b"7"))
        found.append(SchedulePut("default", str(overlap), spec, Template("job", input=seconds)))
    return found


async def _churn(sim: Simulation, chance: Random, name: str, left: list[int]) -> None:
    while left[0] > 0:
        left[0] -= 1
        offset = chance.choice((0, -3_600 * S, 5 * S)) if sim.network is not None else 0
        worker = sim.worker(f"{name}{left[0]}", [job], clock_offset=offset)
        worker.may_die = worker.desk.may_die = True
        try:
            await worker.start()
        except PerdureError:
            worker.kill()
            continue
        await asyncio.sleep(chance.random() * 10)  # sleep: virtual time
        how = chance.random()
        if how < 0.5:
            worker.kill()
        elif how < 0.7:
            worker.freeze()
            await asyncio.sleep(chance.random() * 20)  # sleep: virtual time
            worker.thaw()
        elif worker.is_up:
            await worker.stop("500ms")


async def _world(sim: Simulation, plan: RandomFaults) -> list[SchedulePut]:
    chance = sim.chance("world")
    puts = _schedules(chance)
    process, client = sim.foreign_client("c")
    for put in puts:
        while True:
            try:
                await process.spawn(client.door.put_schedule(put))
            except PerdureError:
                await asyncio.sleep(0.5)  # sleep: virtual time
            else:
                break
    left = [10]
    await asyncio.gather(*(_churn(sim, chance, name, left) for name in "abc"))
    plan.calm()
    await sim.worker("last", [job]).start()
    await asyncio.sleep(20)  # sleep: virtual time
    for put in puts:
        await process.spawn(client.schedules.pause(put.id))
    await asyncio.sleep(40)  # sleep: virtual time, in which all that runs ends
    return puts


def _judge(sim: Simulation) -> list[str]:
    found: list[str] = []
    store = sim.store
    runs = store.list(Filter(workflow="job"), limit=10_000).rows
    places: dict[int, tuple[int, int]] = {}
    for place, turn in enumerate(store.journal(limit=100_000).rows):
        places[turn.run] = places.get(turn.run, (place, 0))[0], place
    for row in store.schedules(ScheduleFilter(), limit=100):
        standing, spec = row.standing, row.spec
        own = sorted(
            (r for r in runs if r.workflow_id.startswith(f"{row.id}-")), key=lambda r: r.run
        )
        ticks = {}
        for tick in ticks_after(spec, row.created_at):
            if tick > standing.done:
                break
            ticks[f"{row.id}-{stamp(tick)}"] = tick
        dealt = standing.fired + standing.skipped + standing.missed + len(standing.buffer)
        if dealt != len(ticks):
            found.append(f"{row.id}: {dealt} of {len(ticks)} ticks dealt with: {standing}")
        if len(own) != standing.fired or len({r.workflow_id for r in own}) != len(own):
            found.append(f"{row.id}: {len(own)} executions of {standing.fired}")
        for run in own:
            if run.workflow_id not in ticks:
                found.append(f"{run.workflow_id}: of no tick")
            elif run.created_at < ticks[run.workflow_id]:
                found.append(f"{run.workflow_id}: began early")
            if not run.status.is_terminal:
                found.append(f"{run.workflow_id} is {run.status}")
        if spec.overlap is not Overlap.ALLOW:
            # In the order of commits: clocks of workers differ by some milliseconds.
            found += [
                f"{b.workflow_id} began before {a.workflow_id} ended"
                for a, b in pairwise(own)
                if places[b.run][0] < places[a.run][1]
            ]
        if spec.max_executions and standing.fired > spec.max_executions:
            found.append(f"{row.id}: more than {spec.max_executions}")
        if not standing.fired:
            found.append(f"{row.id}: nothing began")
    return found + sim.alarms


def _problems(seed: int) -> list[str]:
    chance = Random(seed)
    plan = RandomFaults(
        chance,
        error=0.02,
        lost_ack=0.03,
        death=0.01,
        slow=0.1,
        slow_seconds=0.1,
        stuck=0.002,
        lost_hint=0.3,
    )
    name = f"schedules {seed}"
    with Simulation(name, plan=plan, limit_seconds=1_000, on_server=bool(seed % 2)) as sim:
        sim.run(_world(sim, plan))
        found = _judge(sim)
        return [*found, sim.report()] if found else []


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_each_tick_is_dealt_with_once_in_every_world(first: int):
    for seed in range(first, min(first + CHUNK, SEEDS)):
        found = _problems(seed)
        assert not found, f"seed {seed}:\n" + "\n".join(found)
