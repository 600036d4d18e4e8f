"""Slow work on what is stored, page by page, while workers run: the sweep of blobs that nothing
refers to, and sealing anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from perdure.store.port import Resealed, Store
from perdure.store.sealing import Seal

Write = Callable[[Callable[[Store], Any]], Awaitable[Any]]
"""Runs a verb in the store's writing thread."""

BLOBS_KEPT = timedelta(days=1)
"""How long a blob that nothing refers to is left: its commit may be under way."""
_PAGE = 500
_PASSES = 5


class Swept(NamedTuple):
    """What a sweep saw of this database's blobs."""

    seen: int
    deleted: int


async def sweep_blobs(write: Write, seal: Seal, now: datetime) -> Swept:
    """Delete this database's blobs that are older than a day and that no history row refers to.

    Those of others in the same blob store are not looked at. It may be done by several at a time.

    Raises:
        StoreError: the database does not answer. What the blob store raises goes through, too.
    """
    blobs = seal.blobs
    assert blobs is not None
    home = f"{seal.folder}/"
    after, seen, deleted = home, 0, 0
    while True:
        page = await asyncio.to_thread(blobs.list, after, _PAGE)
        mine = [blob for blob in page if blob.name.startswith(home)]
        seen += len(mine)
        old = [blob.name for blob in mine if now - blob.at > BLOBS_KEPT]
        if old:
            unused: list[str] = await write(lambda store, old=old: store.unused_blobs(old))
            for name in unused:
                await asyncio.to_thread(blobs.delete, name)
            deleted += len(unused)
        if len(page) < _PAGE or len(mine) < len(page):
            return Swept(seen, deleted)
        after = page[-1].name


async def reseal(write: Write, told: Callable[[Resealed], None], *, limit: int = _PAGE) -> int:
    """Seal everything anew that is not sealed as it would be now; return how many rows there were.

    It goes over all tables until a pass finds nothing left, and then lets the database forget the
    other codecs and keys. If workers still seal with one of those, it does not forget.

    Args:
        write: as of a desk.
        told: is called after each page.
        limit: rows of a page.

    Raises:
        Sealed: a key that is needed is missing.
        Corrupt: a row cannot be opened; the message names it.
    """
    changed = 0
    for _ in range(_PASSES):
        of_pass, after = 0, ""
        while True:
            page: Resealed = await write(
                lambda store, after=after: store.reseal(after, limit=limit)
            )
            of_pass += page.changed
            told(page)
            after = page.after
            if not after:
                break
        changed += of_pass
        if not of_pass:
            await write(lambda store: store.forget_codecs())
            break
    return changed
