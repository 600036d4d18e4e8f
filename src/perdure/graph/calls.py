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
from typing import Any, cast

import msgspec

from perdure import activity, errors
from perdure.graph.context import Changes, WorkflowContext
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
        self.fn = fn
        self.what = what
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn)) or (
            inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - not whether
        )
        parameters = [] if takes else _positional(fn, what)
        self._takes = takes or ("", "input", "input ctx")[len(parameters)]
        self._sees = "ctx" in self._takes
        hints = {} if takes else payload.hints_of(fn)
        kind = hints.get(parameters[0], Any) if parameters else Any
        what_input = f"{what}({parameters[0] if parameters else ''})"
        self._read = payload.decoder(kind, what=what_input) if payload.checks(kind) else None
        self._check = None if output is None else payload.decoder(output, what=f"{what} -> output")

    def as_activity(
        self,
        name: str,
        *,
        retry: RetryPolicy,
        timeout: int | None,
        isolation: str = "",
        step: str = "",
    ) -> activity.Activity[Any, Any]:
        """Return the activity that stands for this function; :func:`bound` binds it to a visit."""

        async def run(input: Any) -> Outcome:
            raise errors.UsageError(f"{name} is a step: it runs within its graph")

        def run_in_thread(input: Any) -> Outcome:
            raise errors.UsageError(f"{name} is a step: it runs within its graph")

        fn: Any = run if self.is_async else run_in_thread
        return activity.Activity(
            fn, name=name, retry=retry, timeout=timeout, isolation=isolation, step=step
        )

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
        if self._check is not None:
            try:
                self._check(payload.encode(result, what=f"output of {self.what}"))
            except errors.Invalid as exc:
                raise errors.ApplicationError(
                    f"Output validation failed: {exc.message}", kind="Invalid"
                ) from exc
        return Outcome(result, None if own is None else own.changes_since(before))


def bound(
    call: activity.Activity[Any, Any], callee: Callee, ctx: WorkflowContext
) -> activity.Activity[Any, Any]:
    """Return the activity for one visit: what it calls knows the context."""
    return call.calling(callee.bind(ctx))


def _positional(fn: Handler, what: str) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(fn).parameters.values()
    names = [p.name for p in parameters if p.kind in kinds]
    needed = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(needed) > 2:
        raise errors.DefinitionError(
            f"{what}: a handler takes (input, ctx), (input) or nothing, not {len(needed)} arguments"
        )
    return names[:2]
