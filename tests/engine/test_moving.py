"""A run can be moved to another version of its definition, if that fits its history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import ModuleType

import pytest
from tests.engine.deploys import deploy
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Client, Retry, Status, workflow
from perdure.errors import Closed, Conflict, NondeterminismError, Unavailable
from perdure.testing.simulator import Simulation

OLD = """
@workflow.define(name="order", version="1.0.0")
async def order_1() -> str:
    await one()
    await workflow.listen("go").receive()
    return "old"
"""
NEW = """
@workflow.define(name="order", version="2.0.0")
async def order_2() -> str:
    await one()
    await workflow.listen("go").receive()
    return "new"
"""
OTHER = """
@workflow.define(name="order", version="3.0.0")
async def order_3() -> str:
    await two()
    await workflow.listen("go").receive()
    return "other"
"""
TELLING = """
@workflow.define(name="order", version="2.0.0")
async def order_2() -> str:
    await one()
    go = workflow.listen("go")
    await go.receive()
    await go.receive()
    return workflow.info().version
"""
AGAIN = NEW.replace('    return "new"', "    await workflow.continue_as_new()")


def both(folder: Path, *parts: str) -> ModuleType:
    return deploy(folder, "\n".join(parts))


async def test_a_waiting_run_goes_on_under_the_version_it_was_moved_to(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, NEW)) as engine:
        handle = await engine.client.start("order", version="1.0.0")
        await until_status(handle, Status.WAITING)
        assert await handle.move("2.0.0") is True
        assert (await handle.describe()).version == "2.0.0"
        moved = await events_of(handle, "run_moved")
        assert [event.data["version"] for event in moved] == ["2.0.0"]
        assert await handle.move("2.0.0") is False
        await handle.send("go")
        assert await handle.result("10s") == "new"


async def test_a_version_that_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, OTHER)) as engine:
        handle = await engine.client.start("order", version="1.0.0")
        await until_status(handle, Status.WAITING)
        before = await handle.history()
        with pytest.raises(NondeterminismError, match="version 3.0.0 does not fit") as refused:
            await handle.move("3.0.0")
        assert "activity_scheduled 'one'" in str(refused.value)
        assert await handle.history() == before
        await handle.send("go")
        assert await handle.result("10s") == "old"


async def test_a_parked_run_is_unparked_by_a_move(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD)) as engine:
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
    async with engine_on(tmp_path, both(tmp_path, OTHER)) as engine:
        await engine.client.get("o").send("go")
        await until_status(engine.client.get("o"), Status.PARKED)
    async with engine_on(tmp_path, both(tmp_path, NEW, OTHER)) as engine:
        handle = engine.client.get("o")
        assert await handle.status() is Status.PARKED
        assert await handle.move("2.0.0")
        assert await handle.result("10s") == "new"


async def test_a_move_to_the_version_a_parked_run_has_already_is_checked_like_any(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD)) as engine:
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
    edited = OLD.replace("await one()", "await two()")
    async with engine_on(tmp_path, both(tmp_path, edited)) as engine:
        handle = engine.client.get("o")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        before = await handle.history()
        for version in ("1.0.0", ""):
            with pytest.raises(NondeterminismError, match="activity_scheduled 'one'"):
                await handle.move(version)
        assert await handle.status() is Status.PARKED
        assert await handle.history() == before


async def test_a_run_whose_version_nobody_defines_any_more_is_moved(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD)) as engine:
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
    async with engine_on(tmp_path, both(tmp_path, NEW, OTHER)) as engine:
        handle = engine.client.get("o")
        await handle.send("go")
        assert await handle.move("2.0.0")
        assert await handle.result("10s") == "new"


async def test_without_a_version_a_run_goes_to_the_highest(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, NEW)) as engine:
        handle = await engine.client.start("order", version="1.0.0")
        await until_status(handle, Status.WAITING)
        assert await handle.move()
        assert (await handle.describe()).version == "2.0.0"


async def test_a_move_is_asked_for_from_another_process_and_outlives_the_worker(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with (
        engine_on(tmp_path, both(tmp_path, OLD, NEW)) as engine,
        Client(url) as client,
    ):
        await until_status(
            await engine.client.start("order", id="o", version="1.0.0"), Status.WAITING
        )
        assert await client.get("o").move("2.0.0")
    async with engine_on(tmp_path, both(tmp_path, OLD, NEW)) as engine:
        await engine.client.get("o").send("go")
        assert await engine.client.get("o").result("10s") == "new"


async def test_what_continues_a_moved_run_goes_by_the_new_version_too(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, AGAIN)) as engine:
        handle = await engine.client.start("order", id="o", version="1.0.0")
        await until_status(handle, Status.WAITING)
        assert await handle.move("2.0.0")
        first = (await handle.describe()).run_id
        await handle.send("go")

        async def is_continued() -> bool:
            return (await engine.client.get("o").describe()).run_id != first

        await until(is_continued)
        assert (await engine.client.get("o").describe()).version == "2.0.0"


async def test_a_paused_run_stays_paused_when_it_is_moved(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, NEW)) as engine:
        handle = await engine.client.start("order", version="1.0.0")
        await until_status(handle, Status.WAITING)
        assert await handle.pause()
        await until_status(handle, Status.PAUSED)
        assert await handle.move("2.0.0")
        assert await handle.status() is Status.PAUSED
        assert await handle.resume()
        await handle.send("go")
        assert await handle.result("10s") == "new"


async def test_runs_at_work_or_ended_and_versions_that_nobody_has_are_refused(tmp_path: Path):
    busy = OLD.replace("await one()", "await never()")
    never = "import asyncio\n\n@activity.define\nasync def never() -> None:\n"
    never += "    await asyncio.Event().wait()\n"
    async with engine_on(tmp_path, both(tmp_path, never, busy, NEW)) as engine:
        at_work = await engine.client.start("order", version="1.0.0")
        await until_status(at_work, Status.RUNNING)
        with pytest.raises(Conflict, match="work in flight"):
            await at_work.move("2.0.0")
        handle = await engine.client.start("order", version="2.0.0")
        with pytest.raises(Unavailable):
            await handle.move("9.0.0", timeout="50ms")
        await handle.send("go")
        await handle.result("10s")
        with pytest.raises(Closed):
            await handle.move("1.0.0")
        assert await at_work.terminate()


async def test_the_version_of_a_moved_run_outlives_a_restart_after_its_next_turn(tmp_path: Path):
    async with engine_on(tmp_path, both(tmp_path, OLD, TELLING)) as engine:
        handle = await engine.client.start("order", id="o", version="1.0.0")
        await until_status(handle, Status.WAITING)
        assert await handle.move("2.0.0")
        await handle.send("go")

        async def is_received() -> bool:
            is_waiting = await handle.status() is Status.WAITING
            return is_waiting and bool(await events_of(handle, "message_received"))

        await until(is_received)
    async with engine_on(tmp_path, both(tmp_path, OLD, TELLING)) as engine:
        handle = engine.client.get("o")
        await handle.send("go")
        assert await handle.result("10s") == "2.0.0"
        assert (await handle.describe()).version == "2.0.0"


@workflow.define(name="patient", version="1.0.0")
async def patient_1() -> None:
    await workflow.listen("go").receive()


@workflow.define(name="patient", version="2.0.0")
async def patient_2() -> None:
    await workflow.listen("go").receive()


def test_the_run_after_a_moved_one_that_timed_out_in_a_pause_goes_by_the_new_version():
    with Simulation(seed=1) as sim:

        async def main() -> str:
            first = sim.worker("a", [patient_1, patient_2])
            await first.start()
            process, client = sim.foreign_client("c")
            options = {"version": "1.0.0", "run_timeout": "10s", "retry": Retry(interval="1s")}
            handle = await process.spawn(client.start("patient", id="p", **options))
            await asyncio.sleep(1)  # sleep: until it waits, in virtual time
            await process.spawn(handle.pause())
            await asyncio.sleep(1)  # sleep: until the worker has seen the pause
            await process.spawn(handle.move("2.0.0"))
            first.kill()
            await sim.worker("b", [patient_1, patient_2]).start()
            await asyncio.sleep(15)  # sleep: the run times out, in virtual time
            following = await process.spawn(client.get("p").describe())
            assert following.run_id != handle.run_id
            return following.version

        assert sim.run(main()) == "2.0.0"
