"""The doors a client goes through: what it asks of whatever runs its workflows.

:class:`StoreDoor` talks to the database alone: no worker in this process. The engine has a door of
its own (``engine/door.py``) that takes the same calls without a detour through the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from perdure import errors
from perdure.definition import Workflow
from perdure.ends import Watch
from perdure.store.desk import Desk
from perdure.store.port import (
    Act,
    Acted,
    Happened,
    HumanTaskRaise,
    HumanTaskRow,
    Post,
    Posted,
    Question,
    Reader,
    RunRow,
    ScheduleDrop,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Started,
    StartRequest,
    Store,
    TurnRow,
)
from perdure.subjects import Subjects
from perdure.together import Together
from perdure.values import events as ev
from perdure.values import failures, limits, payload
from perdure.values.audit import AuditLine
from perdure.values.duration import SECOND
from perdure.values.granted import Granted
from perdure.values.principals import Principal
from perdure.values.records import Amend, Amended

T = TypeVar("T")
BUSY_TRIES = 1_000
_PAGE = 5_000


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

    async def find(self, name: str, namespace: str) -> RunRow | None:
        """Return the latest run of a workflow id, or of the execution whose first run it is."""
        ...

    async def start_copy(self, request: StartRequest) -> Started:
        """Start a run that brings its history along; it is durable when this returns."""
        ...

    async def post(
        self, row: RunRow, fact: ev.Event, sender: str, seq: int, audit: AuditLine | None = None
    ) -> Posted:
        """Give a fact to an execution; it is durable when this returns, and so is ``audit``."""
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

    async def act_all(
        self, acts: Sequence[Act], *, all_or_none: bool = False
    ) -> list[Acted | errors.PerdureError]:
        """Act on several in one transaction."""
        ...

    async def raise_human_task(self, wanted: HumanTaskRaise) -> HumanTaskRow:
        """Open a human task that no run asks for; it is durable when this returns."""
        ...

    async def amend(
        self, amend: Amend, schedules: Sequence[SchedulePut | ScheduleDrop] = ()
    ) -> Amended:
        """Write documents that administrators keep, and the schedules that follow from them."""
        ...

    async def put_schedule(self, put: SchedulePut) -> ScheduleRow:
        """Create or replace a schedule; it is durable when this returns."""
        ...

    async def steer_schedule(self, steer: ScheduleSteer) -> Happened:
        """Do something to a schedule; it is durable when this returns."""
        ...

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that is done when something may have come for a mailbox."""
        ...

    def next_commit(self) -> asyncio.Future[None]:
        """Return a future that is done when anybody, also of this process, has committed."""
        ...

    @property
    def subjects(self) -> Subjects:
        """The keys of persons."""
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


class Host(Protocol):
    """What the parts of a client need of it."""

    @property
    def door(self) -> Door:
        """Where its calls go."""
        ...

    @property
    def namespace(self) -> str:
        """Where its ids mean something."""
        ...

    @property
    def max_payload(self) -> int:
        """Bytes a payload may have."""
        ...

    @property
    def identity(self) -> str:
        """Who acts, by name."""
        ...

    @property
    def principal(self) -> Principal | None:
        """Who acts, if that is more than a name."""
        ...

    @property
    def acts_for(self) -> Principal | None:
        """Who acts now; what begins carries it along."""
        ...

    @property
    def granted(self) -> Granted:
        """What was judged before."""
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
        self.subjects = Subjects(desk, now, asyncio.get_running_loop())
        self._starts = Together(self._start)
        self._posts = Together(self._post)
        self._finds = Together(self._find)

    async def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any] | None
    ) -> Started:
        request.event = ev.encode_turn([started])
        for _ in range(BUSY_TRIES):
            answer = await self._starts.ask(request)
            if answer.refused != "busy":
                return answer
        raise busy(request)

    async def _start(self, requests: list[StartRequest]) -> Sequence[Started]:
        now = self._now()
        answers = await self._desk.write(lambda store: store.start(requests, now))
        self._watch.committed()
        return answers

    async def find(self, name: str, namespace: str) -> RunRow | None:
        return await self._finds.ask((namespace, name))

    def _find(self, names: list[tuple[str, str]]) -> Awaitable[Sequence[RunRow | None]]:
        return self._desk.read(lambda store: store.latest(names))

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

    async def post(
        self, row: RunRow, fact: ev.Event, sender: str, seq: int, audit: AuditLine | None = None
    ) -> Posted:
        post = Post(
            event=ev.encode_turn([fact]),
            execution=row.execution,
            sender=sender,
            seq=seq,
            is_control=not isinstance(fact, ev.MessageReceived),
            audit=audit,
        )
        return await self._posts.ask(post)

    def _post(self, posts: list[Post]) -> Awaitable[Sequence[Posted]]:
        now = self._now()
        return self._desk.write(lambda store: store.post(posts, now))

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

    async def act_all(
        self, acts: Sequence[Act], *, all_or_none: bool = False
    ) -> list[Acted | errors.PerdureError]:
        now = self._now()
        return await self._desk.write(
            lambda store: store.act_all(acts, now, all_or_none=all_or_none)
        )

    async def raise_human_task(self, wanted: HumanTaskRaise) -> HumanTaskRow:
        now = self._now()
        return await self._desk.write(lambda store: store.raise_human_task(wanted, now))

    async def amend(
        self, amend: Amend, schedules: Sequence[SchedulePut | ScheduleDrop] = ()
    ) -> Amended:
        now = self._now()
        return await self._desk.write(lambda store: store.amend(amend, now, schedules=schedules))

    async def put_schedule(self, put: SchedulePut) -> ScheduleRow:
        now = self._now()
        return await self._desk.write(lambda store: store.put_schedule(put, now))

    async def steer_schedule(self, steer: ScheduleSteer) -> Happened:
        now, chance = self._now(), self._chance(32)
        happened = await self._desk.write(lambda store: store.steer_schedule(steer, now, chance))
        self._watch.committed()
        return happened

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


def busy(request: StartRequest) -> errors.Unavailable:
    """Return the error that says so: somebody else starts the same again and again."""
    return errors.Unavailable(
        f"execution {request.workflow_id!r} is being started again and again; try later"
    )


def refused_by_limit(answer: Started, now: int) -> errors.PerdureError | None:
    """Return the error of a start that a limit refused; ``None``: none did."""
    if answer.refused == "limit":
        return errors.ConcurrencyLimit(answer.detail)
    if answer.refused == "place":
        return errors.ConcurrencyLimit(answer.detail, details={"key": answer.place})
    if answer.refused != "rate":
        return None
    seconds = max(0, answer.retry_at - now) / SECOND
    return errors.RateLimited(
        f"{answer.detail}; try again in {seconds:.3g} s", details={"retry_after": seconds}
    )


def full_inbox(workflow_id: str) -> errors.Unavailable:
    """Return the error that says so."""
    return errors.Unavailable(
        f"the inbox of {workflow_id!r} is full ({limits.INBOX_PER_EXECUTION} messages that it "
        "has not received)"
    )


def check_started(answer: Started, now: int) -> None:
    """Make sure that a start was not refused.

    Raises:
        ConcurrencyLimit, RateLimited, AlreadyExists, Unavailable: see ``Client.start``.
    """
    if (limited := refused_by_limit(answer, now)) is not None:
        raise limited
    if answer.refused == "full":
        raise full_inbox(answer.workflow_id)
    if answer.refused == "taken":
        raise errors.AlreadyExists(f"the id {answer.workflow_id!r} is taken: choose another")
    if answer.refused:
        of = f" of workflow {answer.workflow!r}" if answer.workflow else ""
        raise errors.AlreadyExists(
            f"an execution{of} with id {answer.workflow_id!r} exists and is {answer.status}",
            details={"run_id": answer.run_id, "status": str(answer.status)},
        )


def sound(row: RunRow) -> RunRow:
    """Return ``row``.

    Raises:
        Corrupt: some of it cannot be read.
        Sealed: some of it cannot be opened here.
    """
    if row.fault:
        raise errors.Corrupt(row.fault)
    if row.sealed:
        raise errors.Sealed(f"row of run {row.run} ({row.run_id}): {row.sealed}")
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
