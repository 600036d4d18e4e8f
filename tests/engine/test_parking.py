"""Runs that cannot go on say so, and go on when they can; nothing wedges the others."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Status, activity, workflow
from perdure.errors import WorkflowFailed, WorkflowTerminated


@activity.define
async def one() -> int:
    return 1


@activity.define
async def two() -> int:
    return 2


def version_of(*steps: Any, fail: bool = False) -> Any:
    """Return the workflow `changing` with this body: code as it is before or after a deploy."""

    async def changing() -> int:
        total = 0
        for step in steps:
            total += await step()
        await workflow.listen("go").receive()
        if fail:
            raise RuntimeError("a bug of the new code")
        return total

    definition = workflow.define(name="changing")(changing)
    definition.code = repr((steps, fail))
    return definition


async def test_code_that_does_not_fit_parks_the_run_with_the_line_and_fitting_code_goes_on(
    tmp_path: Path,
):
    async with engine_on(tmp_path, version_of(one, two)) as engine:
        handle = await engine.client.start("changing", id="c")
        await until_status(handle, Status.WAITING)
    async with engine_on(tmp_path, version_of(two, one)) as engine:
        handle = engine.client.get("c")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        parked = await handle.describe()
        assert parked.reason == "nondeterminism"
        for part in ("activity_scheduled 'one'", "activity_scheduled 'two'", "test_parking.py:"):
            assert part in (parked.detail or "")
        assert "patched" in await handle.why()
    async with engine_on(tmp_path, version_of(one, two)) as engine:
        assert await engine.client.get("c").result("10s") == 3


async def test_an_unexpected_exception_fails_under_the_same_code_and_parks_under_newer(
    tmp_path: Path,
):
    async with engine_on(tmp_path, version_of(one, fail=True)) as engine:
        handle = await engine.client.start("changing")
        await handle.send("go")
        with pytest.raises(WorkflowFailed, match="bug of the new code"):
            await handle
    async with engine_on(tmp_path, version_of(two)) as engine:
        await until_status(await engine.client.start("changing", id="old"), Status.WAITING)
    async with engine_on(tmp_path, version_of(two, fail=True)) as engine:
        handle = engine.client.get("old")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        assert "bug of the new code" in await handle.why()
    async with engine_on(tmp_path, version_of(two)) as engine:
        assert await engine.client.get("old").result("10s") == 2


@workflow.define
async def endless() -> None:
    while True:
        pass


@workflow.define
async def quits() -> None:
    raise SystemExit(3)


@workflow.define
async def fine() -> str:
    await one()
    return "fine"


async def test_a_turn_that_never_returns_is_interrupted_and_the_others_go_on(tmp_path: Path):
    async with engine_on(tmp_path, endless, quits, fine, turn_limit="1200ms") as engine:
        stuck = await engine.client.start(endless)
        assert await engine.client.execute(fine) == "fine"
        await until_status(stuck, Status.PARKED)
        assert (await stuck.describe()).reason == "turn_timeout"
        quitter = await engine.client.start(quits)
        await until_status(quitter, Status.PARKED)
        assert await engine.client.execute(fine) == "fine"
        assert await stuck.terminate("enough")
        with pytest.raises(WorkflowTerminated):
            await stuck


async def test_a_run_nobody_knows_is_parked_until_a_worker_does(tmp_path: Path):
    async with engine_on(tmp_path, version_of(one)):
        pass  # its definition is known from here on
    async with engine_on(tmp_path, fine) as engine:
        handle = await engine.client.start("changing", id="d")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        assert "no running worker defines" in await handle.why()
    async with engine_on(tmp_path, version_of(one)) as engine:
        assert await engine.client.get("d").result("10s") == 1


async def test_a_corrupt_row_is_named_and_its_run_alone_is_parked(tmp_path: Path):
    async with engine_on(tmp_path, version_of(one)) as engine:
        for name in ("bad", "good"):
            await until_status(await engine.client.start("changing", id=name), Status.WAITING)
    connection = sqlite3.connect(tmp_path / "test.db")
    connection.execute(
        "update perdure_history set payload = zeroblob(5) where first > 1 and run ="
        " (select run from perdure_run where workflow_id = 'bad')"
    )
    connection.commit()
    connection.close()
    async with engine_on(tmp_path, version_of(one)) as engine:
        for name in ("bad", "good"):
            await engine.client.get(name).send("go")
        assert await engine.client.get("good").result("10s") == 1
        await until_status(engine.client.get("bad"), Status.PARKED)
        described = await engine.client.list(status="parked")
        assert described.items[0].reason == "corrupt_history"
        assert "the row of event 3" in (described.items[0].detail or "")


@workflow.define
async def waiter(number: int) -> int:
    await workflow.listen("go").receive()
    return number


async def test_waiting_runs_leave_memory_and_come_back_for_a_message(tmp_path: Path):
    async with engine_on(tmp_path, waiter, cache=5) as engine:
        handles = await asyncio.gather(*(engine.client.start(waiter, n) for n in range(50)))
        core = engine._core
        assert core is not None
        await until(lambda: len(core.runs) <= 5)
        await asyncio.gather(*(handle.send("go") for handle in handles))
        assert await asyncio.gather(*handles) == list(range(50))


@workflow.define
async def sleeper() -> str:
    await workflow.sleep("1h")
    return "?"


async def test_a_restart_reads_only_what_is_due(tmp_path: Path):
    async with engine_on(tmp_path, sleeper, waiter) as engine:
        await asyncio.gather(*(engine.client.start(sleeper) for _ in range(100)))
    async with engine_on(tmp_path, sleeper, waiter) as engine:
        core = engine._core
        assert core is not None
        assert await engine.client.count(status="waiting") == 100
        await engine.client.start(waiter, 1, id="w")
        await engine.client.get("w").send("go")
        assert await engine.client.get("w").result("10s") == 1
        assert core.loader.loaded < 10, "sleeping runs stay in the database"
