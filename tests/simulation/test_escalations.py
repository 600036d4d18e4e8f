"""Human tasks escalate and expire at their time, once each, whatever fails while they are moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import human, workflow
from perdure.client import Client
from perdure.testing import checks
from perdure.testing.faults import Fault, NthCommit
from perdure.testing.simulator import SimulatedWorker, Simulation

FAULTS = [Fault.NONE, Fault.ERROR, Fault.LOST_ACK, Fault.DIE_BEFORE, Fault.DIE_AFTER]


@workflow.define
async def approve() -> str:
    chain = [("lead", "10s"), ("director", "30s")]
    decided = await human.request("Approve?", role="finance", due="1m", escalate=chain)
    return decided.outcome


class NthMove(NthCommit):
    """One fault, at the N-th time that human tasks are moved on."""

    def fault(self, desk: Any, verb: str) -> Fault:
        if verb != "move_human_tasks":
            return Fault.NONE
        self.commits += 1
        if self.commits != self._number:
            return Fault.NONE
        self.has_failed = True
        return self._fault


class Scene:
    def __init__(self, number: int, fault: Fault) -> None:
        self.plan = NthMove(number, fault)
        self.sim = Simulation(f"moves {number} {fault.value}", plan=self.plan, limit_seconds=300)
        self.heard: list[tuple[int, str]] = []

    async def main(self) -> Any:
        workers = [self._worker("w1"), self._worker("w2")]
        for worker in workers:
            await worker.start()
            worker.core.listeners.on("workflow.task.escalated", self._hear)
        process, client = self.sim.foreign_client("ada")
        found = await process.spawn(self._use(client))
        for worker in workers:
            if worker.is_up:
                await worker.stop()
        return found

    async def _use(self, client: Client) -> Any:
        self.began = self.sim.loop.time()
        handle = await client.start(approve, id="it")
        alone = await client.human_tasks.create("Look", due="20s", by="ada")
        asked = ""
        while not asked:
            for task in (await client.human_tasks.list(role="finance")).items:
                asked = task.id
            await asyncio.sleep(0.1)  # sleep: virtual time
        outcome = await handle.result(timeout=120)
        logs = [
            [(it.verb, it.data.get("role")) for it in await client.human_tasks.log(id)]
            for id in (asked, alone.id)
        ]
        return outcome, logs

    def _hear(self, event: Any) -> None:
        self.heard.append((round(self.sim.loop.time() - self.began), event.data["role"]))

    def _worker(self, name: str) -> SimulatedWorker:
        worker = self.sim.worker(name, [approve])
        worker.may_die = worker.desk.may_die = True
        return worker


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_each_step_is_taken_once_whatever_fails(fault: Fault, number: int):
    scene = Scene(number, fault)
    with scene.sim as sim:
        outcome, (asked, alone) = sim.run(scene.main())
        assert not checks.problems(sim.store, [approve]), sim.report()
        assert not sim.alarms
    assert outcome == "expired"
    assert asked == [
        ("opened", None),
        ("escalated", "lead"),
        ("escalated", "director"),
        ("expired", None),
    ]
    assert alone == [("opened", None), ("expired", None)]
    if fault is Fault.NONE:
        assert scene.heard == [(10, "lead"), (30, "director")]
    else:
        assert len(scene.heard) <= 2
        assert scene.plan.has_failed
