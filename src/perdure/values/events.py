"""The events of a history, and their encoding.

A history is a gapless sequence of events, stored by turn: one row holds the events of one turn,
first the *facts* that came in, then the *commands* that the code answered with. A command is
recorded as the event it is, so one class serves both ends and an event's id (its position in the
history, from 1) also names the activity, timer, child or message it began.

Encoding: a turn is one MessagePack array; each event a map with its ``kind`` and, where it is not
1, its schema version ``v``. Fields at their default are left out. Rows are never re-encoded, so
fields this version does not know survive in the store and in exports. To add an event: a class
in ``facts.py`` or ``commands.py``, a place in FACTS or COMMANDS here, a handler in
``kernel/apply.py``, a line in the round-trip test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from perdure.errors import Corrupt, SchemaMismatch
from perdure.values.commands import (
    ActivityCancelled,
    ActivityScheduled,
    AttributesSet,
    CancelSent,
    ChildScheduled,
    Emitted,
    HumanTaskClosed,
    HumanTaskOpened,
    MessageSent,
    ProgressReported,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunFailed,
    SideEffectRecorded,
    TimerCancelled,
    TimerStarted,
    UpdateCompleted,
    VersionMarked,
    WatchDropped,
    WatchSet,
)
from perdure.values.event import Approval, Event, Handling, Message, OpenChild, Parent, UnreadNotice
from perdure.values.facts import (
    ActivityCompleted,
    ActivityFailed,
    AttemptFailed,
    AttemptLost,
    CancelRequested,
    ChildClosed,
    ExecutionEnded,
    Forked,
    HumanTaskDecided,
    KeptKey,
    MessageReceived,
    RunHandedOver,
    RunMoved,
    RunOverdue,
    RunParked,
    RunPaused,
    RunResumed,
    RunStarted,
    RunTaken,
    RunTerminated,
    RunTimedOut,
    RunUnparked,
    SendResolved,
    TimerFired,
    UpdateAccepted,
)

__all__ = [
    "ACKNOWLEDGED",
    "CLOSES_AS",
    "CLOSING",
    "COMMANDS",
    "FACTS",
    "KINDS",
    "OF_ATTEMPTS",
    "SOFT",
    "ActivityCancelled",
    "ActivityCompleted",
    "ActivityFailed",
    "ActivityScheduled",
    "Approval",
    "AttemptFailed",
    "AttemptLost",
    "AttributesSet",
    "CancelRequested",
    "CancelSent",
    "ChildClosed",
    "ChildScheduled",
    "Emitted",
    "Event",
    "ExecutionEnded",
    "Forked",
    "Handling",
    "HumanTaskClosed",
    "HumanTaskDecided",
    "HumanTaskOpened",
    "KeptKey",
    "Message",
    "MessageReceived",
    "MessageSent",
    "OpenChild",
    "Parent",
    "ProgressReported",
    "RunCancelled",
    "RunCompleted",
    "RunContinued",
    "RunFailed",
    "RunHandedOver",
    "RunMoved",
    "RunOverdue",
    "RunParked",
    "RunPaused",
    "RunResumed",
    "RunStarted",
    "RunTaken",
    "RunTerminated",
    "RunTimedOut",
    "RunUnparked",
    "SendResolved",
    "SideEffectRecorded",
    "TimerCancelled",
    "TimerFired",
    "TimerStarted",
    "UnreadNotice",
    "UpdateAccepted",
    "UpdateCompleted",
    "VersionMarked",
    "WatchDropped",
    "WatchSet",
    "decode_fact",
    "decode_plain",
    "decode_turn",
    "encode_plain",
    "encode_turn",
    "split",
]

FACTS: Final[tuple[type[Event], ...]] = (
    RunStarted,
    ActivityCompleted,
    ActivityFailed,
    AttemptFailed,
    AttemptLost,
    TimerFired,
    MessageReceived,
    SendResolved,
    ChildClosed,
    ExecutionEnded,
    HumanTaskDecided,
    UpdateAccepted,
    CancelRequested,
    RunTaken,
    RunParked,
    RunUnparked,
    RunPaused,
    RunResumed,
    RunMoved,
    RunOverdue,
    Forked,
    RunHandedOver,
    RunTerminated,
    RunTimedOut,
)
COMMANDS: Final[tuple[type[Event], ...]] = (
    ActivityScheduled,
    ActivityCancelled,
    TimerStarted,
    TimerCancelled,
    MessageSent,
    ChildScheduled,
    CancelSent,
    WatchSet,
    WatchDropped,
    HumanTaskOpened,
    HumanTaskClosed,
    VersionMarked,
    SideEffectRecorded,
    AttributesSet,
    ProgressReported,
    Emitted,
    UpdateCompleted,
    RunCompleted,
    RunFailed,
    RunCancelled,
    RunContinued,
)
SOFT: Final = frozenset({VersionMarked, SideEffectRecorded, ProgressReported, Emitted})
"""Commands that a replay does not hold the code to: nothing follows from them.

Those that the code no longer makes are passed over; one that it makes anew in a turn of the past is
neither an error nor told, since that turn is over.
"""
CLOSING: Final = frozenset(
    {RunCompleted, RunFailed, RunCancelled, RunContinued, RunTerminated, RunTimedOut}
)
CLOSES_AS: Final[dict[type[Event], str]] = {
    RunCompleted: "completed",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunContinued: "continued_as_new",
    RunTerminated: "terminated",
    RunTimedOut: "timed_out",
}
PAYLOADS: Final = frozenset(
    [
        "input",
        "result",
        "args",
        "payload",
        "details",
        "context",
        "search",
        "memo",
        "value",
        "heartbeat",
        "form",
        "data",
    ]
)
"""Fields of events whose bytes are encoded JSON."""
SEED: Final = "seed"
"""The field whose bytes are secret: whoever has them can tell a run's draws and keys."""
OF_ATTEMPTS: Final = (ActivityCompleted, ActivityFailed, AttemptFailed, AttemptLost)
"""What becomes of an attempt of an activity; ``activity`` and ``attempt`` say which it was."""
GOES_ON: Final = (RunUnparked, RunResumed, CancelRequested)
"""What lets a parked or paused run try again: a cancel too, so that it can clean up."""
ACKNOWLEDGED: Final = (MessageReceived, HumanTaskDecided)
"""What somebody outside was told is kept: it is recorded even if a run ends without its code."""
_FACTS = frozenset(FACTS)
KINDS: Final[dict[str, type[Event]]] = {
    str(cls.__struct_config__.tag): cls for cls in FACTS + COMMANDS
}

_encode = msgspec.msgpack.Encoder().encode


def _union() -> Any:
    union: Any = RunStarted
    for cls in (FACTS + COMMANDS)[1:]:
        union = union | cls
    return union


_decode = msgspec.msgpack.Decoder(list[_union()]).decode
_decode_plain = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)
"""What the decoder raises for bytes that are not a turn."""


def encode_turn(events: Sequence[Event]) -> bytes:
    """Encode the events of one turn."""
    return _encode(events)


def encode_messages(messages: Iterable[Message]) -> tuple[bytes, ...]:
    """Encode each message as the turn of the inbox that it is a fact in."""
    return tuple(_encode([MessageReceived(message=message)]) for message in messages)


def decode_turn(data: bytes) -> list[Event]:
    """Decode the events of one turn.

    Raises:
        SchemaMismatch: an event is of a kind or version this Perdure does not know.
        Corrupt: the bytes are not a turn.
    """
    try:
        events: list[Event] = _decode(data)
    except _UNREADABLE as exc:
        raise _explain(data, exc) from exc
    for event in events:
        if event.v != 1:
            raise _newer(event.kind, event.v)
    return events


def decode_fact(data: bytes) -> Event:
    """Decode the one event of an inbox row.

    Raises:
        SchemaMismatch: see :func:`decode_turn`.
        Corrupt: the bytes are not one event.
    """
    events = decode_turn(data)
    if len(events) != 1:
        raise Corrupt(f"the row holds {len(events)} events instead of one")
    return events[0]


def decode_plain(data: bytes) -> list[dict[str, Any]]:
    """Decode a turn to plain maps, unknown kinds and fields included (for exports and listings).

    Raises:
        Corrupt: the bytes are not a turn.
    """
    try:
        return _decode_plain(data)
    except _UNREADABLE as exc:
        raise Corrupt(f"the row is not a turn: {exc}") from exc


def encode_plain(events: Sequence[dict[str, Any]]) -> bytes:
    """Encode what :func:`decode_plain` gave, unknown fields included.

    Where nothing would be lost, these are the bytes that :func:`encode_turn` writes.

    Raises:
        Corrupt: something in it has no encoding.
    """
    try:
        data = _encode(events)
        try:
            own = _encode(_decode(data))
        except msgspec.DecodeError:
            return data
        return own if _decode_plain(own) == events else data
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise Corrupt(f"the events cannot be encoded: {exc}") from exc


def split(events: Sequence[Event]) -> int:
    """Return how many of a turn's events are facts; the rest are commands."""
    for index, event in enumerate(events):
        if type(event) not in _FACTS:
            return index
    return len(events)


def _explain(data: bytes, exc: Exception) -> Exception:
    try:
        plain = _decode_plain(data)
    except _UNREADABLE:
        return Corrupt(f"the row is not a turn: {exc}")
    for event in plain:
        kind, version = event.get("kind"), event.get("v", 1)
        if isinstance(kind, str) and kind not in KINDS:
            return SchemaMismatch(
                f"event kind {kind!r} is unknown to this Perdure. "
                "The history was written by a newer Perdure: upgrade this worker"
            )
        if isinstance(kind, str) and isinstance(version, int) and version != 1:
            return _newer(kind, version)
    return Corrupt(f"an event does not fit its kind: {exc}")


def _newer(kind: str, version: int) -> SchemaMismatch:
    return SchemaMismatch(
        f"event {kind!r} has schema version {version}; this Perdure reads version 1. "
        "The history was written by a newer Perdure: upgrade this worker"
    )
