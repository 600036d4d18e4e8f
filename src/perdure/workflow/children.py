"""Children."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, cast, overload

from perdure.definition import Workflow
from perdure.kernel import traps
from perdure.kernel.pending import Child
from perdure.values import events as ev
from perdure.values import ids, payload
from perdure.values.bounds import Bounds
from perdure.values.budgets import with_budget
from perdure.values.duration import Duration
from perdure.values.options import (
    PARENT_CLOSE,
    REUSE,
    SHARED,
    canonical,
    conflict_policy,
    one_of,
    read_terms,
)
from perdure.values.principals import check_context
from perdure.values.terms import Terms
from perdure.workflow.handles import RemoteHandle
from perdure.workflow.messages import recorded_messages
from perdure.workflow.run import check_mapping, check_search, context, encode_mapping, started_event

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")


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
        """The id of the child's first run.

        If another execution was used instead, that run was never made: all that is known of the
        other one here is its ``id``.
        """
        return self._child.event.run_id

    @property
    def namespace(self) -> str:
        """Its namespace, if it is not the parent's."""
        return self._child.event.namespace

    def quieten(self) -> None:
        """Give no notice of its end."""
        self._child.is_quiet = True

    def heed(self) -> None:
        """Give a notice of its end after all; at once if it has ended since it was quietened."""
        self._child.heed()

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
        await RemoteHandle(self.id, self.namespace).send(topic, payload)

    async def cancel(self, reason: str = "", deadline: Duration | None = None) -> bool:
        """Ask the child to end; after ``deadline`` it is terminated. False if it had ended."""
        return await RemoteHandle(self.id, self.namespace).cancel(reason, deadline)

    async def terminate(self, reason: str = "") -> bool:
        """End the child at once. False if it had ended."""
        return await RemoteHandle(self.id, self.namespace).terminate(reason)

    def __repr__(self) -> str:
        return f"<child {self.id!r}>"


@overload
async def start(
    child: Workflow[None, Out], input: None = None, **options: Any
) -> ChildHandle[Out]: ...
@overload
async def start(child: Workflow[In, Out], input: In, **options: Any) -> ChildHandle[Out]: ...
@overload
async def start(child: str, input: Any = None, **options: Any) -> ChildHandle[Any]: ...
async def start(child: Any, input: Any = None, **options: Any) -> ChildHandle[Any]:
    """Start a child and return its handle; one ``Exit`` will be on ``events()``. Await it.

    Options are those of ``client.start``, and ``parent_close_policy`` (``terminate``, ``abandon``,
    ``request_cancel``), ``wait_for_cancellation`` (``execute``, when cancelled, waits until the
    child has ended); ``context`` is merged over this run's, and ``namespace`` may be another. With
    an ``id`` of an open execution and the policy ``use_existing`` (the default) the handle is on
    that execution: it is no child, and the parent's end does not touch it.

    The handle is there before the commit that starts the child, so a start costs no commit of its
    own. What that commit refuses is told like a bad end: awaiting the handle raises ``ChildFailed``
    caused by ``AlreadyExists`` (the policies allow no other execution with this ``id``),
    ``ConcurrencyLimit``, ``RateLimited`` or ``NotFound`` (of a name without an active version), and
    the ``Exit`` has that error.

    Raises:
        Invalid: an option or the input is not acceptable.
    """
    return ChildHandle(schedule_child(child, input, options))


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
    scheduled = schedule_child(child, input, options)
    scheduled.is_quiet = True
    try:
        return await asyncio.shield(scheduled.future)
    except traps.INTERRUPTED:
        if not scheduled.future.done():
            event = scheduled.event
            traps.here().command(ev.CancelSent(target=event.workflow_id, namespace=event.namespace))
            if options.get("wait_for_cancellation"):
                await asyncio.wait([scheduled.future])
        raise


class Heritage(NamedTuple):
    """What a child is bound by that begins in the place of another run: the terms and places of
    that one, or (``judged``) what a door has said since.
    """

    terms: Terms
    places: tuple[tuple[str, int], ...]
    judged: Bounds | None

    def onto(self, event: ev.ChildScheduled, maximum: int) -> None:
        """Let a child be for whom this run is, with its correlation id and tags, and so bound."""
        event.heir, event.terms, event.places = True, self.terms, self.places
        if (judged := self.judged) is not None:
            event.terms, event.places = judged.terms(self.terms), judged.places
            carried = judged.within(payload.decode(event.context) if event.context else {})
            event.context = encode_mapping(carried, "context", maximum)


def schedule_child(
    child: Any, value: Any, given: Mapping[str, Any], *, heritage: Heritage | None = None
) -> Child:
    """Start a child; ``heritage``: of one that begins in the place of another run.

    Raises:
        Invalid: as in :func:`start`.
    """
    instance = traps.here()
    definition = cast("Workflow[Any, Any]", child) if isinstance(child, Workflow) else None
    name = (
        definition.name
        if definition is not None
        else payload.text(cast("Any", child), what="workflow")
    )
    options = canonical(given, SHARED, what="start")
    data = payload.encode(value, what=f"input of {name}")
    payload.limit(data, instance.max_payload, what=f"input of {name}")
    if definition is not None:
        definition.check_input(data, value)
    started = started_event(instance)
    run_id = instance.new_run_id("child")
    explicit = options.get("id")
    event = ev.ChildScheduled(
        workflow=name,
        workflow_id=run_id if explicit is None else ids.check_workflow_id(explicit),
        run_id=run_id,
        input=data,
        version=_text(options, "version") or (definition.version if definition else ""),
        queue=_text(options, "task_queue")
        or (definition.task_queue if definition else started.queue),
        parent_close=one_of(
            "parent_close_policy", options.get("parent_close_policy"), PARENT_CLOSE
        ),
        conflict=_unless("none", conflict_policy(options, is_explicit=explicit is not None)),
        reuse=_unless(REUSE[0], one_of("id_reuse_policy", options.get("id_reuse_policy"), REUSE)),
        namespace=_text(options, "namespace"),
        terms=read_terms(options),
        context=_merged_context(options, run_id, instance.max_payload),
        messages=recorded_messages(
            options.get("messages") or (), started.workflow_id, instance.time, instance.max_payload
        ),
        search=payload.encode(check_search(options["search"])) if options.get("search") else None,
        memo=encode_mapping(options.get("memo"), "memo", instance.max_payload),
    )
    if heritage is not None:
        heritage.onto(event, instance.max_payload)
    read = payload.decode if definition is None else definition.read_result
    return traps.start_child(instance, event, read)


def _unless(default: str, value: str) -> str:
    return "" if value == default else value


def _text(options: Mapping[str, Any], name: str) -> str:
    return payload.text(options.get(name) or "", what=name)


def _merged_context(options: Mapping[str, Any], run_id: str, maximum: int) -> bytes | None:
    given = check_context(check_mapping(options.get("context") or {}, "context"))
    merged = with_budget(given, options.get("budget"), run_id, inherited=context)
    return encode_mapping(merged, "context", maximum)
