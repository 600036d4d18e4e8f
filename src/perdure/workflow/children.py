"""Children, and handles on other executions."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, cast, overload

import msgspec

from perdure import errors
from perdure.definition import Workflow
from perdure.kernel import traps
from perdure.kernel.channels import Channel
from perdure.kernel.pending import Child
from perdure.values import events as ev
from perdure.values import failures, ids, payload
from perdure.values.duration import Duration, optional_microseconds
from perdure.workflow.messages import recorded_messages, send
from perdure.workflow.run import check_mapping, check_search, context, started_event, to_time

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

PARENT_CLOSE = ("terminate", "abandon", "request_cancel")
_OPTIONS = frozenset(
    {
        "context",
        "id",
        "memo",
        "messages",
        "parent_close_policy",
        "search",
        "task_queue",
        "version",
    }
)


class Exit(msgspec.Struct, frozen=True):
    """A notice on ``events()``: a child ended, with ``result`` or with ``error``."""

    sender: str
    at: datetime
    result: Any = None
    error: errors.PerdureError | None = None
    kind: str = "exit"


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

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.shield(self._child.future).__await__()

    async def send(self, topic: str, payload: Any = None) -> None:
        """Send the child a message.

        Raises:
            NotFound: it has ended.
        """
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
        text = payload.text(reason, what="reason")
        await traps.cancel_other(instance, self.id, text, due, terminate=False)

    async def terminate(self, reason: str = "") -> None:
        """End it at once.

        Raises:
            NotFound: it is unknown or has ended.
        """
        text = payload.text(reason, what="reason")
        await traps.cancel_other(traps.here(), self.id, text, 0, terminate=True)


def handle(workflow_id: str) -> RemoteHandle:
    """Return a handle on any execution."""
    return RemoteHandle(ids.check_workflow_id(workflow_id))


@overload
async def start(
    child: Workflow[None, Out], input: None = None, **options: Any
) -> ChildHandle[Out]: ...
@overload
async def start(child: Workflow[In, Out], input: In, **options: Any) -> ChildHandle[Out]: ...
@overload
async def start(child: str, input: Any = None, **options: Any) -> ChildHandle[Any]: ...
async def start(child: Any, input: Any = None, **options: Any) -> ChildHandle[Any]:
    """Start a child and return its handle; one ``Exit`` will be on :func:`events`. Await it.

    Options: ``id``, ``version``, ``task_queue``, ``parent_close_policy`` (``terminate``,
    ``abandon``, ``request_cancel``), ``context`` (merged over this run's), ``messages``,
    ``search``, ``memo``.

    Raises:
        Invalid: an option or the input is not acceptable.
    """
    return ChildHandle(_schedule_child(child, input, options))


@overload
async def execute(child: Workflow[None, Out], input: None = None, **options: Any) -> Out: ...
@overload
async def execute(child: Workflow[In, Out], input: In, **options: Any) -> Out: ...
@overload
async def execute(child: str, input: Any = None, **options: Any) -> Any: ...
async def execute(child: Any, input: Any = None, **options: Any) -> Any:
    """Run a child and wait for its result; await it. Cancelling the wait asks the child to end.

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
    definition = cast("Workflow[Any, Any]", child) if isinstance(child, Workflow) else None
    name = (
        definition.name
        if definition is not None
        else payload.text(cast("Any", child), what="workflow")
    )
    if unknown := options.keys() - _OPTIONS:
        raise errors.Invalid(f"start: unknown option {', '.join(sorted(unknown))}")
    data = payload.encode(value, what=f"input of {name}")
    payload.limit(data, instance.max_payload, what=f"input of {name}")
    if definition is not None:
        definition.check_input(data, value)
    started = started_event(instance)
    run_id = instance.new_run_id("child")
    explicit = options.get("id")
    memo = dict(check_mapping(options.get("memo") or {}, "memo"))
    event = ev.ChildScheduled(
        workflow=name,
        workflow_id=run_id if explicit is None else ids.check_workflow_id(explicit),
        run_id=run_id,
        input=data,
        version=_text(options, "version") or (definition.version if definition else ""),
        queue=_text(options, "task_queue")
        or (definition.task_queue if definition else started.queue),
        parent_close=_policy(options),
        context=_merged_context(options.get("context")),
        messages=recorded_messages(
            options.get("messages") or (), started.workflow_id, instance.time, instance.max_payload
        ),
        search=payload.encode(check_search(options["search"])) if options.get("search") else None,
        memo=payload.encode(memo, what="memo") if memo else None,
    )
    read = payload.decode if definition is None else definition.read_result
    return traps.start_child(instance, event, read)


def _text(options: Mapping[str, Any], name: str) -> str:
    return payload.text(options.get(name) or "", what=name)


def _policy(options: Mapping[str, Any]) -> str:
    policy: str = options.get("parent_close_policy", "terminate")
    if policy not in PARENT_CLOSE:
        raise errors.Invalid(f"parent_close_policy: {policy!r}; use one of {PARENT_CLOSE}")
    return policy


def _merged_context(given: Mapping[str, Any] | None) -> bytes | None:
    merged = {**context, **check_mapping(given or {}, "context")}
    return payload.encode(merged, what="context") if merged else None


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
    return Exit(sender=child.event.workflow_id, at=to_time(closed.at), result=result, error=error)
