"""An inbox has a limit: what comes after is refused by name, what was accepted is received once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Client, Engine, Status, workflow
from perdure.engine.runs import Run
from perdure.errors import ChildFailed, Unavailable
from perdure.handle import Handle
from perdure.store.sql import posting
from perdure.values import limits

LIMIT = 5


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "INBOX_PER_EXECUTION", LIMIT)
    monkeypatch.setattr(posting, "INBOX_PER_EXECUTION", LIMIT)


@workflow.define
async def reader() -> list[int]:
    """Reads nothing until it is told to, and then everything up to 99."""
    may_read = asyncio.Event()

    @workflow.update("begin")
    async def begin() -> None:
        may_read.set()

    await may_read.wait()
    numbers, got = workflow.listen("number", int), list[int]()
    while not got or got[-1] != 99:
        got.append(await numbers.receive())
    return got


class Gate:
    is_shut = True


@workflow.define
async def gated() -> list[int]:
    if Gate.is_shut:
        raise MemoryError("parks under any code")
    numbers, got = workflow.listen("number", int), list[int]()
    while not got or got[-1] != 99:
        got.append(await numbers.receive())
    return got


async def _fill(handle: Handle[Any], count: int = LIMIT) -> None:
    for number in range(count):
        await handle.send("number", number)


async def _refuses(handle: Handle[Any]) -> None:
    with pytest.raises(Unavailable, match=f"inbox .* full .*{LIMIT}"):
        await handle.send("number", 1_000)


async def test_a_client_of_its_own_is_refused_at_the_limit_and_what_was_accepted_arrives_once(
    tmp_path: Path,
):
    async with engine_on(tmp_path, reader):
        pass  # the definition is known; no worker empties the inbox
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        handle = await client.start("reader", id="r")
        await _fill(handle)
        await _refuses(handle)
        await _refuses(handle)
        async with engine_on(tmp_path, reader):
            # The worker makes room; the same client goes on, and its order holds.
            await until(lambda: _is_empty(tmp_path))
            await handle.update("begin")
            await handle.send("number", 99)
            assert await handle.result("20s") == [*range(LIMIT), 99]


def _is_empty(folder: Path) -> bool:
    return _rows_in_inbox(folder) == 0


def _rows_in_inbox(folder: Path) -> int:
    connection = sqlite3.connect(folder / "test.db")
    try:
        return int(connection.execute("select count(*) from perdure_inbox").fetchone()[0])
    finally:
        connection.close()


async def test_several_clients_share_the_room_of_one_inbox(tmp_path: Path):
    async with engine_on(tmp_path, reader):
        pass
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with Client(url) as one, Client(url) as two:
        handle = await one.start("reader", id="r")
        await _fill(handle, LIMIT - 1)
        other = two.get("r")
        sent = [handle.send("number", 10), other.send("number", 20)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert len(refused) == 1 and isinstance(refused[0], Unavailable)
        assert _rows_in_inbox(tmp_path) == LIMIT
        last = 10 if answers[0] is None else 20
        async with engine_on(tmp_path, reader):
            await until(lambda: _is_empty(tmp_path))
            await handle.update("begin")
            await handle.send("number", 99)
            assert await handle.result("20s") == [*range(LIMIT - 1), last, 99]


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_parked_runs_inbox_has_the_same_limit_and_the_refusal_names_it(
    tmp_path: Path, through: str
):
    async with _parked_and_full(tmp_path, through) as (handle, _engine):
        for _ in range(20):  # it depends on whether the engine has the run at hand
            await _refuses(handle)


async def test_a_parked_run_receives_once_what_was_accepted_and_nothing_else(tmp_path: Path):
    async with _parked_and_full(tmp_path, "engine") as (handle, engine):
        with pytest.raises(Unavailable, match="full"):
            await handle.send("number", 1_000)
        assert _rows_in_inbox(tmp_path) == LIMIT
        Gate.is_shut = False
        assert await engine.client.get("g").unpark()
        await until_status(handle, Status.WAITING)
        await handle.send("number", 99)
        assert await handle.result("20s") == [*range(LIMIT), 99]


@pytest.mark.parametrize("act", ["unpark", "terminate"])
async def test_a_full_inbox_does_not_shut_out_what_would_let_its_run_go_on_or_end(
    tmp_path: Path, act: str
):
    async with _parked_and_full(tmp_path, "client") as (handle, _):
        Gate.is_shut = False
        if act == "unpark":
            assert await handle.unpark()
            await until_status(handle, Status.WAITING)
        else:
            assert await handle.terminate("enough")
            await until_status(handle, Status.TERMINATED)


@asynccontextmanager
async def _parked_and_full(folder: Path, through: str) -> AsyncIterator[tuple[Handle[Any], Engine]]:
    Gate.is_shut = True
    async with engine_on(folder, gated) as engine, Client(engine.url) as client:
        await engine.client.start(gated, id="g")
        handle = (engine.client if through == "engine" else client).get("g")
        await until_status(handle, Status.PARKED)
        await _fill(handle)
        yield handle, engine


async def test_the_engines_own_client_is_refused_while_the_store_does_not_take_more(tmp_path: Path):
    async with engine_on(tmp_path, reader) as engine:
        handle = await engine.client.start(reader, id="r")
        async with _store_is_held(tmp_path, engine, handle) as (sent, _):
            await _refuses(handle)
        await asyncio.gather(*sent)
        await handle.update("begin")
        await handle.send("number", 99)
        assert await handle.result("20s") == [*range(LIMIT), 99]


async def test_a_run_whose_messages_have_not_been_written_yet_can_be_terminated(tmp_path: Path):
    async with engine_on(tmp_path, reader) as engine:
        handle = await engine.client.start(reader, id="r")
        async with _store_is_held(tmp_path, engine, handle) as (_, run):
            ending = asyncio.create_task(handle.terminate("enough"))
            await until(lambda: ending.done() or len(run.inputs) == LIMIT)
        assert await ending
        await until_status(handle, Status.TERMINATED)


@asynccontextmanager
async def _store_is_held(
    folder: Path, engine: Engine, handle: Handle[Any]
) -> AsyncIterator[tuple[list[asyncio.Task[None]], Run]]:
    """Hold the write lock, so that messages gather in the engine, as many as it takes."""
    core = engine._core
    assert core is not None
    other = sqlite3.connect(folder / "test.db", isolation_level=None)
    try:
        other.execute("begin immediate")
        sent = [asyncio.create_task(handle.send("number", 0))]
        await until(lambda: not core.turns.is_idle)
        sent += [asyncio.create_task(handle.send("number", n)) for n in range(1, LIMIT)]
        run = core.take_up((await handle._row()).run)
        await until(lambda: len(run.inputs) == LIMIT - 1)
        yield sent, run
        other.rollback()
        async with asyncio.timeout(20):
            await asyncio.wait(sent)
    finally:
        other.close()


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_messages_that_running_code_does_not_read_are_limited_too(
    tmp_path: Path, through: str
):
    async with engine_on(tmp_path, reader) as engine, Client(engine.url) as client:
        await engine.client.start(reader, id="r")
        handle = (engine.client if through == "engine" else client).get("r")
        await until_status(handle, Status.WAITING)
        accepted = list[int]()
        with pytest.raises(Unavailable, match=f"{LIMIT}"):
            for number in range(4 * LIMIT):
                await handle.send("number", number)
                accepted.append(number)
                await until(lambda: _is_empty(tmp_path))
        assert accepted == list(range(LIMIT))


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_the_messages_of_a_start_need_room_in_the_inbox_of_whom_they_reach(
    tmp_path: Path, through: str
):
    @workflow.define
    async def parent(count: int) -> str:
        try:
            await workflow.execute(reader, id="r", messages=[("number", 2)] * count)
        except ChildFailed as failed:
            return str(failed.cause)
        return "started"

    async with engine_on(tmp_path, reader, parent) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        handle = await engine.client.start(reader, id="r", messages=[("number", 0)])
        await _fill(handle, LIMIT - 3)
        await client.start("reader", id="r", messages=[("number", 1)])
        with pytest.raises(Unavailable, match=f"inbox .* full .*{LIMIT}"):
            await client.start("reader", id="r", messages=[("number", 2)] * 2)
        assert "is full" in await client.execute("parent", 2)
        await client.start("reader", id="r")
        await client.start("reader", id="r", messages=[("number", 3)])
        await _refuses(other.get("r"))
        await handle.update("begin")
        await handle.send("number", 99)
        assert await handle.result("20s") == [0, *range(LIMIT - 3), 1, 3, 99]


async def test_a_start_with_more_messages_than_an_inbox_takes_is_refused(tmp_path: Path):
    async with engine_on(tmp_path, reader) as engine:
        with pytest.raises(Unavailable, match=f"inbox .* full.*{LIMIT}") as caught:
            await engine.client.start(reader, id="r", messages=[("number", 0)] * (LIMIT + 1))
        assert not caught.value.retryable
        assert await engine.client.count() == 0
        await engine.client.start(reader, id="r", messages=[("number", 0)] * LIMIT)
