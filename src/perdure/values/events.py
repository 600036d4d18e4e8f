"""The events of a history, and their encoding.

A history is a gapless sequence of events, stored by turn: one row holds the events of one turn,
first the *facts* that came in, then the *commands* that the code answered with. A command is
recorded as the event it is, so one class serves both ends and an event's id (its position in the
history, from 1) also names the activity, timer, child or message it began.

Encoding: a turn is one MessagePack array; each event a map with its ``kind`` and, where it is not
1, its schema version ``v``. Fields at their default are left out. Rows are never re-encoded, so
fields this version does not know survive in the store and in exports. To add an event: a class
here, a place in FACTS or COMMANDS, a handler in ``kernel/apply.py``, a line in the round-trip test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from perdure.errors import Corrupt, SchemaMismatch
from perdure.values.failures import FailureInfo
from perdure.values.retry import RetryPolicy


class Event(msgspec.Struct, omit_defaults=True, gc=False, tag_field="kind", kw_only=True):
    """Base of all events. ``v`` is the schema version of the event's kind."""

    v: int = 1
    rank: ClassVar[int] = 0
    """Order among the facts of one turn: outcomes, messages, child ends, updates, cancel (R3)."""

    @property
    def kind(self) -> str:
        """The stored name of this event's class."""
        return str(self.__struct_config__.tag)

    def same_as(self, recorded: Event) -> bool:
        """Tell whether ``recorded``, of the same class, is what code asks for again in a replay."""
        return True

    def brief(self) -> str:
        """Describe the event in a few words for an error or a listing."""
        return self.kind


class Message(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A message as it stands in a history. ``sent_at`` in microseconds since 1970."""

    topic: str
    payload: bytes
    sender: str = ""
    id: str = ""
    sent_at: int = 0


class Parent(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """Who started a child: the parent's execution, and the event there that scheduled it."""

    execution: int
    workflow_id: str
    run_id: str
    child: int


# -- facts: they come from outside ---------------------------------------------------------------


class RunStarted(Event, tag="run_started"):
    """Event 1. ``seed`` is secret: no API returns it, exports leave it out unless asked."""

    workflow: str
    version: str
    workflow_id: str
    run_id: str
    seed: bytes
    input: bytes = b"null"
    code: str = ""
    flavour: str = ""
    queue: str = "default"
    namespace: str = "default"
    attempt: int = 1
    parent: Parent | None = None
    continued_from: str | None = None
    context: bytes | None = None
    messages: tuple[Message, ...] = ()
    started_at: int = 0
    first_started_at: int = 0

    def brief(self) -> str:
        return f"run_started {self.workflow!r}"


class ActivityCompleted(Event, tag="activity_completed"):
    """The activity's outcome; final."""

    activity: int
    result: bytes = b"null"
    attempt: int = 1
    worker: str = ""

    def brief(self) -> str:
        return f"activity_completed #{self.activity}"


class ActivityFailed(Event, tag="activity_failed"):
    """No attempt is left, or the failure forbids one; final. Timeouts have kind ``Timeout``."""

    activity: int
    failure: FailureInfo
    attempt: int = 1
    worker: str = ""

    def brief(self) -> str:
        return f"activity_failed #{self.activity}: {self.failure.message}"


class AttemptFailed(Event, tag="attempt_failed"):
    """One attempt failed; the next begins at ``retry_at``. Changes nothing for the code."""

    activity: int
    attempt: int
    failure: FailureInfo
    retry_at: int
    worker: str = ""
    heartbeat: bytes | None = None

    def brief(self) -> str:
        return f"attempt_failed #{self.activity} attempt {self.attempt}: {self.failure.message}"


class AttemptLost(Event, tag="attempt_lost"):
    """An attempt was cut off with its worker. It counts as an attempt."""

    activity: int
    attempt: int
    worker: str = ""
    heartbeat: bytes | None = None

    def brief(self) -> str:
        return f"attempt_lost #{self.activity} attempt {self.attempt} with {self.worker}"


class TimerFired(Event, tag="timer_fired"):
    """A timer's time has come."""

    timer: int

    def brief(self) -> str:
        return f"timer_fired #{self.timer}"


class MessageReceived(Event, tag="message_received"):
    """A message entered the history: exactly once, whether or not anybody listens."""

    rank: ClassVar[int] = 1
    message: Message

    def brief(self) -> str:
        return f"message_received {self.message.topic!r}"


class SendResolved(Event, tag="send_resolved"):
    """What became of a sent message: delivered, or ``failure``."""

    send: int
    failure: FailureInfo | None = None

    def brief(self) -> str:
        return f"send_resolved #{self.send}"


class ChildClosed(Event, tag="child_closed"):
    """A child ended, or could not start. Exactly one of ``result`` and ``failure`` is set."""

    rank: ClassVar[int] = 2
    child: int
    status: str
    result: bytes | None = None
    failure: FailureInfo | None = None
    run_id: str = ""
    at: int = 0

    def brief(self) -> str:
        return f"child_closed #{self.child} {self.status}"


class UpdateAccepted(Event, tag="update_accepted"):
    """An update passed its validator and its handler starts."""

    rank: ClassVar[int] = 3
    update: str
    name: str
    args: bytes = b"[]"

    def brief(self) -> str:
        return f"update_accepted {self.name!r}"


class CancelRequested(Event, tag="cancel_requested"):
    """Somebody asked the run to end. After ``deadline`` (microseconds, 0 = none) it is terminated."""

    rank: ClassVar[int] = 4
    reason: str = ""
    deadline: int = 0
    by: str = ""


class RunTaken(Event, tag="run_taken"):
    """A worker took the run up: for its first turn, or after another worker's end. Changes nothing
    for the code, and gives a first turn without commands an event that pins its time."""

    worker: str = ""
    code: str = ""


class RunParked(Event, tag="run_parked"):
    """The run cannot go on; ``unblock`` says what would let it."""

    reason: str
    detail: str = ""
    unblock: str = ""
    code: str = ""

    def brief(self) -> str:
        return f"run_parked {self.reason}"


class RunUnparked(Event, tag="run_unparked"):
    """Somebody, or a worker with fitting code, lets the run go on."""

    by: str = ""


class RunPaused(Event, tag="run_paused"):
    """The run takes no turns until it is resumed."""

    by: str = ""


class RunResumed(Event, tag="run_resumed"):
    """The run takes turns again."""

    by: str = ""


class Forked(Event, tag="forked"):
    """From here on the run draws from a seed of its own (R4)."""

    seed: bytes
    origin: str


class RunTerminated(Event, tag="run_terminated"):
    """Ended from outside, without the code."""

    reason: str = ""
    by: str = ""


class RunTimedOut(Event, tag="run_timed_out"):
    """Ended because its time was up."""

    timeout: str = "run"


# -- commands: what the code asked for -----------------------------------------------------------


class ActivityScheduled(Event, tag="activity_scheduled"):
    """Run an activity. ``None`` policies and timeouts (microseconds) are the definition's."""

    name: str
    args: bytes = b"[]"
    retry: RetryPolicy | None = None
    timeout: int | None = None
    queue_timeout: int | None = None
    schedule_timeout: int | None = None
    heartbeat_timeout: int | None = None
    queue: str = ""
    transactional: bool = False
    isolation: str = ""

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, ActivityScheduled) and recorded.name == self.name

    def brief(self) -> str:
        return f"activity_scheduled {self.name!r}"


class ActivityCancelled(Event, tag="activity_cancelled"):
    """The code no longer wants the activity; its outcome is now this."""

    activity: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, ActivityCancelled) and recorded.activity == self.activity

    def brief(self) -> str:
        return f"activity_cancelled #{self.activity}"


class TimerStarted(Event, tag="timer_started"):
    """Wake the run at ``due`` (microseconds since 1970)."""

    due: int


class TimerCancelled(Event, tag="timer_cancelled"):
    """The timer is no longer wanted."""

    timer: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, TimerCancelled) and recorded.timer == self.timer

    def brief(self) -> str:
        return f"timer_cancelled #{self.timer}"


class MessageSent(Event, tag="message_sent"):
    """Send a message to another execution, or to a mailbox."""

    target: str
    topic: str
    payload: bytes = b"null"

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, MessageSent)
            and recorded.target == self.target
            and recorded.topic == self.topic
        )

    def brief(self) -> str:
        return f"message_sent {self.topic!r} to {self.target!r}"


class ChildScheduled(Event, tag="child_scheduled"):
    """Start a child in the same commit."""

    workflow: str
    workflow_id: str
    run_id: str
    input: bytes = b"null"
    version: str = ""
    queue: str = ""
    parent_close: str = "terminate"
    conflict: str = ""
    context: bytes | None = None
    messages: tuple[Message, ...] = ()
    search: bytes | None = None
    memo: bytes | None = None

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, ChildScheduled)
            and recorded.workflow == self.workflow
            and recorded.workflow_id == self.workflow_id
        )

    def brief(self) -> str:
        return f"child_scheduled {self.workflow!r} {self.workflow_id!r}"


class CancelSent(Event, tag="cancel_sent"):
    """Ask another execution to end, gracefully or (``terminate``) at once."""

    target: str
    reason: str = ""
    deadline: int = 0
    terminate: bool = False

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, CancelSent)
            and recorded.target == self.target
            and recorded.terminate == self.terminate
        )


class VersionMarked(Event, tag="version_marked"):
    """The answer of ``workflow.version`` for a change id, for good."""

    change: str
    version: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, VersionMarked) and recorded.change == self.change

    def brief(self) -> str:
        return f"version_marked {self.change!r} = {self.version}"


class SideEffectRecorded(Event, tag="side_effect_recorded"):
    """A value that replay must read and not compute again."""

    name: str
    value: bytes

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, SideEffectRecorded) and recorded.name == self.name


class AttributesSet(Event, tag="attributes_set"):
    """Search attributes and memo to merge; JSON objects, ``null`` removes a key."""

    search: bytes | None = None
    memo: bytes | None = None


class ProgressReported(Event, tag="progress_reported"):
    """How far the run says it is."""

    done: float
    total: float | None = None
    note: str = ""


class UpdateCompleted(Event, tag="update_completed"):
    """An update's answer. Exactly one of ``result`` and ``failure`` is set."""

    update: str
    result: bytes | None = None
    failure: FailureInfo | None = None

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, UpdateCompleted) and recorded.update == self.update


class RunCompleted(Event, tag="run_completed"):
    """The workflow returned ``result``."""

    result: bytes = b"null"


class RunFailed(Event, tag="run_failed"):
    """The workflow raised."""

    failure: FailureInfo

    def brief(self) -> str:
        return f"run_failed: {self.failure.message}"


class RunCancelled(Event, tag="run_cancelled"):
    """The workflow ended after a cancel request."""

    reason: str = ""


class RunContinued(Event, tag="run_continued"):
    """The execution goes on in a new run, started in the same commit."""

    run_id: str
    workflow: str
    input: bytes = b"null"
    messages: tuple[Message, ...] = ()


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
    UpdateAccepted,
    CancelRequested,
    RunTaken,
    RunParked,
    RunUnparked,
    RunPaused,
    RunResumed,
    Forked,
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
    VersionMarked,
    SideEffectRecorded,
    AttributesSet,
    ProgressReported,
    UpdateCompleted,
    RunCompleted,
    RunFailed,
    RunCancelled,
    RunContinued,
)
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


def encode_turn(events: Sequence[Event]) -> bytes:
    """Encode the events of one turn."""
    return _encode(events)


def decode_turn(data: bytes) -> list[Event]:
    """Decode the events of one turn.

    Raises:
        SchemaMismatch: an event is of a kind or version this Perdure does not know.
        Corrupt: the bytes are not a turn.
    """
    try:
        events: list[Event] = _decode(data)
    except msgspec.DecodeError as exc:
        raise _explain(data, exc) from exc
    for event in events:
        if event.v != 1:
            raise SchemaMismatch(
                f"event {event.kind!r} has schema version {event.v}; this Perdure reads version 1. "
                "The history was written by a newer Perdure: upgrade this worker"
            )
    return events


def decode_plain(data: bytes) -> list[dict[str, Any]]:
    """Decode a turn to plain maps, unknown kinds and fields included (for exports and listings)."""
    try:
        return _decode_plain(data)
    except msgspec.DecodeError as exc:
        raise Corrupt(f"the row is not a turn: {exc}") from exc


def split(events: Sequence[Event]) -> int:
    """Return how many of a turn's events are facts; the rest are commands."""
    for index, event in enumerate(events):
        if type(event) not in _FACTS:
            return index
    return len(events)


def _explain(data: bytes, exc: Exception) -> Exception:
    try:
        plain = _decode_plain(data)
    except msgspec.DecodeError:
        return Corrupt(f"the row is not a turn: {exc}")
    for event in plain:
        if event.get("kind") not in KINDS:
            return SchemaMismatch(
                f"event kind {event.get('kind')!r} is unknown to this Perdure. "
                "The history was written by a newer Perdure: upgrade this worker"
            )
    return Corrupt(f"an event does not fit its kind: {exc}")
