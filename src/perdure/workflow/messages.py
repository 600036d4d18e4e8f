"""Messages: to other executions, and from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast, overload

from perdure import errors
from perdure.kernel import traps
from perdure.kernel.channels import Channel
from perdure.values import events as ev
from perdure.values import payload as payloads
from perdure.values.limits import MAX_PAYLOAD
from perdure.workflow.run import to_time

T = TypeVar("T")


class Message:
    """A received message. ``payload`` is decoded; ``sender`` can be sent to."""

    __slots__ = ("id", "payload", "sender", "sent_at", "topic")

    def __init__(self, recorded: ev.Message, value: Any) -> None:
        self.topic = recorded.topic
        self.payload = value
        self.sender = recorded.sender
        self.id = recorded.id
        self.sent_at = to_time(recorded.sent_at)

    async def reply(self, topic: str, payload: Any = None) -> None:
        """Send to whoever sent this message."""
        await send(self.sender, topic, payload)

    def __repr__(self) -> str:
        return f"<Message {self.topic!r} from {self.sender!r}>"


async def send(target: Any, topic: str, payload: Any = None) -> None:
    """Send a message to an execution's id, a handle, or a ``message.sender``.

    Returns when the message is committed into the target's inbox.

    Raises:
        NotFound: the execution is unknown or has ended. (A closed or anonymous mailbox takes the
            message and drops it.)
        Invalid: a bad target, topic or payload.
    """
    instance = traps.here()
    address = target if isinstance(target, str) else getattr(target, "id", None)
    if address == "":
        return
    namespace = "" if isinstance(target, str) else getattr(target, "namespace", "")
    data = encode_message(topic, payload, instance.max_payload)
    if not isinstance(address, str):
        raise errors.Invalid(f"target: {target!r} is neither an id nor a handle")
    text = payloads.text(address, what="target")
    await traps.send(instance, text, topic, data, namespace)


@overload
def listen(topic: str, *, message: Literal[False] = False) -> Channel[Any]: ...
@overload
def listen(topic: str, type: type[T], *, message: Literal[False] = False) -> Channel[T]: ...
@overload
def listen(topic: str, type: Any = ..., *, message: Literal[True]) -> Channel[Message]: ...
@overload
def listen(topic: str, type: Any, *, message: bool = False) -> Channel[Any]: ...
def listen(topic: str, type: Any = Any, *, message: bool = False) -> Channel[Any]:
    """Return the channel of ``topic``: payloads (decoded as ``type``), or whole messages.

    What came before is in it. A topic with a listener never goes to the inbox. A payload that does
    not fit ``type`` raises :class:`Invalid` where it is received: the sender was answered long ago,
    so only the receiver can decide. Uncaught, that fails the run.
    """
    check_topic(topic)
    queue = traps.here().mail.listen(topic)
    read = payloads.decoder(type, what=f"message {topic!r}")
    if message:
        return Channel(queue=queue, read=lambda item: Message(item[1], read(item[1].payload)))
    return Channel(queue=queue, read=lambda item: read(item[1].payload))


def inbox() -> Channel[Message]:
    """Return the channel of all messages without a listener of their own."""
    queue = traps.here().mail.inbox()
    return Channel(
        queue=queue, read=lambda item: Message(item[1], payloads.decode(item[1].payload))
    )


def check_topic(topic: object) -> str:
    """Return ``topic`` if it is one: text, not empty, not beginning with ``@``."""
    if not isinstance(topic, str) or not topic or len(topic) > 255:
        raise errors.Invalid(f"topic: {topic!r} must be text of 1 to 255 characters")
    if topic[0] == "@":
        raise errors.Invalid(f"topic: {topic!r} begins with '@', which is kept for Perdure")
    return payloads.text(topic, what="topic")


def encode_message(topic: object, value: Any, limit: int) -> bytes:
    """Check a message's topic and encode its payload."""
    name = check_topic(topic)
    what = f"message {name!r}"
    return payloads.limit(payloads.encode(value, what=what), limit, what=what)


def recorded_messages(
    given: Sequence[tuple[str, Any]], sender: str, time: int, limit: int = MAX_PAYLOAD
) -> tuple[ev.Message, ...]:
    """Encode startup messages, each of at most ``limit`` bytes.

    Raises:
        Invalid: not a list of (topic, payload), a bad topic or payload.
    """
    if not isinstance(cast("Any", given), Sequence):
        raise errors.Invalid(f"messages: {given!r} is not a list of (topic, payload)")
    for pair in cast("Any", given):
        if not isinstance(pair, (tuple, list)) or len(cast("Sequence[Any]", pair)) != 2:
            raise errors.Invalid(f"messages: {pair!r} is not a pair of topic and payload")
    return tuple(
        ev.Message(topic, encode_message(topic, value, limit), sender, sent_at=time)
        for topic, value in given
    )
