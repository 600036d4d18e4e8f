"""Workflow code that does I/O is parked with the line; activities, queries and others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Client, Status, activity, workflow
from perdure.engine import audit
from perdure.errors import IORefused


@activity.define
async def read_here(path: str) -> str:
    return Path(path).read_text()


@activity.define
def read_in_a_thread(path: str) -> str:
    return Path(path).read_text()


def reading(*, itself: bool, catching: Any = ()) -> Any:
    """Return the workflow `reader`: as it was with its mistake, or as it is with it mended."""

    async def reader(path: str) -> str:
        text = ""
        try:
            text = Path(path).read_text() if itself else await read_here(path)
        except catching:
            pass
        await workflow.listen("go").receive()
        return text

    definition = workflow.define(name="reader")(reader)
    definition.code = repr((itself, catching))
    return definition


@workflow.define
async def proper(path: str) -> str:
    return await read_here(path) + await read_in_a_thread(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    file = tmp_path / "data.txt"
    file.write_text("text")
    return str(file)


@pytest.mark.parametrize("catching", [(), Exception, BaseException])
async def test_a_run_is_parked_with_the_line_and_goes_on_when_the_code_is_mended(
    tmp_path: Path, data: str, catching: Any
):
    async with engine_on(tmp_path, reading(itself=True, catching=catching), read_here) as engine:
        handle = await engine.client.start("reader", data, id="r")
        await until_status(handle, Status.PARKED)
        parked = await handle.describe()
        assert parked.reason == "io_refused"
        for part in (f"open('{data}')", "test_io_guard.py:", "reader"):
            assert part[:60] in (parked.detail or "")
        assert "activity" in await handle.why()
    async with engine_on(tmp_path, reading(itself=False), read_here) as engine:
        handle = engine.client.get("r")
        await handle.send("go")
        assert await handle.result("10s") == "text"
        assert len(await events_of(handle, "run_parked")) == 1


async def test_a_later_turn_is_parked_and_what_came_before_is_kept(tmp_path: Path, data: str):
    @workflow.define
    async def late(path: str) -> str:
        first = await read_here(path)
        return first + Path(path).read_text()

    async with engine_on(tmp_path, late, read_here) as engine:
        handle = await engine.client.start(late, data)
        await until_status(handle, Status.PARKED)
        assert (await handle.describe()).reason == "io_refused"

        async def is_kept() -> bool:
            return len(await events_of(handle, "activity_completed")) == 1

        await until(is_kept)


async def test_activities_and_other_runs_are_not_concerned(tmp_path: Path, data: str):
    async with engine_on(tmp_path, reading(itself=True), proper, read_here) as engine:
        parked = await engine.client.start("reader", data)
        assert await engine.client.execute(proper, data) == "texttext"
        await until_status(parked, Status.PARKED)
        assert await engine.client.execute(proper, data) == "texttext"
        assert Path(data).read_text() == "text", "nor is the code around the engine"


async def test_a_replay_that_meets_io_parks_and_an_unpark_tries_again(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(audit.SWITCH, "1")
    async with engine_on(tmp_path, reading(itself=True)) as engine:
        await until_status(await engine.client.start("reader", data, id="r"), Status.WAITING)
    monkeypatch.delenv(audit.SWITCH)
    async with engine_on(tmp_path, reading(itself=True)) as engine:
        handle = engine.client.get("r")
        await handle.send("go")
        await until_status(handle, Status.PARKED)
        assert (await handle.describe()).reason == "io_refused"
        monkeypatch.setenv(audit.SWITCH, "1")
        assert await handle.unpark()
        assert await handle.result("10s") == "text"


@workflow.define
async def asked(path: str) -> int:
    count = 0

    @workflow.query("reads")
    def reads() -> str:
        return Path(path).read_text()

    @workflow.query("hides")
    def hides() -> str:
        try:
            return Path(path).read_text()
        except BaseException:
            return ""

    @workflow.query("count")
    def get() -> int:
        return count

    def check(amount: int) -> None:
        Path(path).read_text()

    @workflow.update("add", validator=check)
    def add(amount: int) -> None:
        nonlocal count
        count += amount

    @workflow.update("reread")
    def reread() -> str:
        return Path(path).read_text()

    await workflow.listen("go").receive()
    return count


@pytest.mark.parametrize("name", ["reads", "hides"])
async def test_whoever_asks_a_query_that_does_io_gets_the_error_and_the_run_goes_on(
    tmp_path: Path, data: str, name: str
):
    async with (
        engine_on(tmp_path, asked) as engine,
        Client(f"sqlite:///{tmp_path / 'test.db'}") as client,
    ):
        handle = await engine.client.start(asked, data, id="a")
        for one in (handle, client.get("a")):
            with pytest.raises(IORefused, match="workflow code may not touch"):
                await one.query(name)
            assert await one.query("count") == 0
        await handle.send("go")
        assert await handle == 0
        with pytest.raises(IORefused):
            await handle.query(name)


async def test_an_update_whose_validator_does_io_is_refused_and_the_run_goes_on(
    tmp_path: Path, data: str
):
    async with engine_on(tmp_path, asked) as engine:
        handle = await engine.client.start(asked, data)
        with pytest.raises(IORefused):
            await handle.update("add", 5)
        assert not await events_of(handle, "update_accepted")
        await handle.send("go")
        assert await handle == 0


async def test_an_update_that_does_io_parks_its_run(tmp_path: Path, data: str):
    async with engine_on(tmp_path, asked) as engine:
        handle = await engine.client.start(asked, data)
        asking = asyncio.create_task(handle.update("reread", timeout="20s"))
        await until_status(handle, Status.PARKED)
        assert (await handle.describe()).reason == "io_refused"
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
