"""The store port on SQLite.

One connection that writes, used by one thread at a time; readers have connections of their own
(:class:`perdure.store.sqlite.reads.SqliteReader`), except in memory, where the one connection is
all there is. Two verbs may be called from any thread of a file database, since they work on
connections of their own: ``transact`` and ``reader``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perdure.errors import SchemaMismatch, UsageError
from perdure.store import migrate
from perdure.store.port import (
    Act,
    Acted,
    Batch,
    Beat,
    Committed,
    Definition,
    Post,
    Posted,
    Question,
    Started,
    StartRequest,
    Sweep,
    Watch,
    Worker,
)
from perdure.store.sqlite.borrowed import borrow
from perdure.store.sqlite.checkpoint import Checkpointer
from perdure.store.sqlite.commit import Committer
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.database import Database, one, reading, writing
from perdure.store.sqlite.ledger import SqliteLedger
from perdure.store.sqlite.people import act_on
from perdure.store.sqlite.plan import Plan
from perdure.store.sqlite.posting import Delivery
from perdure.store.sqlite.reads import SqliteReader
from perdure.store.sqlite.slots import Slots
from perdure.store.sqlite.sql import SQL, to_json
from perdure.store.sqlite.transaction import GatedConnection, run_transaction

R = TypeVar("R")

MIGRATIONS = migrate.load_migrations(Path(__file__).with_name("migrations"))
_KEEP_ANSWERS = 60 * 1_000_000


class SqliteStore(SqliteReader):
    """The whole port on one file, or in memory."""

    def __init__(self, settings: Settings) -> None:
        if settings.path is None:
            settings = msgspec.structs.replace(settings, factory=GatedConnection)
        self.settings = settings
        database = Database(settings)
        super().__init__(database)
        self._committer = Committer(database)
        self._checkpointer = Checkpointer(database)
        self._version = self._data_version()
        self._looked = time.monotonic()

    @property
    def is_private(self) -> bool:
        """Whether nobody else can open this database: then one connection serves everybody."""
        return self.settings.path is None

    def reader(self) -> SqliteReader:
        """Open a connection that only reads; in memory, return the store itself."""
        if self.is_private:
            return self
        settings = msgspec.structs.replace(self.settings, readonly=True)
        return SqliteReader(Database(settings), self._workers)

    def migrate(self, now: int) -> None:
        ledger = SqliteLedger(self.database)
        if not self.settings.readonly:
            migrate.migrate(ledger, MIGRATIONS, self.database.name, now)
        elif migrate.missing(MIGRATIONS, ledger.applied(), self.database.name):
            raise SchemaMismatch(
                f"{self.database.name} has no tables of this version yet: a worker makes them "
                "when it starts (`perdure dev MODULE`)"
            )

    def start(self, requests: Sequence[StartRequest], now: int) -> list[Started]:
        if any(request.first is not None for request in requests):
            raise UsageError("start: a first turn needs a worker's commit")
        return self._committer.start(_batch(now, starts=requests))

    def start_within(
        self, connection: object, requests: Sequence[StartRequest], now: int
    ) -> list[Started]:
        borrowed = borrow(connection, self.settings.path, self.settings.name)
        return self._committer.start_within(borrowed, _batch(now, starts=requests))

    def post(self, posts: Sequence[Post], now: int) -> list[Posted]:
        return self._committer.post(_batch(now, posts=posts))

    def commit(self, batch: Batch) -> Committed:
        return self._committer.commit(batch)

    @reading
    def resolve(self, worker: int, epoch: int) -> int:
        return self._workers.resolve(worker, epoch)

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
    ) -> Worker:
        worker = Worker(
            id=0,
            epoch=1,
            name=name,
            pid=pid,
            host=host,
            state="live",
            started_at=now,
            lease_until=lease_until,
            workflows=tuple(workflows),
            queues=tuple(queues),
        )
        self._checkpointer.lay_out()
        return self._join(worker, now, definitions)

    @writing
    def _join(self, worker: Worker, now: int, definitions: Sequence[Definition]) -> Worker:
        return self._workers.join(worker, now, definitions)

    @writing
    def extend(
        self, worker: int, epoch: int, *, now: int, lease_until: int, beats: Sequence[Beat] = ()
    ) -> int:
        return self._workers.extend(worker, epoch, lease_until, beats)

    def leave(self, worker: int, epoch: int, now: int) -> None:
        self._leave(worker, epoch, now)
        self._workers.forget(worker)

    @writing
    def _leave(self, worker: int, epoch: int, now: int) -> None:
        self._workers.leave(worker, epoch, now)

    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        taken = self._take_over(worker, epoch, lease_until)
        if taken:
            self._workers.forget(worker)
        return taken

    @writing
    def _take_over(self, worker: int, epoch: int, lease_until: int | None) -> bool:
        return self._workers.take_over(worker, epoch, lease_until)

    @writing
    def admit(self, now: int) -> int:
        return Slots(self.database).admit(now)

    @writing
    def suspect(self, run: int) -> None:
        self.database.execute(SQL["suspect"], (run,))

    @writing
    def define(self, definitions: Sequence[Definition], now: int) -> None:
        self._workers.define(definitions, now)

    @writing
    def activate(self, name: str, version: str, *, is_active: bool) -> bool:
        row = (name, version, int(is_active))
        return self.database.execute(SQL["activate"], row).rowcount == 1

    @writing
    def sweep(self, sweep: Sweep, *, instead: int = 0) -> bool:
        row = (*msgspec.structs.astuple(sweep), instead)
        return self.database.execute(SQL["sweep"], row).rowcount == 1

    @writing
    def ask(self, question: Question, now: int) -> None:
        self.database.execute(SQL["forget_questions"], (now - _KEEP_ANSWERS,))
        facts = (question.id, question.execution, question.name, question.args)
        self.database.execute(SQL["insert_question"], (*facts, question.deadline, question.update))

    @writing
    def answer(self, question: str, answer: bytes, now: int) -> None:
        self.database.execute(SQL["answer"], (question, answer))

    @writing
    def act(self, act: Act, now: int) -> Acted:
        return act_on(self.database, act, now)

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

    @writing
    def keep_mailboxes(self, mailboxes: Sequence[str], until: int) -> None:
        self.database.execute(SQL["keep_mailboxes"], (to_json(list(mailboxes)), until))

    @writing
    def close_mailboxes(self, mailboxes: Sequence[str], now: int) -> None:
        execute = self.database.execute
        over = (one(self.database, SQL["over_mailboxes"], (to_json(list(mailboxes)), now)),)
        execute(SQL["close_mailboxes"], over)
        execute(SQL["delete_mail_of_mailboxes"], over)
        execute(SQL["delete_watches_of_mailboxes"], over)

    @writing
    def drop_mail(self, rows: Sequence[int]) -> None:
        self.database.execute(SQL["drop_mail"], (to_json(list(rows)),))

    @writing
    def watch(self, watches: Sequence[Watch], now: int) -> list[str]:
        plan = Plan(0)
        plan.watching = [(watch, 0) for watch in watches]
        delivery = Delivery(self.database, now)
        delivery.deliver(plan.seal(), 0)
        return delivery.watched

    @reading
    def changed(self) -> bool:
        version = self._data_version()
        if version == self._version:
            return False
        self._version = version
        return True

    def tidy(self, *, idle: bool) -> None:
        self.database.check()
        if self.is_private or self.settings.readonly or self._checkpointer.tidy(idle=idle):
            return
        now = time.monotonic()
        if now - self._looked > 1:
            self._looked = now
            self._checkpointer.watch_size()

    def close(self) -> None:
        self._workers.close()
        super().close()

    def _data_version(self) -> int:
        return int(one(self.database, "PRAGMA data_version"))


def _batch(now: int, *, starts: Sequence[StartRequest] = (), posts: Sequence[Post] = ()) -> Batch:
    return Batch(worker=0, epoch=0, number=0, now=now, lease_until=0, starts=starts, posts=posts)
