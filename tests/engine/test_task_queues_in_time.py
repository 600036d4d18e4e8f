"""Retries, timeouts, losses and pauses of activities in another task queue, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.queued import (
    ACTIVITIES,
    WORKFLOWS,
    attempts,
    flaky,
    seen,
    trying,
    waiting,
    waits,
)

from perdure import Retry, Status, workflow
from perdure.errors import ActivityFailed
from perdure.testing.simulator import Simulation


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    attempts.clear()
    seen.clear()


def simulated(main: Callable[[Simulation], Any], *, seed: int = 1) -> Any:
    with Simulation(seed=seed) as sim:
        return sim.run(main(sim))


async def begun(
    sim: Simulation, flow: Any, *args: Any, workers: int = 1, **options: Any
) -> tuple[list[Any], Any, Any]:
    """Start a worker for runs, some for the queue, and an execution; return workers and handle."""
    found = [sim.worker("home", WORKFLOWS)]
    found += [
        sim.worker(f"gpu{n}", ACTIVITIES, task_queues=("gpu",), **options) for n in range(workers)
    ]
    for worker in found:
        await worker.start()
    process, client = sim.foreign_client("c")
    handle = await process.spawn(client.start(flow.name, *args, id="w"))
    return found, process, handle


def test_failed_attempts_are_tried_again_as_the_policy_says_and_counted_in_the_history():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 2, workers=2)
        result = await process.spawn(handle.result("60s"))
        history = await process.spawn(handle.history())
        failed = [event.data["attempt"] for event in history if event.kind == "attempt_failed"]
        return result, failed, sim.loop.time()

    result, failed, _ = simulated(main)
    assert result == [3, {"done": 2}]
    assert failed == [1, 2]


def test_the_last_failure_that_the_policy_allows_is_the_outcome():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 9)
        with pytest.raises(Exception, match="attempt 3"):
            await process.spawn(handle.result("60s"))

    simulated(main)
    assert [number for _, number in attempts] == [1, 2, 3]


TIMED = {
    "timeout": {"timeout": "2s", "retry": Retry(max_attempts=1)},
    "heartbeat": {"heartbeat_timeout": "2s", "retry": Retry(max_attempts=1)},
    "schedule": {"schedule_timeout": "2s"},
    "queue": {"queue_timeout": "2s"},
}


@pytest.mark.parametrize("which", list(TIMED))
def test_each_timeout_holds(which: str):
    calls = waits.options(**TIMED[which])

    @workflow.define
    async def timed() -> list[str]:
        try:
            await calls()
        except ActivityFailed as exc:
            return [str(exc), str(exc.kind)]
        return []

    async def main(sim: Simulation) -> Any:
        home = sim.worker("home", [timed])
        await home.start()
        if which != "queue":
            await sim.worker("gpu", [waits], task_queues=("gpu",)).start()
        process, client = sim.foreign_client("c")
        began = sim.loop.time()
        handle = await process.spawn(client.start(timed.name))
        found = await process.spawn(handle.result("60s"))
        return found, sim.loop.time() - began

    (text, kind), took = simulated(main)
    named = "attempt" if which == "timeout" else which
    assert f"the {named} timeout of 2 s passed" in text
    assert kind == "Timeout"
    assert 2 <= took < 4


def test_timeouts_of_the_queue_hold_while_nobody_has_the_run_and_only_for_the_first_attempt():
    calls = flaky.options(queue_timeout="2s", retry=Retry(max_attempts=2, interval="10s"))

    @workflow.define
    async def twice() -> list[Any]:
        return await calls(1)

    async def main(sim: Simulation) -> Any:
        await sim.worker("home", [twice]).start()
        await sim.worker("gpu", ACTIVITIES, task_queues=("gpu",)).start()
        process, client = sim.foreign_client("c")
        handle = await process.spawn(client.start(twice.name))
        return await process.spawn(handle.result("60s"))

    assert simulated(main)[0] == 2


def test_an_attempt_that_lost_its_worker_is_counted_and_done_again_elsewhere():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=1)
        await sim.until(lambda: len(attempts) == 1)
        await asyncio.sleep(5)  # sleep: virtual time
        workers[1].kill()
        await sim.worker("next", ACTIVITIES, task_queues=("gpu",)).start()
        result = await process.spawn(handle.result("300s"))
        history = await process.spawn(handle.history())
        return result, [event.kind for event in history]

    result, kinds = simulated(main)
    assert result == "done"
    assert attempts == [("waits", 1), ("waits", 2)]
    assert kinds.count("attempt_lost") == 1
    assert kinds.count("activity_completed") == 1


def test_an_activity_that_lost_its_worker_three_times_in_a_row_parks_the_run_and_can_go_on():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=1)
        for number in (1, 2, 3):
            await sim.until(lambda number=number: len(attempts) == number)
            await asyncio.sleep(1)  # sleep: virtual time
            workers[-1].kill()
            workers.append(sim.worker(f"next{number}", ACTIVITIES, task_queues=("gpu",)))
            await workers[-1].start()
        await asyncio.sleep(5)  # sleep: virtual time
        parked = await process.spawn(handle.describe())
        assert len(attempts) == 3
        await process.spawn(handle.unpark())
        return parked.status, parked.reason, await process.spawn(handle.result("300s"))

    assert simulated(main) == (Status.PARKED, "worker_lost", "done")
    assert [number for _, number in attempts] == [1, 2, 3, 4]


def test_the_death_of_the_runs_own_worker_does_not_touch_what_others_carry_out():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting)
        await sim.until(lambda: len(attempts) == 1)
        workers[0].kill()
        await asyncio.sleep(20)  # sleep: virtual time
        await sim.worker("home2", WORKFLOWS).start()
        return await process.spawn(handle.result("300s"))

    assert simulated(main) == "done"
    assert attempts == [("waits", 1)]


def test_a_paused_run_takes_in_what_comes_and_goes_on_with_it():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 1)
        await sim.until(lambda: len(attempts) == 1)
        await process.spawn(handle.pause())
        await asyncio.sleep(10)  # sleep: virtual time
        assert (await process.spawn(handle.describe())).status is Status.PAUSED
        await process.spawn(handle.resume())
        return await process.spawn(handle.result("60s"))

    assert simulated(main)[0] == 2


def test_an_attempt_lost_while_its_run_was_paused_is_done_again_when_it_goes_on():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting)
        await sim.until(lambda: len(attempts) == 1)
        await process.spawn(handle.pause())
        await asyncio.sleep(1)  # sleep: virtual time
        workers[1].kill()
        await sim.worker("next", ACTIVITIES, task_queues=("gpu",)).start()
        await asyncio.sleep(60)  # sleep: virtual time
        assert len(attempts) == 1
        await process.spawn(handle.resume())
        return await process.spawn(handle.result("300s"))

    assert simulated(main) == "done"
    assert attempts == [("waits", 1), ("waits", 2)]


def test_a_frozen_worker_tells_nothing_of_what_another_does_again():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=2)
        await sim.until(lambda: len(attempts) == 1)
        carrying = next(it for it in workers[1:] if it.engine.under_way)
        carrying.freeze()
        await asyncio.sleep(60)  # sleep: virtual time; past its lease
        assert len(attempts) == 2
        carrying.thaw()
        result = await process.spawn(handle.result("300s"))
        kinds = [event.kind for event in await process.spawn(handle.history())]
        return result, kinds.count("activity_completed"), kinds.count("attempt_lost")

    assert simulated(main) == ("done", 1, 1)
