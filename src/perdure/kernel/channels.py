"""Channels, ``select`` and ``after``: waiting for values inside one run.

Plain futures of the deterministic loop: nothing here makes a command except the timer of an
``after`` that a ``select`` really has to wait for. Waiters are served first come, first served; a
value handed to a waiter that is cancelled in the same turn goes back to the front of the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar, cast, overload

from perdure.errors import ChannelClosed, LinkedRunFailed, UsageError
from perdure.values.duration import Duration, microseconds

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
_PRUNE_AT = 32


class _Waiter:
    """Somebody who waits on one or more queues; the first value settles it."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        return not self.future.done()


class Queue:
    """What channels share: items, receivers, senders. ``capacity`` ``None`` means no bound."""

    __slots__ = (
        "_handed",
        "_prune_at",
        "_receivers",
        "_senders",
        "capacity",
        "is_closed",
        "items",
        "topic",
    )

    def __init__(self, capacity: int | None, topic: str = "") -> None:
        self.capacity = capacity
        self.topic = topic
        self.items: deque[Any] = deque()
        self.is_closed = False
        self._receivers: deque[_Waiter] = deque()
        self._senders: deque[tuple[Any, asyncio.Future[None]]] = deque()
        self._handed: list[_Waiter] = []
        self._prune_at = _PRUNE_AT

    @property
    def is_awaited(self) -> bool:
        """Whether a receiver waits now."""
        return any(waiter.is_open for waiter in self._receivers)

    def offer(self, value: Any) -> bool:
        """Hand ``value`` to a waiter or keep it; False if the queue is full."""
        if self._hand(value):
            return True
        if self.capacity is not None and len(self.items) >= self.capacity:
            return False
        self.items.append(value)
        return True

    def take(self) -> tuple[bool, Any]:
        """Take a value if one is there: (True, value)."""
        if self.items:
            value = self.items.popleft()
            self._admit()
            return True, value
        while self._senders:
            value, sent = self._senders.popleft()
            if not sent.done():
                sent.set_result(None)
                return True, value
        return False, None

    def put_back(self, value: Any) -> None:
        """Return a value whose receiver was cancelled before it could run."""
        if not self._hand(value):
            self.items.appendleft(value)

    def received(self, waiter: _Waiter) -> None:
        """The waiter runs: the value it was handed is its own."""
        self._handed.remove(waiter)

    def unread(self) -> list[Any]:
        """Return the values nobody has got: handed over but not yet received, then kept."""
        return [*(waiter.future.result()[1] for waiter in self._handed), *self.items]

    def wait(self, waiter: _Waiter) -> None:
        """Let ``waiter`` have the next value."""
        if len(self._receivers) >= self._prune_at:  # selects leave settled waiters behind
            self._receivers = deque(w for w in self._receivers if w.is_open)
            self._prune_at = max(_PRUNE_AT, 2 * len(self._receivers))
        self._receivers.append(waiter)

    async def block(self, value: Any) -> None:
        """Wait as a sender until ``value`` is taken."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (value, sent)
        self._senders.append(entry)
        try:
            await sent
        except (asyncio.CancelledError, LinkedRunFailed):
            self._senders = deque(other for other in self._senders if other is not entry)
            raise

    def close(self) -> None:
        """Close: waiting receivers and blocked senders get ChannelClosed."""
        self.is_closed = True
        for waiter in self._receivers:
            if waiter.is_open:
                waiter.future.set_exception(ChannelClosed())
        for _, sent in self._senders:
            if not sent.done():
                sent.set_exception(ChannelClosed("the channel was closed while sending"))
        self._receivers.clear()
        self._senders.clear()

    def _hand(self, value: Any) -> bool:
        while self._receivers:
            waiter = self._receivers.popleft()
            if waiter.is_open:
                waiter.future.set_result((self, value))
                self._handed.append(waiter)
                return True
        return False

    def _admit(self) -> None:
        while self._senders and (self.capacity is None or len(self.items) < self.capacity):
            value, sent = self._senders.popleft()
            if not sent.done():
                sent.set_result(None)
                self.items.append(value)


class Channel(Generic[T]):
    """Passes values between the tasks of one workflow.

    ``capacity`` values are kept while nobody receives; with 0 a sender waits for its receiver.
    Closed and drained, it raises :class:`ChannelClosed`, and ``async for`` over it ends.
    """

    def __init__(
        self,
        capacity: int = 0,
        *,
        queue: Queue | None = None,
        read: Callable[[Any], T] | None = None,
    ) -> None:
        if capacity < 0:
            raise UsageError(f"Channel: capacity {capacity} is negative")
        self.queue = Queue(capacity) if queue is None else queue
        self.read = read

    async def send(self, value: T) -> None:
        """Send ``value``, waiting while the channel is full.

        Raises:
            ChannelClosed: the channel is closed.
            UsageError: it is one that messages or notices come out of.
        """
        if self.read is not None:
            raise UsageError("this channel is for receiving; workflow.send() sends messages")
        if self.queue.is_closed:
            raise ChannelClosed("send on a closed channel")
        if not self.queue.offer(value):
            await self.queue.block(value)

    async def receive(self, timeout: Duration | None = None) -> T:
        """Wait for the next value; await it.

        Raises:
            ChannelClosed: closed and drained.
            TimeoutError: nothing came within ``timeout``.
            Invalid: a message came whose payload is not of the type that ``listen`` was given. It
                counts as received. Uncaught, it fails the run; catch it to go on with the next.
        """
        if timeout is None:
            return (await select(self))[1]
        limit = After(microseconds(timeout, what="timeout"))
        chosen, value = await select(self, limit)
        if chosen is not self:
            raise TimeoutError(f"nothing was received within {timeout}")
        return cast("T", value)

    def drain(self) -> list[T]:
        """Take what is there now, without waiting.

        Raises:
            Invalid: a message does not fit: see :meth:`receive`.
        """
        found: list[T] = []
        while True:
            is_there, value = self.queue.take()
            if not is_there:
                return found
            found.append(self.read(value) if self.read else value)

    def close(self) -> None:
        """Close the channel. What is in it can still be received."""
        self.queue.close()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ChannelClosed:
            raise StopAsyncIteration from None


class After:
    """A moment to select on. The time runs from the first ``select`` that sees it."""

    def __init__(self, microseconds_: int) -> None:
        self._seconds = microseconds_ / 1_000_000
        self._due: float | None = None

    def due(self) -> float:
        """Return the loop time, fixed at the first call."""
        if self._due is None:
            self._due = asyncio.get_running_loop().time() + self._seconds
        return self._due


def after(duration: Duration) -> After:
    """Return something ``select`` chooses once ``duration`` is over; its value is ``None``."""
    return After(microseconds(duration, what="after"))


@overload
async def select(first: Channel[A], /) -> tuple[Channel[A], A]: ...
@overload
async def select(first: Channel[A], second: After, /) -> tuple[Channel[A] | After, A | None]: ...
@overload
async def select(
    first: Channel[A], second: Channel[B], /
) -> tuple[Channel[A] | Channel[B], A | B]: ...
@overload
async def select(
    first: Channel[A], second: Channel[B], third: After, /
) -> tuple[Channel[A] | Channel[B] | After, A | B | None]: ...
@overload
async def select(
    first: Channel[A], second: Channel[B], third: Channel[C], /
) -> tuple[Channel[A] | Channel[B] | Channel[C], A | B | C]: ...
@overload
async def select(*sources: Channel[Any] | After) -> tuple[Any, Any]: ...
async def select(*sources: Channel[Any] | After) -> tuple[Any, Any]:
    """Wait for the first source that is ready and return ``(source, value)``.

    Sources that are ready already are tried in argument order. An ``after`` that is not chosen
    leaves no timer behind, and can be selected on again for the time that is left.

    Raises:
        ChannelClosed: a channel is closed and drained.
        Invalid: the message that was chosen does not fit: see :meth:`Channel.receive`.
        UsageError: there is nothing to wait for, or something that is neither.
    """
    if not sources or not all(isinstance(cast("Any", s), (Channel, After)) for s in sources):
        given = ", ".join(map(repr, sources)) or "nothing"
        raise UsageError(f"select: needs a channel or after(…), not {given}")
    loop = asyncio.get_running_loop()
    for source in sources:
        if isinstance(source, After):
            if source.due() <= loop.time():
                return source, None
            continue
        ready, value = source.queue.take()
        if ready:
            return source, source.read(value) if source.read else value
        if source.queue.is_closed:
            raise ChannelClosed
    waiter = _Waiter()
    timers: list[asyncio.TimerHandle] = []
    for source in sources:
        if isinstance(source, After):
            timers.append(loop.call_at(source.due(), _fire, waiter, source))
        else:
            source.queue.wait(waiter)
    try:
        queue, value = await waiter.future
    except (asyncio.CancelledError, LinkedRunFailed):
        _give_back(waiter)
        raise
    finally:
        for timer in timers:
            timer.cancel()
    if isinstance(queue, Queue):
        queue.received(waiter)
    for source in sources:
        if source is queue:
            return source, None
        if isinstance(source, Channel) and source.queue is queue:
            return source, source.read(value) if source.read else value
    raise AssertionError("a waiter was settled by a source it did not wait on")


def _fire(waiter: _Waiter, source: After) -> None:
    if waiter.is_open:
        waiter.future.set_result((source, None))


def _give_back(waiter: _Waiter) -> None:
    future = waiter.future
    if future.done() and not future.cancelled() and future.exception() is None:
        queue, value = future.result()
        if isinstance(queue, Queue):
            queue.received(waiter)
            queue.put_back(value)


class Mail:
    """Messages of a run: to the topic's listener, else the opened inbox, else kept in order.

    Queues hold (arrival number, message), so that what is left over can be passed on in order.
    """

    __slots__ = ("_arrived", "_inbox", "_listeners", "_unclaimed")

    def __init__(self) -> None:
        self._arrived = 0
        self._inbox: Queue | None = None
        self._listeners: dict[str, Queue] = {}
        self._unclaimed: deque[Any] = deque()

    def deliver(self, message: Any) -> None:
        """Put a message where it belongs."""
        self._arrived += 1
        letter = (self._arrived, message)
        queue = self._listeners.get(message.topic) or self._inbox
        if queue is None:
            self._unclaimed.append(letter)
        else:
            queue.offer(letter)

    def listen(self, topic: str) -> Queue:
        """Return the topic's queue; what came before it was opened is in it, in order."""
        queue = self._listeners.get(topic)
        if queue is None:
            queue = self._listeners[topic] = Queue(None, topic)
            self._drain(queue, lambda letter: letter[1].topic == topic)
        return queue

    def inbox(self) -> Queue:
        """Return the queue of messages without a listener."""
        if self._inbox is None:
            self._inbox = Queue(None, "*")
            self._drain(self._inbox, lambda _: True)
        return self._inbox

    def unread(self) -> list[Any]:
        """Return messages nobody received: what continue-as-new takes along."""
        letters = [letter for queue in self._queues() for letter in queue.unread()]
        return [message for _, message in sorted([*letters, *self._unclaimed], key=_arrival)]

    @property
    def kept(self) -> int:
        """How many messages nobody has received; about, since one may be on its way."""
        return len(self._unclaimed) + sum(len(queue.items) for queue in self._queues())

    def awaited(self) -> list[str]:
        """Return the topics somebody waits on now (``*`` is the inbox)."""
        return [queue.topic for queue in self._queues() if queue.is_awaited]

    def _queues(self) -> list[Queue]:
        return [*self._listeners.values(), *([self._inbox] if self._inbox else [])]

    def _drain(self, queue: Queue, wanted: Callable[[Any], bool]) -> None:
        kept: deque[Any] = deque()
        for letter in self._unclaimed:
            if not wanted(letter):
                kept.append(letter)
            else:
                queue.offer(letter)
        self._unclaimed = kept


def _arrival(letter: tuple[int, Any]) -> int:
    return letter[0]
