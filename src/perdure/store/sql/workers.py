"""Workers: joining, extending, leaving, and taking over the runs of the dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.errors import LeaseLost
from perdure.store.port import Beat, Definition, Worker
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.sql.offers import Offers
from perdure.store.sql.slots import Slots
from perdure.values.ids import definition_id
from perdure.values.queues import QueueLimit

_FORGET_AFTER = 7 * 86_400 * 1_000_000


class Workers:
    """The rows of workers. Every method is called inside a transaction."""

    def __init__(self, database: Writing) -> None:
        self._database = database

    def join(
        self,
        worker: Worker,
        now: int,
        definitions: Sequence[Definition],
        limits: Sequence[QueueLimit],
    ) -> Worker:
        """Insert a worker's row; return the worker with its id."""
        run = self._database.run
        forget_workers(self._database, now)
        id, started_at, lease_until = run(
            "insert_worker",
            worker.name,
            worker.pid,
            worker.host,
            worker.started_at,
            worker.lease_until,
            to_json(worker.workflows),
            to_json(worker.queues),
            to_json(worker.activities),
        ).fetchone()
        if definitions:
            self.define(definitions, now)
            Slots(self._database).register(definitions, now)
        if limits:
            Offers(self._database).register(limits)
        return msgspec.structs.replace(
            worker, id=id, started_at=started_at, lease_until=lease_until
        )

    def define(self, definitions: Sequence[Definition], now: int) -> None:
        """Insert definitions, or bring them up to date."""
        rows = [
            (
                one.name,
                one.version,
                one.code,
                one.source,
                one.queue,
                int(one.is_active),
                definition_id(one.name, one.version),
                to_json(one.triggers),
            )
            for one in definitions
        ]
        self._database.run("upsert_definitions", to_json(rows), now)

    def extend(
        self, worker: int, epoch: int, now: int, lease_until: int, beats: Sequence[Beat]
    ) -> tuple[int, int | None]:
        """Extend a lease and keep heartbeat details: see the port."""
        found = self._database.run("extend", worker, epoch, lease_until, now).fetchone()
        if found is None:
            raise _lost(worker, epoch)
        if beats:
            seal = self._database.seal.seal
            values: list[Any] = []
            for beat in beats:
                values += (beat.run, beat.activity, seal(beat.details))
            self._database.insert("insert_beats", 3, values)
            self._database.run("delete_beats_of_ended", to_json([beat.run for beat in beats]))
        return found[0], found[1]

    def leave(self, worker: int, epoch: int, now: int) -> None:
        """Hand all runs back."""
        if self._database.run("leave", worker, epoch, now).rowcount != 1:
            raise _lost(worker, epoch)
        self._database.run("release_runs", worker, None)
        Offers(self._database).release(worker)

    def take_over(self, worker: int, epoch: int, now: int, lease_until: int | None) -> bool:
        """End a dead worker's lease."""
        if self._database.run("take_over", worker, epoch, lease_until).rowcount != 1:
            return False
        Offers(self._database).lose(worker, now)
        self._database.run("release_runs", worker, worker)
        return True

    def resolve(self, worker: int, epoch: int) -> int:
        """Return the number of the last batch that stands."""
        row = self._database.run("resolve", worker, epoch).fetchone()
        if row is None:
            raise _lost(worker, epoch)
        return int(row[0])


def forget_workers(database: Writing, now: int) -> None:
    """Forget workers that ended a week ago."""
    database.run("forget_workers", now - _FORGET_AFTER)


def _lost(worker: int, epoch: int) -> LeaseLost:
    return LeaseLost(f"worker {worker} does not hold a lease of epoch {epoch}")
