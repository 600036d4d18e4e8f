"""The doors a client goes through: what it asks of whatever runs its workflows.

:class:`StoreDoor` talks to the database alone: no worker in this process. The engine has a door of
its own (``engine/door.py``) that takes the same calls without a detour through the inbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from perdure import errors
from perdure.definition import Workflow
from perdure.store.complaints import Complaints
from perdure.store.desk import Desk, check_loop
from perdure.store.port import (
    Act,
    HumanTaskRow,
    Post,
    Posted,
    Question,
    Reader,
    RunRow,
    Started,
    StartRequest,
    Store,
    TurnRow,
)
from perdure.values import events as ev
from perdure.values import failures, limits, payload

T = TypeVar("T")
_SAFETY_SECONDS = 1.0
_PAGE = 5_000
_CLOSED = "the client was closed, or the engine it belongs to has stopped"
_log = logging.getLogger("perdure.client")


class Door(Protocol):
    """See the module's text. Every call may raise ``Unavailable``."""

    async def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any] | None
    ) -> Started:
        """Start a run; it is durable when this returns."""
        ...

    def start_within(
        self, connection: object, request: StartRequest, started: ev.RunStarted
    ) -> Started:
        """Start a run in the caller's own transaction."""
        ...

    async def start_copy(self, request: StartRequest) -> Started:
        """Start a run that brings its history along; it is durable when this returns."""
        ...

    async def post(self, row: RunRow, fact: ev.Event, sender: str, seq: int) -> Posted:
        """Give a fact to an execution; it is durable when this returns."""
        ...

    async def ask(self, row: RunRow, question: Question) -> bytes:
        """Put a query or an update to live code; return the encoded answer (see ``Answer``)."""
        ...

    async def ended(self, run: int) -> ev.Event:
        """Wait until run number ``run`` has ended; return its closing event."""
        ...

    async def read(self, verb: Callable[[Reader], T]) -> T:
        """Read from the store."""
        ...

    async def write(self, verb: Callable[[Store], T]) -> T:
        """Write to the store what needs no worker."""
        ...

    async def act(self, act: Act) -> HumanTaskRow:
        """Act on a human task; it is durable when this returns, and its run will hear of it."""
        ...

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that is done when something may have come for a mailbox."""
        ...

    def next_commit(self) -> asyncio.Future[None]:
        """Return a future that is done when anybody, also of this process, has committed."""
        ...

    def now(self) -> int:
        """Return microseconds since 1970."""
        ...

    def chance(self, size: int) -> bytes:
        """Return random bytes for ids and seeds."""
        ...

    def definition(self, name: str, version: str) -> Workflow[Any, Any] | None:
        """Return a registered definition, if this door knows any."""
        ...

    async def close(self) -> None:
        """Close what this door opened."""
        ...


class StoreDoor:
    """Goes to the database; workers of other processes do the rest."""

    def __init__(
        self,
        desk: Desk,
        now: Callable[[], int],
        chance: Callable[[int], bytes],
        *,
        watch: Watch | None = None,
    ) -> None:
        self._desk = desk
        self._now = now
        self._chance = chance
        self._watch = watch or Watch(desk)

    async def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any] | None
    ) -> Started:
        now = self._now()
        request.event = ev.encode_turn([started])
        answer = (await self._desk.write(lambda store: store.start([request], now)))[0]
        self._watch.committed()
        return answer

    def start_within(
        self, connection: object, request: StartRequest, started: ev.RunStarted
    ) -> Started:
        request.event = ev.encode_turn([started])
        return self._desk.start_within(connection, request, self._now())

    async def start_copy(self, request: StartRequest) -> Started:
        now = self._now()
        answer = (await self._desk.write(lambda store: store.start([request], now)))[0]
        self._watch.committed()
        return answer

    async def post(self, row: RunRow, fact: ev.Event, sender: str, seq: int) -> Posted:
        now = self._now()
        post = Post(
            event=ev.encode_turn([fact]),
            execution=row.execution,
            sender=sender,
            seq=seq,
            is_control=not isinstance(fact, ev.MessageReceived),
        )
        return (await self._desk.write(lambda store: store.post([post], now)))[0]

    async def ask(self, row: RunRow, question: Question) -> bytes:
        now = self._now()
        await self._desk.write(lambda store: store.ask(question, now))
        while True:
            change = self._watch.next_change()
            answer = await self._desk.read(lambda store: store.reply(question.id))
            if answer is not None:
                return answer
            left = question.deadline - self._now()
            if left <= 0:
                raise errors.Unavailable(
                    f"no worker answered {question.name!r} in time; see `perdure why`"
                )
            await asyncio.wait([change], timeout=min(1.0, left / 1_000_000))

    async def ended(self, run: int) -> ev.Event:
        return await self._watch.ended(run)

    async def read(self, verb: Callable[[Reader], T]) -> T:
        return await self._desk.read(verb)

    async def write(self, verb: Callable[[Store], T]) -> T:
        return await self._desk.write(verb)

    async def act(self, act: Act) -> HumanTaskRow:
        now = self._now()
        return (await self._desk.write(lambda store: store.act(act, now))).task

    def next_change(self) -> asyncio.Future[None]:
        return self._watch.next_change()

    def next_commit(self) -> asyncio.Future[None]:
        return self._watch.next_commit()

    def now(self) -> int:
        return self._now()

    def chance(self, size: int) -> bytes:
        return self._chance(size)

    def definition(self, name: str, version: str) -> Workflow[Any, Any] | None:
        return None

    async def close(self) -> None:
        self._watch.close()
        await self._desk.close()


def refusal(posted: Posted, workflow_id: str) -> errors.PerdureError | None:
    """Return the error that says why an execution did not take a fact; ``None`` if it did."""
    if posted.outcome in ("delivered", "duplicate"):
        return None
    if posted.outcome == "not_found":
        return errors.NotFound(f"there is no workflow {workflow_id!r}")
    if posted.outcome == "closed":
        return errors.Closed(f"workflow {workflow_id!r} has ended", kind=errors.Kind.NOT_FOUND)
    if posted.outcome == "full":
        return full_inbox(workflow_id)
    return errors.Unavailable(f"what was sent to {workflow_id!r} could not be stored")


def full_inbox(workflow_id: str) -> errors.Unavailable:
    """Return the error that says so."""
    return errors.Unavailable(
        f"the inbox of {workflow_id!r} is full ({limits.INBOX_PER_EXECUTION} messages that it "
        "has not received)"
    )


class Watch:
    """One watcher for all waits of a client: it looks when another process has committed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._trouble = Complaints(_log, self._loop.time)
        self._is_closed = False
        self._waiting: dict[int, list[asyncio.Future[ev.Event]]] = {}
        self._changes: list[asyncio.Future[None]] = []
        self._commits: list[asyncio.Future[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.is_at_hand: Callable[[int], bool] = lambda _run: False
        """Tells which runs somebody here will :meth:`resolve`."""
        desk.on_change = self.look

    def check(self) -> None:
        """Make sure that a wait can be answered.

        Raises:
            Unavailable: the watch was closed.
            UsageError: called in workflow code, or in another loop than its own.
        """
        check_loop(self._loop)
        if self._is_closed:
            raise errors.Unavailable(_CLOSED)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that is done at the next foreign commit.

        Raises:
            Unavailable: the watch was closed.
        """
        self.check()
        future: asyncio.Future[None] = self._loop.create_future()
        self._changes.append(future)
        return future

    def next_commit(self) -> asyncio.Future[None]:
        """Return a future that is done at the next commit, foreign or not.

        Raises:
            Unavailable: the watch was closed.
        """
        self.check()
        future: asyncio.Future[None] = self._loop.create_future()
        self._commits.append(future)
        return future

    def committed(self) -> None:
        """Somebody of this process has committed."""
        if self._commits:
            commits, self._commits = self._commits, []
            _resolve(commits)

    async def ended(self, run: int) -> ev.Event:
        """Wait for a run's end.

        Raises:
            Corrupt, SchemaMismatch: what it ended with cannot be read.
            Unavailable: the watch was closed first.
        """
        self.check()
        loop = self._loop
        future: asyncio.Future[ev.Event] = loop.create_future()
        self._waiting.setdefault(run, []).append(future)
        self._changed.set()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look())
        try:
            return await future
        finally:
            waiting = self._waiting.get(run)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[run]

    def resolve(self, run: int, closing: ev.Event) -> None:
        """A run of this process has ended."""
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_result(closing)

    def look(self) -> None:
        """Look which of the awaited runs have ended."""
        changes, self._changes = self._changes, []
        _resolve(changes)
        self.committed()
        self._changed.set()

    def close(self) -> None:
        """Stop watching; who waits hears of it. A second call does nothing."""
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self.look()
        waiting, self._waiting = self._waiting, {}
        for future in (future for futures in waiting.values() for future in futures):
            if not future.done():
                future.set_exception(errors.Unavailable(_CLOSED))

    async def _look(self) -> None:
        """Look after each change, and once a second: a change may go unnoticed."""
        while self._waiting:
            try:
                async with asyncio.timeout(_SAFETY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._look_once()
            except (errors.PerdureError, OSError) as error:
                # Whatever it is: without this task nobody who waits would hear anything.
                self._trouble.add("could not look for ended runs, will try again: %s", error)

    async def _look_once(self) -> None:
        keys = [run for run in self._waiting if not self.is_at_hand(run)]
        if not keys:
            return
        rows = await self._desk.read(lambda store: store.rows(keys))
        for row in rows:
            if not row.status.is_terminal:
                continue
            try:
                closing = await closing_event(self._desk.read, row.run)
            except (errors.Corrupt, errors.SchemaMismatch) as error:
                # Trying again would not help those who wait for it, and the others wait on.
                self._fail(row.run, error)
            else:
                self.resolve(row.run, closing)

    def _fail(self, run: int, error: errors.StoreError) -> None:
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_exception(error)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


async def closing_event(read: Callable[[Callable[[Reader], Any]], Any], run: int) -> ev.Event:
    """Return the last event of an ended run.

    Raises:
        Corrupt: its last row is damaged or missing; the message names run and event.
        SchemaMismatch: a newer Perdure wrote it.
    """
    turn: TurnRow | None = await read(lambda store: store.last_turn(run))
    if turn is None:
        raise errors.Corrupt(f"run {run} has ended and has no history")
    try:
        closing = ev.decode_turn(turn.payload)[-1]
    except errors.StoreError as exc:
        raise type(exc)(f"{turn.place}: {exc.message}") from exc
    except IndexError:
        raise errors.Corrupt(f"{turn.place}: it holds no events") from None
    if type(closing) not in ev.CLOSING:
        raise errors.Corrupt(f"{turn.place}: the run has ended, and its end is missing")
    return closing


def sound(row: RunRow) -> RunRow:
    """Return ``row``.

    Raises:
        Corrupt: some of it cannot be read.
    """
    if row.fault:
        raise errors.Corrupt(row.fault)
    return row


def is_a(kind: Any, data: bytes) -> bool:
    """Tell whether an encoded fact is of a kind."""
    try:
        return isinstance(ev.decode_fact(data), kind)
    except errors.StoreError:
        return False  # a worker will park the run and name the row


async def whole_history(door: Door, row: RunRow) -> list[TurnRow]:
    """Return a run's history, from event 1 to the last one that was there when ``row`` was read.

    Raises:
        Corrupt: some of it is missing or damaged.
    """
    turns = await all_turns(door, row.run)
    name, expected = f"history of run {row.run} ({row.run_id})", 1
    for turn in turns:
        if turn.first != expected:
            raise errors.Corrupt(f"{name}: events {expected} to {turn.first - 1} are missing")
        expected += turn.count
    if expected <= row.length:
        raise errors.Corrupt(f"{name}: events {expected} to {row.length} are missing")
    return turns


class Reads(Protocol):
    """What can read a store: a door, a desk."""

    def read(self, verb: Callable[[Reader], T]) -> Awaitable[T]:
        """Read from the store."""
        ...


async def all_turns(door: Reads, run: int, after: int = 0) -> list[TurnRow]:
    """Return the rows of a history that begin after event ``after``.

    Raises:
        Corrupt: one is damaged.
    """
    turns: list[TurnRow] = []
    while True:
        # Pages, so that no read holds a snapshot for long.
        start = after
        page = await door.read(lambda store: store.history(run, after=start, limit=_PAGE))  # noqa: B023 - awaited here
        turns += page
        if len(page) < _PAGE:
            return turns
        after = page[-1].first


def encode_answer(result: bytes | None, failure: failures.FailureInfo | None) -> bytes:
    """Encode the answer to a question."""
    if failure is not None:
        return payload.encode({"failure": failure})
    return b'{"result":' + (result or payload.NULL) + b"}"


def decode_answer(data: bytes) -> bytes:
    """Return the encoded result of an answer, or raise its failure."""
    answer = _read_answer(data)
    if answer.failure is not None:
        raise failures.to_exception(answer.failure)
    return bytes(answer.result)


class _Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(payload.NULL)
    failure: failures.FailureInfo | None = None


_read_answer = msgspec.json.Decoder(_Answer).decode
