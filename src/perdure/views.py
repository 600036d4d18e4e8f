"""What people and programs are shown of a run: pure functions over stored rows.

Lists, details, histories, exports and the ``why`` sentence read the same committed rows, so they
never disagree.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from perdure import errors
from perdure.store.port import Fork, Listed, Place, RunRow, TurnRow, Worker
from perdure.values import endings, payload
from perdure.values import events as ev
from perdure.values.budgets import Budget, budget_of
from perdure.values.duration import SECOND
from perdure.values.meters import BudgetRow
from perdure.values.states import Status

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kin(msgspec.Struct, frozen=True):
    """Another run that shares a history up to ``event`` of the older one.

    ``how``: "fork", "retry" or "import". ``id`` and ``run_id`` are empty if it has been deleted.
    """

    id: str
    run_id: str
    event: int
    how: str


class Execution(msgspec.Struct, frozen=True):
    """An execution as lists and details show it. Lists leave input, output and error out, and how
    long it is kept.

    ``retention_seconds``: how long it is kept after its end; 0: for ever; ``None``: no worker has
    said so yet. ``deleted_at``: if it has ended, when it will be deleted, or soon after.
    ``budgets``: of which it spends, its own and those of the runs above it, by unit.
    ``sealed``: why ``detail``, ``progress`` and ``memo`` could not be opened in this process.
    """

    id: str
    run_id: str
    workflow: str
    version: str
    status: Status
    created_at: datetime
    started_at: datetime
    completed_at: datetime | None = None
    current_step: str | None = None
    input: Any = None
    output: Any = None
    error: Any = None
    reason: str | None = None
    detail: str | None = None
    unblock: str | None = None
    progress: Any = None
    memo: Any = None
    search: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    task_queue: str = "default"
    namespace: str = "default"
    attempt: int = 1
    history_length: int = 0
    correlation_id: str | None = None
    tenant: str | None = None
    created_by: str | None = None
    step_results: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    origin: Kin | None = None
    forks: tuple[Kin, ...] = ()
    sealed: str = ""
    retention_seconds: float | None = None
    deleted_at: datetime | None = None
    budgets: tuple[Budget, ...] = ()


class HistoryEvent(msgspec.Struct, frozen=True):
    """One event: its id, kind, the turn's time, who recorded it, and its fields as plain data."""

    id: int
    kind: str
    time: datetime
    worker: int
    data: dict[str, Any]


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some of a list, and the cursor of the next page (``None``: there is none)."""

    items: list[T]
    cursor: str | None = None


class Count(int):
    """How many there are. Unless ``is_exact``, there are more, or may be: ``str`` adds a ``+``."""

    is_exact: bool

    def __new__(cls, number: int, *, is_exact: bool = True) -> Self:
        """Make one of a number."""
        count = super().__new__(cls, number)
        count.is_exact = is_exact
        return count

    def __str__(self) -> str:
        return f"{int(self)}{'' if self.is_exact else '+'}"


class WorkerView(msgspec.Struct, frozen=True):
    """A worker as people see it."""

    id: int
    name: str
    pid: int
    host: str
    state: str
    started_at: datetime
    workflows: tuple[str, ...]
    queues: tuple[str, ...]


def to_datetime(microseconds: int) -> datetime:
    """Return an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=microseconds)


def from_datetime(value: datetime) -> int:
    """Return microseconds since 1970.

    Raises:
        Invalid: a naive datetime.
    """
    if value.tzinfo is None:
        raise errors.Invalid(f"{value!r} has no time zone")
    return (value - _EPOCH) // timedelta(microseconds=1)


def page(found: Listed) -> Page[Execution]:
    """Show a page of a list."""
    cursor = None if found.goes_on is None else encode_cursor(found.goes_on)
    return Page([execution(row) for row in found.rows], cursor)


def encode_cursor(place: Place) -> str:
    """Return an opaque keyset cursor."""
    return base64.urlsafe_b64encode(b"r%d.%d" % (place.run, place.at)).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place:
    """Read a cursor.

    Raises:
        Invalid: it is not one.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        run, _, at = raw[1:].partition(b".")
        if raw[:1] != b"r":
            raise ValueError(cursor)
        return Place(int(run), int(at))
    except ValueError as exc:
        raise errors.Invalid(f"cursor: {cursor!r} is not a cursor of this list") from exc


def execution(
    row: RunRow,
    *,
    first: Sequence[TurnRow] = (),
    last: TurnRow | None = None,
    search: dict[str, Any] | None = None,
    kin: Sequence[Fork] = (),
    kept_for: int | None = None,
    budgets: Sequence[BudgetRow] = (),
) -> Execution:
    """Show a run; with its first and last turns, also input, output and error."""
    waits = waits_of(row)
    shown: dict[str, Any] = {"budgets": tuple(budget_of(it) for it in budgets)}
    for fork in kin:
        if fork.run == row.run:
            where = (fork.origin_workflow_id, fork.origin_run_id)
            shown["origin"] = Kin(*where, fork.event, fork.how)
        else:
            made = Kin(fork.workflow_id, fork.run_id, fork.event, fork.how)
            shown["forks"] = (*shown.get("forks", ()), made)
    if kept_for is not None:
        shown["retention_seconds"] = kept_for / SECOND
        if kept_for and row.closed_at is not None and row.status is not Status.CONTINUED_AS_NEW:
            shown["deleted_at"] = to_datetime(row.closed_at + kept_for)
    if first:
        shown["input"] = plain(ev.decode_plain(first[0].payload)[0]).get("input")
    if last is not None and row.status.is_terminal:
        end = plain(ev.decode_plain(last.payload)[-1])
        shown["output"] = end.get("result")
        shown["error"] = end.get("failure")
        if shown["error"] is None and row.status is not Status.COMPLETED:
            shown["error"] = _end_as_failure(last)
    return Execution(
        id=row.workflow_id,
        run_id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        created_at=to_datetime(row.created_at),
        started_at=to_datetime(row.begins_at or row.created_at),
        completed_at=to_datetime(row.closed_at) if row.closed_at is not None else None,
        current_step=_current_step(waits),
        reason=row.reason,
        detail=row.detail,
        unblock=row.unblock,
        progress=msgspec.json.decode(row.progress) if row.progress else None,
        memo=payload.decode(row.memo) if row.memo else None,
        search=search,
        tags=row.tags,
        task_queue=row.queue,
        namespace=row.namespace,
        attempt=row.attempt,
        history_length=row.length,
        correlation_id=row.correlation_id,
        tenant=row.tenant,
        created_by=row.created_by,
        sealed=row.sealed,
        **shown,
    )


def _end_as_failure(last: TurnRow) -> dict[str, Any] | None:
    """Return what the end means to whoever waits, as a failure; ``None`` if the run completed."""
    try:
        failure = endings.failure_of(ev.decode_turn(last.payload)[-1])
    except errors.SchemaMismatch:
        return None  # a newer Perdure wrote it; the plain end is shown as it is
    return failure and plain(msgspec.to_builtins(failure, builtin_types=(bytes,)))


def worker(row: Worker, now: int) -> WorkerView:
    """Show a worker; one whose lock is free, or whose lease is over, is shown as lost."""
    state = row.state
    if row.alive_for_sure is False or (row.alive_for_sure is None and row.lease_until < now):
        state = "lost"
    return WorkerView(
        row.id,
        row.name,
        row.pid,
        row.host,
        state,
        to_datetime(row.started_at),
        tuple(key for key in row.workflows if not _is_told(key, row.workflows)),
        row.queues,
    )


def _is_told(key: str, keys: Sequence[str]) -> bool:
    """Whether a name stands for versions that are named beside it."""
    name = key.rstrip() + " "
    return any(other.startswith(name) and other != name for other in keys)


def history(turns: Sequence[TurnRow], *, with_seed: bool = False) -> list[HistoryEvent]:
    """Show events as plain data, payloads decoded, seeds left out.

    Raises:
        Corrupt: a row is not a turn; the message names it.
    """
    events: list[HistoryEvent] = []
    for turn in turns:
        try:
            decoded = ev.decode_plain(turn.payload)
        except errors.Corrupt as exc:
            raise errors.Corrupt(f"{turn.place}: {exc.message}") from exc
        for number, event in enumerate(decoded, turn.first):
            data = plain(event, with_seed=with_seed)
            kind = data.pop("kind")
            events.append(HistoryEvent(number, kind, to_datetime(turn.time), turn.worker, data))
    return events


def plain(event: dict[str, Any], *, with_seed: bool = False) -> dict[str, Any]:
    """Turn a decoded event into JSON data: payload bytes become what they encode."""
    return {
        key: _plain(key, value, with_seed)
        for key, value in event.items()
        if with_seed or key != ev.SEED
    }


def _plain(key: str, value: Any, with_seed: bool) -> Any:
    if isinstance(value, bytes):
        if key == ev.SEED:
            return base64.b64encode(value).decode()
        return payload.decode(value) if key in ev.PAYLOADS else value.hex()
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        return plain(inner, with_seed=with_seed)
    if isinstance(value, list):
        return [_plain(key, item, with_seed) for item in cast("list[Any]", value)]
    return value


def waits_of(row: RunRow) -> dict[str, Any]:
    """Return what a run waits for, as its last turn told it; empty while it does not."""
    found: object = msgspec.json.decode(row.waits) if row.waits else {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _current_step(waits: dict[str, Any]) -> str | None:
    if waits.get("steps"):
        return ", ".join(waits["steps"])
    if waits.get("queues"):
        return "activity {} (task queue {})".format(*waits["queues"][0])
    topics = waits.get("topics")
    if topics:
        return f"message {topics[0]}"
    if waits.get("people"):
        return f"person: {waits['people'][0][0]}"
    if waits.get("children"):
        return f"child {waits['children'][0]}"
    return "timer" if waits.get("timers") else None
