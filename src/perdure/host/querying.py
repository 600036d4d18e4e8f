"""A page of a query, of which each instance is judged by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from perdure import views
from perdure.door import Door
from perdure.store.port import Filter, Place, RunRow
from perdure.values import limits

_LEAST = 100
_LOOKED_AT = 20_000
"""Instances that a page looks at, and no more: it may then be short, and have a cursor."""


class Found(NamedTuple):
    """A page: rows, and the cursor of the next one."""

    rows: list[RunRow]
    cursor: str | None


async def find(
    door: Door,
    where: Filter,
    *,
    limit: int,
    cursor: str | None,
    shows: Callable[[RunRow], Awaitable[bool]],
) -> Found:
    """Return up to ``limit`` rows that ``shows``, newest first; the cursor is behind the last one
    that was looked at, so that none is given twice and none is passed over.
    """
    place = views.decode_cursor(cursor) if cursor else None
    rows: list[RunRow] = []
    looked_at = 0
    while looked_at < _LOOKED_AT:
        size, before = min(limits.LIST_MAX, max(_LEAST, limit - len(rows))), place
        page = await door.read(
            lambda store, size=size, before=before: store.list(where, limit=size, before=before)
        )
        for row in page.rows:
            if len(rows) == limit:
                return Found(rows, place and views.encode_cursor(place))
            place = Place(row.run, row.created_at)
            if await shows(row):
                rows.append(row)
        looked_at += len(page.rows) or size  # a page of rare rows looks at many itself
        place = page.goes_on
        if place is None:
            break
        if len(rows) == limit:
            break
    return Found(rows, None if place is None else views.encode_cursor(place))
