"""Topics and channels: jobs that come as messages, shared by workers inside one workflow.

    perdure dev examples/jobs.py
    perdure start crew workers=3 --id crew
    perdure send crew add_job 7
    perdure send crew add_job 8
    perdure send crew exit
    perdure result crew

Channels, `select` and tasks are plain memory of the run: they are rebuilt when it is replayed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from perdure import activity, workflow


@dataclass
class Crew:
    workers: int = 3
    patience: str = "1h"


@activity.define
async def do(job: int) -> int:
    await asyncio.sleep(0.05)
    return job * 2


@workflow.define
async def crew(plan: Crew) -> dict[str, int]:
    jobs, exits = workflow.listen("add_job", int), workflow.listen("exit")
    queue = workflow.Channel[int](10)  # ten may wait; then the sender waits too
    results: dict[str, int] = {}

    async def work() -> None:
        async for job in queue:  # ends when the queue is closed and empty
            results[str(job)] = await do(job)

    workers = [workflow.spawn(work()) for _ in range(plan.workers)]
    while True:
        chosen, value = await workflow.select(jobs, exits, workflow.after(plan.patience))
        if chosen is not jobs or value is None:
            break  # somebody said so, or nothing came for an hour
        await queue.send(value)
    queue.close()
    for worker in workers:
        await worker
    return results
