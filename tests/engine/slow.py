"""A workflow whose activity is under way while its worker is killed or stopped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.crash.programs import EFFECTS, effect

from perdure import activity, workflow


@activity.define
async def hold(how: str) -> str:
    attempt = activity.info().attempt
    effect("hold", attempt)
    if how == "held":
        released = Path(os.environ[EFFECTS]).with_name("release")
        while not released.exists():
            await asyncio.sleep(0.01)  # sleep: the activity is busy until the test lets it go
    elif attempt == 1:
        await asyncio.Event().wait()
    return f"attempt {attempt}"


@workflow.define
async def slow(how: str) -> str:
    return await hold(how)
