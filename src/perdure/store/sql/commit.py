"""The commit: a worker's batch, and the starts and posts of those who are no workers.

One transaction: the fence, the questions that decide what is dropped, and the rows. A worker's
batch is fenced by the first statement, which also holds the write lock to the end, so that no
takeover can come between (I1, I6). What is dropped leaves no trace: the plan is made again without
it. Every statement takes the whole batch; the number of calls does not grow with it, except that
rows with bytes go in by the hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.errors import AlreadyRead, Corrupt, LeaseLost, SchemaMismatch, Sealed, StoreRefused
from perdure.store.offers import OfferKey
from perdure.store.port import Batch, Committed, Posted, Started
from perdure.store.sealing import Packing
from perdure.store.sql import audit, keeping, leaving, tallies
from perdure.store.sql.database import Answer, Database, Writing, one
from perdure.store.sql.encoding import from_json, status_of, to_json
from perdure.store.sql.offers import Offers
from perdure.store.sql.plan import REPLACED, Plan, make_plan
from perdure.store.sql.posting import Delivery
from perdure.store.sql.rooms import Room
from perdure.store.sql.slots import Slots
from perdure.store.sql.starting import (
    Decisions,
    Existing,
    Judge,
    Key,
    needs_look,
    requests_of,
)
from perdure.store.sql.ties import NONE, UNKNOWN, Ties
from perdure.values import events, limits
from perdure.values.erasing import ERASURES
from perdure.values.states import CODES, Status

_HISTORY_COLUMNS = 8
_OFFER_COLUMNS = 14
_TERMINATED = CODES[Status.TERMINATED]
_NOBODY: frozenset[int] = frozenset()


class Committer:
    """Writes batches on one database.

    ``_last_run``: the last number of a run that is known here, for a guess that each batch checks.
    ``_recalled``: how many runs each worker knew to have been taken from it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_run = 0
        self._recalled: dict[int, int] = {}

    def commit(self, batch: Batch) -> Committed:
        """Write a worker's batch: see the port."""
        recalled = self._recalled.get(batch.worker, 0)
        attempt = _Attempt(self._database, batch, is_fenced=True, recalled=recalled)
        result = self._transact(attempt)
        self._recalled[batch.worker] = attempt.recalled
        return result

    def start(self, batch: Batch) -> list[Started]:
        """Write the starts of somebody who is no worker; a repeated run id changes nothing."""
        return list(self._transact(_Attempt(self._database, batch, is_fenced=False)).started)

    def start_on(
        self,
        database: Writing,
        batch: Batch,
        within: Callable[[Callable[[], Committed]], Committed],
    ) -> list[Started]:
        """Write starts in a caller's own transaction; ``within(write)`` calls ``write`` there."""
        attempt = _Attempt(database, batch, is_fenced=False)
        attempt.prepare(self._last_run)
        return list(within(attempt.write).started)

    def within(self, database: Writing, batch: Batch) -> Committed:
        """Write starts and posts in a transaction of ours that was begun before."""
        attempt = _Attempt(database, batch, is_fenced=False)
        attempt.prepare(self._last_run)
        result = attempt.write()
        database.written += attempt.plan.bytes
        return result

    def post(self, batch: Batch) -> list[Posted]:
        """Write posts."""
        return list(self._transact(_Attempt(self._database, batch, is_fenced=False)).posted)

    def _transact(self, attempt: _Attempt) -> Committed:
        database = self._database
        attempt.prepare(self._last_run)
        result = database.write(attempt.write)
        database.written += attempt.plan.bytes
        self._last_run = max(self._last_run, attempt.decisions.last_run)
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
        recalled: int = 0,
    ) -> None:
        self._database = database
        self._packing = Packing(database.seal)
        self._batch = batch
        self._is_fenced = is_fenced
        self._known = self.recalled = recalled
        self._lost = _NOBODY
        self._reopened = _NOBODY
        self._keys: dict[Key, None] = {}
        self._brings_messages = self._has_places = self._keeps = False
        self._is_audited = bool(batch.audit)
        self._looks_at: list[str] = []
        forced = any(turn.closes and turn.force_close for turn in batch.turns)
        self._ties = UNKNOWN if forced else NONE
        self._slots: Slots | None = None
        """Only if anything is limited."""

    def prepare(self, last_run: int) -> None:
        """Encode the batch on the guess that nothing stands in its way."""
        starts = 0
        for request in requests_of(self._batch):
            starts += 1
            self._brings_messages |= bool(request.messages)
            self._is_audited |= request.audit is not None
            self._has_places |= bool(request.places or request.charges)
            self._keeps |= request.keep_for is not None
            if request.first is not None and request.execution is not None:
                self._ties = UNKNOWN  # its execution is not new, and may end with its first turn
            if needs_look(request):
                self._keys[request.namespace, request.workflow_id] = None
            if not self._is_fenced:
                self._looks_at.append(request.run_id)
        self._is_audited |= any(post.audit is not None for post in self._batch.posts)
        self._questions = _questions(self._batch)
        self._starts = starts
        self._guess: tuple[Decisions, Plan] | None = None
        runs = self._database.guess_runs(starts, last_run) if starts else ()
        if runs is not None:
            self._lay_out(runs)

    def _lay_out(self, runs: Sequence[int]) -> None:
        self._runs = runs
        decisions = Judge(self._batch, runs, {}, {}).decide(_NOBODY)
        self._guess = decisions, make_plan(self._batch, decisions, _NOBODY, self._packing)

    def write(self) -> Committed:
        """Write the batch inside the transaction that was begun; it may have to be begun again."""
        batch, database = self._batch, self._database
        is_recalled = has_limits = False
        counts = 0
        # The fence first; and everything is asked before the first answer is waited for.
        fence: Answer | None = None
        if self._is_fenced:
            marks = (batch.worker, batch.epoch, batch.number, batch.lease_until, batch.now)
            fence = database.run("fence", *marks)
        drawn = database.draw_runs(self._starts) if self._guess is None else None
        foreseen = database.foresee(batch)
        if fence is not None:
            fenced = fence.fetchone()
            if fenced is None:
                raise LeaseLost(
                    f"worker {batch.worker} no longer holds its lease (epoch {batch.epoch}); "
                    "another worker has taken over its runs"
                )
            self.recalled, has_limits, counts = fenced
            is_recalled = self.recalled != self._known
        elif self._starts:
            has_limits, counts = database.run("has_limits").fetchone()
        if drawn is not None:
            self._lay_out([row[0] for row in drawn.fetchall()])
        assert self._guess is not None
        self.decisions, self.plan = self._guess
        database.hold(foreseen, limits=bool(has_limits))
        self._slots = Slots(database) if has_limits else None
        self._ask(_questions(batch, every_claim=True) if is_recalled else self._questions)
        plan = self.plan
        ties = self._ties.with_rows_of(plan)
        _write(database, plan, ties, batch.now)
        if self._keeps:
            keeping.write(database, self.decisions, batch.now)
        if counts or plan.counted:
            tallies.write(database, plan, counts)
        has_admitted = self._slots is not None and self._slots.write(plan, batch.now)
        posted: list[Posted] = []
        fed: list[Posted] = []
        has_mail = False
        if plan.outgoing or plan.orphaned or plan.watching:
            delivery = Delivery(database, batch.now, self._packing)
            posted, fed = delivery.deliver(plan, len(batch.posts), ties)
            has_mail = delivery.has_mail
        told: list[Posted] = []
        void: frozenset[OfferKey] = frozenset()
        if batch.outcomes:
            told, void = Offers(database).settle(batch.outcomes, batch.worker, batch.now)
        if self._is_audited:  # last of all: what is locked here is everybody's
            told_of = list(audit.of_batch(batch, self.decisions.own, posted))
            if told_of:
                audit.append(database, told_of, batch.now)
        return Committed(
            started=[decision.started for decision in self.decisions.own],
            posted=posted,
            lost=self._lost,
            reopened=self._reopened,
            fed=fed,
            children=[decision.started for decision in self.decisions.of_turns],
            is_recalled=is_recalled,
            has_mail=has_mail,
            has_admitted=has_admitted,
            next_at=None if self._slots is None else self._slots.next_at,
            told=told,
            void=void,
        )

    def _ask(self, questions: Mapping[str, str]) -> None:
        """Check the guesses; where one was wrong, decide and plan again."""
        batch, database = self._batch, self._database
        asked: dict[str, Answer] = {}
        if "claims" in questions:
            asked["claims"] = database.run("lost_claims", questions["claims"], batch.worker)
        if "closing" in questions:
            closing = questions["closing"], questions["consumed"], questions["closing_runs"]
            asked["closing"] = database.run("ties", *closing)
        if "settles" in questions:
            asked["settles"] = database.run("already_settled", questions["settles"])
        if "gives_up" in questions:
            asked["gives_up"] = database.run("already_decided", questions["gives_up"])
        answers = {name: from_json(one.fetchone()[0]) for name, one in asked.items()}
        if "closing" in answers:
            answers["closing"], *found = answers["closing"]
            if self._ties is not UNKNOWN:
                self._ties = Ties(*map(bool, found))
        self._lost = frozenset(answers.get("claims", ()))
        self._reopened = self._reopened_runs(answers)
        dropped = self._lost | self._reopened
        if not self._starts:
            if dropped:
                self.plan = make_plan(batch, self.decisions, dropped, self._packing)
            return
        latest = self._latest()
        leaving.mark(database, batch, latest)
        self._decide(latest, self._same(), dropped)

    def _decide(
        self, latest: dict[Key, Existing], same: dict[str, Existing], dropped: frozenset[int]
    ) -> None:
        """Judge the starts, and plan again if anything is not as it was guessed."""
        batch, database = self._batch, self._database
        room: Room | None = None
        if self._slots is not None:
            room = self._slots.room(batch, latest.values())
        places = tallies.places(database, batch, latest.values()) if self._has_places else None
        runs = database.new_runs(self._runs, _highest(batch, latest))
        busy = self.decisions.busy
        is_limited = room is not None or places is not None
        if dropped or latest or same or is_limited or runs != self._runs or busy:
            judged = batch, runs, latest, same, room, places
            late: frozenset[str] = frozenset()
            for _ in range(1 + len(batch.turns) + self._starts):  # each round leaves somebody out
                judge = Judge(*judged)
                self.decisions = judge.decide(dropped, late)
                if judge.has_found_leaving:
                    database.hold_anew()
                    self._decide(latest, same, dropped)
                    return
                if not (busy := self.decisions.busy):
                    break
                self._reopened |= busy & {turn.run for turn in batch.turns}
                dropped |= self._reopened
                own = self.decisions.own
                late |= {
                    it.request.run_id for it in own if it.is_written and it.started.run in busy
                }
            self.plan = make_plan(batch, self.decisions, dropped, self._packing)

    def _reopened_runs(self, answers: Mapping[str, list[int]]) -> frozenset[int]:
        found = {*answers.get("settles", ()), *answers.get("gives_up", ())}
        if unread := set(answers.get("closing", ())):
            found.update(
                turn.run
                for turn in self._batch.turns
                if turn.closes and not turn.force_close and turn.execution in unread
            )
        return frozenset(found - self._lost)

    def _latest(self) -> dict[Key, Existing]:
        if not self._keys:
            return {}
        found: dict[Key, Existing] = {}
        # Only who brings messages needs to know how many there are.
        most = limits.INBOX_PER_EXECUTION if self._brings_messages else 0
        rows = from_json(one(self._database, "latest", to_json(list(self._keys)), most))
        for namespace, workflow_id, run, execution, run_id, status, *rest in rows:
            workflow, owner, unread, *above = rest
            parent = None if above[0] is None else (above[0], above[1])
            facts = run, execution, run_id, status_of(status), workflow, owner, parent, unread
            tenant, is_erased, parent_close = above[2], above[3] in ERASURES, above[4]
            asked_by = above[5] or ""
            found[namespace, workflow_id] = Existing(
                *facts, tenant, is_erased, parent_close, asked_by
            )
        return found

    def _same(self) -> dict[str, Existing]:
        if not self._looks_at:
            return {}
        rows = from_json(one(self._database, "same_run_id", to_json(self._looks_at)))
        return {
            run_id: Existing(run, execution, run_id, status_of(status), workflow)
            for run, execution, run_id, status, workflow in rows
        }


def _highest(batch: Batch, latest: Mapping[Key, Existing]) -> int:
    """Return the highest run that a new one of the same execution or workflow id may follow."""
    found = [existing.run for existing in latest.values()]
    found += [turn.run for turn in batch.turns if turn.continued is not None]
    return max(found, default=0)


def _questions(batch: Batch, *, every_claim: bool = False) -> dict[str, str]:
    """Encode what must be asked about a batch's turns; what nobody needs is left out.

    A worker that holds its lease owns its runs, unless some were taken from it (``every_claim``).
    """
    claims: list[Any] = []
    closing: list[int] = []
    closing_runs: list[int] = []
    consumed: list[int] = []
    settles: list[Any] = []
    gives_up: list[Any] = []
    for turn in batch.turns:
        if every_claim or turn.claim is not None or turn.state is not None:
            claims.append((turn.run, turn.claim, int(turn.applied)))
        if turn.closes and not turn.force_close:
            closing.append(turn.execution)
            closing_runs.append(turn.run)
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
        found["closing_runs"] = to_json(closing_runs)
        found["consumed"] = to_json(consumed)
    if settles:
        found["settles"] = to_json(settles)
    if gives_up:
        found["gives_up"] = to_json(gives_up)
    return found


def _write(database: Writing, plan: Plan, ties: Ties, now: int) -> None:
    run, json = database.run, plan.json
    if plan.runs:
        run("insert_runs", json["runs"])
        if plan.tags:
            run("insert_tags", json["tags"])
        run("insert_states", json["states"])
        if plan.copies:
            run("insert_copies", json["copies"])
        if plan.forks:
            run("insert_forks", json["forks"])
        if plan.memos:
            run("insert_memos", json["memos"])
    if plan.history:
        database.insert("insert_history", _HISTORY_COLUMNS, plan.history)
    if plan.blobs:
        run("insert_blobs", json["blobs"])
        plan.packing.check_fresh()
    if plan.replaced:  # after the rows of this batch: a child may replace one started with it
        _end_replaced(database, plan, now)
        run("delete_tasks_of_runs", json["replaced"])
        run("recall", json["replaced"])
        run("end_states", json["replaced"], now, _TERMINATED)
    if plan.updates:
        run("update_states", json["updates"])
    if plan.touches:
        run("touch_states", json["touches"])
    if plan.progress:
        run("set_progress", json["progress"])
    if plan.moved:
        run("move_runs", json["moved"])
    if plan.consumed:
        _consume(database, plan)
    if plan.emptied:
        run("empty_inboxes", json["emptied"])
    if plan.settled:
        run("delete_open_tx", json["settled"])
    if plan.opened:
        run("insert_open_tx", json["opened"])
    if plan.withdrawn:
        run("delete_tasks", json["withdrawn"])
    if plan.offered:
        database.insert("insert_tasks", _OFFER_COLUMNS, plan.offered)
    if plan.asked:
        run("insert_human_tasks", json["asked"])
    if plan.given_up:
        run("give_up_human_tasks", json["given_up"])
    if plan.closed:
        if ties.people:
            run("close_human_tasks_of_runs", json["closed"], now)
        if ties.transactions:
            run("delete_open_tx_of_runs", json["closed"])
        if ties.beats:
            run("delete_beats_of_runs", json["closed"])
    if plan.forgotten_attrs:
        run("delete_attrs", json["forgotten_attrs"])
    if plan.attrs:
        run("insert_attrs", json["attrs"])
    if plan.memo_changes:
        _merge_memos(database, plan.memo_changes)
    if plan.lines:
        run("insert_lines", json["lines"])
        run("drop_old_lines", json["lines"], limits.LOG_LINES)
    if plan.watches:
        run("insert_watches", json["watches"])
    if plan.inherited:
        run("inherit_memos", json["inherited"])
        run("inherit_attrs", json["inherited"])
        run("inherit_tags", json["inherited"])


def _end_replaced(database: Writing, plan: Plan, now: int) -> None:
    """Write the last row of replaced runs: what they had not read, and their end (I7)."""
    unread: dict[int, list[events.Event]] = {}
    for run, data in database.run("unread_of_runs", plan.json["replaced"]).fetchall():
        try:
            fact = events.decode_fact(database.seal.open(data))
        except (Corrupt, Sealed, SchemaMismatch):
            continue  # the start that replaces the run need not fail for it
        if not isinstance(fact, events.ACKNOWLEDGED):
            continue
        unread.setdefault(run, []).append(fact)
    rows = [([run], [*facts, REPLACED]) for run, facts in unread.items()]
    rows.append(([run for run in plan.replaced if run not in unread], [REPLACED]))
    for runs, facts in rows:
        payload = database.seal.seal(events.encode_turn(facts), is_control=facts == [REPLACED])
        row = (to_json(runs), now, plan.worker, crc32(payload), payload, len(facts))
        database.run("end_runs", *row)


def _consume(database: Writing, plan: Plan) -> None:
    # A row that is gone stands in some history already: recording it again would double it (I7).
    gone = database.run("consume", plan.json["consumed"]).rowcount
    if gone != len(plan.consumed):
        raise AlreadyRead(
            f"{len(plan.consumed) - gone} of the inbox rows {plan.consumed[:20]} were read before"
        )


def _merge_memos(database: Writing, changes: dict[int, dict[str, Any]]) -> None:
    # A database's own merge would merge inner objects too, and drop nulls inside them.
    stored = dict(from_json(one(database, "memos", to_json(list(changes)))))
    seal = database.seal
    merged: list[Any] = []
    emptied: list[int] = []
    for run, change in changes.items():
        try:
            text = seal.open_text(stored.get(run, "{}"))
            memo: dict[str, Any] = {**from_json(text or "{}"), **change}
        except (msgspec.DecodeError, TypeError, Corrupt, Sealed) as exc:
            raise StoreRefused(f"the memo of run {run} cannot be read: {exc}") from exc
        memo = {key: value for key, value in memo.items() if value is not None}
        if memo:
            merged.append((run, seal.seal_text(msgspec.json.encode(memo).decode())))
        else:
            emptied.append(run)
    if merged:
        database.run("insert_memos", to_json(merged))
    if emptied:
        database.run("delete_memos", to_json(emptied))
