"""The verbs that all stores on SQL write with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from perdure.errors import PerdureError, Sealed, UsageError
from perdure.store.offers import Claimed, OfferKey, Wanted
from perdure.store.port import (
    Act,
    Acted,
    Batch,
    Beat,
    Committed,
    Definition,
    Erase,
    ErasedPart,
    Fired,
    Happened,
    HumanTaskRaise,
    HumanTaskRow,
    Moved,
    Post,
    Posted,
    Prune,
    Pruned,
    Question,
    Resealed,
    ScheduleDrop,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Started,
    StartRequest,
    Sweep,
    TurnWrite,
    Watch,
    Worker,
)
from perdure.store.sealing import Packing
from perdure.store.sql import erasing, firing, pruning, records, tallies
from perdure.store.sql.audit import append, cut, erase
from perdure.store.sql.commit import Committer
from perdure.store.sql.database import Database, Writing, one, reading, writing
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.offers import Offers
from perdure.store.sql.people import Refused, act_on, move_on, raise_task
from perdure.store.sql.plan import Plan
from perdure.store.sql.posting import Delivery
from perdure.store.sql.reads import SqlReader
from perdure.store.sql.schedules import drop_schedule, put_schedule
from perdure.store.sql.seals import forget_codecs, meet, reseal_page
from perdure.store.sql.slots import Slots
from perdure.store.sql.ties import NONE
from perdure.store.sql.workers import Workers, forget_workers
from perdure.values.audit import AuditLine
from perdure.values.meters import Spend, Spent
from perdure.values.queues import QueueLimit
from perdure.values.records import Amend, Amended

_KEEP_ANSWERS = 60 * 1_000_000
_KEEP_SENDERS = 7 * 86_400 * 1_000_000


class SqlStore(SqlReader):
    """The port's verbs on one connection, but for those that each database does in its own way."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._committer = Committer(database)
        self._workers = Workers(database)

    def start(self, requests: Sequence[StartRequest], now: int) -> list[Started]:
        if any(request.first is not None for request in requests):
            raise UsageError("start: a first turn needs a worker's commit")
        return self._committer.start(_batch(now, starts=requests))

    def post(self, posts: Sequence[Post], now: int) -> list[Posted]:
        return self._committer.post(_batch(now, posts=posts))

    def commit(self, batch: Batch) -> Committed:
        return self._committer.commit(batch)

    @reading
    def resolve(self, worker: int, epoch: int) -> int:
        return self._workers.resolve(worker, epoch)

    @writing
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
            activities=tuple(activities),
        )
        self.database.hold_slots()
        return self._joined(self._workers.join(worker, now, definitions, limits))

    @writing
    def extend(
        self, worker: int, epoch: int, *, now: int, lease_until: int, beats: Sequence[Beat] = ()
    ) -> tuple[int, int | None]:
        return self._workers.extend(worker, epoch, now, lease_until, beats)

    @writing
    def leave(self, worker: int, epoch: int, now: int) -> None:
        self._workers.leave(worker, epoch, now)

    @writing
    def take_over(
        self, worker: int, epoch: int, now: int, *, lease_until: int | None = None
    ) -> bool:
        return self._workers.take_over(worker, epoch, now, lease_until)

    @writing
    def claim(
        self,
        worker: int,
        epoch: int,
        *,
        now: int,
        wanted: Sequence[Wanted],
        activities: Sequence[str],
        most: int = 100,
    ) -> Claimed:
        return Offers(self.database).claim(worker, epoch, now, wanted, activities, most)

    @writing
    def hand_back(self, worker: int, epoch: int, keys: Sequence[OfferKey]) -> None:
        Offers(self.database).hand_back(worker, epoch, keys)

    @writing
    def admit(self, now: int) -> int:
        self.database.hold_slots()
        return Slots(self.database).admit(now)

    @writing
    def suspect(self, run: int) -> None:
        self.database.run("suspect", run)

    @writing
    def define(self, definitions: Sequence[Definition], now: int) -> None:
        self._workers.define(definitions, now)

    @writing
    def activate(self, name: str, version: str, *, is_active: bool) -> bool:
        return self.database.run("activate", name, version, int(is_active)).rowcount == 1

    @writing
    def sweep(self, sweep: Sweep, *, instead: int = 0) -> bool:
        row = msgspec.structs.astuple(sweep)
        return self.database.run("sweep", *row, instead).rowcount == 1

    @writing
    def prune(self, prune: Prune) -> Pruned:
        return pruning.prune(self.database, prune)

    def erase(self, erase: Erase, now: int) -> ErasedPart:
        return erasing.erase(self.database, erase, now)

    @writing
    def forget(self, now: int, *, after: str = "", limit: int = 1_000) -> str | None:
        if not after:
            self._close_mailboxes([], now)
            self.database.run("forget_questions", now - _KEEP_ANSWERS)
            forget_workers(self.database, now)
            tallies.forget(self.database, now)
        return pruning.forget(self.database, now - _KEEP_SENDERS, after, limit)

    @writing
    def ask(self, question: Question, now: int) -> None:
        self.database.run("forget_questions", now - _KEEP_ANSWERS)
        args = self.database.seal.seal(question.args)
        facts = (question.id, question.execution, question.name, args)
        self.database.run("insert_question", *facts, question.deadline, question.update)

    @writing
    def answer(self, question: str, answer: bytes, now: int) -> None:
        self.database.run("answer", question, self.database.seal.seal(answer))

    @writing
    def act(self, act: Act, now: int) -> Acted:
        (acted,) = act_on(self.database, [act], now)
        if isinstance(acted, PerdureError):
            raise acted
        return acted

    def act_all(
        self, acts: Sequence[Act], now: int, *, all_or_none: bool = False
    ) -> list[Acted | PerdureError]:
        try:
            return self.database.write(lambda: act_on(self.database, acts, now, all_or_none))
        except Refused as refused:
            return refused.answers

    @writing
    def raise_human_task(self, wanted: HumanTaskRaise, now: int) -> HumanTaskRow:
        return raise_task(self.database, wanted, now)

    @writing
    def move_human_tasks(self, now: int, *, limit: int) -> list[Moved]:
        return move_on(self.database, now, limit)

    @writing
    def forget_human_tasks(self, before: int, *, limit: int) -> int:
        found = self.database.run("old_human_tasks", before, limit).fetchall()
        if found:
            ids = to_json([row[0] for row in found])
            self.database.run("delete_human_log", ids)
            self.database.run("delete_human_tasks", ids)
        return len(found)

    @writing
    def amend(
        self, amend: Amend, now: int, *, schedules: Sequence[SchedulePut | ScheduleDrop] = ()
    ) -> Amended:
        amended = records.amend(self.database, amend, now)
        for wanted in schedules:
            if isinstance(wanted, SchedulePut):
                put_schedule(self.database, wanted, now)
            else:
                drop_schedule(self.database, wanted.namespace, wanted.id)
        if amend.audit:  # its head is the last lock that is taken (ADR 17)
            append(self.database, amend.audit, now)
        return amended

    @writing
    def erase_audit(
        self, target: str, lines: Sequence[AuditLine], now: int, *, namespace: str = "default"
    ) -> int:
        return erase(self.database, target, lines, now, namespace)

    @writing
    def cut_audit(
        self, number: int, lines: Sequence[AuditLine], now: int, *, limit: int = 5_000
    ) -> int:
        return cut(self.database, number, lines, now, limit)

    @writing
    def spend(self, spend: Spend, now: int) -> Spent:
        return tallies.spend(self.database, spend, now)

    @writing
    def settle(self, hold: str, used: Mapping[str, int]) -> bool:
        return tallies.settle(self.database, hold, used)

    @writing
    def put_schedule(self, put: SchedulePut, now: int) -> ScheduleRow:
        return put_schedule(self.database, put, now)

    @writing
    def steer_schedule(self, steer: ScheduleSteer, now: int, chance: bytes) -> Happened:
        begin = self._committer.within
        return firing.steer_schedule(self.database, steer, now, chance, begin)

    @writing
    def fire(self, now: int, chance: bytes, *, limit: int = 50) -> Fired:
        begin = self._committer.within
        return firing.fire(self.database, now, chance, begin, limit=limit)

    @writing
    def keep_mailboxes(self, mailboxes: Sequence[str], until: int) -> None:
        self.database.run("keep_mailboxes", to_json(list(mailboxes)), until)

    @writing
    def close_mailboxes(self, mailboxes: Sequence[str], now: int) -> None:
        self._close_mailboxes(mailboxes, now)

    def _close_mailboxes(self, mailboxes: Sequence[str], now: int) -> None:
        over = one(self.database, "over_mailboxes", to_json(list(mailboxes)), now)
        self.database.run("close_mailboxes", over)
        self.database.run("delete_mail_of_mailboxes", over)
        self.database.run("delete_watches_of_mailboxes", over)

    @writing
    def drop_mail(self, rows: Sequence[int]) -> None:
        self.database.run("drop_mail", to_json(list(rows)))

    @writing
    def watch(self, watches: Sequence[Watch], now: int) -> list[str]:
        turn = TurnWrite(0, 0, first=0, count=0, time=now, payload=b"", watches=watches)
        foreseen = self.database.foresee(_batch(now, turns=[turn]))
        self.database.hold(foreseen, limits=False)
        packing = Packing(self.database.seal)
        plan = Plan(0, packing)
        plan.watching = [(watch, 0) for watch in watches]
        delivery = Delivery(self.database, now, packing)
        delivery.deliver(plan.encoded(), 0, NONE.with_rows_of(plan))
        return delivery.watched

    def unlock(self) -> None:
        met = self.database.read(partial(meet, self.database))
        if why := met.sealed or met.elsewhere:
            raise Sealed(why)

    def reseal(self, after: str, *, limit: int) -> Resealed:
        return reseal_page(self.database, after, limit)

    def forget_codecs(self) -> int:
        return forget_codecs(self.database)

    @writing
    def unused_blobs(self, names: Sequence[str]) -> list[str]:
        wanted = to_json(list(names))
        unused: list[str] = from_json(one(self.database, "unused_blobs", wanted))
        if unused:
            self.database.run("forget_blobs", to_json(unused))
        return unused

    def _meet_codecs(self, *, is_new: bool) -> None:
        """Find out whether this process can open what the database holds; if not, it writes nothing
        of users. ``is_new``: its own codec, or key, may be one that the database has not met.
        """
        seal = self.database.seal
        met = self.database.read(partial(meet, self.database))
        seal.lock = met.sealed
        if met.sample is not None and seal.codec is not None and is_new:
            row = seal.codec.id, met.sample
            self.database.write(lambda: self.database.run("insert_codec", *row))

    def _start_on(
        self,
        database: Writing,
        requests: Sequence[StartRequest],
        now: int,
        within: Callable[[Callable[[], Committed]], Committed],
    ) -> list[Started]:
        """Start in a caller's transaction, where ``within(write)`` calls ``write``."""
        return self._committer.start_on(database, _batch(now, starts=requests), within)

    def _joined(self, worker: Worker) -> Worker:
        """Do what must be done before others can see the row of a new worker."""
        return worker


def _batch(now: int, **rest: Any) -> Batch:
    return Batch(worker=0, epoch=0, number=0, now=now, lease_until=0, **rest)
