"""A workflow whose activities are carried out by workers of another task queue."""

from __future__ import annotations

import asyncio
import os

from tests.crash.programs import effect

from perdure import Retry, activity, workflow

HELD = 3
"""The activity whose first attempt holds on until its worker is killed."""


@activity.define(task_queue="gpu", retry=Retry(interval="10ms"))
async def render(name: str, number: int) -> int:
    info = activity.info()
    effect("render", name, number, info.attempt, info.idempotency_key, os.getpid())
    if number == HELD and info.attempt == 1:
        await asyncio.Event().wait()
    return number


@workflow.define
async def film(name: str) -> int:
    done = [await render(name, 0)]
    done += await asyncio.gather(*(render(name, number) for number in range(1, 6)))
    return sum(done)
