"""Activities and machines that run in subprocesses; these import this module by its name.

A handler that is to be met in the middle writes a line into a file of the folder it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure import ApplicationError, Retry, activity, workflow
from perdure.graph import BaseMachineStep, Edge, WorkflowDefinition, branch, flow

AGAIN = Retry(max_attempts=3, interval="1ms")


def note(folder: str, *words: object, name: str = "notes") -> None:
    with (Path(folder) / name).open("a") as file:
        file.write(" ".join(str(word) for word in words) + "\n")


def notes(folder: Path, name: str = "notes") -> list[list[str]]:
    with contextlib.suppress(FileNotFoundError):
        return [line.split() for line in (folder / name).read_text().splitlines()]
    return []


class Books:
    """A service that each process makes for itself."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.sold = 0

    def sell(self) -> int:
        self.sold += 1
        return self.sold


def open_books() -> Books:
    return Books()


async def open_books_slowly() -> Books:
    await asyncio.sleep(0)  # sleep: gives way once
    return Books()


def broken_service() -> Books:
    raise OSError("no such host")


# -- activities ----------------------------------------------------------------------------------


@activity.define(isolation="process")
async def where(folder: str) -> dict[str, Any]:
    info = activity.info()
    return {
        "pid": os.getpid(),
        "id": info.workflow_id,
        "attempt": info.attempt,
        "key": info.idempotency_key,
        "tenant": activity.context.get("tenant"),
    }


@activity.define(isolation="process")
def where_plain(folder: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "id": activity.info().workflow_id}


@activity.define(isolation="process")
async def sell() -> list[int]:
    books = activity.services()["books"]
    return [books.pid, os.getpid(), books.sell(), books.sell(), activity.services()["rate"]]


@activity.define(isolation="process", retry=AGAIN)
async def waits_once(folder: str) -> dict[str, Any]:
    info = activity.info()
    note(folder, info.attempt, os.getpid())
    if info.attempt == 1:
        activity.heartbeat({"page": 7})
        activity.logger.info("page %d", 7)
        note(folder, "beaten", name="beaten")
        await asyncio.Event().wait()
    return {"attempt": info.attempt, "left": info.heartbeat_details, "pid": os.getpid()}


@activity.define(isolation="process", retry=AGAIN)
def spins_once(folder: str) -> int:
    attempt = activity.info().attempt
    note(folder, attempt, os.getpid())
    while attempt == 1:
        pass
    return attempt


@activity.define(isolation="process", retry=AGAIN, timeout="1s")
def spins_over_its_time(folder: str) -> int:
    attempt = activity.info().attempt
    note(folder, attempt, os.getpid())
    while attempt == 1:
        pass
    return attempt


@activity.define(isolation="process")
async def cleans_up(folder: str) -> str:
    note(folder, "began", os.getpid())
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(folder, "cleaned", os.getpid())
        raise
    return "never"


@activity.define(isolation="process")
def finishes_when_told(folder: str) -> int:
    note(folder, "began", os.getpid())
    release = Path(folder) / "release"
    while not release.exists():
        pass
    return os.getpid()


@activity.define(isolation="process")
def starts_a_program(folder: str) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with subprocess.Popen(command) as program:
        note(folder, program.pid, os.getpid())


class Cause(Exception):
    pass


def fail(how: str) -> Any:
    if how == "application":
        try:
            raise Cause("the first")
        except Cause as exc:
            raise ApplicationError(
                "out of stock", kind="Sold", retryable=False, details={"sku": 5}
            ) from exc
    if how == "exit":
        sys.exit(3)
    if how == "hard exit":
        os._exit(7)
    if how == "cancelled":
        raise asyncio.CancelledError
    if how == "result":
        return object()
    if how == "large":
        return "x" * 10_000
    if how == "interrupt":
        raise KeyboardInterrupt
    raise ValueError("as it is")


@activity.define(isolation="process", retry=Retry(max_attempts=1))
async def fails(how: str) -> Any:
    return fail(how)


@activity.define(isolation="process", retry=Retry(max_attempts=1))
def fails_plain(how: str) -> Any:
    return fail(how)


@activity.define(retry=Retry(max_attempts=1))
async def fails_inline(how: str) -> Any:
    return fail(how)


@activity.define(isolation="process")
async def logs() -> None:
    logging.getLogger("orders.stock").warning("low: %s", "bolts")
    activity.logger.warning("careful", {"shelf": 3})


ACTIVITIES = {
    made.name: made
    for made in (
        where,
        where_plain,
        sell,
        waits_once,
        spins_once,
        spins_over_its_time,
        cleans_up,
        finishes_when_told,
        starts_a_program,
        fails,
        fails_plain,
        fails_inline,
        logs,
    )
}


@workflow.define
async def calls(names: list[Any]) -> list[Any]:
    """Call activities one after the other: ``[[name, *args], …]``."""
    return [await ACTIVITIES[name](*args) for name, *args in names]


@workflow.define
async def calls_together(names: list[Any]) -> list[Any]:
    return await asyncio.gather(*(ACTIVITIES[name](*args) for name, *args in names))


# -- machines ------------------------------------------------------------------------------------


@dataclass
class Order:
    id: str
    amount: int


async def price(input: Order, ctx: Any) -> dict[str, Any]:
    ctx.log("info", "pricing", {"id": input.id})
    ctx.core.logger.warning("slowly")
    await ctx.set_metadata("priced_by", os.getpid())
    ctx.set("currency", "EUR")
    await ctx.emit("priced", {"id": input.id})
    return {"total": input.amount * 2, "seen": type(ctx.input).__name__}


def check(input: dict[str, Any], ctx: Any) -> dict[str, Any]:
    return {
        "prev": ctx.prev,
        "steps": sorted(ctx.steps),
        "metadata": dict(ctx.metadata),
        "data": ctx.data,
        "input": ctx.input.id,
        "history": [visit.step_name for visit in ctx.step_history],
        "service": ctx.services["books"].sell(),
        "pid": os.getpid(),
    }


shop = flow("shop", input=Order).task("price", price).task("check", check).isolated(True).build()
"""Lambdas in it are workflow code, which stays where it is."""


async def pid_of(input: Any) -> int:
    return os.getpid()


class Where(BaseMachineStep):
    async def execute(self, context: Any) -> int:
        return os.getpid()


wide = (
    flow("wide")
    .parallel("both", [branch("left").task("l", pid_of), branch("right").task("r", pid_of)])
    .map("each", pid_of, items=lambda _: [1, 2])
    .pass_("all", transform=lambda c: [*c.steps["both"].values(), *c.steps["each"]])
    .build()
)
stays = flow("stays").task("pid", pid_of).isolated(False).build()
classes = WorkflowDefinition(
    "classes",
    steps=[Where("first"), Where("second")],
    edges=[Edge("first", "second")],
    isolated=True,
)


async def dies_once(input: str, ctx: Any) -> int:
    attempt = activity.info().attempt
    ctx.log("info", f"attempt {attempt}")
    if attempt == 1:
        os._exit(9)
    return attempt


dying = (
    flow("dying")
    .task("once", dies_once, retry=Retry(max_attempts=2, interval="1ms"))
    .isolated()
    .build()
)
giving_up = flow("giving-up").task("once", dies_once).isolated().build()


def made_elsewhere() -> Any:
    """Return a machine that no module has under a name."""
    return flow("nameless").task("pid", pid_of).isolated(True).build()


def object_in_context() -> Any:
    made = flow("objects").pass_("make", transform=lambda _: object())
    return made.pass_("other", result=1).task("pid", pid_of)


objects = object_in_context().isolated(True).build()
