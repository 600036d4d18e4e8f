"""Workflows whose workers end in the middle of something."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from tests.crash.programs import EFFECTS, effect

from perdure import ApplicationError, Retry, activity, workflow


def is_released() -> bool:
    """Tell whether the test lets go what holds on."""
    return Path(os.environ[EFFECTS]).with_name("release").exists()


@activity.define
async def beat() -> str:
    info = activity.info()
    if info.attempt == 1:
        activity.heartbeat({"at": 7})
    effect("beat", info.attempt, (info.heartbeat_details or {}).get("at"))
    if info.attempt < 3:
        await asyncio.Event().wait()
    return f"from {info.heartbeat_details['at']}"


@workflow.define
async def beating() -> str:
    return await beat()


@activity.define(transactional=True)
def book(holds: bool) -> int:
    """Write a row; the first attempt then holds its transaction open until it is killed."""
    attempt = activity.info().attempt
    connection = activity.connection()
    connection.execute("create table if not exists ledger (attempt)")
    connection.execute("insert into ledger values (?)", (attempt,))
    effect("book", attempt)
    if holds and attempt == 1:
        threading.Event().wait()
    return attempt


@workflow.define
async def booking(holds: bool) -> int:
    return await book(holds)


@activity.define
async def add_slowly(amount: int) -> int:
    attempt = activity.info().attempt
    effect("add", attempt)
    if attempt == 1 and amount == 2:
        await asyncio.Event().wait()
    return amount


@workflow.define
async def account(value: int) -> int:
    @workflow.query("value")
    def get() -> int:
        return value

    @workflow.update("add")
    async def add(amount: int) -> int:
        nonlocal value
        value += await add_slowly(amount)
        return value

    await workflow.listen("finish").receive()
    return value


@activity.define(retry=Retry(max_attempts=2, interval="1500ms"))
async def shaky() -> int:
    attempt = activity.info().attempt
    effect("shaky", attempt, time.time_ns() // 1000)
    if attempt == 1:
        raise ApplicationError("at first")
    return attempt


@workflow.define
async def retrying() -> int:
    return await shaky()


@activity.define
async def one() -> int:
    return 1


def hold_loop(seconds: float) -> str:
    """Hold the loop in C code, where nothing can interrupt it."""
    effect("turn")
    if not is_released():
        time.sleep(seconds)  # sleep: the loop is held; this is under test
    return "let go"


def hold_until_released() -> str:
    """Hold the loop until the test has seen enough."""
    effect("turn")
    while not is_released():
        time.sleep(0.01)  # sleep: the loop is held; this is under test
    return "let go"


@workflow.define
async def blocking_at_once(seconds: float) -> str:
    return hold_loop(seconds)


@workflow.define
async def blocking_later(seconds: float) -> str:
    await one()  # from here on the worker owns the run
    return hold_loop(seconds)


@workflow.define
async def blocking_until_released() -> str:
    await one()  # from here on the worker owns the run
    return hold_until_released()


@workflow.define
async def fine() -> int:
    await workflow.listen("go").receive()
    return await one()
