"""Where a client can be used, and what it says where it cannot: at once, and without a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Client, Engine, workflow
from perdure.errors import Unavailable, UsageError
from perdure.store.desk import _Order, open_desk
from perdure.values.states import Status

engines: list[Engine] = []
clients: list[Client] = []


@pytest.fixture(autouse=True)
def _fresh():
    engines.clear()
    clients.clear()


@workflow.define
async def waits() -> str:
    return str(await workflow.listen("go").receive())


async def _opens(url: str) -> None:
    async with Client(url):
        pass


async def _starts_by_engine(_: str) -> None:
    await engines[0].client.start(waits)


async def _starts_by_client(_: str) -> None:
    await clients[0].start("waits")


async def _waits(_: str) -> None:
    await engines[0].client.get("other").result()


USES: dict[str, Callable[[str], Awaitable[Any]]] = {
    "open": _opens,
    "engine": _starts_by_engine,
    "client": _starts_by_client,
    "wait": _waits,
}


@workflow.define
async def uses(how: str) -> str:
    try:
        await USES[how]("sqlite:///never.db")
    except UsageError as exc:
        return exc.message
    return "it worked"


@pytest.mark.parametrize("how", USES)
async def test_workflow_code_that_uses_a_client_hears_so_at_once(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    async with engine_on(tmp_path, waits, uses) as engine, Client(engine.url) as client:
        engines.append(engine)
        clients.append(client)
        await client.start("waits", id="other")
        handle = await engine.client.start(uses, how)
        assert "cannot be used in workflow code" in await handle.result("10s")
        assert await client.count() == 2, "the store goes on"
    assert not (tmp_path / "never.db").exists()


@pytest.mark.parametrize("use", [_starts_by_engine, _waits, _starts_by_client])
async def test_a_client_used_in_another_threads_loop_hears_so_at_once(
    tmp_path: Path, use: Callable[[str], Awaitable[None]]
):
    async with engine_on(tmp_path, waits) as engine, Client(engine.url) as client:
        engines.append(engine)
        clients.append(client)
        await client.start("waits", id="other")

        def elsewhere() -> None:
            async def bounded() -> None:
                async with asyncio.timeout(10):
                    await use("")

            asyncio.run(bounded())

        with pytest.raises(UsageError, match="belongs to the event loop"):
            await asyncio.to_thread(elsewhere)


async def test_an_answer_that_cannot_be_delivered_does_not_end_the_stores_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    class Broken:
        def call_soon_threadsafe(self, *_: object) -> None:
            raise UsageError("not here")

    store = open_desk(f"sqlite:///{tmp_path / 'test.db'}")
    broken: Any = Broken()
    undeliverable = _Order(lambda _: 1, broken, asyncio.get_running_loop().create_future())
    async with asyncio.timeout(10):
        store._writes.put(undeliverable)
        await store.write(lambda store: store.migrate(1))
        await store.close()
    assert any("could not be delivered" in record.message for record in caplog.records)


async def test_a_wait_for_a_result_ends_when_the_engine_stops(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        handle = await engine.client.start(waits, id="a")
        await until_status(handle, Status.WAITING)
        task = asyncio.create_task(handle.result())
        await asyncio.sleep(0)  # sleep: none, it lets the task begin
        await engine.stop()
    with pytest.raises(Unavailable, match="stopped"):
        await asyncio.wait_for(task, 20)


async def test_whoever_keeps_a_client_of_a_stopped_engine_hears_so(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        client = engine.client
        handle = await client.start(waits, id="a")
    async with asyncio.timeout(20):
        for ask in (
            handle.result,
            handle.status,
            lambda: client.start(waits),
            lambda: client.get("a").result(),
            lambda: handle.send("go"),
            lambda: handle.query("x"),
        ):
            with pytest.raises(Unavailable):
                await ask()


async def test_a_wait_of_a_client_ends_when_it_is_closed(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        async with Client(engine.url) as client:
            handle = await client.start("waits")
            waiting = asyncio.create_task(handle.result())
            asking = asyncio.create_task(handle.query("nothing"))
            door: Any = client.door
            await until(lambda: bool(door._watch._waiting))
        for task in (waiting, asking):
            with pytest.raises((Unavailable, UsageError, KeyError)):
                await asyncio.wait_for(task, 20)


async def test_the_end_of_a_clients_patience_says_which_run_and_how_it_is(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        handle = await engine.client.start(waits, id="a")
        await until_status(handle, Status.WAITING)
        with pytest.raises(TimeoutError, match=f"'a' .* 10ms; run {handle.run_id} is waiting"):
            await handle.result("10ms")
