"""People decide while any commit fails: nobody's decision is lost, and none counts twice."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest

from perdure import activity, errors, human, workflow
from perdure.client import Client
from perdure.testing import checks
from perdure.testing.faults import Fault, NthCommit
from perdure.testing.simulator import SimulatedWorker, Simulation

T = TypeVar("T")
FAULTS = [Fault.ERROR, Fault.LOST_ACK, Fault.DIE_BEFORE, Fault.DIE_AFTER]
MANY = 60


@activity.define
async def note(text: str) -> str:
    return text


@workflow.define
async def paperwork() -> list[str]:
    """Two people side by side, one who is too late, one whom a message overtakes, one at last."""
    first = asyncio.gather(human.request("a", due="1h"), human.request("b", remind="100ms"))
    got = [decided.by for decided in await first]
    got.append((await human.request("late", due="300ms")).outcome)
    await note("half way")
    person = asyncio.ensure_future(human.request("overtaken"))
    await workflow.listen("go").receive()
    person.cancel()
    await asyncio.gather(person, return_exceptions=True)
    asyncio.ensure_future(human.request("left behind"))
    last = await human.request("last", due="1ms", expires="never")
    return [*got, last.by]


class Scene:
    """One run on two workers, people outside, and one commit that fails."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.plan = NthCommit(number, fault)
        self.sim = Simulation(f"people {number} {fault.value}", plan=self.plan, limit_seconds=120)
        self.acknowledged: dict[str, str] = {}

    def run(self) -> list[str]:
        with self.sim:
            result = self.sim.run(self._main())
            found = checks.problems(self.sim.store, [paperwork])
            if result != ["ada", "ada", "expired", "ada"]:
                found.append(f"the result is {result}")
            found += self.sim.alarms
            return [*found, self.sim.report()] if found else []

    async def _main(self) -> Any:
        workers = [self._worker("w1"), self._worker("w2")]
        await workers[0].start()
        process, client = self.sim.foreign_client("ada")
        process2, other = self.sim.foreign_client("grace")

        async def use() -> Any:
            handle = await client.start(paperwork, id="it")
            for title in ("a", "b"):
                await self._decide(client, title)
            await self._open(client, "overtaken")
            await handle.send("go")
            await self._decide(client, "last")
            return await handle.result(timeout=60)

        waiting = process.spawn(use())
        await workers[1].start()
        result = await waiting
        assert not (await process2.spawn(self._listed(other)))
        for worker in workers:
            if worker.is_up:
                await worker.stop()
        return result

    async def _listed(self, client: Client) -> list[str]:
        return [task.title for task in (await client.human_tasks.list()).items]

    async def _open(self, client: Client, title: str) -> str:
        while True:
            for task in (await client.human_tasks.list()).items:
                if task.title == title:
                    return task.id
            await asyncio.sleep(0.05)  # sleep: virtual time

    async def _decide(self, client: Client, title: str) -> None:
        id = await self._open(client, title)
        await client.human_tasks.complete(id, by="ada")
        with pytest.raises(errors.TaskClosed, match="by 'ada'"):
            await client.human_tasks.complete(id, by="grace")

    def _worker(self, name: str) -> SimulatedWorker:
        worker = self.sim.worker(name, [paperwork, note])
        worker.may_die = worker.desk.may_die = True
        return worker


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_any_commit_may_fail(fault: Fault) -> None:
    for number in range(1, MANY):
        scene = Scene(number, fault)
        found = scene.run()
        assert not found, f"commit {number}, {fault.value}:\n" + "\n".join(found)
        if not scene.plan.has_failed:
            assert number > 4, "there was next to nothing to fail"
            return
    raise AssertionError("there is no end to the commits")


class NthAct(NthCommit):
    """One fault, at the N-th thing that somebody does to a human task."""

    def fault(self, desk: Any, verb: str) -> Fault:
        return Fault.NONE if verb != "act" else self._at(verb)

    def _at(self, verb: str) -> Fault:
        self.commits += 1
        if self.commits != 1:
            return Fault.NONE
        self.has_failed = True
        return Fault.LOST_ACK if self.is_lost else Fault.ERROR

    is_lost = False


@pytest.mark.parametrize("is_lost", [False, True], ids=["not written", "written"])
def test_a_decision_that_was_not_acknowledged_was_made_or_not_and_can_be_asked_for(is_lost: bool):
    plan = NthAct(1, Fault.ERROR)
    plan.is_lost = is_lost
    with Simulation("unacknowledged", plan=plan) as sim:

        async def main() -> list[str]:
            worker = sim.worker("w", [paperwork, note])
            await worker.start()
            process, client = sim.foreign_client("ada")

            async def use() -> list[str]:
                await client.start(paperwork, id="it")
                [task] = [it for it in (await _some(client)) if it.title == "a"]
                with pytest.raises(errors.Unavailable):
                    await client.human_tasks.complete(task.id, by="ada")
                after = await client.human_tasks.get(task.id)
                await client.get("it").terminate()
                return [str(after.status), after.closed_by or ""]

            found = await process.spawn(use())
            await worker.stop()
            return found

        assert sim.run(main()) == (["completed", "ada"] if is_lost else ["open", ""])
        assert checks.problems(sim.store, [paperwork]) == []


async def _some(client: Client) -> list[Any]:
    while not (items := (await client.human_tasks.list()).items):
        await asyncio.sleep(0.05)  # sleep: virtual time
    return items
