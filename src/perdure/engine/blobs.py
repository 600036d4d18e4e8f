"""Once an hour a worker deletes the blobs that nothing refers to any more."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perdure.store import tending
from perdure.store.complaints import Complaints
from perdure.store.sealing import Seal

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
EVERY_SECONDS = 3600.0


async def sweep_blobs(core: Core, seal: Seal) -> None:
    """Sweep until cancelled. What fails is logged, and tried again an hour later."""
    trouble = Complaints(_log, asyncio.get_running_loop().time)
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        now = datetime.fromtimestamp(core.clock.now() / 1_000_000, UTC)
        try:
            found = await tending.sweep_blobs(core.desk.write, seal, now)
        except Exception as exc:  # noqa: BLE001 - of a user's blob store
            trouble.add("blobs that nothing refers to could not be deleted: %r", exc)
            continue
        if found.deleted:
            _log.info("%d of %d blobs deleted: nothing refers to them", found.deleted, found.seen)
