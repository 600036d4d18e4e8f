"""What the engine's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from perdure import Engine
from perdure.handle import Handle
from perdure.values.states import Status
from perdure.views import HistoryEvent


def engine_on(folder: Path, *definitions: Any, **options: Any) -> Engine:
    """Return an engine on the folder's database; threads that hang are not waited for."""
    return Engine(f"sqlite:///{folder / 'test.db'}", definitions, **options)


async def until(holds: Callable[[], Awaitable[bool] | bool], *, seconds: float = 20) -> None:
    """Wait until ``holds()``; the store has no event for most of what tests wait for."""
    async with asyncio.timeout(seconds):
        while True:
            answer = holds()
            if (answer if isinstance(answer, bool) else await answer) is True:
                return
            await asyncio.sleep(0.005)  # sleep: polls until a deadline


async def until_status(handle: Handle[Any], status: Status) -> None:
    async def reached() -> bool:
        return await handle.status() is status

    await until(reached)


async def events_of(handle: Handle[Any], kind: str) -> list[HistoryEvent]:
    return [event for event in await handle.history() if event.kind == kind]
