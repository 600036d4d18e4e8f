"""Messages: handlers side by side in one workflow, and a caller that waits for their answers.

    perdure dev examples/counter.py
    perdure start counter '{"initial": 2}' --id my-counter
    perdure send my-counter increment amount=3
    perdure send my-counter finish
    perdure result my-counter

`python examples/counter.py` does the same from Python: it asks and gets ack, nak and ok.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from perdure import ApplicationError, Engine, workflow


@dataclass
class Start:
    initial: int = 0


@dataclass
class Change:
    amount: int


@workflow.define
async def counter(start: Start) -> int:
    value = start.initial

    async def increments() -> None:
        nonlocal value
        async for message in workflow.listen("increment", Change, message=True):
            await message.reply("ack")  # it may have been sent by nobody who listens: no harm
            value += message.payload.amount
            await message.reply("ok", value)

    async def decrements() -> None:
        nonlocal value
        async for message in workflow.listen("decrement", Change, message=True):
            if value < message.payload.amount:
                await message.reply("nak", "would be negative")
                continue
            value -= message.payload.amount
            await message.reply("ok", value)

    workflow.spawn(increments())  # they end with the workflow
    workflow.spawn(decrements())
    finish = await workflow.listen("finish", message=True).receive()
    await finish.reply("ok", "finishing")
    return value


async def main() -> None:
    # A mailbox is an address: workflows see it as `message.sender` and can answer to it.
    async with (
        Engine("sqlite:///counter.db", definitions=[counter]) as engine,
        engine.client.mailbox() as box,
    ):
        run = await box.start(counter, Start(2), messages=[("increment", Change(1))], monitor=True)
        first = await box.listen("ok").receive(timeout="5s")
        more = await box.ask(run, "increment", Change(3), reply="ok", timeout="5s")
        print(f"{first}, then {more}")
        try:
            await box.ask(run, "decrement", Change(99), reply="ok", error="nak", timeout="5s")
        except ApplicationError as exc:
            print(f"refused: {exc}")
        await box.send(run, "finish")
        end = await box.events().receive(timeout="5s")
        print(f"{end.kind} with {end.result}")


if __name__ == "__main__":
    asyncio.run(main())
