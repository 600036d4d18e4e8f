"""Workers: joining, leaving, and taking over the runs of the dead.

A live worker holds a lock file from before its row can be seen until it leaves, so whoever reads
the row can ask the kernel whether the process lives. In memory there is only this process, and its
workers live as long as the store does.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.errors import LeaseLost, StoreError, Unavailable
from perdure.store.port import Beat, Definition, Worker
from perdure.store.sqlite.database import Database
from perdure.store.sqlite.locks import LockFile, is_locked, remove_file, try_lock
from perdure.store.sqlite.slots import Slots
from perdure.store.sqlite.sql import SQL, ManyRows, to_json
from perdure.values.ids import definition_id

_BEATS = ManyRows("insert_beats", 3)
_FORGET_AFTER = 7 * 86_400 * 1_000_000


class Workers:
    """The worker rows, and the lock files of those that joined through this store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[int, LockFile | None] = {}

    def join(
        self,
        worker: Worker,
        now: int,
        definitions: Sequence[Definition],
    ) -> Worker:
        """Insert a worker's row inside a transaction and lock its file before the row is seen."""
        execute = self._database.execute
        execute(SQL["forget_workers"], (now - _FORGET_AFTER,))
        facts = (
            worker.name,
            worker.pid,
            worker.host,
            worker.started_at,
            worker.lease_until,
            to_json(worker.workflows),
            to_json(worker.queues),
        )
        id = execute(SQL["insert_worker"], facts).lastrowid
        assert id is not None
        if definitions:
            self.define(definitions, now)
            Slots(self._database).register(definitions, now)
        self._hold(id)
        return msgspec.structs.replace(worker, id=id, alive_for_sure=True)

    def define(self, definitions: Sequence[Definition], now: int) -> None:
        """Insert definitions, or bring them up to date, inside a transaction."""
        rows = [
            (
                one.name,
                one.version,
                one.code,
                one.source,
                one.queue,
                int(one.is_active),
                definition_id(one.name, one.version),
            )
            for one in definitions
        ]
        self._database.execute(SQL["upsert_definitions"], (to_json(rows), now))

    def extend(self, worker: int, epoch: int, lease_until: int, beats: Sequence[Beat]) -> int:
        """Extend a lease and keep heartbeat details, inside a transaction."""
        marks = (worker, epoch, lease_until)
        found = self._database.execute(SQL["extend"], marks).fetchone()
        if found is None:
            raise _lost(worker, epoch)
        values = [value for beat in beats for value in (beat.run, beat.activity, beat.details)]
        for text, part in _BEATS.statements(values):
            self._database.execute(text, part)
        if beats:
            runs = to_json([beat.run for beat in beats])
            self._database.execute(SQL["delete_beats_of_ended"], (runs,))
        return int(found[0])

    def leave(self, worker: int, epoch: int, now: int) -> None:
        """Hand all runs back inside a transaction."""
        if self._database.execute(SQL["leave"], (worker, epoch, now)).rowcount != 1:
            raise _lost(worker, epoch)
        self._database.execute(SQL["release_runs"], (worker, None))

    def take_over(self, worker: int, epoch: int, lease_until: int | None) -> bool:
        """End a dead worker's lease inside a transaction."""
        if self._database.execute(SQL["take_over"], (worker, epoch, lease_until)).rowcount != 1:
            return False
        self._database.execute(SQL["release_runs"], (worker, worker))
        return True

    def resolve(self, worker: int, epoch: int) -> int:
        """Return the number of the last batch that stands."""
        row = self._database.execute(SQL["resolve"], (worker, epoch)).fetchone()
        if row is None:
            raise _lost(worker, epoch)
        return int(row[0])

    def forget(self, worker: int) -> None:
        """Give up the lock of a worker that left, or remove the file of one taken over."""
        lock = self._held.pop(worker, None)
        if lock is not None:
            lock.release(remove=True)
        elif self._database.path is not None:
            remove_file(self._path(worker))

    def close(self) -> None:
        """Give all locks back; rows that did not leave will be seen as dead."""
        for worker in list(self._held):
            self.forget(worker)

    def is_alive(self, worker: int) -> bool | None:
        """Tell whether a worker that has not left still lives; ``None`` if that cannot be told."""
        if worker in self._held or self._database.path is None:
            return worker in self._held
        try:
            return is_locked(self._path(worker))
        except OSError:
            return None

    def _hold(self, worker: int) -> None:
        if self._database.path is None:
            self._held[worker] = None
            return
        try:
            lock = try_lock(self._path(worker))
        except OSError as exc:
            raise Unavailable(f"no lock file for worker {worker}: {exc}", cause=exc) from exc
        if lock is None:
            raise StoreError(
                f"{self._path(worker)} is locked, though worker {worker} is new: was the database "
                "file replaced while a worker ran? Stop all workers and remove the file"
            )
        self._held[worker] = lock

    def _path(self, worker: int) -> str:
        return f"{self._database.path}-worker-{worker}"


def _lost(worker: int, epoch: int) -> LeaseLost:
    return LeaseLost(f"worker {worker} does not hold a lease of epoch {epoch}")
