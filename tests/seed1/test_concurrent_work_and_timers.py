"""Parallel work over channels, timers, and what a replay finds again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until
from tests.seed1.virtual import in_virtual_time

from perdure import Status, activity, workflow
from perdure.errors import ChannelClosed
from perdure.testing.simulator import SimulatedWorker, Simulation


@workflow.define
async def pool(plan: dict[str, int]) -> dict[str, Any]:
    queue = workflow.Channel[int](10)
    results = workflow.Channel[dict[str, int]](10)

    async def work(worker: int) -> None:
        async for job in queue:
            await workflow.sleep(0.01)
            await results.send({"worker": worker, "job": job, "result": job * 2})

    for worker in range(plan["workers"]):
        workflow.spawn(work(worker))
    for job in range(1, plan["jobs"] + 1):
        await queue.send(job)
    queue.close()
    processed = [await results.receive() for _ in range(plan["jobs"])]
    return {"total": sum(one["result"] for one in processed), "processed": processed}


async def test_concurrent_work(tmp_path: Path):
    """Three workers share six jobs; the queue's close ends them, and the result is complete."""
    async with engine_on(tmp_path, pool) as engine:
        result = await engine.client.execute(pool, {"workers": 3, "jobs": 6})
        assert result["total"] == 42
        assert sorted(one["job"] for one in result["processed"]) == [1, 2, 3, 4, 5, 6]
        assert {one["worker"] for one in result["processed"]} == {0, 1, 2}


async def test_concurrent_work_with_more_jobs_than_the_channel_holds(tmp_path: Path):
    """A full channel holds its sender up until a worker takes something."""

    @workflow.define
    async def tight() -> list[int]:
        queue = workflow.Channel[int](0)
        done: list[int] = []

        async def work() -> None:
            async for job in queue:
                await asyncio.sleep(0)  # sleep: lets others run
                done.append(job)

        worker = workflow.spawn(work())
        for job in range(25):
            await queue.send(job)
        queue.close()
        await worker
        return done

    async with engine_on(tmp_path, tight) as engine:
        assert await engine.client.execute(tight) == list(range(25))


async def test_concurrent_work_on_a_closed_channel(tmp_path: Path):
    """What is in it can still be received; then it is closed for both sides, in ``select`` too."""

    @workflow.define
    async def closing() -> list[str]:
        channel = workflow.Channel[str](2)
        await channel.send("last")
        channel.close()
        channel.close()
        told = [await channel.receive()]
        for attempt in (
            lambda: channel.receive(),
            lambda: channel.send("late"),
            lambda: workflow.select(channel, workflow.after("1h")),
        ):
            try:
                await attempt()
            except ChannelClosed:
                told.append("closed")
        return told

    async with engine_on(tmp_path, closing) as engine:
        assert await engine.client.execute(closing) == ["last", "closed", "closed", "closed"]


def test_timers():
    """Sleeps of any unit, one after the other, take the sum of their times and no less."""

    @workflow.define
    async def sleeper() -> float:
        start = workflow.now()
        for duration in ("5m", "30s", 0.1, timedelta(milliseconds=100), "PT1S"):
            await workflow.sleep(duration)
        await asyncio.sleep(1)  # sleep: asyncio's is durable too, in a workflow
        return (workflow.now() - start).total_seconds()

    async def main(worker: SimulatedWorker) -> None:
        elapsed = await worker.client.execute(sleeper)
        assert 332.2 <= elapsed < 333

    in_virtual_time(main, sleeper)


def test_timers_survive_restarts():
    """A timer that came due while nothing ran fires at the next start, and is not begun anew."""

    @workflow.define
    async def napper() -> float:
        start = workflow.now()
        await workflow.sleep("30s")
        return (workflow.now() - start).total_seconds()

    async def main(sim: Simulation) -> None:
        first = sim.worker("first", [napper])
        await first.start()
        await first.spawn(first.client.start(napper, id="n"))
        await asyncio.sleep(1)  # sleep: virtual time
        await first.stop()
        await asyncio.sleep(40)  # sleep: virtual time, the timer comes due while no worker runs
        second = sim.worker("second", [napper])
        await second.start()
        handle = second.client.get("n")
        assert 40 <= await second.spawn(handle.result("20s")) < 43
        kinds = [event.kind for event in await second.spawn(handle.history())]
        assert kinds.count("timer_started") == kinds.count("timer_fired") == 1

    with Simulation(seed=1) as sim:
        sim.run(main(sim))


async def test_timers_track_elapsed_time(tmp_path: Path):
    """``workflow.now()`` is the time of the turn: it stands still between two awaits."""

    @workflow.define
    async def measuring() -> list[Any]:
        start = workflow.now()
        is_still = workflow.now() == start
        await workflow.sleep("100ms")
        return [is_still, (workflow.now() - start) / timedelta(milliseconds=1)]

    async with engine_on(tmp_path, measuring) as engine:
        is_still, elapsed = await engine.client.execute(measuring)
        assert is_still and elapsed >= 100


fetched: list[int] = []


@activity.define
async def fetch_data(number: int) -> int:
    fetched.append(number)
    return number + len(fetched)


@workflow.define
async def replay_child(number: int) -> int:
    return number * 10


@workflow.define
async def recorded(_: None) -> dict[str, Any]:
    shown: dict[str, Any] = {}

    @workflow.query("shown")
    def _() -> dict[str, Any]:
        return shown

    def draw() -> dict[str, Any]:
        return {
            "now": workflow.now().isoformat(),
            "uuid": str(workflow.uuid4()),
            "random": workflow.random(),
            "bytes": workflow.random_bytes(32).hex(),
            "version": workflow.version("change-1", 1, 2),
        }

    before = draw()
    before["activity"] = await fetch_data(1)
    before["child"] = await workflow.execute(replay_child, 4)
    await workflow.sleep("1ms")
    shown["before"] = before

    await workflow.listen("go").receive()
    return {**shown, "after": draw()}


async def test_replay_safe_operations(tmp_path: Path):
    """Another process runs the code again and gets what the first one got; no activity runs again.

    ``now``, ``uuid4``, ``random``, ``random_bytes``, ``version``, activities, children and sleeps.
    """
    fetched.clear()
    definitions = (recorded, replay_child, fetch_data)
    async with engine_on(tmp_path, *definitions) as engine:
        handle = await engine.client.start(recorded, id="r")

        async def is_shown() -> bool:
            return await handle.status() is Status.WAITING and bool(await handle.query("shown"))

        await until(is_shown)
        before = await handle.query("shown")
    for _ in range(2):
        async with engine_on(tmp_path, *definitions) as engine:
            assert await engine.client.get("r").query("shown") == before
    async with engine_on(tmp_path, *definitions) as engine:
        handle = engine.client.get("r")
        await handle.send("go")
        result = await handle.result("20s")
    assert result["before"] == before["before"]
    assert result["before"]["child"] == 40
    assert fetched == [1]
    assert result["after"]["uuid"] != result["before"]["uuid"]
    assert result["after"]["version"] == result["before"]["version"] == 2


async def test_two_runs_draw_different_chance(tmp_path: Path):
    @workflow.define
    async def drawing() -> str:
        return str(workflow.uuid4())

    async with engine_on(tmp_path, drawing) as engine:
        drawn = await asyncio.gather(*(engine.client.execute(drawing) for _ in range(20)))
        assert len(set(drawn)) == 20


@pytest.mark.parametrize("duration", ["-1s", "soon", "", None, float("nan")])
async def test_timers_with_a_duration_that_is_none(tmp_path: Path, duration: Any):
    given = {"d": duration}

    @workflow.define
    async def sleepy() -> str:
        try:
            await workflow.sleep(given["d"])
        except ValueError as exc:
            return str(exc)
        return "slept"

    async with engine_on(tmp_path, sleepy) as engine:
        assert (await engine.client.execute(sleepy)).startswith("sleep: ")
