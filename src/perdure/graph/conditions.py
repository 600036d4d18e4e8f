"""Conditions of edges and choices: functions of the context, CEL expressions, or labels.

A function is workflow code: it reads the context and nothing else, because a replay asks again. A
text that names ``context`` is an expression; its value is recorded, and a replay reads that: what
an expression gives may change with the library that evaluates it. Any other text is a label, which
always holds.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from perdure import errors
from perdure.expr import Expression
from perdure.kernel import traps
from perdure.kernel.recording import recorded
from perdure.values import payload

if TYPE_CHECKING:
    from perdure.graph.outline import Condition, Edge

MEMBERS = (
    "input",
    "prev",
    "steps",
    "data",
    "metadata",
    "current_step",
    "step_history",
    "workflow_id",
    "instance_id",
    "started_at",
    "user_id",
    "tenant_id",
)
"""What ``context`` has in an expression; ``context.get("key")`` reads ``context.data``."""
_NAMES_CONTEXT = re.compile(r"\bcontext\b")
_PLAIN = "write it with `def`; what awaits belongs in a step before it"
_AS_THEY_ARE = (str, int, float, type(None))


def is_expression(condition: object) -> bool:
    """Tell whether a condition is CEL."""
    return isinstance(condition, str) and _NAMES_CONTEXT.search(condition) is not None


def is_label(condition: object) -> bool:
    """Tell whether a condition is a text that always holds."""
    return isinstance(condition, str) and not is_expression(condition)


def text_of(condition: object) -> str:
    """Return what a definition's fingerprint has of a condition. A function's code is not in it:
    whoever looks for changed code looks at functions by themselves.
    """
    return condition if isinstance(condition, str) else "fn"


def refusal(condition: str | Condition | None, *, gives: tuple[str, ...] = ("BOOL",)) -> str:
    """Say why a condition cannot be asked; empty if it can. It is compiled here, once.

    ``gives``: the types of CEL that its value may have.
    """
    if inspect.iscoroutinefunction(condition):
        return f"condition {condition.__qualname__} is async: {_PLAIN}"
    given: Any = condition
    if not (given is None or callable(given) or isinstance(given, str)):
        return f"condition {condition!r} is neither a function of the context nor a text"
    if not isinstance(condition, str) or not is_expression(condition):
        return ""
    try:
        found = _compiled(condition)
    except errors.Invalid as exc:
        return f"condition {condition!r}: {exc.message}"
    if found.gives not in (*gives, "DYN"):
        wanted = " or ".join(kind.lower() for kind in gives)
        return f"condition {condition!r} gives {found.gives.lower()}, not {wanted}"
    return ""


def holds(edge: Edge, context: Callable[[], Any]) -> bool:
    """Tell whether an edge may be taken; ``context`` is made if its condition asks for it."""
    return edge.condition is None or is_true(edge.condition, context(), edge.target)


def is_true(condition: str | Condition, context: Any, target: str = "") -> bool:
    """Ask a condition; a label holds. ``target``: where it leads.

    Raises:
        ApplicationError: an expression that cannot be evaluated, or is neither true nor false; the
            message has its text, the reason, and the types of what it reads.
        Exception: what the function raises.
    """
    if callable(condition):
        found = condition(context)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            text = f"condition {getattr(condition, '__name__', condition)} is async: {_PLAIN}"
            raise errors.ApplicationError(text, kind="Invalid", retryable=False)
        return bool(found)
    if not isinstance(cast("Any", condition), str):
        raise errors.ApplicationError(refusal(condition), kind="Invalid", retryable=False)
    return not is_expression(condition) or value_of(condition, context, target, kinds=(bool,))


def value_of(expression: str, context: Any, target: str = "", *, kinds: tuple[type, ...]) -> Any:
    """Evaluate an expression, or in a replay read its value; it must be of one of ``kinds``.

    Raises:
        ApplicationError: see :func:`is_true`.
    """
    instance = traps.current()
    if instance is None:
        found = _evaluated(expression, context, kinds)
    else:
        name = f"{context.current_step} -> {target}" if target else context.current_step
        compute = functools.partial(_encoded, expression, context, kinds)
        found = payload.decode(recorded(instance, name, compute))
    if "error" in found:
        raise errors.ApplicationError(found["error"], kind="Invalid", retryable=False)
    return found["value"]


def _encoded(expression: str, context: Any, kinds: tuple[type, ...]) -> bytes:
    return payload.encode(_evaluated(expression, context, kinds))


def _evaluated(expression: str, context: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    what = f"condition {expression!r}"
    try:
        found = _compiled(expression)
        value = found.evaluate({name: _plain(context, name) for name in sorted(found.needs())})
    except errors.Invalid as exc:
        return {"error": f"{what}: {exc.message}"}
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        return {"error": f"{what} gave {value!r}, not {wanted}"}
    return {"value": value}


def _plain(context: Any, name: str) -> Any:
    """Return a member as JSON types."""
    value = getattr(context, name, None)
    if isinstance(value, _AS_THEY_ARE):
        return value
    value = dict(value) if name in ("steps", "metadata") else value
    return payload.decode(payload.encode(value, what=f"context.{name}"))


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> Expression:
    return Expression(text, "context", MEMBERS, gets="data")
