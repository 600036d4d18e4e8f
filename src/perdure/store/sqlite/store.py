"""The store port on SQLite.

One connection that writes, used by one thread at a time; readers have connections of their own
(:class:`SqliteReader`), except in memory, where the one connection is all there is. Two verbs may
be called from any thread of a file database, since they work on connections of their own:
``transact`` and ``reader``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perdure.store import migrate
from perdure.store.port import Definition, Posted, Started, StartRequest, Worker
from perdure.store.sql.database import reading
from perdure.store.sql.reads import SqlReader
from perdure.store.sql.store import SqlStore
from perdure.store.sqlite.borrowed import borrow, written_on
from perdure.store.sqlite.checkpoint import Checkpointer
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.database import Database
from perdure.store.sqlite.ledger import SqliteLedger
from perdure.store.sqlite.presence import Presence
from perdure.store.sqlite.transaction import GatedConnection, run_transaction
from perdure.values.queues import QueueLimit

R = TypeVar("R")

MIGRATIONS = migrate.load_migrations(Path(__file__).with_name("migrations"))


class SqliteReader(SqlReader):
    """A connection of its own to a file, that only reads."""

    database: Database

    def __init__(self, database: Database, presence: Presence) -> None:
        super().__init__(database)
        self._presence = presence

    def _is_alive(self, worker: int) -> bool | None:
        return self._presence.is_alive(worker)


class SqliteStore(SqlStore):
    """The whole port on one file, or in memory."""

    database: Database
    poll_seconds = 0.020
    """How often ``changed`` is asked."""
    look_seconds = 0.2
    """How often workers look whether others have died: a lock file tells at once."""

    def __init__(self, settings: Settings) -> None:
        if settings.path is None:
            settings = msgspec.structs.replace(settings, factory=GatedConnection)
        self.settings = settings
        super().__init__(Database(settings))
        self._presence = Presence(settings.path)
        self._checkpointer = Checkpointer(self.database)
        self._version = self._data_version()
        self._looked = time.monotonic()

    @property
    def is_private(self) -> bool:
        """Whether nobody else can open this database: then one connection serves everybody."""
        return self.settings.path is None

    def reader(self) -> SqliteReader | SqliteStore:
        """Open a connection that only reads; in memory, return the store itself."""
        if self.is_private:
            return self
        settings = msgspec.structs.replace(self.settings, readonly=True)
        return SqliteReader(Database(settings), self._presence)

    migrations = MIGRATIONS

    def ledger(self) -> SqliteLedger:
        """Return the books of migrations."""
        return SqliteLedger(self.database)

    def migrate(self, now: int) -> None:
        where = self.database.name
        migrate.migrate(self.ledger(), MIGRATIONS, where, now, readonly=self.settings.readonly)
        self._meet_codecs(is_new=not self.settings.readonly)

    def start_within(
        self, connection: object, requests: Sequence[StartRequest], now: int
    ) -> list[Started]:
        settings = self.settings
        borrowed = borrow(connection, settings.path, settings.name, settings.seal)
        return self._start_on(borrowed, requests, now, partial(written_on, borrowed))

    def join(
        self,
        name: str,
        pid: int,
        host: str,
        *,
        now: int,
        lease_until: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        definitions: Sequence[Definition],
        activities: Sequence[str] = (),
        limits: Sequence[QueueLimit] = (),
    ) -> Worker:
        self._checkpointer.lay_out()
        return super().join(
            name,
            pid,
            host,
            now=now,
            lease_until=lease_until,
            workflows=workflows,
            queues=queues,
            definitions=definitions,
            activities=activities,
            limits=limits,
        )

    def leave(self, worker: int, epoch: int, now: int) -> None:
        super().leave(worker, epoch, now)
        self._presence.forget(worker)

    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        taken = super().take_over(worker, epoch, now, lease_until=lease_until)
        if taken:
            self._presence.forget(worker)
        return taken

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        self.database.check()
        return run_transaction(
            self.settings,
            self.database if self.is_private else None,
            (run, activity, attempt),
            fn,
            outcome=outcome,
            time_limit=time_limit,
            now=now,
        )

    @reading
    def changed(self) -> bool:
        version = self._data_version()
        if version == self._version:
            return False
        self._version = version
        return True

    def time(self) -> None:
        return None

    def listen(self, told: Callable[[], None]) -> None:
        return None

    def tidy(self, *, idle: bool) -> None:
        # After each batch: whoever was answered wants the interpreter, so this is to be short.
        now = time.monotonic()
        is_due = idle or now - self._looked > 1
        if is_due:
            self._looked = now
            self.database.check()
        if self.is_private or self.settings.readonly or self._checkpointer.tidy(idle=idle):
            return
        if is_due:
            self._checkpointer.watch_size()

    def close(self) -> None:
        self._presence.close()
        super().close()

    def _is_alive(self, worker: int) -> bool | None:
        return self._presence.is_alive(worker)

    def _joined(self, worker: Worker) -> Worker:
        self._presence.hold(worker.id)
        return msgspec.structs.replace(worker, alive_for_sure=True)

    def _data_version(self) -> int:
        return int(self.database.execute("PRAGMA data_version").fetchone()[0])
