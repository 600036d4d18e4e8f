"""A run that ends with an escalation: whichever commit fails, people are asked once, and the
workflow is started again once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import human, workflow
from perdure.client import Client
from perdure.human.escalation import companion
from perdure.testing import checks
from perdure.testing.faults import Fault, NthCommit
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.values.states import Status

FAULTS = [Fault.ERROR, Fault.LOST_ACK, Fault.DIE_BEFORE, Fault.DIE_AFTER]
MANY = 40


@workflow.define
async def review(envelope: dict[str, Any]) -> Any:
    if "resolver" in envelope:
        return envelope["resolver"]
    await workflow.sleep("1s")
    return human.Escalation({"page": 7}, "Is this all right?", "reviewer")


class Scene:
    def __init__(self, number: int, fault: Fault) -> None:
        self.plan = NthCommit(number, fault)
        self.sim = Simulation(f"returned {number} {fault.value}", plan=self.plan, limit_seconds=300)

    def run(self) -> Any:
        with self.sim:
            found = self.sim.run(self._main())
            problems = checks.problems(self.sim.store, [review, companion])
            assert [*problems, *self.sim.alarms] == [], self.sim.report()
            return found

    async def _main(self) -> Any:
        workers = [self._worker("w1"), self._worker("w2")]
        for worker in workers:
            await worker.start()
        process, client = self.sim.foreign_client("ada")
        found = await process.spawn(self._use(client))
        for worker in workers:
            if worker.is_up:
                await worker.stop()
        return found

    async def _use(self, client: Client) -> Any:
        await client.start(review, {}, id="it")
        tasks: list[Any] = []
        while not tasks:
            tasks = (await client.human_tasks.list()).items
            await asyncio.sleep(0.1)  # sleep: virtual time
        [task] = tasks
        await client.human_tasks.complete(task.id, "yes", by="ada")
        while await client.count(status=[it for it in Status if not it.is_terminal]):
            await asyncio.sleep(0.1)  # sleep: virtual time
        every = await client.human_tasks.list(status=["open", "completed"])
        runs = sorted((run.workflow, str(run.status)) for run in (await client.list()).items)
        return len(every.items), runs, await client.get(f"rerun-{task.id}").result()

    def _worker(self, name: str) -> SimulatedWorker:
        worker = self.sim.worker(name, [review])
        worker.may_die = worker.desk.may_die = True
        return worker


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_people_are_asked_once_and_it_is_started_again_once_whichever_commit_fails(fault: Fault):
    for number in range(1, MANY):
        scene = Scene(number, fault)
        tasks, runs, answer = scene.run()
        assert tasks == 1
        assert runs == [
            ("perdure.escalation", "completed"),
            ("review", "completed"),
            ("review", "completed"),
        ], f"commit {number}"
        assert answer == "yes"
        if not scene.plan.has_failed:
            assert number > 5, "there are more commits than that"
            return
    pytest.fail("it never went through without a fault")
