"""Workflows for the crash tests. Effects go to a file outside the database, one line each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from perdure import Retry, activity, human, workflow
from perdure.graph import flow

EFFECTS = "PERDURE_TEST_EFFECTS"
LIMIT = "PERDURE_TEST_LIMIT"  # how many effects there may be before steps wait
STEPS = 10


_WIDTH = 128


def effect(*words: object) -> None:
    """Append a line; O_APPEND keeps lines of several processes whole.

    All have one width, of which a page of a file holds a whole number: a write over the end of a
    page is two, between which the writer may be killed (its half would swallow the next line) or
    the file be read.
    """
    line = " ".join(str(word) for word in (*words, os.getpid())).encode()
    assert len(line) < _WIDTH, "a line that may be torn"
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.ljust(_WIDTH - 1) + b"\n")
    finally:
        os.close(file)


def _is_over_the_limit() -> bool:
    try:
        limit = int(Path(os.environ[LIMIT]).read_text())
    except (KeyError, FileNotFoundError):
        return False
    return Path(os.environ[EFFECTS]).stat().st_size > limit * _WIDTH


@activity.define(retry=Retry(interval="1ms"))
async def step(run: str, number: int) -> int:
    info = activity.info()
    effect("step", run, number, info.attempt, info.idempotency_key)
    if run.startswith("r"):
        await asyncio.sleep(0.05)  # sleep: time to be killed in
    while _is_over_the_limit():
        await asyncio.sleep(0.005)  # sleep: polls what another process writes
    return number + 1


@workflow.define
async def ten_steps(run: str) -> int:
    number = 0
    for _ in range(STEPS):
        number = await step(run, number)
    return number


@workflow.define
async def guarded(run: str) -> int:
    """Ten steps, for workers that limit how many there are at a time."""
    number = 0
    for _ in range(STEPS):
        number = await step(run, number)
    return number


@workflow.define
async def collector(count: int) -> list[int]:
    got: list[int] = []
    numbers = workflow.listen("number", int)
    for _ in range(count):
        got.append(await numbers.receive())
        if len(got) % 10 == 0:
            await step("collector", len(got))
    return got


@workflow.define
async def patient() -> str:
    return str(await workflow.listen("go").receive())


@workflow.define
async def echo(count: int) -> int:
    """Tell which number came last; end after so many."""
    last = 0

    @workflow.query("last")
    def get() -> int:
        return last

    numbers = workflow.listen("number", int)
    for _ in range(count):
        last = await numbers.receive()
    return last


@workflow.define
async def faraway(rounds: int) -> list[str]:
    """Have children on another task queue, one after the other, each of which waits for a word."""
    said: list[str] = []
    for number in range(rounds):
        child = await workflow.start(patient, task_queue="far")
        await child.send("go", number)
        said.append(await child)
    return said


# -- families: children, and letters that go to and fro ------------------------------------------

CHILDREN, LETTERS = 3, 5


@workflow.define
async def correspondent(name: str) -> list[int]:
    """Answer each letter after a step."""
    got: list[int] = []
    async for letter in workflow.listen("letter", message=True):
        got.append(letter.payload)
        await step(f"r-{name}", letter.payload)
        await letter.reply(f"answer-{name}", letter.payload)
        if len(got) == LETTERS:
            break
    return got


@workflow.define
async def family(name: str) -> dict[str, list[list[int]]]:
    """Write to all children; return what they answered, what they got, and what clients wrote."""
    names = [f"{name}-{number}" for number in range(CHILDREN)]
    children = [await workflow.start(correspondent, each, id=each) for each in names]
    for number in range(LETTERS):
        for child in children:
            await child.send("letter", number)
    found: dict[str, list[list[int]]] = {}
    for child in children:
        answers = workflow.listen(f"answer-{child.id}", int)
        found[child.id] = [[await answers.receive() for _ in range(LETTERS)], await child]
    post = workflow.listen("post", int)
    found["clients"] = [[await post.receive() for _ in range(LETTERS)]]
    return found


# -- a step machine, whose events are followed -----------------------------------------------------

MACHINE_STEPS = 4


async def _machine_step(input: int, ctx: Any) -> int:
    effect("machine", ctx.instance.id, input)
    await ctx.emit("stepped", {"from": input})
    await asyncio.sleep(0.03)  # sleep: time to be killed in
    return input + 1


def _machine() -> Any:
    made = flow("machine")
    for number in range(MACHINE_STEPS):
        made = made.task(f"step{number}", _machine_step)
    # Attempts that are lost count: a machine's steps have one, unless it says so.
    return made.default_retry(Retry(max_attempts=20, interval="1ms")).build()


machine = _machine()


# -- people --------------------------------------------------------------------------------------


@workflow.define
async def asking(name: str) -> list[str]:
    """Ask a person, and say who decided what; a step before and after."""
    await step(f"r-{name}", 0)
    decided = await human.request(f"Approve {name}?", due="9d")
    await step(f"r-{name}", 1)
    return [decided.by, decided.value]
