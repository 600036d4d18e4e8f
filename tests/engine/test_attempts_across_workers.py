"""What the attempts of an activity hand on to those after them, on whatever worker these run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Retry, Status, activity, workflow
from perdure.errors import ActivityFailed
from perdure.testing.simulator import SimulatedWorker, Simulation

HOUR = 3_600_000_000
attempts: list[tuple[int, Any]] = []


@activity.define
async def endless() -> None:
    attempts.append((activity.info().attempt, None))
    await asyncio.sleep(100)  # sleep: its worker is killed meanwhile, in virtual time


@activity.define(retry=Retry(interval="1s"))
async def fails_second() -> str:
    number = activity.info().attempt
    attempts.append((number, None))
    if number == 2:
        raise ValueError("once")
    if number < 5:
        await asyncio.sleep(100)  # sleep: its worker is killed meanwhile, in virtual time
    return "done"


@activity.define(retry=Retry(interval="2s"), schedule_timeout="10s")
async def hangs_second() -> None:
    if activity.info().attempt == 1:
        await asyncio.sleep(3)  # sleep: virtual time
        raise ValueError("at first")
    await asyncio.sleep(100)  # sleep: it hangs until it is given up, in virtual time


@activity.define(retry=Retry(interval="5s"))
async def resuming() -> str:
    info = activity.info()
    attempts.append((info.attempt, info.heartbeat_details))
    if info.attempt == 1:
        activity.heartbeat({"at": 7})
        raise ValueError("interrupted")
    return "done"


@activity.define
async def soon() -> str:
    await asyncio.sleep(2)  # sleep: another worker takes over meanwhile, in virtual time
    return "done"


@workflow.define
async def losing() -> None:
    await endless()


@workflow.define
async def failing_between() -> str:
    return await fails_second()


@workflow.define
async def hanging() -> str:
    try:
        await hangs_second()
    except ActivityFailed as exc:
        return str(exc)
    return "?"


@workflow.define
async def resume() -> str:
    return await resuming()


@workflow.define
async def two_steps() -> str:
    await soon()
    return await soon()


DEFINITIONS = [losing, failing_between, hanging, resume, two_steps]
DEFINITIONS += [endless, fails_second, hangs_second, resuming, soon]


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    attempts.clear()


async def _begin(sim: Simulation, workflow: Any) -> tuple[SimulatedWorker, Any, Any]:
    """Start a worker and an execution; return both, and the process of the client."""
    worker = sim.worker("w0", DEFINITIONS)
    await worker.start()
    process, client = sim.foreign_client("c")
    handle = await process.spawn(client.start(workflow.name, id="w"))
    return worker, process, handle


async def _replace(sim: Simulation, worker: SimulatedWorker, *, begun: int) -> SimulatedWorker:
    """Kill a worker as soon as so many attempts have begun, and start the next."""
    await sim.until(lambda: len(attempts) == begun)
    await asyncio.sleep(0.1)  # sleep: virtual time; at the very moment it began it may not count
    worker.kill()
    following = sim.worker(f"w{begun}", DEFINITIONS)
    await following.start()
    return following


def test_an_activity_that_lost_its_worker_three_times_in_a_row_parks_the_run():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            worker, process, handle = await _begin(sim, losing)
            for begun in (1, 2, 3):
                worker = await _replace(sim, worker, begun=begun)
            await asyncio.sleep(5)  # sleep: virtual time
            found = await process.spawn(handle.describe())
            return [found.status, found.reason]

        assert sim.run(main()) == [Status.PARKED, "worker_lost"]
    assert [number for number, _ in attempts] == [1, 2, 3]


def test_an_attempt_that_failed_by_itself_ends_the_row_of_lost_ones():
    with Simulation(seed=1) as sim:

        async def main() -> str:
            worker, process, handle = await _begin(sim, failing_between)
            for begun in (1, 3, 4):
                worker = await _replace(sim, worker, begun=begun)
            return await process.spawn(handle.result("60s"))

        assert sim.run(main()) == "done"
    assert [number for number, _ in attempts] == [1, 2, 3, 4, 5]


def test_the_schedule_timeout_counts_from_the_scheduling_while_a_later_attempt_hangs():
    with Simulation(seed=1) as sim:

        async def main() -> tuple[str, float]:
            worker = sim.worker("a", DEFINITIONS)
            await worker.start()
            said = await worker.spawn(worker.client.execute(hanging))
            return said, asyncio.get_running_loop().time()

        said, seconds = sim.run(main())
    assert "schedule timeout of 10 s" in said
    assert 10 <= seconds < 11


def test_heartbeat_details_of_a_failed_attempt_reach_the_next_one_on_another_worker():
    with Simulation(seed=1) as sim:

        async def main() -> str:
            worker, process, handle = await _begin(sim, resume)
            await asyncio.sleep(1)  # sleep: virtual time; the retry comes later
            await _replace(sim, worker, begun=1)
            return await process.spawn(handle.result("60s"))

        assert sim.run(main()) == "done"
    assert attempts == [(1, None), (2, {"at": 7})]


async def _killed(worker: SimulatedWorker) -> None:
    worker.kill()


async def _stopped(worker: SimulatedWorker) -> None:
    await worker.stop("0s")


@pytest.mark.parametrize("end", [_killed, _stopped], ids=["killed", "stopped"])
def test_a_runs_time_never_goes_back_when_a_worker_with_a_slower_clock_takes_it_over(
    end: Callable[[SimulatedWorker], Awaitable[None]],
):
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first, process, handle = await _begin(sim, two_steps)
            await asyncio.sleep(1)  # sleep: virtual time
            await end(first)
            await sim.worker("b", DEFINITIONS, clock_offset=-HOUR).start()
            done = await process.spawn(handle.result("60s"))
            return [done, [event.time for event in await process.spawn(handle.history())]]

        done, times = sim.run(main())
    assert done == "done"
    assert times == sorted(times)
