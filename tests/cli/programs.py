"""The workflows that the tests of the command line serve."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from perdure import ApplicationError, Retry, activity, human, workflow


@dataclass
class Order:
    id: str
    total: int = 0


@activity.define
async def greet(name: str) -> str:
    print("a line of the user's own")
    return f"Hello, {name}!"


def note(mark: str) -> None:
    Path(mark).touch()


@activity.define
async def hang(mark: str) -> None:
    note(mark)
    await asyncio.sleep(3600)  # sleep: held until the test kills the worker


@workflow.define
async def hello(name: str = "World") -> str:
    return await greet(name)


@workflow.define
async def total(order: Order) -> int:
    return order.total


@workflow.define
async def echo(value: object = None) -> object:
    return value


@workflow.define
async def boom(text: str = "no card") -> None:
    raise ApplicationError(text, kind="CardDeclined", retryable=False)


@workflow.define
async def bug() -> str:
    return {"a": "b"}["boom"]


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def flaky() -> None:
    raise OSError("the line is dead")


@workflow.define
async def unlucky() -> None:
    await flaky()


@activity.define(retry=Retry(max_attempts=1))
async def give_back() -> None:
    raise OSError("nobody is there")


@workflow.define
async def undoing() -> None:
    async with workflow.saga() as undo:
        undo.add(give_back)
        await workflow.listen("go").receive()


@workflow.define
async def wait(value: object = None) -> object:
    state = ["waiting"]

    @workflow.query("state")
    def _(suffix: str = "") -> str:
        return state[0] + suffix

    def not_empty(text: str) -> None:
        if not text:
            raise ApplicationError("an empty state", kind="Empty")

    @workflow.update("set_state", validator=not_empty)
    def _(text: str) -> str:
        before, state[0] = state[0], text
        return before

    return await workflow.listen("go").receive()


@workflow.define
async def hanging(mark: str) -> None:
    await hang(mark)


def is_there(path: Path) -> bool:
    return path.exists()


@activity.define(retry=Retry(max_attempts=1))
async def linger(folder: str) -> str:
    note(f"{folder}/mark")
    release = Path(folder, "release")
    while not is_there(release):
        await asyncio.sleep(0.01)  # sleep: under way until the test lets it go
    return "done"


@workflow.define
async def lingering(folder: str) -> list[str]:
    return [await linger(folder), await linger(folder)]


@workflow.define
async def parenting() -> object:
    return await workflow.execute(wait, None, id="the-child")


@workflow.define
async def approve(options: dict[str, object]) -> list[object]:
    form = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    decided = await human.request("Approve it?", form=form, **options)  # type: ignore[arg-type]
    return [decided.outcome, decided.value, decided.by, decided.comment]
