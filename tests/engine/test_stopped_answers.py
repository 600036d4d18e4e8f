"""What a run that is stopped answers, and what is said at once of what nobody can answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.deploys import deploy
from tests.engine.support import engine_on, until_status

from perdure import Client, Status
from perdure.errors import Conflict, NotFound, Unavailable

COUNTING = """
@workflow.define(name="order", version="1.0.0")
async def order() -> str:
    seen = []

    @workflow.query("state")
    def state() -> int:
        return len(seen)

    @workflow.update("add")
    def add() -> None:
        seen.append("more")

    await one()
    seen.append(await workflow.listen("go").receive())
    await workflow.listen("end").receive()
"""


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'test.db'}"


async def test_a_paused_run_answers_queries_and_refuses_updates_at_once(tmp_path: Path):
    async with (
        engine_on(tmp_path, deploy(tmp_path, COUNTING)) as engine,
        Client(url(tmp_path)) as client,
    ):
        for handle in (await engine.client.start("order", id="o"), client.get("o")):
            await handle.send("go")
            await until_status(handle, Status.WAITING)
            assert await handle.pause()
            await until_status(handle, Status.PAUSED)
            assert await handle.query("state", timeout="1h") == 1
            with pytest.raises(NotFound):
                await handle.query("nothing", timeout="1h")
            with pytest.raises(Conflict, match="'o' is paused: resume it to update it"):
                await handle.update("add", timeout="1h")
            assert await handle.resume()
            await until_status(handle, Status.WAITING)


async def test_an_update_that_follows_a_resume_is_answered(tmp_path: Path):
    async with engine_on(tmp_path, deploy(tmp_path, COUNTING)) as engine:
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
        assert await engine.client.get("o").pause()
        async with Client(url(tmp_path)) as client:
            assert await client.get("o").resume()
            await client.get("o").update("add")
            assert await client.get("o").query("state") == 1


async def test_a_run_that_was_paused_before_it_began_says_so(tmp_path: Path):
    async with engine_on(tmp_path, deploy(tmp_path, COUNTING)) as engine:
        handle = await engine.client.start("order", id="o", start_delay="1h")
        assert await handle.pause()
        await until_status(handle, Status.PAUSED)
        with pytest.raises(Conflict, match="'o' is paused and has not begun"):
            await handle.query("state", timeout="1h")


async def test_a_parked_run_says_at_once_why_it_answers_nothing(tmp_path: Path):
    async with engine_on(tmp_path, deploy(tmp_path, COUNTING)) as engine:
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
    other = deploy(tmp_path, COUNTING.replace("await one()", "await two()"))
    async with engine_on(tmp_path, other) as engine, Client(url(tmp_path)) as client:
        await client.get("o").send("go")
        await until_status(client.get("o"), Status.PARKED)
        for asked in (engine.client, client):
            with pytest.raises(Conflict, match=r"'o' is parked \(nondeterminism\): .*To go on: "):
                await asked.get("o").query("state", timeout="1h")
            with pytest.raises(Conflict, match=r"'o' is parked \(nondeterminism\): "):
                await asked.get("o").update("add", timeout="1h")


async def test_a_move_to_a_version_that_no_running_worker_defines_is_refused_at_once(
    tmp_path: Path,
):
    newer = COUNTING.replace("1.0.0", "2.0.0")
    async with engine_on(tmp_path, deploy(tmp_path, newer)):
        pass  # known to the database from here on, and to nobody that runs
    async with (
        engine_on(tmp_path, deploy(tmp_path, COUNTING)) as engine,
        Client(url(tmp_path)) as client,
    ):
        await until_status(await engine.client.start("order", id="o"), Status.WAITING)
        for asked in (engine.client, client):
            for version in ("2.0.0", "7"):
                said = rf"no running worker defines order {version} \(there is: 1\.0\.0\)"
                with pytest.raises(Unavailable, match=said):
                    await asked.get("o").move(version, timeout="1h")
