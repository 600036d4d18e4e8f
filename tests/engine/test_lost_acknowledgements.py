"""What is told when a commit fails, and what is kept of a message that comes just before one."""

from __future__ import annotations

import asyncio

import pytest

from perdure import activity, workflow
from perdure.testing.faults import Calm, Fault, FaultyDesk, NthCommit
from perdure.testing.simulator import Simulation


@workflow.define
async def announcing() -> str:
    await workflow.emit("done", {"of": "it"})
    return "done"


@activity.define
async def step() -> str:
    await asyncio.sleep(2)  # sleep: a message comes meanwhile, in virtual time
    return "done"


@workflow.define
async def one_step() -> str:
    return await step()


DEFINITIONS = [announcing, one_step, step]


class OneFails(NthCommit):
    """The first commit fails; notes what the listeners knew at that time."""

    def __init__(self, fault: Fault, told: list[str]) -> None:
        super().__init__(1, fault)
        self._told = told
        self.told_before: list[str] | None = None

    def fault(self, desk: FaultyDesk, verb: str) -> Fault:
        fault = super().fault(desk, verb)
        if fault is not Fault.NONE:
            self.told_before = list(self._told)
        return fault


class Deaf(Calm):
    """Nobody notices what others have committed."""

    def hint(self, desk: FaultyDesk) -> float | None:
        return None


async def _serve(sim: Simulation, name: str, told: list[str]) -> None:
    worker = sim.worker(name, DEFINITIONS)
    worker.desk.may_die = True
    await worker.start()
    worker.engine.events.on("workflow.event", lambda event: told.append(name))


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.DIE_BEFORE], ids=lambda fault: fault.value)
def test_a_commit_that_fails_tells_no_listener_what_was_emitted(fault: Fault):
    told: list[str] = []
    plan = OneFails(fault, told)
    with Simulation(seed=1, plan=plan) as sim:

        async def main() -> str:
            await _serve(sim, "a", told)
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("announcing", id="w"))
            await sim.until(lambda: plan.has_failed)
            await _serve(sim, "b", told)
            return await process.spawn(handle.result("60s"))

        assert sim.run(main()) == "done"
    assert plan.told_before == []
    assert len(told) == 1


def test_a_message_that_came_before_the_end_is_in_the_history_though_nobody_had_noticed_it():
    with Simulation(seed=1, plan=Deaf()) as sim:

        async def main() -> list[str]:
            worker = sim.worker("a", DEFINITIONS)
            await worker.start()
            await worker.spawn(worker.client.start(one_step, id="w"))
            process, client = sim.foreign_client("c")
            await asyncio.sleep(1.9)  # sleep: virtual time
            handle = client.get("w")
            await process.spawn(handle.send("letters", "late"))
            assert await process.spawn(handle.result("60s")) == "done"
            return [event.kind for event in await process.spawn(handle.history())]

        kinds = sim.run(main())
    assert kinds[-3:] == ["activity_completed", "message_received", "run_completed"]
