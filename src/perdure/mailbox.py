"""A mailbox: an address for callers outside, to get answers and to watch executions.

Workflows see it as ``message.sender`` and send to it as to any execution. It lives in the database
while its ``async with`` block runs, and a little longer if the process dies; what is sent to a
closed one is taken and dropped. (The idea is Wippy's: a caller is a process with an inbox.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Generic, Self, TypeVar, overload

from perdure import errors
from perdure.definition import Workflow
from perdure.handle import Handle, Sender
from perdure.store.port import Watch
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.duration import Duration, microseconds
from perdure.values.ids import MAILBOX
from perdure.workflow import Exit, LinkDown, Message, check_topic
from perdure.workflow.run import to_time

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

_log = logging.getLogger("perdure.client")
_KEPT_OPEN = 60_000_000
_EXTEND_SECONDS = 20.0
_SAFETY_SECONDS = 1.0
_PAGE = 1_000
Notice = Exit | LinkDown
Starter = Callable[..., Awaitable[Handle[Any]]]


class Inlet(Generic[T]):
    """What comes into a mailbox, one kind of it. ``async for`` runs until the mailbox closes."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._closed: errors.ChannelClosed | None = None

    async def receive(self, timeout: Duration | None = None) -> T:
        """Return the next one, in the order in which they came.

        Raises:
            TimeoutError: nothing came within ``timeout``.
            ChannelClosed: the mailbox is closed.
            Invalid: a payload does not fit the type given to ``listen``.
        """
        if self._closed is not None and self._items.empty():
            raise self._closed
        if timeout is None:
            item = await self._items.get()
        else:
            try:
                async with asyncio.timeout(microseconds(timeout, what="timeout") / 1_000_000):
                    item = await self._items.get()
            except TimeoutError:
                raise TimeoutError(f"nothing was received within {timeout}") from None
        if isinstance(item, errors.ChannelClosed):
            raise item
        return self._read(item)

    def offer(self, item: Any) -> None:
        """Put one in."""
        self._items.put_nowait(item)

    def close(self) -> None:
        """Let receivers know that nothing will come any more."""
        self._closed = errors.ChannelClosed("the mailbox is closed")
        self._items.put_nowait(self._closed)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except errors.ChannelClosed:
            raise StopAsyncIteration from None


class MailboxMessage(Message):
    """A message that came into a mailbox; ``reply`` goes back from there."""

    __slots__ = ("_box",)

    def __init__(self, recorded: ev.Message, value: Any, box: Mailbox) -> None:
        super().__init__(recorded, value)
        self._box = box

    async def reply(self, topic: str, payload: Any = None) -> None:
        """Send to whoever sent this message."""
        await self._box.send(self.sender, topic, payload)


class _Ask:
    """An ask under way. ``names``: how the asked execution signs what it sends."""

    def __init__(self, topics: tuple[str, ...], name: str) -> None:
        self.topics = topics
        self.names = {name}
        self.answers = Inlet[ev.Message](lambda message: message)

    def fits(self, message: ev.Message) -> bool:
        return message.topic in self.topics and message.sender in self.names


class Mailbox:
    """See the module's text. ``async with client.mailbox() as box``."""

    def __init__(self, client: Sender, start: Starter, *, trap_links: bool = False) -> None:
        self._client = client
        self._start = start
        self._traps_links = trap_links
        self.id = ""
        """The address, while the mailbox is open."""
        self._seq = 0
        self._refs = 0
        self._taken = 0
        """The last row that was given out: rows are numbered in the order of their commits."""
        self._listeners: dict[str, Inlet[Any]] = {}
        self._asks: list[_Ask] = []
        """Those without an answer, in the order in which they were asked."""
        self._kept: list[ev.Message] = []
        self._inbox: Inlet[Message] | None = None
        self._events: Inlet[Notice] = Inlet(_read_notice)
        self._watches: dict[int, tuple[str, str, str]] = {}
        """What is watched, by namespace and id, and how: ``monitor`` or ``link``."""
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._broken: errors.PerdureError | None = None

    # -- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        door = self._client.door
        self.id = f"{MAILBOX}mailbox/{door.chance(16).hex()}"
        self._body = asyncio.current_task()
        await self._keep_open()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._pump()), loop.create_task(self._extend())]
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        address, now = self.id, self._client.door.now()
        try:
            await self._client.door.write(lambda store: store.close_mailboxes([address], now))
        except errors.StoreError as error:
            _log.warning("could not close a mailbox; it is forgotten in a minute: %s", error)
        self._close_inlets()
        broken = self._broken
        if broken is not None and isinstance(exc, asyncio.CancelledError):
            if self._body is not None:
                self._body.uncancel()
            raise broken

    # -- messages ----------------------------------------------------------------------------

    async def send(
        self, target: Any, topic: str, payload: Any = None, *, namespace: str | None = None
    ) -> None:
        """Send a message; ``target`` is a handle, a workflow id or a message's sender.

        A mailbox that is closed, or a sender that has none, takes the message and drops it.
        ``namespace``: the one that an id is of, if it is not the client's. A handle has its own.

        Raises:
            NotFound: the execution is unknown.
            Closed: it has ended.
        """
        self._seq += 1
        await self._handle(target, namespace).send_from(self.id, self._seq, topic, payload)

    async def ask(
        self,
        target: Any,
        topic: str,
        payload: Any = None,
        *,
        reply: str,
        error: str | None = None,
        timeout: Duration | None = None,
        namespace: str | None = None,
    ) -> Any:
        """Send a message and return the payload of the execution's next one with topic ``reply``.

        Asks may overlap: what comes from one execution answers the asks of it in their order, and
        a reply that no ask waits for goes where other messages go. Replies carry no number: one
        that comes after its ask has timed out answers the next ask of that execution and topic.

        Raises:
            ApplicationError: a message with topic ``error`` came instead; its payload is the
                message and the details.
            TimeoutError: nothing came within ``timeout``.
            NotFound: the execution is unknown.
            Closed: it has ended.
        """
        handle = self._handle(target, namespace)
        pending = _Ask((reply,) if error is None else (reply, error), handle.id)
        self._asks.append(pending)
        try:
            self._seq += 1
            await handle.send_from(self.id, self._seq, topic, payload, found=pending.names.add)
            answer = await pending.answers.receive(timeout)
        finally:
            if pending in self._asks:
                self._asks.remove(pending)
        value = _decode(answer)
        if answer.topic == error:
            raise errors.ApplicationError(str(value), details=value, retryable=False)
        return value

    @overload
    def listen(self, topic: str) -> Inlet[Any]: ...
    @overload
    def listen(self, topic: str, type: type[T]) -> Inlet[T]: ...
    def listen(self, topic: str, type: Any = Any) -> Inlet[Any]:
        """Return the payloads of one topic; they no longer go to the inbox."""
        check_topic(topic)
        found = self._listeners.get(topic)
        if found is not None:
            return found
        read = payload.decoder(type, what=f"message {topic!r}")
        inlet = Inlet[Any](lambda message: read(message.payload))
        self._listeners[topic] = inlet
        self._kept = [one for one in self._kept if not self._deliver(one)]
        return inlet

    def inbox(self) -> Inlet[Message]:
        """Return all messages without a listener of their own."""
        if self._inbox is None:
            self._inbox = Inlet(lambda message: MailboxMessage(message, _decode(message), self))
            self._kept = [one for one in self._kept if not self._deliver(one)]
        return self._inbox

    # -- executions --------------------------------------------------------------------------

    async def start(
        self,
        workflow: Workflow[In, Out] | str,
        input: In | Any = None,
        *,
        monitor: bool = False,
        link: bool = False,
        **options: Any,
    ) -> Handle[Any]:
        """Start an execution as ``client.start`` does; this mailbox is the sender of ``messages``.

        ``monitor`` and ``link`` take effect in the commit of the start.
        """
        return await self._start(
            workflow, input, sender=self, monitor=monitor, link=link, **options
        )

    def new_watches(self, *, monitor: bool, link: bool) -> tuple[Watch, ...]:
        """Return watches for a start; what they tell is known here from now on."""
        ways = [way for way, wanted in (("monitor", monitor), ("link", link)) if wanted]
        watches = tuple(Watch(way, mailbox=self.id, ref=self._ref()) for way in ways)
        self._watches.update((watch.ref, ("", "", watch.way)) for watch in watches)
        return watches

    def started(self, watches: Sequence[Watch], handle: Handle[Any]) -> None:
        """The execution that these watches are of is known now."""
        for watch in watches:
            if watch.ref in self._watches:
                self._watches[watch.ref] = (handle.namespace, handle.id, watch.way)

    async def monitor(self, target: Any, *, namespace: str | None = None) -> None:
        """Get one :class:`Exit` on :meth:`events` when an execution ends; at once if it has.

        Raises:
            NotFound: there is no such execution.
        """
        await self._watch(self._handle(target, namespace), "monitor")

    async def link(self, target: Any, *, namespace: str | None = None) -> None:
        """Hear of the end of an execution: a good one is an :class:`Exit`.

        A bad one cancels the body of the ``async with`` block and raises ``LinkedRunFailed`` out of
        it, or is a :class:`LinkDown` with ``trap_links``. The end of the mailbox does not reach the
        execution.

        Raises:
            NotFound: there is no such execution.
        """
        await self._watch(self._handle(target, namespace), "link")

    async def unmonitor(self, target: Any, *, namespace: str | None = None) -> None:
        """Get no notice of it from here on."""
        await self._unwatch(self._handle(target, namespace), "monitor")

    async def unlink(self, target: Any, *, namespace: str | None = None) -> None:
        """Take a link back."""
        await self._unwatch(self._handle(target, namespace), "link")

    def events(self) -> Inlet[Notice]:
        """Return the notices about watched executions."""
        return self._events

    def look(self) -> None:
        """Something has come in that no change of the database tells of: this client sent it."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    # -- inside ------------------------------------------------------------------------------

    def _handle(self, target: Any, namespace: str | None) -> Handle[Any]:
        if isinstance(target, Handle):
            return target  # pyright: ignore[reportUnknownVariableType] - whatever its result
        return Handle(self._client, str(target), "", payload.decode, namespace=namespace)

    def _ref(self) -> int:
        self._refs += 1
        return self._refs

    async def _watch(self, target: Handle[Any], way: str) -> None:
        ref = self._ref()
        watch = Watch(way, target.id, target.namespace, mailbox=self.id, ref=ref)
        self._watches[ref] = _known_as(watch)
        now = self._client.door.now()
        try:
            (answer,) = await self._client.door.write(lambda store: store.watch([watch], now))
        except BaseException:
            self._watches.pop(
                ref, None
            )  # it may stand all the same; whoever tries again gets one notice
            raise
        if answer == "not_found":
            del self._watches[ref]
            raise errors.NotFound(f"there is no workflow {watch.workflow_id!r}")
        if answer == "ended":
            await self._take_mail()

    async def _unwatch(self, target: Handle[Any], way: str) -> None:
        watch = Watch(way, target.id, target.namespace, mailbox=self.id, drop=True)
        taken_back = _known_as(watch)
        self._watches = {ref: it for ref, it in self._watches.items() if it != taken_back}
        now = self._client.door.now()
        await self._client.door.write(lambda store: store.watch([watch], now))

    def _close_inlets(self) -> None:
        inlets = [*self._listeners.values(), *(ask.answers for ask in self._asks)]
        for inlet in (*inlets, self._events, *([self._inbox] if self._inbox else [])):
            inlet.close()

    async def _keep_open(self) -> None:
        address, until = self.id, self._client.door.now() + _KEPT_OPEN
        await self._client.door.write(lambda store: store.keep_mailboxes([address], until))

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(_EXTEND_SECONDS)
            try:
                await self._keep_open()
            except errors.StoreError as error:
                _log.warning("could not keep a mailbox open, will try again: %s", error)

    async def _pump(self) -> None:
        while True:
            try:
                change = self._change = self._client.door.next_change()
            except errors.PerdureError:
                self._close_inlets()  # the engine has stopped: nothing comes in any more
                return
            try:
                await self._take_mail()
            except errors.StoreError as error:
                _log.warning("could not read a mailbox, will try again: %s", error)
            await asyncio.wait([change], timeout=_SAFETY_SECONDS)

    async def _take_mail(self) -> None:
        async with self._reading:
            await self._take_page()

    async def _take_page(self) -> None:
        address, door = self.id, self._client.door
        rows = await door.read(lambda store: store.mail([address], limit=_PAGE))
        if not rows:
            return
        read = [row for row, _, _ in rows]
        for row, _, data in rows:
            if row <= self._taken:
                continue  # it was given out, and dropping it was not acknowledged
            self._taken = row
            fact = ev.decode_turn(data)[0]
            if isinstance(fact, ev.MessageReceived):
                if not self._deliver(fact.message):
                    self._kept.append(fact.message)
            elif isinstance(fact, ev.ExecutionEnded):
                self._end(fact)
        await door.write(lambda store: store.drop_mail(read))

    def _deliver(self, message: ev.Message) -> bool:
        inlet = self._listeners.get(message.topic, self._inbox)
        for ask in self._asks:
            if ask.fits(message):
                self._asks.remove(ask)
                inlet = ask.answers
                break
        if inlet is None:
            return False
        inlet.offer(message)
        return True

    def _end(self, ended: ev.ExecutionEnded) -> None:
        if self._watches.pop(ended.watch, None) is None:
            return  # watched no more
        if ended.way != "link" or ended.failure is None or self._traps_links:
            self._events.offer(ended)
            return
        text = f"linked workflow {ended.workflow_id!r} ended: {ended.failure.root.message}"
        self._broken = failures.wrap(errors.LinkedRunFailed, text, ended.failure)
        if self._body is not None:
            self._body.cancel()


def _known_as(watch: Watch) -> tuple[str, str, str]:
    return watch.namespace, watch.workflow_id, watch.way


def _decode(message: ev.Message) -> Any:
    return payload.decode(message.payload)


def _read_notice(ended: ev.ExecutionEnded) -> Notice:
    at: datetime = to_time(ended.at)
    if ended.failure is None:
        result = payload.decode(ended.result or payload.NULL)
        return Exit(ended.workflow_id, at, result=result)
    error = failures.to_exception(ended.failure)
    if ended.way == "link":
        return LinkDown(ended.workflow_id, at, error)
    return Exit(ended.workflow_id, at, error=error)
