"""Workflows whose activities are of another task queue, and these activities."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure import ApplicationError, Retry, activity, workflow
from perdure.errors import ActivityFailed

attempts: list[tuple[str, int]] = []
seen: dict[str, Any] = {}


@activity.define(task_queue="gpu")
async def double(number: int) -> int:
    return number * 2


@activity.define(task_queue="gpu")
def halve(number: int) -> int:
    return number // 2


@activity.define(task_queue="gpu")
async def told() -> dict[str, Any]:
    info = activity.info()
    seen["key"] = info.idempotency_key
    return {
        "queue": info.queue,
        "attempt": info.attempt,
        "workflow": info.workflow,
        "workflow_id": info.workflow_id,
        "run_id": info.run_id,
        "context": dict(activity.context),
        "services": dict(activity.services()),
    }


@activity.define(task_queue="gpu", retry=Retry(max_attempts=3, interval="1s", backoff=1.0))
async def flaky(fails: int) -> list[Any]:
    info = activity.info()
    attempts.append((activity.info().activity, info.attempt))
    activity.heartbeat({"done": info.attempt})
    if info.attempt <= fails:
        raise ValueError(f"attempt {info.attempt}")
    return [info.attempt, info.heartbeat_details]


@activity.define(task_queue="gpu", retry=Retry(max_attempts=5))
async def hopeless() -> None:
    raise ApplicationError("no way", retryable=False)


@activity.define(task_queue="gpu")
async def waits() -> str:
    attempts.append(("waits", activity.info().attempt))
    try:
        await asyncio.sleep(100)  # sleep: cancelled, or in virtual time
    except asyncio.CancelledError:
        seen["cancelled"] = True
        raise
    return "done"


@activity.define
async def here() -> str:
    return "here"


@workflow.define
async def doubling(number: int) -> int:
    return await double(number)


@workflow.define
async def both(number: int) -> list[Any]:
    return list(await asyncio.gather(here(), double(number), halve(number)))


@workflow.define
async def telling() -> dict[str, Any]:
    return await told()


@workflow.define
async def by_name() -> int:
    return await workflow.call("double", 4)


@workflow.define
async def trying(fails: int) -> list[Any]:
    return await flaky(fails)


@workflow.define
async def despairing() -> str:
    try:
        await hopeless()
    except ActivityFailed as exc:
        return str(exc)
    return "?"


@workflow.define
async def waiting() -> str:
    return await waits()


@workflow.define
async def giving_up() -> str:
    task = asyncio.ensure_future(waits())
    await workflow.listen("enough").receive()
    task.cancel()
    return "gave up"


@workflow.define
async def many(count: int) -> int:
    return sum(await asyncio.gather(*(double(n) for n in range(count))))


WORKFLOWS = [doubling, both, telling, by_name, trying, despairing, waiting, giving_up, many]
ACTIVITIES = [double, halve, told, flaky, hopeless, waits, here]
