"""Log lines when commits fail: none is lost while the worker lives, and none comes twice."""

from __future__ import annotations

import asyncio

import pytest

from perdure import activity, workflow
from perdure.testing.faults import Calm, Fault, NthCommit
from perdure.testing.simulator import Simulation


@activity.define
async def pick(number: int) -> int:
    activity.logger.info("pick %d", number)
    await asyncio.sleep(0.1)  # sleep: virtual time, in which nothing is committed
    activity.logger.info("picked %d", number)
    return number


@workflow.define
async def picking() -> int:
    workflow.logger.info("begin")
    total = 0
    for number in (1, 2):
        total += await pick(number)
        workflow.logger.info("so far %d", total)
    return total


@activity.define
async def poisonous() -> str:
    activity.logger.info("poison")
    return "poison-pill"


@workflow.define
async def poisoned() -> str:
    return await poisonous()


EXPECTED = ["begin"]
EXPECTED += ["pick 1", "picked 1", "so far 1", "pick 2", "picked 2", "so far 3"]
DEFINITIONS = [picking, pick, poisoned, poisonous]


async def _started(sim: Simulation, name: str) -> None:
    worker = sim.worker(name, DEFINITIONS)
    worker.desk.may_die = True
    await worker.start()


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ACK], ids=lambda fault: fault.value)
@pytest.mark.parametrize("number", range(1, 4))
def test_a_commit_that_is_not_acknowledged_costs_and_doubles_no_line(number: int, fault: Fault):
    plan = NthCommit(number, fault)
    with Simulation(seed=1, plan=plan) as sim:

        async def main() -> list[str]:
            await _started(sim, "a")
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("picking", id="p"))
            assert await process.spawn(handle.result("60s")) == 3
            await asyncio.sleep(2)  # sleep: virtual time, for what rides along with nothing
            return [line.message for line in await process.spawn(handle.logs())]

        assert sim.run(main()) == EXPECTED
    assert plan.has_failed


@pytest.mark.parametrize("number", range(1, 4))
def test_lines_of_workflow_code_stand_once_whatever_worker_dies(number: int):
    plan = NthCommit(number, Fault.DIE_AFTER)
    with Simulation(seed=1, plan=plan) as sim:

        async def main() -> list[str]:
            await _started(sim, "a")
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("picking", id="p"))
            await sim.until(lambda: plan.has_failed)
            await _started(sim, "b")
            assert await process.spawn(handle.result("60s")) == 3
            return [line.message for line in await process.spawn(handle.logs())]

        lines = sim.run(main())
    told = [line for line in lines if not line.startswith("pick")]
    assert told == [line for line in EXPECTED if not line.startswith("pick")]


def test_lines_beside_a_turn_that_the_store_refuses_are_kept():
    with Simulation(seed=1, plan=Calm()) as sim:

        async def main() -> tuple[list[str], list[str]]:
            await _started(sim, "a")
            process, client = sim.foreign_client("c")
            bad = await process.spawn(client.start("poisoned", id="bad"))
            good = await process.spawn(client.start("picking", id="good"))
            assert await process.spawn(good.result("60s")) == 3
            await asyncio.sleep(2)  # sleep: virtual time, for what rides along with nothing
            found = [await process.spawn(handle.logs()) for handle in (bad, good)]
            one, two = ([line.message for line in lines] for lines in found)
            return one, two

        assert sim.run(main()) == (["poison"], EXPECTED)
