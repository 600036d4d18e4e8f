"""Tries parked runs again that this worker's code may fit.

A run is parked by a worker whose code does not fit it; another worker's may. When a worker starts,
it tries all that is parked so. Later it tries, once each, the runs that others park for their code
while it lives: in a rolling deploy the new worker parks what the old one still fits. Whether it
fits is the loader's to say; a run that does not is left as it is, and nothing is written.

Code that fits a history may fail in the next turn, and so may another worker's: they could pass
such a run to and fro for ever. So a worker waits before it tries, twice as long each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.runs import Phase
from perdure.store.port import OpenRun, Reader, RunRow
from perdure.values.states import MENDED_BY_CODE, ParkReason, Status

if TYPE_CHECKING:
    from perdure.engine.core import Core

_BY_CODE = (ParkReason.NONDETERMINISM, ParkReason.UNEXPECTED)
"""Not those that hold a worker up: they would hold up this one, too."""
_PAUSE = 2_000_000
_DOUBLINGS = 10
_LOOK_EVERY = 1_000_000
_AFTER_COMPANY = 60_000_000
"""How long after the last other worker was seen: what it parked at the end is tried, too."""
_FORGET_AFTER = 2 * (_PAUSE << _DOUBLINGS)
_PAGE = 2_000
_ROWS = 500


class Revival:
    """See the module's text. Books which parking of a run this worker knows, and its tries."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[int, tuple[int, int]] = {}
        self._after = 0
        self._look_at = 0
        self._until = 0

    def parked_here(self, run: int, since: int) -> None:
        """This worker parks a run: its own code need not be tried."""
        self._known[run] = since, self._tries(run)

    def lost(self, run: int) -> None:
        """Another worker was first: if the run is parked, that one did it."""
        if run in self._known:
            self._known[run] = -1, self._tries(run)

    async def try_all(self) -> None:
        """Try the parked runs that this worker's code may let go on: it has just started."""
        core, after = self._core, 0
        self._until = core.clock.now() + _AFTER_COMPANY
        reasons = [str(reason) for reason in MENDED_BY_CODE]
        while True:
            rows = await core.desk.read(
                lambda store, after=after: store.parked(reasons, limit=_ROWS, after=after)
            )
            for row in rows:
                if row.workflow in core.registry.names and not self._is_busy(row.run):
                    self._known[row.run] = row.since, 0
                    core.take_up(row.run, row.length)
            if len(rows) < _ROWS:
                return
            after = rows[-1].run

    def wants_look(self, *, has_company: bool) -> bool:
        """Tell whether it is time to :meth:`look`: while there are others, and a while after."""
        now = self._core.clock.now()
        if has_company:
            self._until = now + _AFTER_COMPANY
        if now < self._look_at or now >= self._until:
            return False
        self._look_at = now + _LOOK_EVERY
        return True

    def page(self, store: Reader) -> list[OpenRun]:
        """Read the parked runs for the next :meth:`look`."""
        return store.open_runs([Status.PARKED], limit=_PAGE, after=self._after)

    async def look(self, page: list[OpenRun]) -> None:
        """Try what another worker has parked; a page of the parked runs each time."""
        core, now = self._core, self._core.clock.now()
        wanted = [run.run for run in page if self._is_due(run, now)]
        for start in range(0, len(wanted), _ROWS):
            part = wanted[start : start + _ROWS]
            for row in await core.desk.read(lambda store, part=part: store.rows(part)):
                self._try(row)
        self._after = page[-1].run if len(page) == _PAGE else 0
        if not self._after:
            oldest = now - _FORGET_AFTER
            still = {run.run for run in page}
            self._known = {
                run: mark for run, mark in self._known.items() if mark[0] > oldest or run in still
            }

    def _tries(self, run: int) -> int:
        return self._known.get(run, (0, 0))[1]

    def _is_due(self, run: OpenRun, now: int) -> bool:
        registry = self._core.registry
        since, tries = self._known.get(run.run, (-1, 0))
        return (
            run.since != since
            and now - run.since >= _PAUSE << min(tries, _DOUBLINGS)
            and run.queue in registry.queues
            and registry.definition(run.workflow, run.version) is not None
        )

    def _is_busy(self, run: int) -> bool:
        """Whether a run is at hand with what was before it was parked: a later look tells."""
        here = self._core.runs.get(run)
        return here is not None and here.phase is not Phase.IDLE

    def _try(self, row: RunRow) -> None:
        if row.status is not Status.PARKED or self._is_busy(row.run):
            return
        is_tried = row.reason in _BY_CODE
        self._known[row.run] = row.since, self._tries(row.run) + is_tried
        if is_tried:
            self._core.take_up(row.run, row.length)
