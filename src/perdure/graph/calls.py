"""How a handler is called: as an activity of its own, with a context that it may write to.

The history holds the input and the outcome of each call; the context is not stored again with
every step. It rides along in memory, in the function of the call: whoever runs the attempt has
applied the history before, and made the same context from it. What a handler never asks for is
never made.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import msgspec

from perdure import activity, errors, places
from perdure.graph.context import Changes, InstanceInfo, StepExecution, WorkflowContext
from perdure.graph.kinds import Kind
from perdure.values import payload
from perdure.values.retry import RetryPolicy

Handler = Callable[..., Any]
SKIPPED: Any = object()
"""What a handler's wrapper returns when the step cannot be done."""


class Outcome(msgspec.Struct, omit_defaults=True):
    """What an attempt records: the output, and what it set beside it.

    What listeners are told of a step is read from this (``named.py``).
    """

    output: Any = None
    changes: Changes | None = None
    is_skipped: bool = False


class Callee:
    """A user's function that a step calls: ``fn(input, ctx)``, ``fn(input)`` or ``fn()``.

    ``takes``: which of these it is called with, instead of what its parameters say.
    """

    def __init__(self, fn: Handler, what: str, *, output: Any = None, takes: str = "") -> None:
        if not callable(fn):
            raise errors.DefinitionError(f"{what}: {fn!r} is no function")
        self.fn = fn
        self.what = what
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn)) or (
            inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - not whether
        )
        self._problem = ""
        parameters: list[str] = []
        if not takes:
            parameters, self._problem = _positional(fn)
        self._takes = takes or ("", "input", "input ctx")[len(parameters)]
        self._sees = "ctx" in self._takes
        hints = {} if takes else payload.hints_of(fn)
        kind = hints.get(parameters[0], Any) if parameters else Any
        what_input = f"{what}({parameters[0] if parameters else ''})"
        self._read = payload.decoder(kind, what=what_input) if payload.checks(kind) else None
        self._output = Kind(output, what=f"{what} -> output")

    def problems(self) -> list[str]:
        """Return what is wrong with the function, or with what the output must fit."""
        return [it for it in (self._problem, self._output.problem) if it]

    def as_activity(
        self,
        name: str,
        *,
        retry: RetryPolicy,
        timeout: int | None,
        isolation: str = "",
        step: str = "",
    ) -> StepCall:
        """Return the activity that stands for this function; :func:`bound` binds it to a visit."""

        async def run(input: Any) -> Outcome:
            raise errors.UsageError(f"{name} is a step: it runs within its graph")

        def run_in_thread(input: Any) -> Outcome:
            raise errors.UsageError(f"{name} is a step: it runs within its graph")

        fn: Any = run if self.is_async else run_in_thread
        call = StepCall(fn, name=name, retry=retry, timeout=timeout, isolation=isolation, step=step)
        call.callee = self
        call.result_name = f"{self.what}: its output, or what it has set of the context"
        return call

    def bind(self, ctx: WorkflowContext) -> Callable[[Any], Any]:
        """Return the function of one visit."""
        if self.is_async:
            return functools.partial(self._run, ctx)
        return functools.partial(self._run_in_thread, ctx)

    async def _run(self, ctx: WorkflowContext, input: Any) -> Outcome:
        own = ctx.for_attempt(activity.services()) if self._sees else None
        result = await cast("Awaitable[Any]", self._call(own, input))
        return self._outcome(ctx, own, result)

    def _run_in_thread(self, ctx: WorkflowContext, input: Any) -> Outcome:
        own = ctx.for_attempt(activity.services()) if self._sees else None
        return self._outcome(ctx, own, self._call(own, input))

    def _call(self, ctx: WorkflowContext | None, input: Any) -> Any:
        if self._takes == "ctx":
            return self.fn(ctx)
        if not self._takes:
            return self.fn()
        value = input
        if self._read is not None:
            value = self._read(payload.encode(input, what=f"input of {self.what}"))
        return self.fn(value) if self._takes == "input" else self.fn(value, ctx)

    def _outcome(
        self, before: WorkflowContext, own: WorkflowContext | None, result: Any
    ) -> Outcome:
        if result is SKIPPED:
            return Outcome(is_skipped=True)
        try:
            self._output.check(result)
        except errors.Invalid as exc:
            raise errors.ApplicationError(
                f"Output validation failed: {exc.message}", kind="Invalid"
            ) from exc
        return Outcome(result, None if own is None else own.changes_since(before))


class Home(Protocol):
    """The definition that a step is a part of."""

    def place(self) -> places.Place:
        """Return where another process finds it.

        Raises:
            DefinitionError: nowhere.
        """
        ...


class StepCall(activity.Activity[Any, Any]):
    """A handler as an activity. ``home`` is its definition, ``ctx`` the context of one visit."""

    callee: Callee
    home: Home | None = None
    ctx: WorkflowContext | None = None

    @property
    def is_step(self) -> bool:
        """Its definition says where it runs."""
        return True

    def remote(self) -> activity.Remote:
        """Return what a subprocess makes this visit's activity of.

        Raises:
            DefinitionError: it would not find the definition.
            Invalid: something in the context has no JSON form.
        """
        assert self.home is not None
        assert self.ctx is not None
        carried = carry(self.home.place(), self.name, self.ctx)
        return activity.Remote(f"{__name__}:opened", carried)


def bound(call: StepCall, callee: Callee, ctx: WorkflowContext) -> StepCall:
    """Return the activity for one visit: what it calls knows the context."""
    made = call.calling(callee.bind(ctx))
    made.ctx = ctx
    return made


class Carried(msgspec.Struct):
    """A visit on its way to a subprocess: which step of which definition, and its context."""

    place: places.Place
    path: str
    instance: InstanceInfo
    current_step: str
    input: msgspec.Raw
    prev: Any = None
    steps: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    data: dict[str, Any] = {}
    step_history: list[StepExecution] = []


def carry(place: places.Place, path: str, ctx: WorkflowContext) -> bytes:
    """Encode a visit. In the subprocess its values are what JSON has of them."""
    what = f"the context of step {ctx.current_step!r}, on its way to a subprocess"
    carried = Carried(
        place,
        path,
        ctx.instance,
        ctx.current_step,
        msgspec.Raw(payload.encode(ctx.input, what=what)),
        ctx.prev,
        dict(ctx.steps),
        dict(ctx.metadata),
        ctx.data,
        ctx.step_history,
    )
    return payload.encode(carried, what=what)


def opened(data: bytes) -> StepCall:
    """Return, in a subprocess, the activity of a visit that :meth:`StepCall.remote` told of.

    Raises:
        DefinitionError: the definition cannot be imported here, or has no such step.
    """
    carried = _read_carried(data)
    what = f"step {carried.current_step!r} of {carried.instance.workflow_name!r}"
    definition = places.load(carried.place, what)
    call: StepCall | None = getattr(definition, "calls", {}).get(carried.path)
    if call is None:
        raise errors.DefinitionError(
            f"{what}: {carried.place.name!r} in module {carried.place.module!r} has no such step "
            "in a subprocess; was the file changed since the engine was started?"
        )
    read = payload.decoder(definition.input, what=f"{definition.name}(input)")
    ctx = WorkflowContext(
        carried.instance,
        input=read(bytes(carried.input)),
        steps=carried.steps,
        prev=carried.prev,
        metadata=carried.metadata,
        data=carried.data,
        current_step=carried.current_step,
        step_history=carried.step_history,
    )
    return bound(call, call.callee, ctx)


_read_carried = msgspec.json.Decoder(Carried).decode


def _positional(fn: Handler) -> tuple[list[str], str]:
    """Return the first two parameters, and what is wrong with the rest."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # `str` and others in C do not say; they work on what they are given
        return ["input"], ""
    names = [p.name for p in parameters if p.kind in kinds]
    needed = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    kept = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    problem = ""
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        problem = "a handler returns its output: a generator has none"
    elif kept:
        problem = f"a handler takes (input, ctx), (input) or nothing; nobody gives {kept[0]}="
    elif len(needed) > 2:
        problem = f"a handler takes (input, ctx), (input) or nothing, not {len(needed)} arguments"
    return names[:2], problem
