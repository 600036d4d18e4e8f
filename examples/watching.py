"""Watching from outside: monitors, links, cancelling with a deadline, terminating.

    python examples/watching.py
    perdure run examples/watching.py:long_work seconds=0.1

A monitor only tells. A link also ends the block that holds it, unless the mailbox traps links.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from perdure import Client, Engine, workflow
from perdure.errors import LinkedRunFailed


@dataclass
class Work:
    seconds: float = 3600.0
    is_deaf: bool = False


@workflow.define
async def long_work(work: Work) -> str:
    while True:
        try:
            await workflow.sleep(work.seconds)
        except asyncio.CancelledError:
            if not work.is_deaf:
                raise
        else:
            return "done"


async def monitored(client: Client) -> None:
    async with client.mailbox() as box:
        short = await box.start(long_work, Work(0.05), monitor=True)
        obedient = await box.start(long_work, Work())
        deaf = await box.start(long_work, Work(is_deaf=True))
        await box.monitor(obedient)  # later is as good: also when it has ended already
        await box.monitor(deaf)
        names = {short.id: "short", obedient.id: "obedient", deaf.id: "deaf"}
        await obedient.cancel("closing time", deadline="5s")
        await deaf.cancel("closing time", deadline="200ms")  # terminated when that is over
        for _ in names:
            end = await box.events().receive(timeout="10s")
            how = end.result if end.error is None else end.error.kind
            print(f"{names[end.sender]}: {how}, now {await client.get(end.sender).status()}")


async def linked(client: Client) -> None:
    async with client.mailbox(trap_links=True) as box:
        run = await box.start(long_work, Work(), link=True)
        await run.terminate("enough")
        print((await box.events().receive(timeout="10s")).kind)
    try:
        async with client.mailbox() as box:
            run = await box.start(long_work, Work(), link=True)
            await run.terminate("enough")
            await asyncio.Event().wait()
    except LinkedRunFailed as exc:
        print(f"the block ended: {exc.kind}")


async def main() -> None:
    async with Engine("sqlite:///watching.db", definitions=[long_work]) as engine:
        await monitored(engine.client)
        await linked(engine.client)


if __name__ == "__main__":
    asyncio.run(main())
