"""Replays open runs against code, without an engine and without changing anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from perdure.door import Door
from perdure.engine import audit
from perdure.engine.guard import TurnGuard
from perdure.engine.registry import Registry
from perdure.engine.replaying import Misfit, replay
from perdure.store.port import Loaded, OpenRun
from perdure.values import limits
from perdure.values.states import OPEN, ParkReason

FITS = "fits"
MISFIT = "does_not_fit"
UNKNOWN = "unknown_workflow"
CORRUPT = "corrupt"
_IDS = 5_000
_HISTORIES = 100
_SLICE_SECONDS = 0.05


class Verdict(msgspec.Struct, kw_only=True):
    """What came of one run. The fields from ``reason`` on are empty if it fits.

    ``event``, ``expected`` (by the history), ``actual`` (the code) and ``where`` (file:line in
    function) say where they part; not every misfit has such a place.
    """

    id: str
    run_id: str
    namespace: str
    workflow: str
    version: str
    status: str
    verdict: str
    reason: str | None = None
    event: int | None = None
    expected: str | None = None
    actual: str | None = None
    where: str | None = None
    message: str | None = None


class Checker:
    """Replays the open runs of a database against the definitions of a registry.

    ``elsewhere`` counts, once :meth:`verdicts` is through, open runs of workflows that were not
    asked for; ``left_out`` those beyond the limit.
    """

    def __init__(
        self, door: Door, registry: Registry, *, max_payload: int = limits.MAX_PAYLOAD
    ) -> None:
        self._door = door
        self._registry = registry
        self._max_payload = max_payload
        self._guard = TurnGuard()
        self.left_out = 0
        self.elsewhere: Counter[str] = Counter()

    async def verdicts(
        self, workflows: Sequence[str] = (), limit: int | None = None
    ) -> AsyncGenerator[Verdict]:
        """Yield a verdict for each open run, oldest first.

        ``workflows``: only those; else every run in the database.
        """
        audit.install()
        self._guard.start()
        try:
            wanted = await self._wanted(workflows, limit)
            parts = [wanted[i : i + _HISTORIES] for i in range(0, len(wanted), _HISTORIES)]
            coming = self._load(parts[0]) if parts else None
            for number in range(len(parts)):
                assert coming is not None
                found = await coming
                # The next histories are read while these are replayed.
                coming = self._load(parts[number + 1]) if number + 1 < len(parts) else None
                began = asyncio.get_running_loop().time()
                for loaded in sorted(found, key=lambda loaded: loaded.row.run):
                    if loaded.row.status in OPEN:
                        yield self._check(loaded)
                    if asyncio.get_running_loop().time() - began > _SLICE_SECONDS:
                        await asyncio.sleep(0)
                        began = asyncio.get_running_loop().time()
        finally:
            self._guard.stop()

    def _load(self, runs: Sequence[int]) -> asyncio.Task[list[Loaded]]:
        read = self._door.read(lambda store: store.load(runs))
        return asyncio.ensure_future(read)

    async def _wanted(self, workflows: Sequence[str], limit: int | None) -> list[int]:
        wanted: list[int] = []
        statuses, after = sorted(OPEN), 0
        while True:
            page: list[OpenRun] = await self._door.read(
                lambda store, after=after: store.open_runs(statuses, limit=_IDS, after=after)
            )
            for run in page:
                if workflows and run.workflow not in workflows:
                    self.elsewhere[run.workflow] += 1
                elif limit is not None and len(wanted) >= limit:
                    self.left_out += 1
                else:
                    wanted.append(run.run)
            if len(page) < _IDS:
                return wanted
            after = page[-1].run

    def _check(self, loaded: Loaded) -> Verdict:
        row = loaded.row
        verdict = Verdict(
            id=row.workflow_id,
            run_id=row.run_id,
            namespace=row.namespace,
            workflow=row.workflow,
            version=row.version,
            status=str(row.status),
            verdict=FITS,
        )
        definition = self._registry.definition(row.workflow, row.version)
        if loaded.broken:
            _explain(verdict, Misfit(ParkReason.CORRUPT_HISTORY, loaded.broken, {}))
        elif definition is None:
            known = self._registry.names
            what = f"version {row.version} of it" if row.workflow in known else "it"
            detail = f"the code defines no workflow {row.workflow!r}"
            if row.workflow in known:
                detail = f"the code defines {row.workflow!r}, but not {what}"
            _explain(verdict, Misfit(ParkReason.UNKNOWN_WORKFLOW, detail, {}))
        else:
            found = replay(definition, loaded, self._guard, max_payload=self._max_payload)
            if found.misfit is None:
                found.instance.evict()
            else:
                _explain(verdict, found.misfit)
        return verdict


_VERDICTS = {ParkReason.CORRUPT_HISTORY: CORRUPT, ParkReason.UNKNOWN_WORKFLOW: UNKNOWN}


def _explain(verdict: Verdict, misfit: Misfit) -> None:
    place: dict[str, Any] = misfit.place
    verdict.verdict = _VERDICTS.get(misfit.reason, MISFIT)
    verdict.reason = str(misfit.reason)
    verdict.event = place.get("event")
    verdict.expected = place.get("expected")
    verdict.actual = place.get("actual")
    verdict.where = place.get("where")
    verdict.message = misfit.detail
