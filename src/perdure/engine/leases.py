"""This worker's lease, and the leases of those that died.

On SQLite a worker also holds a lock on a file of its own: a free lock means dead, and its runs are
taken over at once. Where the store cannot tell, the lease's time decides.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from perdure import errors
from perdure.store.complaints import Complaints
from perdure.store.port import Worker

if TYPE_CHECKING:
    from perdure.engine.core import Core

_log = logging.getLogger("perdure.engine")
_UNSERVED_AFTER = 2_000_000
_SERVED_EVERY_LOOKS = 2.5
_GRACE_SECONDS = 0.05
_NEVER = 2**62


class Leases:
    """Joins, extends, leaves, takes over."""

    def __init__(self, core: Core, name: str = "") -> None:
        self._core = core
        self._name = name
        self._extended_at = 0
        self.worker: Worker | None = None
        self.is_stopping = False
        self.taken_over = 0
        self._has_revived = False
        self._recalled = 0
        self._next_end = _NEVER
        self._company = self._served_at = 0
        self._served_every = int(core.desk.look_seconds * _SERVED_EVERY_LOOKS * 1_000_000)
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    async def join(self) -> None:
        """Become a worker, with a new id and a lease."""
        core = self._core
        asked = self._time()
        told = await core.desk.write(lambda store: store.time())
        core.clock.resync(told, self._time() - asked)
        now = core.clock.now()
        name = self._name or f"{socket.gethostname()}-{os.getpid()}"
        definitions = core.registry.described(core.registry.workflows(), now)
        self.worker = await core.desk.write(
            lambda store: store.join(
                name,
                os.getpid(),
                socket.gethostname(),
                now=now,
                lease_until=now + core.settings.lease,
                workflows=core.registry.listed,
                queues=core.registry.queues,
                definitions=definitions,
                activities=core.registry.activities,
                limits=core.carrier.limits,
            )
        )
        self._has_extended(now)
        core.worker_name = f"{name}#{self.worker.id}"
        core.committer.bind(
            self.worker.id, self.worker.epoch, self.worker.last_batch, core.settings.lease
        )

    async def leave(self, *, is_clean: bool = True) -> None:
        """Hand all runs back; as those of a worker that died, if what it began is not recorded."""
        worker = self.worker
        if worker is None:
            return
        self.worker = None
        now = self._core.clock.now()
        write = self._core.desk.write
        try:
            if is_clean:
                await write(lambda store: store.leave(worker.id, worker.epoch, now))
            else:
                await write(lambda store: store.take_over(worker.id, worker.epoch, now))
        except errors.LeaseLost:
            _log.info("the lease was taken over before this worker left")
        except errors.StoreError as error:
            _log.warning("could not hand runs back, the others will take them over: %s", error)

    async def run(self) -> None:
        """Extend the lease, take over dead workers' runs, park what nobody serves."""
        while not self.is_stopping:
            worker = self.worker
            try:
                if not self._has_revived:
                    await self._core.revival.try_all()
                    self._has_revived = True
                await self._extend()
                await self.look_once()
            except errors.LeaseLost:
                if worker is self.worker:
                    self._core.committer.discard()
                    self._core.fenced()
            except errors.StoreError as error:
                if isinstance(error, errors.StoreGone):
                    self._core.on_gone(error)
                self._trouble.add("could not look after leases, will try again: %s", error)
            else:
                self._trouble.over("leases can be looked after again")
            await asyncio.sleep(self._until_next_look())

    def _until_next_look(self) -> float:
        """Return seconds: as the store wants it, but not past the end of somebody's lease."""
        first = (self._next_end - self._core.clock.now()) / 1_000_000 + _GRACE_SECONDS
        return max(_GRACE_SECONDS, min(self._core.desk.look_seconds, first))

    async def _extend(self) -> None:
        core, worker = self._core, self.worker
        now = core.clock.now()
        if worker is None or now - self._extended_at < core.settings.lease // 3:
            return
        beats = core.runner.beats()
        asked = self._time()
        recalled, time = await core.desk.write(
            lambda store: store.extend(
                worker.id,
                worker.epoch,
                now=now,
                lease_until=now + core.settings.lease,
                beats=beats,
            )
        )
        self._has_extended(now)
        if recalled != self._recalled:
            self._recalled = recalled
            core.look_at_owned()
        core.clock.resync(time, self._time() - asked)
        core.carrier.check()

    @staticmethod
    def _time() -> int:
        """Return microseconds that only tell how long something took."""
        return round(asyncio.get_running_loop().time() * 1_000_000)

    def extend_while_held(self) -> None:
        """Extend the lease in the guard's thread, while a long turn holds the loop (R8)."""
        worker, core = self.worker, self._core
        now = core.clock.now()
        if worker is None or now - self._extended_at < core.settings.lease // 3:
            return
        self._has_extended(now)
        until = now + core.settings.lease
        core.desk.write_from_thread(
            lambda store: store.extend(worker.id, worker.epoch, now=now, lease_until=until)
        )

    def _has_extended(self, now: int) -> None:
        self._extended_at = now
        self._core.lease_until = now + self._core.settings.lease

    def suspect(self, run: int) -> None:
        """Record, in the guard's thread, which run's turn cannot be interrupted."""
        if run:
            self._core.desk.write_from_thread(lambda store: store.suspect(run))

    async def look_once(self) -> None:
        """Look at the other workers once."""
        core = self._core
        now = core.clock.now()
        workers = await core.desk.read(lambda store: store.workers())
        self._next_end = _NEVER
        for other in workers:
            if self.worker is None or other.id == self.worker.id or other.state != "live":
                continue
            is_dead = other.alive_for_sure is False or other.lease_until < now
            if is_dead:
                await self._take_over(other, now)
            else:
                self._next_end = min(self._next_end, other.lease_until)
        if len(workers) == self._company and now < self._served_at:
            return
        self._company, self._served_at = len(workers), now + self._served_every
        services = [(other.workflows, other.queues) for other in workers]
        looks = core.revival.wants_look(has_company=len(workers) > 1)
        unserved, parked = await core.desk.read(
            lambda store: (
                store.unserved(services, now - _UNSERVED_AFTER, limit=100),
                core.revival.page(store) if looks else [],
            )
        )
        known = {name for workflows, _ in services for name in workflows}
        patient = now - _UNSERVED_AFTER
        late = [row.run for row in unserved if max(row.since, row.created_at) < patient]
        for loaded in await core.desk.read(lambda store: store.load(late)) if late else ():
            row = loaded.row
            is_known = not known.isdisjoint((row.workflow, f"{row.workflow} {row.version}"))
            core.park_unserved(loaded, is_known=is_known)
        if looks:
            await core.revival.look(parked)

    async def _take_over(self, other: Worker, now: int) -> None:
        took = await self._core.desk.write(
            lambda store: store.take_over(other.id, other.epoch, now, lease_until=other.lease_until)
        )
        if took:
            self.taken_over += 1
            how = "is gone" if other.alive_for_sure is False else "is silent, its lease is over"
            _log.warning("worker %s (pid %d) %s; took its runs over", other.name, other.pid, how)
            self._core.intake.look()
