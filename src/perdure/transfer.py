"""A run as one JSON document, and back to the very bytes: pure functions.

Payloads stand in the document as the JSON they are, so that people can read it; whatever would not
come back to the same bytes stands as ``{"$base64": …}``, and what JSON cannot say at all as
``{"$msgpack": …}``. Each turn carries a checksum of its events.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast
from zlib import crc32

import msgspec

from perdure import errors
from perdure.store.port import RunRow, StartRequest, StateWrite, TurnRow
from perdure.values import endings, ids, payload
from perdure.values import events as ev
from perdure.values.principals import Principal, carrying, tenant_for
from perdure.values.states import Status
from perdure.workflow import check_search

FORMAT = 1
_MARKS = frozenset({"$base64", "$msgpack"})
_SEED_BYTES = 16
_to_row = msgspec.msgpack.Encoder().encode
_from_row = msgspec.msgpack.Decoder().decode


class _Turn(msgspec.Struct, kw_only=True):
    first: int
    time: int
    events: list[dict[str, Any]]
    applied: bool = True
    worker: int = 0
    crc: int | None = None


class Document(msgspec.Struct, kw_only=True):
    """The document. ``state`` belongs to runs that have ended, or that somebody paused."""

    perdure_export: int
    workflow_id: str
    run_id: str
    workflow: str
    status: Status
    turns: list[_Turn]
    version: str = ""
    namespace: str = "default"
    queue: str = "default"
    attempt: int = 1
    created_at: int = 0
    begins_at: int | None = None
    closed_at: int | None = None
    reason: str | None = None
    detail: str | None = None
    unblock: str | None = None
    since: int = 0
    progress: str | None = None
    created_by: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    memo: dict[str, Any] | None = None
    search: dict[str, Any] = {}


_HANDED_OVER = b"run_handed_over"


class Read(NamedTuple):
    """What a document holds: the run's facts and its rows."""

    document: Document
    rows: list[TurnRow]

    @property
    def has_seed(self) -> bool:
        """Whether every event that had a seed still has it."""
        facts = [event for row in self.rows for event in ev.decode_turn(row.payload)]
        return all(
            len(fact.seed) == _SEED_BYTES
            for fact in facts
            if isinstance(fact, (ev.RunStarted, ev.Forked))
        )


# -- out -----------------------------------------------------------------------------------------


def export(
    row: RunRow, turns: Sequence[TurnRow], search: Mapping[str, Any], *, with_seed: bool
) -> dict[str, Any]:
    """Return a run as JSON data. Turn boundaries are kept (R3)."""
    facts = {
        name: msgspec.to_builtins(getattr(row, name))
        for name in Document.__struct_fields__
        if hasattr(row, name) and name not in ("memo", "tags")
    }
    return {
        "perdure_export": FORMAT,
        **{name: value for name, value in facts.items() if value is not None},
        "memo": payload.decode(row.memo) if row.memo else None,
        "tags": list(row.tags),
        "search": dict(search),
        "turns": [_turn(turn, with_seed=with_seed) for turn in turns],
    }


def _turn(turn: TurnRow, *, with_seed: bool) -> dict[str, Any]:
    events = ev.decode_plain(turn.payload)
    if not with_seed:
        events = [{k: v for k, v in event.items() if k != ev.SEED} for event in events]
    return {
        "first": turn.first,
        "time": turn.time,
        "applied": turn.applied,
        "worker": turn.worker,
        "crc": crc32(_to_row(events)),
        "events": [{key: _shown(key, value) for key, value in e.items()} for e in events],
    }


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return _shown_bytes(key, value)
    if key in ev.PAYLOADS or isinstance(value, (msgspec.Raw, msgspec.msgpack.Ext)):
        return _packed(value)
    if isinstance(value, dict):
        inner = cast("dict[Any, Any]", value)
        if _is_marked(inner) or not all(isinstance(name, str) for name in inner):
            return _packed(inner)
        return {name: _shown(name, item) for name, item in inner.items()}
    if isinstance(value, list):
        return [_shown(key, item) for item in cast("list[Any]", value)]
    if value is None or isinstance(value, (str, bool, int, float)):
        # What JSON writes in another way (NaN, an infinity) it would not bring back.
        is_odd = isinstance(value, float) and not math.isfinite(value)
        return _packed(value) if is_odd else value
    return _packed(value)


def _shown_bytes(key: str, value: bytes) -> Any:
    if key in ev.PAYLOADS:
        try:
            decoded = payload.decode(value)
            if msgspec.json.encode(decoded) == value and not _is_marked(decoded):
                return decoded
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            pass
    return {"$base64": base64.b64encode(value).decode()}


def _packed(value: Any) -> dict[str, str]:
    return {"$msgpack": base64.b64encode(_to_row(value)).decode()}


def _is_marked(value: Any) -> bool:
    return isinstance(value, dict) and not _MARKS.isdisjoint(cast("dict[Any, Any]", value))


# -- in ------------------------------------------------------------------------------------------


def read(data: Any) -> Read:
    """Read a document and check it.

    Raises:
        Invalid: it is not an export, or it is damaged; the message has the place.
    """
    if not isinstance(data, dict) or "perdure_export" not in data:
        raise errors.Invalid("import: this is not the document of an export")
    if data["perdure_export"] != FORMAT:
        raise errors.Invalid(
            f"import: the document has format {data['perdure_export']!r}; this Perdure reads "
            f"format {FORMAT}"
        )
    try:
        document = msgspec.convert(data, Document)
    except msgspec.ValidationError as exc:
        raise errors.Invalid(f"import: {exc}") from exc
    ids.check_workflow_id(document.workflow_id)
    if not document.turns:
        raise errors.Invalid("import: turns: there are none")
    rows: list[TurnRow] = []
    for index, turn in enumerate(document.turns):
        rows.append(_row(turn, rows[-1] if rows else None, f"import: turns[{index}]"))
    _check_story(document, rows)
    document.search = check_search(document.search)
    return Read(document, rows)


def _row(turn: _Turn, before: TurnRow | None, where: str) -> TurnRow:
    expected = before.first + before.count if before is not None else 1
    if turn.first != expected:
        raise errors.Invalid(f"{where}: it begins with event {turn.first}, not {expected}")
    if not turn.events:
        raise errors.Invalid(f"{where}: it has no events")
    if turn.time < (before.time if before is not None else 0):
        raise errors.Invalid(f"{where}: its time is before that of the turn before")
    events = [
        {key: _stored(key, value, f"{where}.events[{n}].{key}") for key, value in event.items()}
        for n, event in enumerate(turn.events)
    ]
    if turn.crc is not None and crc32(_packed_row(events, where)) != turn.crc:
        raise errors.Invalid(f"{where}: its events are not those that were exported (checksum)")
    for event in events:
        if event.get("kind") in ("run_started", "forked"):
            event.setdefault(ev.SEED, b"")
    try:
        data = ev.encode_plain(events)
        ev.decode_turn(data)
    except errors.StoreError as exc:
        raise errors.Invalid(f"{where}: {exc.message}") from exc
    return TurnRow(0, turn.first, len(events), turn.time, turn.applied, turn.worker, data)


def _packed_row(events: list[dict[str, Any]], where: str) -> bytes:
    try:
        return _to_row(events)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise errors.Invalid(f"{where}: {exc}") from exc


def _stored(key: str, value: Any, where: str) -> Any:
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        if len(inner) == 1 and _is_marked(inner):
            return _unmarked(inner, where)
        if key not in ev.PAYLOADS:
            return {name: _stored(name, item, f"{where}.{name}") for name, item in inner.items()}
    if key in ev.PAYLOADS:
        return payload.encode(value, what=where)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_stored(key, item, f"{where}[{n}]") for n, item in enumerate(items)]
    return cast("object", value)


def _unmarked(value: dict[str, Any], where: str) -> Any:
    [(mark, text)] = value.items()
    try:
        data = base64.b64decode(text, validate=True)
        return data if mark == "$base64" else _from_row(data)
    except (binascii.Error, TypeError, ValueError, msgspec.DecodeError) as exc:
        raise errors.Invalid(f"{where}: not what {mark} says: {exc}") from exc


def _check_story(document: Document, rows: Sequence[TurnRow]) -> None:
    """Check that the history is one, and ends as the document says."""
    turns = [ev.decode_turn(row.payload) for row in rows]
    started = turns[0][0]
    if not isinstance(started, ev.RunStarted):
        raise errors.Invalid("import: turns[0].events[0]: a history begins with run_started")
    if started.workflow != document.workflow:
        raise errors.Invalid(
            f"import: workflow: the history is one of {started.workflow!r}, not "
            f"{document.workflow!r}"
        )
    for index, events in enumerate(turns):
        for n, event in enumerate(events):
            is_last = index == len(turns) - 1 and n == len(events) - 1
            where = f"import: turns[{index}].events[{n}]"
            if isinstance(event, ev.RunStarted) and event is not started:
                raise errors.Invalid(f"{where}: a second run_started")
            if type(event) in ev.CLOSING and not is_last:
                raise errors.Invalid(f"{where}: {event.kind} is not the last event")
    end = turns[-1][-1]
    ends_as = Status(endings.status_of(end)) if type(end) in ev.CLOSING else None
    if ends_as is not document.status and (ends_as or document.status.is_terminal):
        ended = f"ends as {ends_as}" if ends_as else "has no end"
        raise errors.Invalid(
            f"import: status: the document says {document.status}, the history {ended}"
        )


def signed(found: Read, principal: Principal | None) -> Read:
    """Return what was read, with this principal as who the run acts for: a document says nothing
    of that which could be believed.
    """
    return found._replace(rows=[_signed(row, principal) for row in found.rows])


def _signed(row: TurnRow, principal: Principal | None) -> TurnRow:
    if row.first != 1 and _HANDED_OVER not in row.payload:
        return row
    events = ev.decode_plain(row.payload)
    changed = [event for event in events if _is_signed(event, principal)]
    return msgspec.structs.replace(row, payload=ev.encode_plain(events)) if changed else row


def _is_signed(event: dict[str, Any], principal: Principal | None) -> bool:
    """Let an event say that the run acts for this principal; tell whether it said otherwise."""
    kind, raw = event.get("kind"), event.get("context")
    if kind != "run_started" and (kind != "run_handed_over" or raw is None):
        return False
    context = carrying(payload.decode(raw) if raw else {}, principal)
    made = payload.encode(dict(context)) if context or kind != "run_started" else None
    if made == raw:
        return False
    event["context"] = made
    return True


def fill(request: StartRequest, found: Read, principal: Principal | None) -> None:
    """Give a start what the document says of the run."""
    document = found.document
    request.version, request.queue = document.version, document.queue
    request.attempt = document.attempt
    request.created_by, request.tenant = document.created_by, document.tenant
    if principal is not None:
        request.created_by = principal.id
        request.tenant = tenant_for(principal, document.tenant)
        request.sees = principal.tenant
    request.correlation_id, request.tags = document.correlation_id, document.tags
    request.memo = payload.encode(document.memo) if document.memo else None
    request.search = document.search
    request.created_at = document.created_at


def state_of(document: Document, length: int, now: int) -> StateWrite:
    """Return the state of a run that has ended, or that does not go on by itself."""
    return StateWrite(
        status=document.status,
        owned=False,
        length=length,
        closed_at=(document.closed_at or now) if document.status.is_terminal else None,
        reason=document.reason,
        detail=document.detail,
        unblock=document.unblock,
        since=document.since or now,
    )
