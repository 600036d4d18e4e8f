"""The workflows that scenarios run, and an engine for them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from harness import database
from perdure import Engine, activity, workflow

marks: list[float] = []
"""When ``mark`` ran, in this process."""


@activity.define
async def step(number: int) -> int:
    """Do nothing, durably."""
    return number


@activity.define
async def mark(number: int) -> int:
    """Note the time."""
    marks.append(time.perf_counter())
    return number


@workflow.define
async def steps(count: int) -> int:
    """Run ``count`` steps one after the other."""
    for number in range(count):
        await step(number)
    return count


@workflow.define
async def marked_steps(count: int) -> int:
    """Run ``count`` steps that note their time."""
    for number in range(count):
        await mark(number)
    return count


@workflow.define
async def nap(seconds: float) -> float:
    """Sleep durably."""
    await workflow.sleep(seconds)
    return seconds


@workflow.define
async def receiver(count: int) -> int:
    """Receive ``count`` numbers and add them up."""
    numbers = workflow.listen("number", int)
    total = 0
    for _ in range(count):
        total += await numbers.receive()
    return total


@workflow.define
async def twice(number: int) -> int:
    """Do next to nothing."""
    return 2 * number


@workflow.define
async def parent(count: int) -> int:
    """Start ``count`` children at once and add up their results."""
    children = [await workflow.start(twice, number) for number in range(count)]
    return sum([await child for child in children])


@workflow.define
async def pong(rounds: int) -> int:
    """Send back so many numbers."""
    pings = workflow.listen("ping", int, message=True)
    for _ in range(rounds):
        ping = await pings.receive()
        await ping.reply("pong", ping.payload)
    return rounds


@workflow.define
async def ping(request: tuple[str, int]) -> int:
    """Send so many numbers to a ``pong``, each when the one before has come back."""
    target, rounds = request
    pongs = workflow.listen("pong", int)
    for number in range(rounds):
        await workflow.send(target, "ping", number)
        assert await pongs.receive() == number
    return rounds


def engine_in(folder: Path, **options: Any) -> Engine:
    """Return an engine for these workflows on the scenario's database."""
    definitions = [steps, marked_steps, nap, receiver, twice, parent, ping, pong]
    return Engine(database(folder), definitions=definitions, **options)
