"""A call by name goes by the options of the definition that has the name."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.engine.support import engine_on, until

from perdure import ApplicationError, Retry, activity, workflow
from perdure.errors import ActivityFailed

ONCE = Retry(max_attempts=1)
release = threading.Event()


@pytest.fixture(autouse=True)
def _fresh():
    release.clear()
    yield
    release.set()


@activity.define(timeout="30ms", retry=ONCE)
async def slow() -> None:
    await asyncio.Event().wait()


@activity.define(heartbeat_timeout="30ms", retry=ONCE)
async def silent() -> None:
    await asyncio.Event().wait()


@activity.define(schedule_timeout="30ms", retry=Retry(interval="1ms"))
async def late() -> None:
    await asyncio.Event().wait()


@activity.define(timeout="30ms", retry=ONCE)
def slow_thread() -> None:
    release.wait(20)


@activity.define(retry=ONCE)
async def fails() -> None:
    raise ApplicationError("no", kind="Refused")


@activity.define(task_queue="gpu")
async def queue() -> str:
    return activity.info().queue


@activity.define(transactional=True, retry=Retry(interval="1ms"))
def book(amount: int) -> int:
    connection = activity.connection()
    connection.execute("create table if not exists booked (amount)")
    connection.execute("insert into booked values (?)", (amount,))
    if activity.info().attempt == 1:
        raise ApplicationError("again")
    return amount


ALL = (slow, silent, late, slow_thread, fails, queue, book)


@workflow.define
async def by_name(
    name: str,
) -> str:
    try:
        return str(await workflow.call(name, *([5] if name == "book" else [])))
    except ActivityFailed as exc:
        return f"{exc.kind} {exc.details}"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("slow", "Timeout {'timeout_type': 'attempt'}"),
        ("silent", "Timeout {'timeout_type': 'heartbeat'}"),
        ("late", "Timeout {'timeout_type': 'schedule'}"),
        ("slow_thread", "Timeout {'timeout_type': 'attempt'}"),
        ("fails", "Refused None"),
        ("queue", "gpu"),
        ("book", "5"),
    ],
)
async def test_a_call_by_name_has_the_options_of_the_definition(
    tmp_path: Path, name: str, says: str
):
    async with engine_on(tmp_path, by_name, *ALL, task_queues=("default", "gpu")) as engine:
        handle = await engine.client.start(by_name, name)
        assert await handle.result("10s") == says
    if name == "book":
        assert _booked(tmp_path) == [(5,)], "the failed attempt left nothing"


@activity.define
async def occupy() -> None:
    while not release.is_set():
        await asyncio.sleep(0.005)  # sleep: the activity under test is busy


@workflow.define
async def crowd() -> int:
    first = asyncio.create_task(occupy())
    await asyncio.sleep(0)  # sleep: none, it lets the other task schedule first
    try:
        return await workflow.call("book", 7)
    finally:
        first.cancel()


async def test_a_transactional_call_by_name_goes_on_after_a_restart(tmp_path: Path):
    async with engine_on(tmp_path, crowd, *ALL, activity_slots=1) as engine:
        handle = await engine.client.start(crowd, id="crowd")

        async def is_scheduled() -> bool:
            events = await handle.history()
            return sum(event.kind == "activity_scheduled" for event in events) == 2

        await until(is_scheduled)
        await engine.stop("1ms")
    async with engine_on(tmp_path, crowd, *ALL) as engine:
        assert await engine.client.get("crowd").result("10s") == 7
    assert _booked(tmp_path) == [(7,)]


@activity.define(queue_timeout="30ms", retry=ONCE)
async def hurried() -> None:
    """Nothing to do."""


@workflow.define
async def queued() -> str:
    first = asyncio.create_task(occupy())
    await asyncio.sleep(0)  # sleep: none, it lets the other task schedule first
    try:
        await workflow.call("hurried")
    except ActivityFailed as exc:
        return str(exc.details)
    finally:
        first.cancel()
    return "ran"


async def test_a_call_by_name_waits_no_longer_for_a_slot_than_the_definition_says(tmp_path: Path):
    async with engine_on(tmp_path, queued, hurried, activity_slots=1) as engine:
        handle = await engine.client.start(queued)
        assert await handle.result("10s") == "{'timeout_type': 'queue'}"


def _booked(folder: Path) -> list[tuple[int]]:
    connection = sqlite3.connect(folder / "test.db")
    try:
        return connection.execute("select amount from booked").fetchall()
    finally:
        connection.close()
