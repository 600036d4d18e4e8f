"""Faults of a fleet, one by one: who goes on, who waits, and what callers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import activity, errors, workflow
from perdure.testing import checks
from perdure.testing.network import Network
from perdure.testing.simulator import SimulatedWorker, Simulation

began: list[tuple[str, int]] = []


@activity.define
async def step(name: str) -> str:
    began.append((name, activity.info().attempt))
    await asyncio.sleep(1)  # sleep: virtual time
    return name


@workflow.define
async def steps(count: int) -> list[str]:
    return [await step(str(number)) for number in range(count)]


class Fleet:
    """Two workers whose clocks differ by six minutes, and a client, on one server."""

    def __init__(self) -> None:
        began.clear()
        self.sim = Simulation(seed=1, on_server=True)
        network = self.sim.network
        assert network is not None
        self.network: Network = network

    def worker(self, name: str, offset: int = 0) -> SimulatedWorker:
        return self.sim.worker(name, [steps, step], lease="2s", clock_offset=offset)

    async def start(self, *workers: SimulatedWorker) -> tuple[Any, Any]:
        for worker in workers:
            await worker.start()
        process, client = self.sim.foreign_client("c", clock_offset=180_000_000)
        return process, await process.spawn(client.start(steps, 3, id="it"))

    def end(self) -> None:
        assert checks.problems(self.sim.store, [steps]) == []
        assert self.sim.alarms == []


@pytest.mark.parametrize("seconds", [1, 20, 120])
def test_workers_go_on_by_themselves_when_the_server_was_away_for_minutes(seconds: float):
    fleet = Fleet()
    with fleet.sim:

        async def main() -> Any:
            workers = [fleet.worker("a", -180_000_000), fleet.worker("b", 180_000_000)]
            process, handle = await fleet.start(*workers)
            await asyncio.sleep(1.5)  # sleep: virtual time
            fleet.network.go_down()
            await asyncio.sleep(seconds)  # sleep: virtual time
            fleet.network.come_up()
            result = await process.spawn(handle.result("60s"))
            for worker in workers:
                await worker.stop()
            return result

        assert fleet.sim.run(main()) == ["0", "1", "2"]
        fleet.end()


def test_runs_of_a_killed_worker_are_taken_over_a_second_after_its_lease():
    fleet = Fleet()
    with fleet.sim:

        async def main() -> float:
            first, second = fleet.worker("a"), fleet.worker("b")
            process, handle = await fleet.start(first)
            await second.start()
            await fleet.sim.until(lambda: bool(began))
            first.kill()
            killed_at = fleet.sim.loop.time()
            await fleet.sim.until(lambda: ("0", 2) in began)
            taken_at = fleet.sim.loop.time()
            await process.spawn(handle.result("60s"))
            await second.stop()
            return taken_at - killed_at

        assert fleet.sim.run(main()) < 2 + 1
        fleet.end()


def test_a_worker_that_is_cut_off_loses_its_runs_to_the_other_and_comes_back():
    fleet = Fleet()
    with fleet.sim:

        async def main() -> Any:
            first, second = fleet.worker("a", 180_000_000), fleet.worker("b", -180_000_000)
            process, handle = await fleet.start(first)
            before = first.core.committer.worker
            await second.start()
            await fleet.sim.until(lambda: bool(began))
            fleet.network.cut(first.process)
            result = await process.spawn(handle.result("60s"))
            fleet.network.join(first.process)
            await fleet.sim.until(lambda: first.core.committer.worker != before)
            await second.stop()
            again = await process.spawn(_again(fleet))
            await first.stop()
            return [result, again]

        assert fleet.sim.run(main()) == [["0", "1", "2"], ["0"]]
        assert ("0", 2) in began  # the attempt that was under way counts
        fleet.end()


async def _again(fleet: Fleet) -> Any:
    _, client = fleet.sim.foreign_client("d")
    handle = await client.start(steps, 1, id="again")
    return await handle.result("60s")


def test_clocks_that_are_wrong_by_minutes_take_no_lease_away():
    fleet = Fleet()
    with fleet.sim:

        async def main() -> Any:
            workers = [fleet.worker(f"w{n}", (n - 2) * 150_000_000) for n in range(5)]
            process, handle = await fleet.start(*workers)
            numbers = [worker.core.committer.worker for worker in workers]
            await asyncio.sleep(30)  # sleep: virtual time
            assert [worker.core.committer.worker for worker in workers] == numbers
            result = await process.spawn(handle.result("60s"))
            for worker in workers:
                await worker.stop()
            return result

        assert fleet.sim.run(main()) == ["0", "1", "2"]
        assert [attempt for _, attempt in began] == [1, 1, 1]
        fleet.end()


def test_a_stop_while_the_server_does_not_answer_does_not_say_that_nothing_was_written():
    fleet = Fleet()
    with fleet.sim:

        async def main() -> str:
            worker = fleet.worker("a")
            await worker.start()
            fleet.network.go_down()
            starting = worker.spawn(_refused(worker))
            await asyncio.sleep(0.1)  # sleep: virtual time
            stopping = worker.spawn(worker.engine.stop("0s"))
            said = await starting
            fleet.network.come_up()
            await stopping
            return said

        assert "may or may not have been written" in fleet.sim.run(main())


async def _refused(worker: SimulatedWorker) -> str:
    with pytest.raises(errors.Unavailable) as refused:
        await worker.client.start(steps, 1, id="it")
    return refused.value.message
