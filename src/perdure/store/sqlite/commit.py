"""The commit: a worker's batch, and the starts and posts of those who are no workers.

One transaction: the fence, the questions that decide what is dropped, and the rows. A worker's
batch is fenced by the first statement, which also holds the write lock to the end, so that no
takeover can come between (I1, I6). What is dropped leaves no trace: the plan is made again without
it. Every statement takes the whole batch; the number of calls does not grow with it, except that
rows with bytes go in by the hundred.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from perdure.errors import AlreadyRead, Corrupt, LeaseLost, SchemaMismatch, StoreRefused
from perdure.store.port import Batch, Committed, Posted, Started
from perdure.store.sqlite import faults
from perdure.store.sqlite.borrowed import Borrowed, written_on
from perdure.store.sqlite.database import Database, Writing, one
from perdure.store.sqlite.plan import REPLACED, Plan, make_plan
from perdure.store.sqlite.posting import Delivery
from perdure.store.sqlite.rooms import Room
from perdure.store.sqlite.slots import Slots
from perdure.store.sqlite.sql import SQL, ManyRows, status_of, to_json
from perdure.store.sqlite.starting import (
    Decisions,
    Existing,
    Judge,
    Key,
    needs_look,
    requests_of,
)
from perdure.values import events, limits
from perdure.values.states import CODES, Status

_HISTORY = ManyRows("insert_history", 8)
_TERMINATED = CODES[Status.TERMINATED]
_NOBODY: frozenset[int] = frozenset()
_decode: Callable[[str], Any] = msgspec.json.decode


class Committer:
    """Writes batches on one database.

    ``_next_run`` is a guess that each batch checks; ``_recalled``: how many runs each worker knew
    to have been taken from it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next_run = 1
        self._recalled: dict[int, int] = {}

    def commit(self, batch: Batch) -> Committed:
        """Write a worker's batch: see the port."""
        return self._transact(
            _Attempt(self._database, batch, is_fenced=True, recalled=self._recalled)
        )

    def start(self, batch: Batch) -> list[Started]:
        """Write the starts of somebody who is no worker; a repeated run id changes nothing."""
        return list(self._transact(_Attempt(self._database, batch, is_fenced=False)).started)

    def start_within(self, borrowed: Borrowed, batch: Batch) -> list[Started]:
        """Write starts in a caller's own transaction."""
        attempt = _Attempt(borrowed, batch, is_fenced=False)
        attempt.prepare(self._next_run)
        return list(written_on(borrowed, attempt.write).started)

    def post(self, batch: Batch) -> list[Posted]:
        """Write posts."""
        return list(self._transact(_Attempt(self._database, batch, is_fenced=False)).posted)

    def _transact(self, attempt: _Attempt) -> Committed:
        database = self._database
        attempt.prepare(self._next_run)
        database.begin()
        try:
            result = attempt.write()
        except (sqlite3.Error, *faults.BAD_VALUES) as exc:
            database.undo(exc)
            raise faults.translate(exc, database.name) from exc
        except BaseException:
            database.rollback()
            raise
        database.commit()
        database.written += attempt.plan.bytes
        self._next_run = attempt.decisions.next_run
        return result


class _Attempt:
    """One batch on its way: what it asks, what is decided, and the plan that follows."""

    plan: Plan
    decisions: Decisions

    def __init__(
        self,
        database: Writing,
        batch: Batch,
        *,
        is_fenced: bool,
        recalled: dict[int, int] | None = None,
    ) -> None:
        self._database = database
        self._batch = batch
        self._is_fenced = is_fenced
        self._recalled = {} if recalled is None else recalled
        self._is_recalled = False
        self._lost = _NOBODY
        self._reopened = _NOBODY
        self._keys: dict[Key, None] = {}
        self._has_starts = False
        self._brings_messages = False
        self._looks_at: list[str] = []
        self._slots: Slots | None = None
        """Only if anything is limited."""

    def prepare(self, next_run: int) -> None:
        """Encode the batch on the guess that nothing stands in its way."""
        for request in requests_of(self._batch):
            self._has_starts = True
            self._brings_messages |= bool(request.messages)
            if needs_look(request):
                self._keys[request.namespace, request.workflow_id] = None
            if not self._is_fenced:
                self._looks_at.append(request.run_id)
        self._questions = _questions(self._batch)
        self._guess = next_run
        self.decisions = Judge(self._batch, next_run, {}, {}).decide(_NOBODY)
        self.plan = make_plan(self._batch, self.decisions, _NOBODY)

    def write(self) -> Committed:
        """Write the batch inside the transaction that was begun."""
        batch, database = self._batch, self._database
        if self._is_fenced:
            marks = (batch.worker, batch.epoch, batch.number, batch.lease_until)
            fenced = database.execute(SQL["fence"], marks).fetchone()
            if fenced is None:
                raise LeaseLost(
                    f"worker {batch.worker} no longer holds its lease (epoch {batch.epoch}); "
                    "another worker has taken over its runs"
                )
            self._is_recalled = self._recalled.get(batch.worker, 0) != fenced[0]
            self._recalled[batch.worker] = fenced[0]
            if fenced[1]:
                self._slots = Slots(database)
            if self._is_recalled:
                self._questions = _questions(batch, every_claim=True)
        self._ask()
        plan = self.plan
        _write(database, plan, batch.now)
        has_admitted = self._slots is not None and self._slots.write(plan, batch.now)
        posted: list[Posted] = []
        fed: list[Posted] = []
        has_mail = False
        if plan.outgoing or plan.orphaned or plan.watching:
            delivery = Delivery(database, batch.now)
            posted, fed = delivery.deliver(plan, len(batch.posts))
            has_mail = delivery.has_mail
        return Committed(
            started=[decision.started for decision in self.decisions.own],
            posted=posted,
            lost=self._lost,
            reopened=self._reopened,
            fed=fed,
            children=[decision.started for decision in self.decisions.of_turns],
            is_recalled=self._is_recalled,
            has_mail=has_mail,
            has_admitted=has_admitted,
        )

    def _ask(self) -> None:
        """Check the guesses; where one was wrong, decide and plan again."""
        database = self._database
        if "claims" in self._questions:
            claims = (self._questions["claims"], self._batch.worker)
            self._lost = frozenset(_decode(one(database, SQL["lost_claims"], claims)))
        self._reopened = self._reopened_runs()
        dropped = self._lost | self._reopened
        if not self._has_starts:
            if dropped:
                self.plan = make_plan(self._batch, self.decisions, dropped)
            return
        next_run, has_limits = database.execute(SQL["next_run"]).fetchone()
        latest = self._latest()
        same = self._same()
        room: Room | None = None
        if has_limits:
            self._slots = self._slots or Slots(database)
            room = self._slots.room(self._batch, latest.values())
        busy = self.decisions.busy
        if dropped or latest or same or room is not None or next_run != self._guess or busy:
            self.decisions = Judge(self._batch, next_run, latest, same, room).decide(dropped)
            busy = self.decisions.busy & {turn.run for turn in self._batch.turns}
            if busy:
                self._reopened |= busy
                dropped |= busy
                self.decisions = Judge(self._batch, next_run, latest, same, room).decide(dropped)
            self.plan = make_plan(self._batch, self.decisions, dropped)

    def _reopened_runs(self) -> frozenset[int]:
        database, questions = self._database, self._questions
        found: set[int] = set()
        if "closing" in questions:
            unread = one(database, SQL["unread"], (questions["closing"], questions["consumed"]))
            executions = set(_decode(unread))
            found.update(
                turn.run
                for turn in self._batch.turns
                if turn.closes and not turn.force_close and turn.execution in executions
            )
        if "settles" in questions:
            found.update(_decode(one(database, SQL["already_settled"], (questions["settles"],))))
        if "gives_up" in questions:
            found.update(_decode(one(database, SQL["already_decided"], (questions["gives_up"],))))
        return frozenset(found - self._lost)

    def _latest(self) -> dict[Key, Existing]:
        if not self._keys:
            return {}
        found: dict[Key, Existing] = {}
        # Only who brings messages needs to know how many there are.
        most = limits.INBOX_PER_EXECUTION if self._brings_messages else 0
        rows = _decode(one(self._database, SQL["latest"], (to_json(list(self._keys)), most)))
        for namespace, workflow_id, run, execution, run_id, status, *rest in rows:
            workflow, owner, unread, *above = rest
            parent = None if above[0] is None else (above[0], above[1])
            found[namespace, workflow_id] = Existing(
                run, execution, run_id, status_of(status), workflow, owner, parent, unread
            )
        return found

    def _same(self) -> dict[str, Existing]:
        if not self._looks_at:
            return {}
        rows = _decode(one(self._database, SQL["same_run_id"], (to_json(self._looks_at),)))
        return {
            run_id: Existing(run, execution, run_id, status_of(status), workflow)
            for run, execution, run_id, status, workflow in rows
        }


def _questions(batch: Batch, *, every_claim: bool = False) -> dict[str, str]:
    """Encode what must be asked about a batch's turns; what nobody needs is left out.

    A worker that holds its lease owns its runs, unless some were taken from it (``every_claim``).
    """
    claims: list[Any] = []
    closing: list[int] = []
    consumed: list[int] = []
    settles: list[Any] = []
    gives_up: list[Any] = []
    for turn in batch.turns:
        if every_claim or turn.claim is not None or turn.state is not None:
            claims.append((turn.run, turn.claim))
        if turn.closes and not turn.force_close:
            closing.append(turn.execution)
        if turn.consumed:
            consumed += turn.consumed
        if turn.settles:
            settles += [(turn.run, activity) for activity in turn.settles]
        if turn.gives_up:
            gives_up += [(turn.run, id) for id, _ in turn.gives_up]
    found: dict[str, str] = {}
    if claims:
        found["claims"] = to_json(claims)
    if closing:
        found["closing"] = to_json(closing)
        found["consumed"] = to_json(consumed)
    if settles:
        found["settles"] = to_json(settles)
    if gives_up:
        found["gives_up"] = to_json(gives_up)
    return found


def _write(database: Writing, plan: Plan, now: int) -> None:
    execute, json = database.execute, plan.json
    if plan.runs:
        execute(SQL["insert_runs"], (json["runs"],))
        execute(SQL["insert_states"], (json["states"],))
        if plan.forks:
            execute(SQL["insert_forks"], (json["forks"],))
        if plan.memos:
            execute(SQL["insert_memos"], (json["memos"],))
    for text, part in _HISTORY.statements(plan.history):
        execute(text, part)
    if plan.replaced:  # after the rows of this batch: a child may replace one started with it
        _end_replaced(database, plan, now)
        execute(SQL["recall"], (json["replaced"],))
        execute(SQL["end_states"], (json["replaced"], now, _TERMINATED))
    if plan.updates:
        execute(SQL["update_states"], (json["updates"],))
    if plan.touches:
        execute(SQL["touch_states"], (json["touches"],))
    if plan.moved:
        execute(SQL["move_runs"], (json["moved"],))
    if plan.consumed:
        _consume(database, plan)
    if plan.emptied:
        execute(SQL["empty_inboxes"], (json["emptied"],))
    if plan.settled:
        execute(SQL["delete_open_tx"], (json["settled"],))
    if plan.opened:
        execute(SQL["insert_open_tx"], (json["opened"],))
    if plan.asked:
        execute(SQL["insert_human_tasks"], (json["asked"],))
    if plan.given_up:
        execute(SQL["give_up_human_tasks"], (json["given_up"],))
    if plan.closed:  # also what this very turn has opened
        execute(SQL["close_human_tasks_of_runs"], (json["closed"], now))
        execute(SQL["delete_open_tx_of_runs"], (json["closed"],))
        execute(SQL["delete_beats_of_runs"], (json["closed"],))
    if plan.forgotten_attrs:
        execute(SQL["delete_attrs"], (json["forgotten_attrs"],))
    if plan.attrs:
        execute(SQL["insert_attrs"], (json["attrs"],))
    if plan.memo_changes:
        _merge_memos(database, plan.memo_changes)
    if plan.lines:
        execute(SQL["insert_lines"], (json["lines"],))
        execute(SQL["drop_old_lines"], (json["lines"], limits.LOG_LINES))
    if plan.watches:
        execute(SQL["insert_watches"], (json["watches"],))
    if plan.inherited:
        execute(SQL["inherit_memos"], (json["inherited"],))
        execute(SQL["inherit_attrs"], (json["inherited"],))


def _end_replaced(database: Writing, plan: Plan, now: int) -> None:
    """Write the last row of replaced runs: what they had not read, and their end (I7)."""
    unread: dict[int, list[events.Event]] = {}
    for run, data in database.execute(SQL["unread_of_runs"], (plan.json["replaced"],)).fetchall():
        try:
            fact = events.decode_fact(data)
        except (Corrupt, SchemaMismatch):
            continue  # the start that replaces the run need not fail for it
        if not isinstance(fact, events.ACKNOWLEDGED):
            continue
        unread.setdefault(run, []).append(fact)
    rows = [([run], [*facts, REPLACED]) for run, facts in unread.items()]
    rows.append(([run for run in plan.replaced if run not in unread], [REPLACED]))
    for runs, facts in rows:
        payload = events.encode_turn(facts)
        row = (to_json(runs), now, plan.worker, crc32(payload), payload, len(facts))
        database.execute(SQL["end_runs"], row)


def _consume(database: Writing, plan: Plan) -> None:
    # A row that is gone stands in some history already: recording it again would double it (I7).
    gone = database.execute(SQL["consume"], (plan.json["consumed"],)).rowcount
    if gone != len(plan.consumed):
        raise AlreadyRead(
            f"{len(plan.consumed) - gone} of the inbox rows {plan.consumed[:20]} were read before"
        )


def _merge_memos(database: Writing, changes: dict[int, dict[str, Any]]) -> None:
    # SQLite's json_patch would merge inner objects too, and drop nulls inside them.
    stored = dict(_decode(one(database, SQL["memos"], (to_json(list(changes)),))))
    merged: list[Any] = []
    emptied: list[int] = []
    for run, change in changes.items():
        try:
            memo: dict[str, Any] = {**_decode(stored.get(run, "{}")), **change}
        except (msgspec.DecodeError, TypeError) as exc:
            raise StoreRefused(f"the memo of run {run} cannot be read: {exc}") from exc
        memo = {key: value for key, value in memo.items() if value is not None}
        if memo:
            merged.append((run, msgspec.json.encode(memo).decode()))
        else:
            emptied.append(run)
    if merged:
        database.execute(SQL["insert_memos"], (to_json(merged),))
    if emptied:
        database.execute(SQL["delete_memos"], (to_json(emptied),))
