"""Conditions of edges and choices: functions of the context, or labels.

A condition is workflow code: it reads the context and nothing else, because a replay asks again.
A text that names ``context`` is an expression (CEL); nothing evaluates these yet, so a definition
that has one is refused. Any other text is a label.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from perdure import errors
from perdure.graph.outline import Condition, Edge

_NAMES_CONTEXT = re.compile(r"\bcontext\b")


def refusal(condition: str | Condition | None) -> str:
    """Say why a condition cannot be asked; empty if it can."""
    if isinstance(condition, str) and _NAMES_CONTEXT.search(condition):
        return f"condition {condition!r} is an expression: write a function of the context instead"
    return ""


def holds(edge: Edge, context: Callable[[], Any]) -> bool:
    """Tell whether an edge may be taken; ``context`` is made if its condition asks for it."""
    return edge.condition is None or is_true(edge.condition, context())


def is_true(condition: str | Condition, context: Any) -> bool:
    """Ask a condition; a label holds.

    Raises:
        ApplicationError: an expression.
        Exception: what the function raises.
    """
    if callable(condition):
        return bool(condition(context))
    if said := refusal(condition):
        raise errors.ApplicationError(said, kind="Invalid", retryable=False)
    return True
