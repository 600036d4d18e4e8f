"""Checks waiting runs against code that has changed, before they wake.

A run is replayed when it wakes, and parked if the code does not fit. Some wake in a month; so after
a change the waiting runs of a workflow are replayed in the background, each once, with a tenth of a
core, and those that do not fit are parked now. The store keeps how far that has come for each
workflow (``Sweep``), not for each run: nothing is written for a run that fits, nothing is read when
nothing has changed, and a worker that starts goes on where the last one stopped.

One worker at a time does it for a workflow and a set of queues. Runs that an older worker moves on
meanwhile, perhaps with other code, are looked at once more when all older workers are gone.

Nothing here decides anything: a run that does not fit is taken up like one that wakes, and it is
the loader that parks it, by the store's rules for claims.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from perdure import errors
from perdure.engine.replaying import replay
from perdure.store.complaints import Complaints
from perdure.store.port import Loaded, OpenRun, Sweep
from perdure.values import payload
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
FIRST_SECONDS = 1.0
"""How long after the start: what is due comes first."""
LOOK_SECONDS = 5.0
"""Between two looks at a workflow that another worker sweeps, or that older workers still serve."""
SHARE = 0.1
"""Of one core."""
_PAGE = 2_000
_HISTORIES = 20
_SLICE = 5_000
_SLIP = 10_000_000
"""How far the clocks of two workers may be apart, in microseconds."""


class Sweeper:
    """See the module's text."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._wake = asyncio.Event()
        self._spent = 0
        self.is_stopping = False
        self.checked = 0
        self.spent = 0
        """Microseconds that went into it."""
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def look(self) -> None:
        """Look again: a definition has come."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep what has changed, then wait for another change."""
        await asyncio.sleep(FIRST_SECONDS)
        while not self.is_stopping:
            try:
                is_done = await self.look_once()
            except errors.StoreError as error:
                self._trouble.add("could not check waiting runs, will try again: %s", error)
                is_done = False
            else:
                self._trouble.over("waiting runs can be checked again")
            if is_done:
                await self._wake.wait()
            else:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()

    async def look_once(self) -> bool:
        """Sweep what this worker may; tell whether nothing is left to do."""
        core = self._core
        codes = core.registry.codes()
        scope = payload.encode(sorted(core.registry.queues)).decode()
        marks, workers = await core.desk.read(lambda store: (store.sweeps(), store.workers()))
        me = core.committer.worker
        alive = {worker.id for worker in workers}
        has_elders = any(number < me for number in alive)
        known = {mark.workflow: mark for mark in marks if mark.scope == scope}
        mine: dict[str, Sweep] = {}
        is_done = True  # as far as this worker can see to it now
        for name, code in codes.items():
            mark = known.get(name)
            if mark is not None and mark.code == code and not mark.worker:
                continue
            if mark is not None and mark.worker not in (0, me) and mark.worker in alive:
                is_done = False
                continue
            if mark is None or mark.code != code:
                began = Sweep(name, scope, code, began_at=core.clock.now(), worker=me)
            elif mark.since and has_elders:
                is_done = False
                continue
            else:
                began = msgspec.structs.replace(mark, worker=me)
            if await self._record(began, instead=mark.worker if mark is not None else 0):
                mine[name] = began
            else:
                is_done = False
        if mine:
            count = len(mine)
            await self._pass(mine)
            await self._end(mine, has_elders=has_elders)
            is_done = is_done and len(mine) == count and not has_elders
        return is_done

    async def _pass(self, mine: dict[str, Sweep]) -> None:
        """Walk over the waiting runs once, for all these workflows together."""
        core = self._core
        after = min(sweep.after for sweep in mine.values())
        while mine and not self.is_stopping:
            began = core.clock.now()
            page = await core.desk.read(
                lambda store, after=after: store.open_runs(
                    [Status.WAITING], limit=_PAGE, after=after
                )
            )
            await self._pay(core.clock.now() - began)
            wanted = [run.run for run in page if self._concerns(run, mine)]
            for start in range(0, len(wanted), _HISTORIES):
                await self._check(wanted[start : start + _HISTORIES])
            if len(page) < _PAGE:
                return
            after = page[-1].run
            for name, sweep in list(mine.items()):
                sweep.after = max(sweep.after, after)
                if not await self._record(sweep):
                    del mine[name]

    async def _end(self, mine: dict[str, Sweep], *, has_elders: bool) -> None:
        for sweep in mine.values():
            if has_elders:
                # Once more when they are gone, for what they move on until then.
                sweep.since, sweep.after = max(1, sweep.began_at - _SLIP), 0
                sweep.began_at = self._core.clock.now()
            else:
                sweep.worker = 0
            # By its own name: a sweep that is done is nobody's, and this worker ends it.
            await self._record(sweep, instead=self._core.committer.worker)

    async def _record(self, sweep: Sweep, *, instead: int = 0) -> bool:
        return await self._core.desk.write(
            lambda store: store.sweep(msgspec.structs.replace(sweep), instead=instead)
        )

    def _concerns(self, run: OpenRun, mine: dict[str, Sweep]) -> bool:
        sweep, registry = mine.get(run.workflow), self._core.registry
        if sweep is None or run.run <= sweep.after or run.since < sweep.since:
            return False
        if run.queue not in registry.queues or run.run in self._core.runs:
            return False  # at hand: this worker's code has brought it where it is
        return registry.definition(run.workflow, run.version) is not None

    async def _check(self, runs: Sequence[int]) -> None:
        core = self._core
        began = core.clock.now()
        found = await core.desk.read(lambda store: store.load(runs))
        await self._pay(core.clock.now() - began)
        for loaded in found:
            row = loaded.row
            if row.status is not Status.WAITING or row.owner is not None or row.run in core.runs:
                continue
            began = core.clock.now()
            fits = self._fits(loaded)
            self.checked += 1
            spent = core.clock.now() - began
            if not fits:
                core.take_up(row.run)  # replays it once more, and parks it
                spent *= 2
            await self._pay(spent)

    def _fits(self, loaded: Loaded) -> bool:
        core, row = self._core, loaded.row
        definition = core.registry.definition(row.workflow, row.version)
        if definition is None or loaded.broken:
            return not loaded.broken
        found = replay(definition, loaded, core.guard, max_payload=core.max_payload)
        if found.misfit is not None:
            return False
        found.instance.evict()
        return True

    async def _pay(self, spent: int) -> None:
        """Count time spent, and pause so that it stays within the share."""
        self.spent += spent
        self._spent += spent
        if self._spent >= _SLICE:
            pause, self._spent = self._spent * (1 / SHARE - 1), 0
            await asyncio.sleep(pause / 1_000_000)
