"""The last turns of an engine that stops."""

from __future__ import annotations

import asyncio
import logging

from perdure.engine.core import Core
from perdure.values import events as ev

_log = logging.getLogger("perdure.engine")
_SETTLE_SECONDS = 2.0
_DRAIN_SECONDS = 10.0
_LOOK_SECONDS = 0.002


async def drained(core: Core) -> bool:
    """Let what came of attempts be written, and then take no more turns; False if some is not."""
    parts = core.turns, core.loader, core.committer
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            while not all(part.is_idle for part in parts):  # noqa: ASYNC110 - they share no event
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        _log.info("runs go on and on; they are stopped between two turns")
    core.turns.is_stopping = True
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await core.committer.drained()
    except TimeoutError:
        _log.error("the store does not answer; what was not written is done again elsewhere")
        return False
    return not any(
        isinstance(item.fact, ev.OF_ATTEMPTS) and not item.inbox
        for run in core.runs.values()
        # A turn whose acknowledgement was lost may not have been written either.
        for item in (*run.inputs, *(run.doubt[1] if run.doubt is not None else ()))
    )
