"""Damaged rows: the run they belong to says so, and nobody else notices."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Status, workflow
from perdure.errors import Corrupt, Invalid, WorkflowTerminated


@workflow.define
async def waiter(number: int) -> int:
    @workflow.query("number")
    def shown() -> int:
        return number

    await workflow.listen("go").receive()
    return number


def damage(folder: Path, sql: str) -> None:
    """Change rows behind Perdure's back; ``:bad`` is the number of the run with id `bad`."""
    connection = sqlite3.connect(folder / "test.db")
    sql = sql.replace(":bad", "(SELECT run FROM perdure_run WHERE workflow_id = 'bad')")
    assert connection.execute(sql).rowcount > 0
    connection.commit()
    connection.close()


async def two_runs(folder: Path) -> None:
    """Leave the waiting runs `bad` and `good` in the database."""
    async with engine_on(folder, waiter) as engine:
        for number, name in enumerate(("bad", "good")):
            await until_status(
                await engine.client.start(waiter, number, id=name, memo={"n": 1}), Status.WAITING
            )


@pytest.mark.parametrize(
    "event",
    ["x'00'", "x'90'", "x'9181a46b696e64a2ffff'", "x'9181a46b696e6491c0'", "'text'"],
    ids=["number", "empty", "no UTF-8", "no kind", "text"],
)
async def test_an_inbox_row_that_cannot_be_read_parks_its_run_and_names_itself(
    tmp_path: Path, event: str
):
    await two_runs(tmp_path)
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with Client(url) as client:
        await client.get("bad").send("go")
    damage(tmp_path, f"UPDATE perdure_inbox SET event = {event}")
    async with engine_on(tmp_path, waiter), Client(url) as client:
        assert await client.get("good").query("number") == 1
        await client.get("good").send("go")
        assert await client.get("good").result("10s") == 1
        bad = client.get("bad")
        await until_status(bad, Status.PARKED)
        parked = await bad.describe()
        assert parked.reason == "corrupt_history"
        assert "row 1 of the inbox" in (parked.detail or "")


async def test_a_terminate_gets_past_an_inbox_row_that_cannot_be_read(tmp_path: Path):
    await two_runs(tmp_path)
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with Client(url) as client:
        await client.get("bad").cancel()
    damage(tmp_path, "UPDATE perdure_inbox SET event = x'00'")
    async with engine_on(tmp_path, waiter), Client(url) as client:
        bad = client.get("bad")
        await until_status(bad, Status.PARKED)
        assert await bad.terminate("enough")
        with pytest.raises(WorkflowTerminated, match="enough"):
            await bad.result("10s")


async def test_a_run_with_an_unreadable_inbox_row_is_parked_again_when_it_is_unparked(
    tmp_path: Path,
):
    await two_runs(tmp_path)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        await client.get("bad").send("go")
    damage(tmp_path, "UPDATE perdure_inbox SET event = x'00'")
    async with engine_on(tmp_path, waiter) as engine:
        bad = engine.client.get("bad")
        await until_status(bad, Status.PARKED)
        for ask in (bad.unpark, bad.cancel):
            before = len(await bad.history())
            assert await ask()
            await until_status(bad, Status.PARKED)
            kinds = [event.kind for event in await bad.history()][before:]
            assert kinds[1:] == ["run_parked"], "recorded once, and not over and over"


async def test_a_start_may_replace_a_run_whose_inbox_cannot_be_read(tmp_path: Path):
    await two_runs(tmp_path)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        await client.get("bad").send("go")
    damage(tmp_path, "UPDATE perdure_inbox SET event = x'00'")
    async with engine_on(tmp_path, waiter) as engine:
        policy = "terminate_existing"
        handle = await engine.client.start(waiter, 5, id="bad", id_conflict_policy=policy)
        await handle.send("go")
        assert await handle.result("10s") == 5


@workflow.define
async def quick(number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("payload = x'00'", r"run \d+ \(.+\): the row of event 1 is damaged"),
        (
            f"payload = x'00', crc = {crc32(bytes(1))}",
            "event 1: the row is not a turn",
        ),
        (
            f"payload = x'90', crc = {crc32(bytes([0x90]))}",
            "event 1: it holds no events",
        ),
    ],
    ids=["damaged", "no turn", "empty"],
)
async def test_an_end_that_cannot_be_read_is_told_to_who_waits_for_it_and_to_nobody_else(
    tmp_path: Path, sql: str, said: str
):
    async with engine_on(tmp_path, quick, waiter) as engine:
        await engine.client.execute(quick, 1, id="bad")
        await engine.client.start(waiter, 1, id="good")
    damage(tmp_path, f"UPDATE perdure_history SET {sql} WHERE run = :bad")
    async with (
        engine_on(tmp_path, quick, waiter),
        Client(f"sqlite:///{tmp_path / 'test.db'}") as client,
    ):
        good = asyncio.ensure_future(client.get("good").result())
        for _ in range(2):
            with pytest.raises(Corrupt, match=said):
                await client.get("bad").result()
        await client.get("good").send("go")
        async with asyncio.timeout(10):
            assert await good == 1


STATE = "UPDATE perdure_state SET {} WHERE run = :bad"


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE perdure_memo SET memo = x'00' WHERE run = :bad", "memo"),
        ("UPDATE perdure_memo SET memo = '[1]' WHERE run = :bad", "memo"),
        (STATE.format("waits = '{{{'"), "waits"),
        (STATE.format("progress = x'7b7d'"), "progress"),
        (STATE.format("waits = '', progress = '{'"), "waits, progress"),
        ("UPDATE perdure_run SET tags = '[5]' WHERE run = :bad", "tags"),
    ],
)
async def test_a_damaged_row_is_listed_told_by_name_and_parks_its_run_alone(
    tmp_path: Path, sql: str, what: str
):
    await two_runs(tmp_path)
    damage(tmp_path, sql)
    async with engine_on(tmp_path, waiter) as engine:
        client = engine.client
        shown = {one.id: one for one in (await client.list()).items}
        assert shown["good"].memo == {"n": 1}
        assert shown["bad"].workflow == "waiter"
        bad = client.get("bad")
        for ask in (bad.describe, bad.export, bad.why):
            with pytest.raises(Corrupt, match=f"stored as {what} cannot"):
                await ask()
        for name in ("bad", "good"):
            await client.get(name).send("go")
        assert await client.get("good").result("10s") == 1
        await until_status(bad, Status.PARKED)
        assert f"stored as {what} cannot be read" in await bad.why()
        assert await bad.terminate("enough")
        with pytest.raises(WorkflowTerminated):
            await bad.result("10s")


HISTORY = "UPDATE perdure_history SET {} WHERE first = 2 AND run = :bad"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM perdure_history WHERE first = 1 AND run = :bad", "events 1 to 1 are missing"),
        ("DELETE FROM perdure_history WHERE first = 2 AND run = :bad", "events 2 to 3 are missing"),
        ("DELETE FROM perdure_history WHERE run = :bad", "events 1 to 3 are missing"),
        (HISTORY.format("payload = x'00'"), "the row of event 2 is damaged"),
        (HISTORY.format("payload = 'text'"), "the row of event 2 is damaged"),
        (
            HISTORY.format(f"payload = x'00', crc = {crc32(bytes(1))}"),
            "the row of event 2: the row is not a turn",
        ),
    ],
    ids=["beginning", "end", "all", "bytes", "text", "checksum"],
)
async def test_a_history_says_what_of_it_is_missing_or_damaged(tmp_path: Path, sql: str, said: str):
    await two_runs(tmp_path)
    async with engine_on(tmp_path, waiter) as engine:
        for name in ("bad", "good"):
            await engine.client.get(name).send("go")
            await engine.client.get(name).result("10s")
    damage(tmp_path, sql)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        with pytest.raises(Corrupt, match=rf"history of run \d+.*: {said}"):
            await client.get("bad").history()
        with pytest.raises((Corrupt, Invalid)):
            await client.get("bad").export()
        assert len(await client.get("good").history()) == 3


async def test_a_row_that_nobody_foresaw_keeps_no_other_run_from_loading(tmp_path: Path):
    await two_runs(tmp_path)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        for name in ("bad", "good"):
            await client.get(name).send("go")
    damage(tmp_path, "UPDATE perdure_history SET count = 'many' WHERE run = :bad")
    async with engine_on(tmp_path, waiter) as engine:
        assert await engine.client.get("good").result("10s") == 1


async def test_text_that_is_no_utf8_hides_no_other_run_from_a_list(tmp_path: Path):
    await two_runs(tmp_path)
    damage(tmp_path, "UPDATE perdure_run SET created_by = CAST(x'41ff' AS TEXT) WHERE run = :bad")
    async with engine_on(tmp_path, waiter), Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        shown = {run.id: run.created_by for run in (await client.list()).items}
        assert shown["bad"] == "A\ufffd"
        assert set(shown) == {"bad", "good"}
        await client.get("good").send("go")
        assert await client.get("good").result("10s") == 1
