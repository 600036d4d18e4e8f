"""The named events of all runs, in the order of their commits, for whoever asks again and again.

A subscriber's position is a history row and a place in it. Rows are committed once, in one order,
and hold what every event is made of, so that whoever goes on from an id misses nothing and is told
nothing twice, whichever worker recorded it and however often anybody was killed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Final

from perdure import errors, named
from perdure.door import Door, all_turns
from perdure.named import Head, NamedEvent, Past, Place
from perdure.store.port import Journal, JournalRow
from perdure.values import events as ev
from perdure.values import payload

NOW: Final = "now"
"""As ``after``: only what is committed from now on."""
_PAGE = 1_000
_SAFETY_SECONDS = 1.0
_REMEMBERED = 10_000
"""Of how many runs it is known what was scheduled; that of others is read when it is needed."""
_CLOSING = frozenset(str(cls.__struct_config__.tag) for cls in ev.CLOSING)


class Feed:
    """One subscriber. ``workflow_id``: only of this execution."""

    def __init__(
        self, door: Door, *, namespace: str, pattern: str = "*", workflow_id: str | None = None
    ) -> None:
        self._door = door
        self._namespace = namespace
        self._pattern = payload.text(pattern, what="pattern")
        self._workflow_id = workflow_id or ""
        self._pasts: OrderedDict[int, Past] = OrderedDict()

    async def read(self, after: str | None, *, follow: bool) -> AsyncGenerator[NamedEvent]:
        """Yield events: see :meth:`perdure.Client.events`."""
        place = None if after in (None, NOW) else named.read_place(after or "")
        position = place.row - 1 if place is not None else 0
        if after == NOW:
            position = (await self._page(0, 0)).last
        change: asyncio.Future[None] | None = None
        deleted_to: int | None = None
        while True:
            if follow and (change is None or change.done()):
                change = self._door.next_commit()  # before the look: it may come during it
            page = await self._page(position, _PAGE)
            if place is not None:
                _check(place, page)
            if deleted_to is not None and page.deleted_to > max(deleted_to, position):
                raise _deleted(f"what comes after row {position}", page)
            deleted_to = page.deleted_to
            for row in page.rows:
                for event in await self._told(row, place):
                    yield event
            place = None
            if len(page.rows) == _PAGE:
                position = page.rows[-1].id
                continue
            position = max([position, page.last, *(row.id for row in page.rows[-1:])])
            if change is None:
                return
            await asyncio.wait([change], timeout=_SAFETY_SECONDS)

    async def _page(self, after: int, limit: int) -> Journal:
        of = {"namespace": self._namespace, "workflow_id": self._workflow_id}
        return await self._door.read(lambda store: store.journal(after=after, limit=limit, **of))

    async def _told(self, row: JournalRow, place: Place | None) -> list[NamedEvent]:
        """Return the events of a row that match, behind ``place`` if that is in this row."""
        if row.namespace != self._namespace:
            return []
        told = await self._named(row)
        events: list[NamedEvent] = []
        for where, event in told:
            id = f"{row.id}.{where}"
            if place is not None and named.read_place(id) <= place:
                continue
            if event.matches(self._pattern):
                events.append(NamedEvent(event.name, event.data, id, event.at, event.run_id))
        return events

    async def _named(self, row: JournalRow) -> list[tuple[str, NamedEvent]]:
        head = Head(row.workflow_id, row.workflow, row.run_id)
        if row.fault:
            return named.unreadable(head, row.time, row.fault)
        try:
            events = ev.decode_plain(row.payload)
            past = await self._past(row, events)
        except errors.Corrupt as error:
            return named.unreadable(head, row.time, error.message)
        told = named.tell(events, row.first, row.time, head, past)
        if events and events[-1]["kind"] in _CLOSING:
            self._pasts.pop(row.run, None)
        return told

    async def _past(self, row: JournalRow, events: list[dict[str, object]]) -> Past:
        past = self._pasts.get(row.run)
        if past is None:
            past = self._pasts[row.run] = Past(is_whole=row.first == 1)
            if len(self._pasts) > _REMEMBERED:
                self._pasts.popitem(last=False)
        if not past.knows_enough(events, row.first):
            turns = await all_turns(self._door, row.run)
            past = self._pasts[row.run] = named.past_of(turns, row.first)
        return past


def _check(place: Place, page: Journal) -> None:
    if place.row > page.last:
        raise errors.Invalid(
            f"after: {place} is not the id of an event of this database, whose last row is "
            f"{page.last}"
        )
    if place.row < page.deleted_to:
        raise _deleted(f"after: {place}", page)


def _deleted(what: str, page: Journal) -> errors.NotFound:
    return errors.NotFound(
        f"{what} is older than what is kept: histories up to row {page.deleted_to} were deleted. "
        "To go on with what there is, ask without after="
    )
