"""What people and programs are shown of a run: pure functions over stored rows.

Lists, details, histories, exports and the ``why`` sentence read the same committed rows, so they
never disagree.
"""

from __future__ import annotations

import base64
import difflib
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

import msgspec

from perdure import errors
from perdure.store.port import Fork, RunRow, Standing, TurnRow, Worker
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.concurrency import Queued
from perdure.values.duration import SECOND, to_text
from perdure.values.people import awaited
from perdure.values.states import Status

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kin(msgspec.Struct, frozen=True):
    """Another run that shares a history up to ``event`` of the older one.

    ``how``: "fork", "retry" or "import".
    """

    id: str
    run_id: str
    event: int
    how: str


class Execution(msgspec.Struct, frozen=True):
    """An execution as lists and details show it. Lists leave input, output and error out."""

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


def encode_cursor(run: int) -> str:
    """Return an opaque keyset cursor."""
    return base64.urlsafe_b64encode(b"r%d" % run).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    """Read a cursor.

    Raises:
        Invalid: it is not one.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        if raw[:1] != b"r":
            raise ValueError(cursor)
        return int(raw[1:])
    except ValueError as exc:
        raise errors.Invalid(f"cursor: {cursor!r} is not a cursor of this list") from exc


def execution(
    row: RunRow,
    *,
    first: Sequence[TurnRow] = (),
    last: TurnRow | None = None,
    search: dict[str, Any] | None = None,
    kin: Sequence[Fork] = (),
) -> Execution:
    """Show a run; with its first and last turns, also input, output and error."""
    waits = _waits(row)
    shown: dict[str, Any] = {}
    for fork in kin:
        if fork.run == row.run:
            where = (fork.origin_workflow_id, fork.origin_run_id)
            shown["origin"] = Kin(*where, fork.event, fork.how)
        else:
            made = Kin(fork.workflow_id, fork.run_id, fork.event, fork.how)
            shown["forks"] = (*shown.get("forks", ()), made)
    if first:
        shown["input"] = plain(ev.decode_plain(first[0].payload)[0]).get("input")
    if last is not None and row.status.is_terminal:
        end = plain(ev.decode_plain(last.payload)[-1])
        shown["output"] = end.get("result")
        shown["error"] = end.get("failure")
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
        **shown,
    )


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


def unknown_workflow(name: str, version: str, known: Sequence[tuple[str, str]]) -> errors.NotFound:
    """Return the error for what nobody registered, with what there is.

    ``known``: names and versions.
    """
    versions = sorted({other for found, other in known if found == name})
    if versions:
        return errors.NotFound(
            f"workflow {name!r} has no version {version!r} (registered: {', '.join(versions)})"
        )
    names = sorted({found for found, _ in known})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    wanted = f"{name!r} version {version!r}" if version else repr(name)
    registered = ", ".join(names) or "none yet: start a worker that defines it"
    return errors.NotFound(f"workflow {wanted} is not registered{hint} (registered: {registered})")


def no_version(workflow: str, version: str, workers: Sequence[Worker]) -> str:
    """Say that no live worker defines a version of a workflow (``""``: any); ``""`` if one may."""
    keys = {key for w in workers if w.alive_for_sure is not False for key in w.workflows}
    there = {key.removeprefix(workflow + " ") for key in keys if key.startswith(workflow + " ")}
    there.discard("")
    if version in there or (not version and (there or workflow in keys)):
        return ""
    if workflow in keys and not there:
        return ""  # it does not say which version it has
    found = f"there is: {', '.join(sorted(there))}" if there else "there is none of it"
    return f"no running worker defines {f'{workflow} {version}'.rstrip()} ({found})"


def unanswering(row: RunRow, question: str) -> str:
    """Say why a stopped run answers no ``kind:name`` now; ``""`` if nothing speaks against it."""
    kind = question.partition(":")[0]
    name = repr(row.workflow_id)
    if row.status is Status.PAUSED and kind == "update":
        return f"{name} is paused: resume it to update it"
    if row.status is Status.PARKED and kind in ("query", "update"):
        following = f". To go on: {row.unblock}" if row.unblock else ""
        return f"{name} is parked ({row.reason}): {(row.detail or '').rstrip('.')}{following}"
    return ""


# -- why -----------------------------------------------------------------------------------------


def why(
    row: RunRow,
    turns: Sequence[TurnRow],
    workers: Sequence[Worker],
    now: int,
    children: Sequence[str] = (),
    standing: Standing | None = None,
    *,
    arrived: Sequence[str] = (),
) -> str:
    """Return one sentence: what the run waits for, or why it cannot go on.

    ``children``: the same sentences about the children it waits for (:func:`children_of`).
    ``standing``: of a run in the queue of a limit. ``arrived``: what no turn has taken in yet.
    """
    name = f"{row.workflow} {row.workflow_id!r}"
    text = f"{name} {_queued(row, standing) or _standing(row, turns, workers, now, arrived)}"
    return "; ".join([text, *(child.rstrip(".") for child in children)]) + "."


def _queued(row: RunRow, standing: Standing | None) -> str:
    """Say what a run waits for that a concurrency limit holds back; ``""`` if none does."""
    if standing is None or row.reason != Queued.QUEUED:
        return ""
    limit, parts = standing.limit, list[str]()
    if limit.max_open and standing.open >= limit.max_open:
        parts.append(
            f"{standing.open} of {limit.max_open} slots of workflow {standing.workflow!r} are taken"
        )
    if standing.key and limit.max_per_key and standing.open_of_key >= limit.max_per_key:
        parts.append(
            f"{standing.open_of_key} of {limit.max_per_key} slots of key {standing.key!r} are taken"
        )
    if limit.pool_max and standing.open_of_pool >= limit.pool_max:
        parts.append(
            f"{standing.open_of_pool} of {limit.pool_max} slots of all workflows of its engine are "
            "taken"
        )
    taken = " and ".join(parts) or f"a slot of workflow {standing.workflow!r} is free"
    runs = "1 run is" if standing.before == 1 else f"{standing.before} runs are"
    return f"is pending: {taken}; {runs} before it"


def children_of(row: RunRow) -> Sequence[str]:
    """Return the ids of the children that an open run waits for."""
    return [] if row.status.is_terminal else _waits(row).get("children", [])


def fact_of(event: bytes) -> str:
    """Return what a row of the inbox says, in a few words."""
    try:
        return ev.decode_fact(event).brief()
    except (errors.Corrupt, errors.SchemaMismatch):
        return "a row that cannot be read"


def _standing(
    row: RunRow,
    turns: Sequence[TurnRow],
    workers: Sequence[Worker],
    now: int,
    arrived: Sequence[str],
) -> str:
    if row.status.is_terminal:
        when = f" {_ago(row.closed_at, now)}" if row.closed_at else ""
        because = f": {row.detail.rstrip('.')}" if row.detail else ""
        return f"ended{when} as {row.status}{because}"
    if row.status in (Status.PARKED, Status.PAUSED):
        detail = (row.detail or "").rstrip(".")
        text = f"is {row.status} since {_ago(row.since, now)} ({row.reason}): {detail}"
        return f"{text}. To go on: {row.unblock}" if row.unblock else text
    if row.status is Status.PENDING and row.wake_at is not None and row.wake_at > now:
        return f"is pending: it begins {_in(row.wake_at, now)}"
    unserved = _unserved(row, [w for w in workers if w.alive_for_sure is not False])
    worker = f"for a worker: {unserved}. Start one with {serving(row.queue)}" if unserved else ""
    waiting = _waiting_for(turns, now, is_served=not unserved)
    if waiting:
        text = f"is {row.status}: it waits for {waiting}"
    elif row.status is Status.WAITING:
        text, is_stuck = _idle(row, now)
        if arrived:
            more = f" and {len(arrived) - 3} more" if len(arrived) > 3 else ""
            what = f"{', '.join(arrived[:3])}{more}"
            text = f"is waiting: what has come in is to be taken up ({what})"
        elif is_stuck:
            return text
    elif unserved:
        return f"waits {worker}"
    else:
        return f"is {row.status}: its next turn has not been recorded yet"
    return f"{text}, and {worker}" if unserved else text


def serving(queue: str) -> str:
    """Return the command that serves a task queue."""
    return f"`perdure dev MODULE{'' if queue == 'default' else f' -q {shlex.quote(queue)}'}`"


def _idle(row: RunRow, now: int) -> tuple[str, bool]:
    """Say what a run without work in flight waits for, and whether that can never come."""
    waits = _waits(row)
    parts = [_message(topic) for topic in waits.get("topics", ())]
    people = waits.get("people", ())
    parts += [awaited(who, _in(due, now) if due else "") for *who, due in people]
    if row.wake_at is not None and row.wake_at not in [due for *_, due in people]:
        parts.append(f"a timer that is due {_in(row.wake_at, now)}")
    parts += [f"child {child!r}" for child in waits.get("children", ())]
    if waits.get("conditions"):
        parts.append("a condition of its own")
    if waits.get("updates"):
        parts.append("an update that is under way")
    if not parts:
        parts = [f"update {name!r}" for name in waits.get("handlers", ())]
    where = f" at {waits['where']}" if waits.get("where") else ""
    since = f"since {_ago(row.since, now)}"
    if parts:
        return f"is waiting {since} for {' or '.join(parts)}{where}", False
    text = (
        f"is stuck: nothing can wake it: {since} it waits{where} for something only its own code "
        "could do. To end it: `perdure cancel` or `perdure terminate`"
    )
    return text, True


def _unserved(row: RunRow, live: Sequence[Worker]) -> str:
    """Say why no live worker serves the run, or return ``""``."""
    if not live:
        return "no worker is running"
    version = f"{row.workflow} {row.version}"
    knowing = [w for w in live if row.workflow in w.workflows or version in w.workflows]
    if not knowing:
        others = any(key.startswith(row.workflow + " ") for w in live for key in w.workflows)
        which = f" in version {row.version}" if others and row.version else ""
        return f"no worker knows workflow {row.workflow!r}{which}"
    if not any(row.queue in w.queues for w in knowing):
        return f"no worker that knows it serves task queue {row.queue!r}"
    return ""


def _waiting_for(turns: Sequence[TurnRow], now: int, *, is_served: bool) -> str:
    """Say which activities are open, from the history alone."""
    scheduled: dict[int, tuple[str, int]] = {}
    retrying: dict[int, dict[str, Any]] = {}
    for turn in turns:
        for number, event in enumerate(ev.decode_plain(turn.payload), turn.first):
            kind = event["kind"]
            if kind == "activity_scheduled":
                scheduled[number] = (event["name"], turn.time)
            elif kind in ("activity_completed", "activity_failed", "activity_cancelled"):
                scheduled.pop(event["activity"], None)
            elif kind == "attempt_failed":
                retrying[event["activity"]] = event
    texts: list[str] = []
    for number, (name, since) in list(scheduled.items())[:3]:
        failed = retrying.get(number)
        if failed is not None:
            attempt = failed["attempt"] + 1
            is_due = failed["retry_at"] > now or not is_served
            when = f"is due {_in(failed['retry_at'], now)}" if is_due else "runs"
            texts.append(
                f"activity {name!r}, whose attempt {attempt} {when} "
                f"(attempt {attempt - 1} failed: {_text(failed['failure'])})"
            )
        else:
            texts.append(f"activity {name!r}, scheduled {_ago(since, now)}")
    if len(scheduled) > 3:
        texts.append(f"{len(scheduled) - 3} more activities")
    return " and ".join(texts)


def _text(failure: dict[str, Any]) -> str:
    return msgspec.convert(failure, failures.FailureInfo).text


def _waits(row: RunRow) -> dict[str, Any]:
    found: object = msgspec.json.decode(row.waits) if row.waits else {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _message(topic: str) -> str:
    return "any message" if topic == "*" else f"message {topic!r}"


def _current_step(waits: dict[str, Any]) -> str | None:
    if waits.get("steps"):
        return ", ".join(waits["steps"])
    topics = waits.get("topics")
    if topics:
        return f"message {topics[0]}"
    if waits.get("people"):
        return f"person: {waits['people'][0][0]}"
    if waits.get("children"):
        return f"child {waits['children'][0]}"
    return "timer" if waits.get("timers") else None


def _ago(then: int | None, now: int) -> str:
    past = now - (then or now)
    return f"{_rough(past)} ago" if past >= SECOND else "just now"


def _in(then: int, now: int) -> str:
    if then <= now:
        return "now"
    return f"in {_rough(then - now)}" if then - now >= SECOND else "in less than a second"


def _rough(microseconds: int) -> str:
    seconds = max(0, microseconds) // 1_000_000
    for least, grain in ((86_400, 3_600), (3_600, 60)):
        if seconds >= least:
            seconds -= seconds % grain
            break
    return to_text(seconds * 1_000_000)
