"""What workflow code calls.

Everything here works inside a workflow's activation and raises :class:`UsageError` elsewhere. Plain
functions return at once; what is awaited may suspend the run, for seconds or for months.
"""

from __future__ import annotations

import asyncio
import logging
import uuid as _uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NoReturn, TypeVar, overload

import msgspec

from perdure import activity as _activity
from perdure import errors
from perdure.definition import Workflow, define
from perdure.handlers import QueryHandler, UpdateHandler
from perdure.kernel import traps
from perdure.kernel.channels import After, Channel, after, select
from perdure.kernel.instance import ContinueAsNew, Instance
from perdure.kernel.pending import Child
from perdure.saga import Saga
from perdure.values import events as ev
from perdure.values import failures, ids, payload
from perdure.values.duration import Duration, microseconds, optional_microseconds

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PARENT_CLOSE = ("terminate", "abandon", "request_cancel")


class Info(msgspec.Struct, frozen=True):
    """What a run knows about itself. ``history_size`` in bytes."""

    workflow_id: str
    run_id: str
    workflow_type: str
    version: str
    task_queue: str
    namespace: str
    attempt: int
    history_length: int
    history_size: int
    started_at: datetime
    parent_workflow_id: str | None = None
    parent_run_id: str | None = None
    continued_from: str | None = None


class Exit(msgspec.Struct, frozen=True):
    """A notice on ``events()``: a child ended. Exactly one of result and error is set, or the
    result is ``None``."""

    sender: str
    at: datetime
    result: Any = None
    error: errors.PerdureError | None = None
    kind: str = "exit"


class Message:
    """A received message. ``payload`` is decoded; ``sender`` can be sent to."""

    __slots__ = ("id", "payload", "sender", "sent_at", "topic")

    def __init__(self, recorded: ev.Message, value: Any) -> None:
        self.topic = recorded.topic
        self.payload = value
        self.sender = recorded.sender
        self.id = recorded.id
        self.sent_at = _time(recorded.sent_at)

    async def reply(self, topic: str, payload: Any = None) -> None:
        """Send to whoever sent this message."""
        await send(self.sender, topic, payload)

    def __repr__(self) -> str:
        return f"<Message {self.topic!r} from {self.sender!r}>"


# -- time and chance -----------------------------------------------------------------------------


async def sleep(duration: Duration) -> None:
    """Sleep durably; a restart does not lengthen it."""
    await traps.sleep(traps.here(), microseconds(duration, what="sleep"))


def now() -> datetime:
    """Return the turn's recorded time, aware, in UTC."""
    return _time(traps.here().time)


def uuid4() -> _uuid.UUID:
    """Return a random UUID that replays alike."""
    return _uuid.UUID(bytes=traps.here().draw(16), version=4)


def random() -> float:
    """Return a number in [0, 1) that replays alike."""
    return traps.here().draw_fraction()


def random_bytes(size: int) -> bytes:
    """Return ``size`` random bytes that replay alike."""
    return traps.here().draw(size)


# -- about the run -------------------------------------------------------------------------------


def info() -> Info:
    """Return what this run knows about itself."""
    instance = traps.here()
    started = _started(instance)
    return Info(
        workflow_id=started.workflow_id,
        run_id=started.run_id,
        workflow_type=started.workflow,
        version=started.version,
        task_queue=started.queue,
        namespace=started.namespace,
        attempt=started.attempt,
        history_length=instance.length,
        history_size=instance.size,
        started_at=_time(started.started_at),
        parent_workflow_id=started.parent.workflow_id if started.parent else None,
        parent_run_id=started.parent.run_id if started.parent else None,
        continued_from=started.continued_from,
    )


def history_length() -> int:
    """Return the number of events before this turn."""
    return traps.here().length


def history_size() -> int:
    """Return the bytes of history before this turn."""
    return traps.here().size


class _Context(Mapping[str, Any]):
    """The propagated context, read-only: ``workflow.context["tenant"]``."""

    def _values(self) -> dict[str, Any]:
        raw = _started(traps.here()).context
        return payload.decode(raw) if raw else {}

    def __getitem__(self, key: str) -> Any:
        return self._values()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __repr__(self) -> str:
        return repr(self._values())


class _ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs after the commit of the turn, never again in a replay."""

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        instance = traps.current()
        if instance is None:
            super().log(level, msg, *args, **kwargs)
        elif self.isEnabledFor(level):
            text = str(msg) % args if args else str(msg)
            instance.effect("log", (level, text))


context = _Context()
logger = _ReplaySafeLogger(logging.getLogger("perdure.workflow"), {})


async def attrs(
    *, search: Mapping[str, Any] | None = None, memo: Mapping[str, Any] | None = None
) -> None:
    """Merge search attributes (text, number, bool, list of text; indexed) and memo; ``None``
    removes a key.

    Raises:
        UsageError: neither was given.
        Invalid: a value of a type that cannot be indexed.
    """
    if not search and not memo:
        raise errors.UsageError("attrs: give search=, memo= or both")
    traps.here().command(
        ev.AttributesSet(
            search=payload.encode(check_search(search)) if search else None,
            memo=payload.encode(dict(memo), what="memo") if memo else None,
        )
    )


async def progress(done: float, total: float | None = None, note: str = "") -> None:
    """Say how far the run is; shown by ``describe``, the CLI and the UI."""
    traps.here().command(ev.ProgressReported(done=done, total=total, note=note))


async def emit(event: str, data: Any = None) -> None:
    """Tell the engine's listeners ``data`` after this turn is committed; not recorded."""
    traps.here().effect("emit", (event, payload.encode(data, what="data")))


# -- activities ----------------------------------------------------------------------------------


def call(name: str, *args: Any) -> Coroutine[Any, Any, Any]:
    """Call an activity by name; it must be registered with the worker that runs it."""
    return _activity.by_name(name, args)


# -- children ------------------------------------------------------------------------------------


class ChildHandle(Generic[T]):
    """A started child. Await it for its result; giving up the await does not end the child."""

    __slots__ = ("_child",)

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def id(self) -> str:
        """The child's workflow id."""
        return self._child.event.workflow_id

    @property
    def run_id(self) -> str:
        """The id of the child's first run."""
        return self._child.event.run_id

    def done(self) -> bool:
        """Whether the child has ended."""
        return self._child.future.done()

    def __await__(self) -> Any:
        return asyncio.shield(self._child.future).__await__()

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send the child a message."""
        await send(self.id, topic, payload)

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> None:
        """Ask the child to end."""
        await RemoteHandle(self.id).cancel(reason, deadline)

    async def terminate(self, reason: str = "") -> None:
        """End the child at once."""
        await RemoteHandle(self.id).terminate(reason)

    def __repr__(self) -> str:
        return f"<child {self.id!r}>"


class RemoteHandle:
    """Any execution, by id."""

    __slots__ = ("id",)

    def __init__(self, workflow_id: str) -> None:
        self.id = workflow_id

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send it a message.

        Raises:
            NotFound: it is unknown or has ended.
        """
        await send(self.id, topic, payload)

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> None:
        """Ask it to end; after ``deadline`` it is terminated.

        Raises:
            NotFound: it is unknown or has ended.
        """
        instance = traps.here()
        limit = optional_microseconds(deadline, what="deadline")
        due = instance.time + limit if limit is not None else 0
        await traps.cancel_other(instance, self.id, reason, due, terminate=False)

    async def terminate(self, reason: str = "") -> None:
        """End it at once.

        Raises:
            NotFound: it is unknown or has ended.
        """
        await traps.cancel_other(traps.here(), self.id, reason, 0, terminate=True)


def handle(workflow_id: str) -> RemoteHandle:
    """Return a handle on any execution."""
    return RemoteHandle(ids.check_workflow_id(workflow_id))


@overload
async def start(child: Workflow[In, Out], input: In = ..., **options: Any) -> ChildHandle[Out]: ...
@overload
async def start(child: str, input: Any = None, **options: Any) -> ChildHandle[Any]: ...
async def start(child: Any, input: Any = None, **options: Any) -> ChildHandle[Any]:
    """Start a child and return its handle; one ``Exit`` will be on :func:`events`.

    Options: ``id``, ``version``, ``task_queue``, ``parent_close_policy`` (``terminate``,
    ``abandon``, ``request_cancel``), ``context`` (merged over this run's), ``messages``,
    ``search``, ``memo``.

    Raises:
        Invalid: an option or the input is not acceptable.
    """
    return ChildHandle(_schedule_child(child, input, options))


@overload
async def execute(child: Workflow[In, Out], input: In = ..., **options: Any) -> Out: ...
@overload
async def execute(child: str, input: Any = None, **options: Any) -> Any: ...
async def execute(child: Any, input: Any = None, **options: Any) -> Any:
    """Run a child and wait for its result. Cancelling the wait asks the child to end.

    Raises:
        ChildFailed: the child did not complete.
    """
    scheduled = _schedule_child(child, input, options)
    scheduled.is_quiet = True
    try:
        return await asyncio.shield(scheduled.future)
    except asyncio.CancelledError:
        if not scheduled.future.done():
            traps.here().command(ev.CancelSent(target=scheduled.event.workflow_id))
        raise


def _schedule_child(child: Any, value: Any, options: dict[str, Any]) -> Child:
    instance = traps.here()
    name = child.name if isinstance(child, Workflow) else str(child)
    known = {
        "id",
        "version",
        "task_queue",
        "parent_close_policy",
        "context",
        "messages",
        "search",
        "memo",
    }
    if unknown := set(options) - known:
        raise errors.Invalid(f"start: unknown option {', '.join(sorted(unknown))}")
    policy = options.get("parent_close_policy", "terminate")
    if policy not in PARENT_CLOSE:
        raise errors.Invalid(f"parent_close_policy: {policy!r}; use one of {PARENT_CLOSE}")
    data = payload.limit(
        payload.encode(value, what=f"input of {name}"),
        instance.max_payload,
        what=f"input of {name}",
    )
    if isinstance(child, Workflow):
        child.check_input(data)
    started = _started(instance)
    run_id = instance.new_run_id()
    explicit = options.get("id")
    merged = {**context, **(options.get("context") or {})}
    event = ev.ChildScheduled(
        workflow=name,
        workflow_id=run_id if explicit is None else ids.check_workflow_id(explicit),
        run_id=run_id,
        input=data,
        version=options.get("version") or (child.version if isinstance(child, Workflow) else ""),
        queue=options.get("task_queue")
        or (child.task_queue if isinstance(child, Workflow) else started.queue),
        parent_close=policy,
        context=payload.encode(merged, what="context") if merged else None,
        messages=recorded_messages(options.get("messages") or (), started.workflow_id, instance.time),
        search=payload.encode(check_search(options["search"])) if options.get("search") else None,
        memo=payload.encode(options["memo"], what="memo") if options.get("memo") else None,
    )
    read = child.read_result if isinstance(child, Workflow) else payload.decode
    return traps.start_child(instance, event, read)


# -- messages ------------------------------------------------------------------------------------


async def send(target: Any, topic: str, payload: Any = None) -> None:
    """Send a message to an execution's id, a handle, or a ``message.sender``.

    Returns when the message is committed into the target's inbox.

    Raises:
        NotFound: the execution is unknown or has ended. (A closed or anonymous mailbox takes the
            message and drops it.)
        Invalid: a bad topic or payload.
    """
    instance = traps.here()
    address = target if isinstance(target, str) else target.id
    if not address:
        return
    data = encode_message(topic, payload, instance.max_payload)
    await traps.send(instance, address, topic, data)


def listen(topic: str, type: Any = Any, *, message: bool = False) -> Channel[Any]:
    """Return the channel of ``topic``: payloads (decoded as ``type``), or whole messages.

    What came before is in it. A topic with a listener never goes to the inbox.
    """
    check_topic(topic)
    queue = traps.here().mail.listen(topic)
    read = payload.decoder(type, what=f"message {topic!r}")
    if message:
        return Channel(queue=queue, read=lambda item: Message(item[1], read(item[1].payload)))
    return Channel(queue=queue, read=lambda item: read(item[1].payload))


def inbox() -> Channel[Message]:
    """Return the channel of all messages without a listener of their own."""
    queue = traps.here().mail.inbox()
    return Channel(
        queue=queue, read=lambda item: Message(item[1], payload.decode(item[1].payload))
    )


def events() -> Channel[Exit]:
    """Return the channel of notices about started children."""
    return Channel(queue=traps.here().notices, read=_read_notice)


def _read_notice(item: tuple[Child, ev.ChildClosed]) -> Exit:
    child, closed = item
    result, error = None, None
    if closed.failure is not None:
        error = failures.to_exception(closed.failure)
    else:
        result = child.read(closed.result or payload.NULL)
    return Exit(sender=child.event.workflow_id, at=_time(closed.at), result=result, error=error)


# -- waiting and tasks ---------------------------------------------------------------------------


async def wait_condition(
    predicate: Callable[[], object], timeout: Duration | None = None
) -> None:
    """Wait until ``predicate()`` is true; it is asked after every step of the run.

    Raises:
        TimeoutError: it was not within ``timeout``.
    """
    instance = traps.here()
    if timeout is None:
        await traps.condition(instance, predicate)
        return
    async with asyncio.timeout(microseconds(timeout, what="timeout") / 1_000_000):
        await traps.condition(instance, predicate)


def spawn(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run a coroutine beside the main one; it ends with the workflow, and its exception fails it."""
    return traps.here().spawn(coro)


def saga() -> Saga:
    """Return a saga: ``async with saga() as s: s.add(refund, payment.id)``."""
    return Saga()


# -- code that changes, runs that go on ----------------------------------------------------------


def version(change_id: str, min: int, max: int) -> int:
    """Return the version of a change that this run goes by: ``max`` for runs that get here anew,
    the recorded one in a replay, 1 for a history that had passed here before the call existed.

    Raises:
        UsageError: an empty id, or min above max.
    """
    if not change_id or min > max:
        raise errors.UsageError(f"version({change_id!r}, {min}, {max}): needs an id and min <= max")
    return traps.here().version(change_id, min, max)


def patched(change_id: str) -> bool:
    """Tell whether this run goes by the new code: True for runs that get here anew."""
    return version(change_id, 1, 2) == 2


async def continue_as_new(input: Any = None, *, workflow: Any = None) -> NoReturn:
    """End this run; the execution goes on in a new one with ``input`` and an empty history.

    Messages nobody received go along; children stay the execution's.
    """
    instance = traps.here()
    started = _started(instance)
    name = started.workflow if workflow is None else getattr(workflow, "name", workflow)
    data = payload.limit(
        payload.encode(input, what="input"), instance.max_payload, what=f"input of {name}"
    )
    raise ContinueAsNew(
        ev.RunContinued(run_id=instance.new_run_id(), workflow=name, input=data)
    )


# -- handlers ------------------------------------------------------------------------------------


def query(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let ``handle.query(name, …)`` call the decorated inner function. It may only read."""

    def register(fn: Callable[..., T]) -> Callable[..., T]:
        traps.here().queries[name] = QueryHandler(name, fn)
        return fn

    return register


def update(
    name: str, *, validator: Callable[..., object] | None = None
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let ``handle.update(name, …)`` run the decorated inner function and get its answer.

    ``validator`` gets the same arguments, may only read, and refuses by raising: a refused update
    leaves no trace in the history.
    """

    def register(fn: Callable[..., T]) -> Callable[..., T]:
        traps.here().update_handlers[name] = UpdateHandler(name, fn, validator)
        return fn

    return register


# -- shared with the client ----------------------------------------------------------------------


def check_topic(topic: object) -> str:
    """Return ``topic`` if it is one: text, not empty, not beginning with ``@``."""
    if not isinstance(topic, str) or not topic or len(topic) > 255:
        raise errors.Invalid(f"topic: {topic!r} must be text of 1 to 255 characters")
    if topic[0] == "@":
        raise errors.Invalid(f"topic: {topic!r} begins with '@', which is kept for Perdure")
    return topic


def encode_message(topic: object, value: Any, limit: int) -> bytes:
    """Check a message's topic and encode its payload."""
    name = check_topic(topic)
    what = f"message {name!r}"
    return payload.limit(payload.encode(value, what=what), limit, what=what)


def recorded_messages(
    given: Sequence[tuple[str, Any]], sender: str, time: int
) -> tuple[ev.Message, ...]:
    """Encode startup messages."""
    return tuple(
        ev.Message(check_topic(topic), payload.encode(value), sender, sent_at=time)
        for topic, value in given
    )


def check_search(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return search attributes if all can be indexed.

    Raises:
        Invalid: a value that is not text, number, bool, list of text or ``None``.
    """
    for key, value in given.items():
        texts = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        if not (value is None or isinstance(value, (str, int, float, bool)) or texts):
            raise errors.Invalid(
                f"search attribute {key!r}: {type(value).__name__} cannot be indexed; "
                "use text, a number, a bool or a list of text"
            )
    return dict(given)


def _started(instance: Instance) -> ev.RunStarted:
    assert instance.started is not None, "user code runs after event 1"
    return instance.started


def _time(microseconds_: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds_)


__all__ = [
    "After",
    "Channel",
    "ChildHandle",
    "Exit",
    "Info",
    "Message",
    "RemoteHandle",
    "Saga",
    "Workflow",
    "after",
    "attrs",
    "call",
    "context",
    "continue_as_new",
    "define",
    "emit",
    "events",
    "execute",
    "handle",
    "history_length",
    "history_size",
    "inbox",
    "info",
    "listen",
    "logger",
    "now",
    "patched",
    "progress",
    "query",
    "random",
    "random_bytes",
    "saga",
    "select",
    "send",
    "sleep",
    "spawn",
    "start",
    "update",
    "uuid4",
    "version",
    "wait_condition",
]
