"""The store port on PostgreSQL.

One connection that writes, used by one thread at a time; a reader has one of its own. Many stores,
in many processes and on many machines, work on one schema at the same time. ``transact`` may be
called from any thread: it works on connections of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perdure.errors import PerdureError
from perdure.store import migrate
from perdure.store.offers import OfferKey
from perdure.store.port import (
    Act,
    Acted,
    Batch,
    Committed,
    Fired,
    Happened,
    Post,
    Posted,
    Question,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Started,
    StartRequest,
)
from perdure.store.postgres.borrowed import Borrower, written_on
from perdure.store.postgres.connect import Settings
from perdure.store.postgres.database import Database
from perdure.store.postgres.hints import Hints
from perdure.store.postgres.ledger import PostgresLedger
from perdure.store.postgres.lending import Lender
from perdure.store.postgres.transaction import run_transaction
from perdure.store.sql.database import one, reading
from perdure.store.sql.encoding import from_json
from perdure.store.sql.reads import SqlReader
from perdure.store.sql.store import SqlStore

R = TypeVar("R")

_POLL = 1.0
_POLL_BEHIND_POOLER = 0.05
MIGRATIONS = migrate.load_migrations(Path(__file__).with_name("migrations"))


class PostgresReader(SqlReader):
    """A connection that only reads."""

    database: Database

    def _attribute(self, stored: Any) -> Any:
        return from_json(stored)


class PostgresStore(SqlStore, PostgresReader):
    """The whole port on one schema."""

    look_seconds = 3.0
    is_private = False
    """Whether nobody else can open this database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__(Database(settings))
        self._hints = Hints(self.database)
        self._lender = Lender(settings)
        self._borrower = Borrower(settings)
        self.poll_seconds = _POLL_BEHIND_POOLER if settings.pooler else _POLL

    def reader(self) -> PostgresReader:
        """Open a connection that only reads."""
        return PostgresReader(Database(msgspec.structs.replace(self.settings, readonly=True)))

    migrations = MIGRATIONS

    def ledger(self) -> PostgresLedger:
        """Return the books of migrations."""
        return PostgresLedger(self.database)

    def migrate(self, now: int) -> None:
        where = self.database.name
        migrate.migrate(self.ledger(), MIGRATIONS, where, now, readonly=self.settings.readonly)
        self._meet_codecs(is_new=not self.settings.readonly)

    def start_within(
        self, connection: object, requests: Sequence[StartRequest], now: int
    ) -> list[Started]:
        borrowed = self._borrower.borrow(connection)
        return self._start_on(borrowed, requests, now, partial(written_on, borrowed))

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
        key = (run, activity, attempt)
        return run_transaction(
            self._lender, key, fn, outcome=outcome, time_limit=time_limit, now=now
        )

    def commit(self, batch: Batch) -> Committed:
        committed = super().commit(batch)
        if _concerns_others(batch, committed):
            self._hints.add()
        return committed

    def start(self, requests: Sequence[StartRequest], now: int) -> list[Started]:
        started = super().start(requests, now)
        self._hints.add()
        return started

    def post(self, posts: Sequence[Post], now: int) -> list[Posted]:
        posted = super().post(posts, now)
        self._hints.add()
        return posted

    def act(self, act: Act, now: int) -> Acted:
        acted = super().act(act, now)
        self._hints.add()
        return acted

    def act_all(
        self, acts: Sequence[Act], now: int, *, all_or_none: bool = False
    ) -> list[Acted | PerdureError]:
        acted = super().act_all(acts, now, all_or_none=all_or_none)
        self._hints.add()
        return acted

    def put_schedule(self, put: SchedulePut, now: int) -> ScheduleRow:
        row = super().put_schedule(put, now)
        self._hints.add()
        return row

    def steer_schedule(self, steer: ScheduleSteer, now: int, chance: bytes) -> Happened:
        happened = super().steer_schedule(steer, now, chance)
        self._hints.add()
        return happened

    def fire(self, now: int, chance: bytes, *, limit: int = 50) -> Fired:
        fired = super().fire(now, chance, limit=limit)
        if any(one.started for one in fired.happened):
            self._hints.add()
        return fired

    def ask(self, question: Question, now: int) -> None:
        super().ask(question, now)
        self._hints.add()

    def answer(self, question: str, answer: bytes, now: int) -> None:
        super().answer(question, answer, now)
        self._hints.add()

    def hand_back(self, worker: int, epoch: int, keys: Sequence[OfferKey]) -> None:
        super().hand_back(worker, epoch, keys)
        self._hints.add()

    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        taken = super().take_over(worker, epoch, now, lease_until=lease_until)
        self._hints.add()
        return taken

    def leave(self, worker: int, epoch: int, now: int) -> None:
        super().leave(worker, epoch, now)
        self._hints.add()
        self._hints.send()

    @reading
    def time(self) -> int:
        return int(one(self.database, "now"))

    def listen(self, told: Callable[[], None]) -> Callable[[], None] | None:
        return self._hints.listen(told)

    def changed(self) -> bool:
        return self.settings.pooler  # else hints tell

    def tidy(self, *, idle: bool) -> float | None:
        return self._hints.send()

    def close(self) -> None:
        self._lender.close()
        super().close()


def _concerns_others(batch: Batch, committed: Committed) -> bool:
    """Tell whether a commit gives others something to do, or to hear of."""
    turns = (*batch.turns, *(start.first for start in batch.starts if start.first is not None))
    return bool(
        committed.posted
        or committed.fed
        or committed.told
        or committed.has_mail
        or committed.has_admitted
        or committed.children
        or any(turn.closes or turn.offers or turn.withdraws for turn in turns)
        or any(request.first is None for request in batch.starts)
    )
