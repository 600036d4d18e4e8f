"""A workflow that schedules begin in the crash tests."""

from __future__ import annotations

from tests.crash.programs import effect

from perdure import Retry, activity, workflow


@activity.define(retry=Retry(interval="1ms"))
async def note(tick: str) -> str:
    effect("tick", tick, activity.info().idempotency_key)
    return tick


@workflow.define
async def ticked() -> str:
    at = workflow.info().scheduled_at
    assert at is not None
    return await note(f"{at:%H:%M:%S.%f}")
