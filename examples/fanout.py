"""Many activities at once, with nothing but asyncio: gather, TaskGroup, Semaphore.

    perdure run examples/fanout.py:survey '["ada", "grace", "barbara"]'
    perdure run examples/fanout.py:careful '["ada", "grace", "barbara"]'

Workflow code runs in an event loop of its own that replays in the same order.
"""

from __future__ import annotations

import asyncio

from perdure import Retry, activity, workflow


@activity.define(retry=Retry(max_attempts=3, interval="100ms"))
async def measure(name: str) -> int:
    await asyncio.sleep(0.05)
    return len(name)


@workflow.define
async def survey(names: list[str]) -> dict[str, int]:
    """All at once. Each result is recorded as it comes; a crash repeats only what was in flight."""
    lengths = await asyncio.gather(*(measure(name) for name in names))
    return dict(zip(names, lengths, strict=True))


@workflow.define
async def careful(names: list[str]) -> dict[str, int]:
    """At most two at a time; if one fails for good, the task group cancels the others."""
    lengths: dict[str, int] = {}
    slots = asyncio.Semaphore(2)

    async def one(name: str) -> None:
        async with slots:
            lengths[name] = await measure(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return lengths
