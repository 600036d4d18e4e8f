"""Deletes what ended long ago, and forgets what nobody needs any more.

One worker of the fleet does it at a time, and once in each interval: a mark in the store (a
``Sweep`` of no workflow) says who is at it, how far that came and when it began. If that worker is
gone, another goes on where it stopped. Batches are small and go through the same writing thread as
commits; between them there are pauses, so that at most ``SHARE`` of that thread's time goes into
it, and a batch that took long is followed by a smaller one.

What may be deleted is the store's to say (``store/sql/pruning.py``): never anything of an open run,
so nothing that a worker has in memory. Executions that were started with a retention of their own
go by that, in batches that come after the others, also if this engine keeps those. Blobs of deleted
histories, and those of commits that came to nothing, are swept at the end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

import msgspec

from perdure import errors
from perdure.erasing import ERASE
from perdure.store import tending
from perdure.store.complaints import Complaints
from perdure.store.erasing import Erase, Unerased
from perdure.store.port import Place, Prune, Sweep
from perdure.values.audit import line_by
from perdure.values.duration import SECOND
from perdure.values.principals import Kind, Principal
from perdure.views import to_datetime

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
FIRST_SECONDS = 10.0
"""How long after the start: what is due comes first."""
LOOK_SECONDS = 60.0
"""Between two looks while another worker is at it."""
SHARE = 0.1
"""Of the writing thread."""
SCOPE = "retention"
_SELF = Principal("perdure", kind=Kind.SERVICE)
"""Who goes on with what somebody else has begun."""
_TARGET = 20_000
"""How long a batch should take, in microseconds."""
_LEAST, _FIRST, _MOST = 10, 100, 500
"""Runs in a batch."""
_EVENTS_PER_RUN = 25
_RECORD_EVERY = 50
"""Batches between two notes of how far it came: as much is looked at again after a crash."""


class Retention:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._keep = core.settings.retention
        self._interval = core.settings.retention_interval
        self._size = _FIRST
        self.is_stopping = False
        self.deleted = 0
        """Runs, since this engine began."""
        now = asyncio.get_running_loop().time
        self._trouble, self._trouble_with_blobs = Complaints(_log, now), Complaints(_log, now)

    async def run(self) -> None:
        """Delete once in each interval, whichever worker's turn it is."""
        await asyncio.sleep(FIRST_SECONDS)
        while not self.is_stopping:
            try:
                seconds = await self.look_once()
            except errors.StoreError as error:
                self._trouble.add("could not delete old runs, will try again: %s", error)
                seconds = LOOK_SECONDS
            else:
                self._trouble.over("old runs can be deleted again")
            await asyncio.sleep(seconds)

    async def look_once(self) -> float:
        """Delete if it is time and nobody else does; return in how many seconds to look again."""
        core = self._core
        marks, workers = await core.desk.read(lambda store: (store.sweeps(), store.workers()))
        me, now = core.committer.worker, core.clock.now()
        known = [mark for mark in marks if not mark.workflow and mark.scope == SCOPE]
        mark = known[0] if known else Sweep("", SCOPE, "", began_at=0)
        instead = mark.worker
        if instead and instead != me and any(worker.id == instead for worker in workers):
            return LOOK_SECONDS
        if not instead:
            due = mark.began_at + self._interval
            # A mark of a clock that was set back is not waited for.
            if mark.began_at <= now < due:
                return min((due - now) / SECOND, self._interval / SECOND)
            mark = Sweep("", SCOPE, "", began_at=now)
        mark.worker, mark.code = me, str(self._keep)
        if await self._record(mark, instead=instead):
            await self._pass(mark)
        return self._interval / SECOND

    async def _pass(self, mark: Sweep) -> None:
        if self._keep and not await self._delete(mark, "others"):
            return
        if not await self._delete(mark, "own"):
            return
        await self._forget_human_tasks(mark.began_at - self._keep)
        after: str | None = ""
        while after is not None and not self.is_stopping:
            began, now = asyncio.get_running_loop().time(), self._core.clock.now()
            after = await self._core.desk.write(
                lambda store, after=after, now=now: store.forget(now, after=after)
            )
            await self._pause(began)
        await self._go_on_erasing()
        # By its own name: what is done is nobody's, and this worker ends it.
        if not self.is_stopping:
            done = msgspec.structs.replace(mark, worker=0, since=0, after=0)
            await self._record(done, instead=mark.worker)
            await self._sweep_blobs()

    async def _sweep_blobs(self) -> None:
        """Delete blobs that nothing refers to.

        Other people's code does it, which may hang: so it comes when others may have their turn.
        """
        seal = self._core.settings.seal
        if seal is None or seal.blobs is None:
            return
        now = to_datetime(self._core.clock.now())
        try:
            found = await tending.sweep_blobs(self._core.desk.write, seal, now)
        except Exception as error:  # noqa: BLE001 - of a user's blob store
            self._trouble_with_blobs.add(
                "blobs that nothing refers to could not be deleted, will try again: %r", error
            )
            return
        self._trouble_with_blobs.over("blobs that nothing refers to can be deleted again")
        if found.deleted:
            _log.info("%d of %d blobs deleted: nothing refers to them", found.deleted, found.seen)

    async def _go_on_erasing(self) -> None:
        """Erase the rest of what is being erased: whoever began may have been cut off.

        If they were not, both do the same, and it is done once. What cannot be read is passed over.
        """
        after, count = 0, _MOST
        while count == _MOST and not self.is_stopping:
            found = await self._core.desk.read(
                lambda store, after=after: store.being_erased(limit=_MOST, after=after)
            )
            for one in found:
                await self._erase(one)
                after = one.run
            count = len(found)

    async def _erase(self, one: Unerased) -> None:
        core = self._core
        target = {"target": one.workflow_id, "run_id": one.run_id, "namespace": one.namespace}
        wish: Erase | None = Erase(one.execution, one.run, audit=[line_by(_SELF, ERASE, **target)])
        while wish is not None and not self.is_stopping:
            began, now = asyncio.get_running_loop().time(), core.clock.now()
            try:
                part = await core.desk.write(
                    lambda store, wish=wish, now=now: store.erase(wish, now)
                )
            except errors.PerdureError as error:
                said = "run %s of %r is not erased yet, will try again: %s"
                _log.warning(said, one.run_id, one.workflow_id, error)
                break
            going, before = part.goes_on, wish
            wish = None if going is None else msgspec.structs.replace(before, after=going)
            await self._pause(began)

    async def _forget_human_tasks(self, before: int) -> None:
        """Delete those that no run asked for; others go with their run."""
        found = _MOST if self._keep else 0
        while found == _MOST and not self.is_stopping:
            began = asyncio.get_running_loop().time()
            found = await self._core.desk.write(
                lambda store: store.forget_human_tasks(before, limit=_MOST)
            )
            await self._pause(began)

    async def _delete(self, mark: Sweep, scope: Literal["others", "own"]) -> bool:
        """Delete what has ended; ``False``: this pass is not this worker's any more."""
        core, is_own = self._core, scope == "own"
        before = mark.began_at if is_own else mark.began_at - self._keep
        place: Place | None = Place(0) if is_own else Place(mark.after, mark.since)
        runs = rows = batches = 0
        while place is not None and not self.is_stopping:
            began = asyncio.get_running_loop().time()
            events = self._size * _EVENTS_PER_RUN
            prune = Prune(before, after=place, runs=self._size, events=events, scope=scope)
            found = await core.desk.write(lambda store, prune=prune: store.prune(prune))
            runs, rows, place = runs + found.runs, rows + found.rows, found.goes_on
            self.deleted += found.runs
            batches += 1
            if place is not None and batches % _RECORD_EVERY == 0:
                if not is_own:  # what was looked at there is gone, or due later
                    mark.since, mark.after = place.at, place.run
                if core.committer.worker != mark.worker or not await self._record(mark):
                    return False
            spent = await self._pause(began)
            if found.runs:
                self._size = _next_size(self._size, spent)
        if runs:
            moment = to_datetime(before).isoformat(timespec="seconds")
            whose = "whose own retention was over at" if is_own else "that had ended before"
            said = "retention: deleted %d runs %s %s, with %d history rows"
            _log.info(said, runs, whose, moment, rows)
        return True

    async def _record(self, mark: Sweep, *, instead: int = 0) -> bool:
        row = msgspec.structs.replace(mark)
        return await self._core.desk.write(lambda store: store.sweep(row, instead=instead))

    async def _pause(self, began: float) -> int:
        """Leave the writing thread to others; return how long it was busy, in microseconds."""
        spent = asyncio.get_running_loop().time() - began
        await asyncio.sleep(spent * (1 / SHARE - 1))
        return round(spent * SECOND)


def _next_size(size: int, spent: int) -> int:
    """Return the size of the next batch, of which one took so many microseconds."""
    if spent > 2 * _TARGET:
        return max(_LEAST, size // 2)
    return min(_MOST, size * 2) if spent < _TARGET // 2 else size
