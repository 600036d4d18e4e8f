"""What a batch writes, as rows: made before the transaction begins.

Holding the write lock while Python encodes would make every other writer wait, and on a machine
with one busy thread each switch costs up to 5 ms. So a :class:`Plan` is made on the guess that no
turn is dropped and no start refused; the transaction checks the guess, and only where it was wrong
is a second plan made inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.store.offers import Stage
from perdure.store.port import Batch, LogLine, Post, StartRequest, StateWrite, TurnWrite, Watch
from perdure.store.sealing import Packing
from perdure.store.sql.encoding import attribute_of, memo_text, to_json
from perdure.store.sql.people import asked_row
from perdure.store.sql.starting import Decision, Decisions
from perdure.store.sql.watching import Row, row_of
from perdure.values import events
from perdure.values.concurrency import Place, Queued, lane_of
from perdure.values.failures import FailureInfo
from perdure.values.people import CODES as PEOPLE
from perdure.values.states import CODES, Status

_PENDING = CODES[Status.PENDING]
_RUNNING = CODES[Status.RUNNING]
_NOTHING = (None,) * 5
_FULL = "ConcurrencyLimit"
_LIMITED = {"limit": _FULL, "place": _FULL, "rate": "RateLimited", "budget": "BudgetExceeded"}

REPLACED = events.RunTerminated(reason="a new start took its place", by="terminate_existing")
_TAKEN = FailureInfo("a new start took its place", kind="Canceled", type="WorkflowTerminated")


class Outgoing(msgspec.Struct, gc=False):
    """A row for an inbox. ``place``: its index in ``Batch.posts``, or -1.

    ``home``: execution of the run that sends, into whose inbox a refusal goes.
    """

    post: Post
    place: int = -1
    home: int = 0


class Plan:
    """Rows by statement. Lists become JSON in :meth:`encoded`; ``history`` is laid end to end."""

    __slots__ = (
        "_limit",
        "asked",
        "attrs",
        "blobs",
        "bytes",
        "closed",
        "consumed",
        "copies",
        "counted",
        "emptied",
        "ended",
        "forgotten_attrs",
        "forks",
        "given_up",
        "history",
        "inherited",
        "json",
        "later",
        "lines",
        "memo_changes",
        "memos",
        "moved",
        "offered",
        "opened",
        "orphaned",
        "outgoing",
        "packing",
        "paused",
        "progress",
        "replaced",
        "resumed",
        "runs",
        "settled",
        "slots",
        "states",
        "tags",
        "touches",
        "updates",
        "watches",
        "watching",
        "withdrawn",
        "worker",
    )

    def __init__(self, worker: int, packing: Packing) -> None:
        self.worker = worker
        self.packing = packing
        self._limit = packing.limit
        self.blobs: list[Any] = []
        self.history: list[Any] = []
        self.runs: list[Any] = []
        self.tags: list[Any] = []
        self.states: list[Any] = []
        self.memos: list[Any] = []
        self.updates: list[Any] = []
        self.touches: list[Any] = []
        self.progress: list[Any] = []
        self.consumed: list[int] = []
        self.moved: list[Any] = []
        self.opened: list[Any] = []
        self.settled: list[Any] = []
        self.offered: list[Any] = []
        self.withdrawn: list[Any] = []
        self.asked: list[Any] = []
        self.given_up: list[Any] = []
        self.closed: list[int] = []
        self.ended: list[int] = []
        self.inherited: list[Any] = []
        self.orphaned: list[int] = []
        self.emptied: list[int] = []
        self.replaced: list[int] = []
        self.forgotten_attrs: list[Any] = []
        self.attrs: list[Any] = []
        self.copies: list[Any] = []
        self.forks: list[Any] = []
        self.memo_changes: dict[int, dict[str, Any]] = {}
        self.outgoing: list[Outgoing] = []
        self.watches: list[Row] = []
        self.watching: list[tuple[Watch, int]] = []
        self.lines: list[Any] = []
        self.slots: list[Any] = []
        self.later: list[Any] = []
        self.paused: list[int] = []
        self.resumed: list[int] = []
        self.counted: list[tuple[int, StartRequest]] = []
        self.json: dict[str, str] = {}
        self.bytes = 0

    def start(self, decision: Decision, now: int) -> None:
        """Add a start. Its first row is blind, unless the code ran in the same commit."""
        request, started = decision.request, decision.started
        run, execution = started.run, started.execution
        parent = decision.parent or (None, None)
        self.runs.append(
            (
                run,
                request.run_id,
                execution,
                request.namespace,
                request.workflow_id,
                request.workflow,
                request.version,
                request.queue,
                request.attempt,
                parent[0],
                parent[1],
                request.parent_close,
                request.created_by,
                request.correlation_id,
                request.tenant,
                to_json(request.tags) if request.tags else None,
                request.created_at or (now if request.first is None else request.first.time),
                request.not_before or None,
            )
        )
        if request.tags:
            self.tags += [(request.namespace, tag, run) for tag in dict.fromkeys(request.tags)]
        is_alone = request.first is None or decision.is_queued
        if request.copied:
            self._copy(request, run)
        elif is_alone:
            event = request.event if request.first is None else _first_event(request.first)
            event = self._packed(event, run, 1)
            self.history += (run, 1, 1, now, 0, self.worker, crc32(event), event)
            self.bytes += len(event)
        if request.memo is not None:
            self.memos.append((run, self._text(memo_text(request.memo))))
        if request.search:
            self._search(run, request.search, is_new=True)
        if request.watches and request.parent is None:
            self.watches += [row_of(watch, execution, None) for watch in request.watches]
        if decision.follows:
            self.inherited.append((run, decision.follows))
        if decision.place is not None:
            self._take_place(decision, decision.place, now)
        elif decision.follows:
            is_later = request.not_before > now
            since, deadline = max(request.not_before, now), request.deadline or None
            self.later.append((execution, since, deadline, is_later))
        if request.places or request.budget or request.charges:
            self.counted.append((execution, request))
        self.states.append((*self._first_state(decision, run, execution, now), *_lane(request)))
        if request.state is None and request.first is not None and not decision.is_queued:
            rest = msgspec.structs.replace(request.first, state=None, claim=None, progress=None)
            self.turn(rest, run, execution)
        if decision.ends is not None:
            self._replace(decision, now)

    def _copy(self, request: StartRequest, run: int) -> None:
        for row in request.copied:
            place = (run, row.first, row.count, row.time, row.applied, row.worker)
            payload = self._packed(row.payload, run, row.first)
            self.history += (*place, crc32(payload), payload)
            self.bytes += len(payload)
        if others := request.copied[: len(request.copied) - request.own]:
            self.copies.append((run, others[-1].first + others[-1].count - 1))
        if request.origin is not None:
            self.forks.append((run, *request.origin))

    def turn(self, turn: TurnWrite, run: int, execution: int) -> None:
        """Add a turn. The order of the tests follows how often they hold."""
        payload = turn.payload
        if len(payload) > self._limit:
            payload = self._packed(payload, run, turn.first)
        self.history += (
            run,
            turn.first,
            turn.count,
            turn.time,
            turn.applied,
            self.worker,
            crc32(payload),
            payload,
        )
        self.bytes += len(payload)
        if turn.state is not None or turn.claim is not None or turn.progress is not None:
            self._state(turn, run)
        if turn.consumed:
            self.consumed += turn.consumed
        if turn.posts:
            self.outgoing += [Outgoing(post, -1, execution) for post in turn.posts]
        if turn.watches:
            self.watching += [(watch, execution) for watch in turn.watches]
        if turn.closes:
            self._close(turn, run, execution)
        if turn.opens:
            self.opened += [(run, activity, attempt) for activity, attempt in turn.opens]
        if turn.settles:
            self.settled += [(run, activity) for activity in turn.settles]
        if turn.asks:
            self.asked += [
                asked_row(asked, run, execution, turn.time, self._text) for asked in turn.asks
            ]
        if turn.gives_up:
            self.given_up += [(id, PEOPLE[status], turn.time) for id, status in turn.gives_up]
        if turn.withdraws:
            self.withdrawn += [(run, activity) for activity in turn.withdraws]
        if turn.offers:
            self._offer(turn, run, execution)
        if turn.version is not None:
            self.moved.append((run, turn.version))
        if turn.search:
            self._search(run, turn.search, is_new=False)
        if turn.memo:
            self.memo_changes[run] = turn.memo
        if turn.lines:
            self.log(turn.lines, run)

    def log(self, lines: Sequence[LogLine], run: int = 0) -> None:
        """Add log lines; ``run`` if they do not name theirs."""
        for line in lines:
            data = self._text(None if line.data is None else line.data.decode())
            message, place = self._text(line.message), (line.step, line.attempt)
            self.lines.append((run or line.run, line.at, line.level, message, data, *place))

    def _offer(self, turn: TurnWrite, run: int, execution: int) -> None:
        for it in turn.offers:
            stage = Stage.DELAYED if it.not_before > turn.time else Stage.READY
            what = (it.activity, it.attempt, it.queue, it.name, it.lane, -it.priority, int(stage))
            times = (it.scheduled_at or turn.time, it.not_before, it.due)
            self.offered += (run, execution, *what, *times, it.lost)
            self.offered.append(self.packing.seal.seal(it.call))
            self.bytes += len(it.call)

    def encoded(self) -> Plan:
        """Encode everything that is not bytes."""
        for name in _AS_JSON:
            rows = getattr(self, name)
            if rows:
                text = self.json[name] = to_json(rows)
                self.bytes += len(text)
        return self

    def _packed(self, payload: bytes, run: int, first: int) -> bytes:
        """Return what the history row holds for a payload: sealed, or where it lies."""
        if len(payload) <= self._limit:
            return payload
        stored, blob = self.packing.row(payload)
        if blob:
            self.blobs.append((blob, run, first))
        return stored

    def _text(self, text: str | None) -> str | None:
        """Return what is stored for a user's text."""
        return None if text is None else self.packing.seal.seal_text(text)

    def _take_place(self, decision: Decision, place: Place, now: int) -> None:
        request, execution = decision.request, decision.started.execution
        since, deadline = max(request.not_before, now), request.deadline or None
        row = (execution, request.workflow, request.key, request.priority, since, deadline, place)
        self.slots.append((*row, lane_of(request.tenant, request.key)))

    def _first_state(
        self, decision: Decision, run: int, execution: int, now: int
    ) -> tuple[Any, ...]:
        request = decision.request
        first = request.first
        if decision.is_queued:
            due, nothing = request.deadline or None, (None, Queued.QUEUED, None, None, None)
            return (run, execution, _PENDING, None, due, _length(request), *nothing, now, None, 0)
        if decision.state is not None:
            return (run, execution, *self._columns(decision.state, None))
        if first is None:
            begins = request.not_before if request.not_before > now else None
            status = _RUNNING if begins is None else _PENDING
            reason = Queued.DELAYED if decision.place is Place.DELAYED else None
            nothing = (None, reason, None, None, None)
            length = _length(request)
            return (run, execution, status, None, begins, length, *nothing, now, None, 0)
        if first.state is not None:
            return (run, execution, *self._columns(first.state, first.progress))
        progress = self._text(first.progress)
        return (run, execution, _RUNNING, self.worker, None, 1, *_NOTHING, now, progress, 0)

    def _columns(self, state: StateWrite, progress: str | None) -> tuple[Any, ...]:
        return (
            CODES[state.status],
            self.worker if state.owned else None,
            state.wake_at,
            state.length,
            state.closed_at,
            state.reason,
            self._text(state.detail),
            state.unblock,
            state.waits,
            state.since,
            self._text(progress),
            state.unread,
        )

    def _state(self, turn: TurnWrite, run: int) -> None:
        state = turn.state
        if state is None:
            if turn.claim is not None:
                self.touches.append((run, self.worker, self._text(turn.progress)))
            else:
                self.progress.append((run, self._text(turn.progress)))
            return
        if state.status is Status.PAUSED:
            self.paused.append(turn.execution)
        elif state.status is Status.PENDING:
            self.resumed.append(turn.execution)
        self.updates.append((run, *self._columns(state, turn.progress), state.keeps_lost))

    def _close(self, turn: TurnWrite, run: int, execution: int) -> None:
        self.closed.append(run)
        if turn.closes_children:
            self.orphaned.append(execution)
        if turn.continued is None:
            # Children and unread messages of a continued run pass to the next one.
            self.ended.append(execution)
            self.orphaned.append(execution)
            if turn.force_close:
                self.emptied.append(execution)

    def _replace(self, decision: Decision, now: int) -> None:
        old = decision.ends
        assert old is not None
        self.replaced.append(old.run)
        self.closed.append(old.run)
        self.ended.append(old.execution)
        self.orphaned.append(old.execution)
        self.emptied.append(old.execution)
        if old.parent is not None:
            closed = events.ChildClosed(
                child=old.parent[1],
                status=Status.TERMINATED,
                failure=_TAKEN,
                run_id=old.run_id,
                at=now,
                asked_by=old.asked_by,
            )
            event = events.encode_turn([closed])
            self.outgoing.append(Outgoing(Post(event, execution=old.parent[0], is_control=True)))

    def _search(self, run: int, search: dict[str, Any], *, is_new: bool) -> None:
        for key, value in search.items():
            if not is_new:
                self.forgotten_attrs.append((run, key))
            if isinstance(value, list):
                texts: list[Any] = list(dict.fromkeys(value))  # pyright: ignore[reportUnknownArgumentType]
                self.attrs += [
                    (run, key, attribute_of(run, key, text, str), place)
                    for place, text in enumerate(texts)
                ]
            elif value is not None:
                form = -1 if isinstance(value, bool) else None
                kinds = (str, int, float)
                self.attrs.append((run, key, attribute_of(run, key, value, kinds), form))


_AS_JSON = (
    "runs",
    "tags",
    "moved",
    "states",
    "memos",
    "updates",
    "progress",
    "touches",
    "consumed",
    "opened",
    "settled",
    "asked",
    "given_up",
    "withdrawn",
    "closed",
    "ended",
    "inherited",
    "orphaned",
    "emptied",
    "replaced",
    "forgotten_attrs",
    "copies",
    "forks",
    "attrs",
    "watches",
    "lines",
    "blobs",
)


def make_plan(
    batch: Batch, decisions: Decisions, dropped: frozenset[int], packing: Packing
) -> Plan:
    """Lay out what the batch writes if these decisions hold and these runs' turns are dropped."""
    plan = Plan(batch.worker, packing)
    if batch.lines:
        plan.log(batch.lines)
    for decision in decisions.everything():
        if decision.is_written:
            plan.start(decision, batch.now)
        else:
            _refuse(plan, decision)
    for turn in batch.turns:
        if not dropped or turn.run not in dropped:
            plan.turn(turn, turn.run, turn.execution)
    plan.outgoing += [Outgoing(post, place) for place, post in enumerate(batch.posts)]
    return plan.encoded()


def _refuse(plan: Plan, decision: Decision) -> None:
    request = decision.request
    if not decision.started.created and not decision.started.refused:
        # An execution that is used instead of a new one gets the start's messages.
        execution = decision.started.execution
        plan.outgoing += [Outgoing(Post(event, execution=execution)) for event in request.messages]
        home = decision.parent[0] if decision.parent is not None else None
        plan.watches += [row_of(watch, execution, home) for watch in request.watches]
    if decision.started.refused and request.refusal is not None and decision.parent is not None:
        event = request.refusal
        if decision.started.refused in _LIMITED:
            type = _LIMITED[decision.started.refused]
            event = _refused_for(event, decision.started.detail, "RateLimited", type)
        elif decision.started.refused == "full":
            why = f"the inbox of workflow {request.workflow_id!r} is full"
            event = _refused_for(event, why, "Unavailable", "Unavailable")
        refusal = Post(event, execution=decision.parent[0], is_control=True)
        plan.outgoing.append(Outgoing(refusal))


def _refused_for(refusal: bytes, why: str, kind: str, type: str) -> bytes:
    """Return a child's refusal with another reason."""
    event = events.decode_turn(refusal)[0]
    assert isinstance(event, events.ChildClosed)
    failure = FailureInfo(why, kind, type, retryable=type != _LIMITED["budget"])
    return events.encode_turn([msgspec.structs.replace(event, failure=failure)])


def _lane(request: StartRequest) -> tuple[str | None, int | None]:
    """Return lane and priority; a later run of an execution has those of the run before."""
    if request.execution:
        return None, None
    return request.tenant or request.key, request.priority


def _length(request: StartRequest) -> int:
    """Return the length of the history that a run without a first turn begins with."""
    last = request.copied[-1] if request.copied else None
    return last.first + last.count - 1 if last is not None else 1


def _first_event(first: TurnWrite) -> bytes:
    """Return event 1 alone: the rest of the first turn has not happened."""
    return events.encode_turn(events.decode_turn(first.payload)[:1])
