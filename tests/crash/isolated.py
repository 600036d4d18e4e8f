"""An activity in a subprocess that waits, computes, or never lets go of the interpreter."""

from __future__ import annotations

import time

from tests.crash.lost import is_released
from tests.crash.programs import effect

from perdure import activity, workflow


@activity.define(isolation="process")
def holds(how: str) -> int:
    attempt = activity.info().attempt
    effect("holds", attempt)
    while attempt == 1 and not is_released():
        if how == "in C":
            sum(range(10**9))  # nothing else of this process runs meanwhile
        elif how == "asleep":
            time.sleep(0.01)  # sleep: it waits for the test
    return attempt


@workflow.define
async def holding(how: str) -> int:
    return await holds(how)
