"""An engine that stops hands over all it had under way, and nothing of it counts as lost."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import ApplicationError, Client, Engine, Retry, Status, activity, workflow
from perdure.testing.clock import EPOCH
from perdure.testing.simulator import Simulation
from perdure.views import HistoryEvent

attempts: list[tuple[int, Any]] = []
times: list[int] = []  # of virtual clocks


class Let:
    """Events that activities under test wait for; a loop has its own."""

    go = asyncio.Event()
    thread_go = threading.Event()


@pytest.fixture(autouse=True)
def _fresh():
    attempts.clear()
    times.clear()
    Let.go, Let.thread_go = asyncio.Event(), threading.Event()
    yield
    Let.thread_go.set()


def _note() -> activity.Info:
    info = activity.info()
    attempts.append((info.attempt, info.heartbeat_details))
    return info


@activity.define(retry=Retry(max_attempts=2))
async def hold() -> int:
    info = _note()
    if not Let.go.is_set():
        activity.heartbeat({"at": 7})
        await asyncio.Event().wait()
    return info.attempt


@activity.define(retry=Retry(max_attempts=2))
def hold_thread() -> int:
    info = _note()
    Let.thread_go.wait(20)
    return info.attempt


@activity.define(retry=Retry(max_attempts=2), timeout="1m")
async def hold_in_time() -> int:
    return await hold.fn()


@workflow.define
async def held(how: str) -> int:
    return await {"async": hold, "thread": hold_thread, "timed": hold_in_time}[how]()


async def _is_interrupted(folder: Path, how: str) -> None:
    """Start a run and stop its engine while the activity is under way."""
    async with engine_on(folder, held) as engine:
        await engine.client.start(held, how, id="h")
        await until(lambda: len(attempts) == 1)
        await engine.stop(grace="0s")


@pytest.mark.parametrize("how", ["async", "thread", "timed"])
async def test_an_attempt_that_a_stop_cut_off_is_counted_and_run_again(tmp_path: Path, how: str):
    await _is_interrupted(tmp_path, how)
    Let.go.set()
    Let.thread_go.set()
    async with engine_on(tmp_path, held) as engine:
        handle = engine.client.get("h")
        assert await handle.result("20s") == 2
        (lost,) = await events_of(handle, "attempt_lost")
        assert (lost.data["attempt"], lost.data["by_stop"]) == (1, True)
        assert await events_of(handle, "attempt_failed") == []
        (completed,) = await events_of(handle, "activity_completed")
        assert completed.data["attempt"] == 2
    assert [attempt for attempt, _ in attempts] == [1, 2]


@pytest.mark.parametrize("is_live", [True, False])
async def test_an_attempt_that_ends_within_the_grace_is_not_run_again(
    tmp_path: Path, is_live: bool
):
    async with engine_on(tmp_path, held) as engine:
        core = engine._core
        assert core is not None
        core.always_replay = not is_live
        await engine.client.start(held, "thread", id="h")
        await until(lambda: len(attempts) == 1)
        stopping = asyncio.create_task(engine.stop(grace="20s"))
        await asyncio.sleep(0)  # sleep: none, it lets the stop begin
        Let.thread_go.set()
        await stopping
    async with engine_on(tmp_path, held) as engine:
        assert await engine.client.get("h").result("20s") == 1
    assert len(attempts) == 1


async def test_heartbeat_details_are_handed_over_too(tmp_path: Path):
    await _is_interrupted(tmp_path, "async")
    Let.go.set()
    async with engine_on(tmp_path, held) as engine:
        await engine.client.get("h").result("20s")
    assert attempts == [(1, None), (2, {"at": 7})]


# -- retries -----------------------------------------------------------------------------------


@activity.define(retry=Retry(max_attempts=3, interval="1m", backoff=1))
async def shaky() -> int:
    info = _note()
    times.append(EPOCH + round(asyncio.get_running_loop().time() * 1_000_000))
    if info.attempt < 3:
        raise ApplicationError(f"attempt {info.attempt}")
    return info.attempt


@workflow.define
async def patient() -> int:
    return await shaky()


async def _end_in_pause(
    sim: Simulation, number: int, *, after: float = 0, is_killed: bool = False
) -> None:
    """Run a worker until that attempt has failed, and for some seconds of the pause after it."""
    worker = sim.worker(f"w{number}", [patient])
    await worker.start()
    if number == 1:
        await worker.spawn(worker.client.start(patient, id="p"))
    await sim.until(lambda: len(attempts) == number)
    await asyncio.sleep(after)  # sleep: virtual time
    if is_killed:
        worker.kill()
    else:
        await worker.stop()


async def _go_on(sim: Simulation) -> list[HistoryEvent]:
    worker = sim.worker("last", [patient])
    await worker.start()
    handle = worker.client.get("p")
    assert await worker.spawn(handle.result("10m")) == 3
    return await worker.spawn(handle.history())


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_pause_before_a_retry_goes_on_under_the_next_engine_and_attempts_are_counted_on(
    is_killed: bool,
):
    with Simulation(seed=1) as sim:

        async def main() -> list[HistoryEvent]:
            for number in (1, 2):  # each pause meets a restart
                await _end_in_pause(sim, number, after=20, is_killed=is_killed)
            return await _go_on(sim)

        events = sim.run(main())
    assert "attempt_lost" not in [event.kind for event in events]
    failures = [event.data for event in events if event.kind == "attempt_failed"]
    assert [failure["attempt"] for failure in failures] == [1, 2]
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    for began, failure in zip(times[1:], failures, strict=True):
        assert 0 <= began - failure["retry_at"] < 1_000_000


def test_a_retry_that_came_due_while_nobody_ran_begins_at_once_under_its_number():
    with Simulation(seed=1) as sim:

        async def main() -> list[HistoryEvent]:
            await _end_in_pause(sim, 1, after=1)
            await asyncio.sleep(300)  # sleep: virtual time
            return await _go_on(sim)

        events = sim.run(main())
    assert "attempt_lost" not in [event.kind for event in events]
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert 300_000_000 <= times[1] - times[0] < 310_000_000


# -- questions ---------------------------------------------------------------------------------


@activity.define
async def slow_add(amount: int) -> int:
    attempts.append((activity.info().attempt, amount))
    await Let.go.wait()
    return amount


@workflow.define
async def account(value: int) -> int:
    @workflow.query("value")
    def get() -> int:
        return value

    @workflow.update("add")
    async def add(amount: int) -> int:
        nonlocal value
        value += await slow_add(amount)
        return value

    await workflow.listen("finish").receive()
    return value


async def test_another_engine_answers_a_query_when_the_first_has_stopped(tmp_path: Path):
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        async with engine_on(tmp_path, account) as first:
            handle = await first.client.start(account, 5, id="a")
            await until_status(handle, Status.WAITING)
            async with engine_on(tmp_path, account) as second:
                for asked in (first.client, second.client, client):
                    assert await asked.get("a").query("value") == 5
                await first.stop(grace="0s")
                for asked in (second.client, client):
                    assert await asked.get("a").query("value") == 5
        async with engine_on(tmp_path, account):
            assert await client.get("a").query("value") == 5


async def test_an_engine_answers_for_a_run_that_another_one_has_under_way(tmp_path: Path):
    async with (
        engine_on(tmp_path, account) as first,
        engine_on(tmp_path, account) as second,
    ):
        handle = await first.client.start(account, 5, id="a")
        adding = asyncio.create_task(handle.update("add", 2, id="once"))
        await until(lambda: len(attempts) == 1)
        assert (await handle._row()).owner == _worker(first)
        there = second.client.get("a")
        assert await there.query("value") == 5
        again = asyncio.create_task(there.update("add", 2, id="once"))
        Let.go.set()
        async with asyncio.timeout(20):
            assert (await adding, await again) == (7, 7)
        assert await there.query("value") == 7
    assert len(attempts) == 1


def _worker(engine: Engine) -> int:
    core = engine._core
    assert core is not None
    return core.committer.worker


async def test_an_accepted_update_ends_once_under_the_next_engine_and_is_remembered(
    tmp_path: Path,
):
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        async with engine_on(tmp_path, account) as first:
            handle = await first.client.start(account, 5, id="a")
            asked = client.get("a")
            adding = asyncio.create_task(asked.update("add", 2, id="once", timeout="30s"))
            await until(lambda: len(attempts) == 1)
            assert len(await events_of(asked, "update_accepted")) == 1
            await first.stop(grace="0s")
        Let.go.set()
        async with engine_on(tmp_path, account) as second, asyncio.timeout(20):
            assert await adding == 7, "whoever asked the first engine hears from the second"
            for handle in (asked, second.client.get("a")):
                assert await handle.update("add", 2, id="once") == 7
            assert await asked.query("value") == 7
            assert await asked.update("add", 1, id="another") == 8
            await asked.send("finish")
            assert await asked.result("20s") == 8
            assert await asked.update("add", 2, id="once") == 7, "after the end as well"
            for kind in ("update_accepted", "update_completed"):
                assert [event.data["update"] for event in await events_of(asked, kind)] == [
                    "once",
                    "another",
                ]
