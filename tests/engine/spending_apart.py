"""Activities in subprocesses that spend of their run's budget; these import this module by name."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from perdure import Retry, activity, workflow
from perdure.errors import BudgetExceeded

TWICE = Retry(max_attempts=2, interval="1ms")


@activity.define(isolation="process", retry=TWICE)
async def ask(tokens: int) -> str:
    await activity.spend("tokens", tokens)
    return "answer"


@activity.define(isolation="process", retry=TWICE)
def ask_plainly(tokens: int) -> str:
    activity.spend("tokens", tokens)
    with activity.reserve(tokens=10) as held:
        held.used(tokens=1)
    return "answer"


@activity.define(isolation="process", retry=TWICE)
async def careful(most: int, used: int | None, how: str = "") -> str:
    async with activity.reserve(tokens=most) as held:
        if used is not None:
            held.used(tokens=used)
        if activity.info().attempt == 1 and how == "fail":
            raise ValueError("no answer")
        if activity.info().attempt == 1 and how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
    return "answer"


@activity.define(isolation="process")
async def many_at_once(count: int) -> list[str]:
    """Spend from several tasks: each gets its own answer."""

    async def one(tokens: int) -> str:
        try:
            await activity.spend("tokens", tokens)
        except BudgetExceeded as error:
            return f"{error.details['wanted']} of {error.details['left']}"
        return "spent"

    return await asyncio.gather(*(one(10 * n) for n in range(1, count + 1)))


@activity.define(isolation="process", retry=TWICE)
async def noted(folder: str) -> int:
    with (Path(folder) / "notes").open("a") as file:
        file.write("entered\n")
    if activity.info().attempt == 1:
        raise ValueError("again")
    return activity.info().attempt


ACTIVITIES: dict[str, Any] = {
    one.name: one for one in (ask, ask_plainly, careful, many_at_once, noted)
}


@workflow.define
async def spends(calls: list[list[Any]]) -> list[Any]:
    """Call activities one after the other: ``[[name, *args], …]``."""
    return [await ACTIVITIES[name](*args) for name, *args in calls]
