"""Conditions of edges and choices: functions of the context, CEL texts, or labels.

A condition is workflow code: it reads the context and nothing else, because a replay asks again.
"""

from __future__ import annotations

import re
from typing import Any

from perdure import errors
from perdure.graph.outline import Condition, Edge

_NAMES_CONTEXT = re.compile(r"\bcontext\b")


def is_expression(condition: str | Condition | None) -> bool:
    """Tell whether a condition is a CEL text: one that names ``context``; others are labels."""
    return isinstance(condition, str) and _NAMES_CONTEXT.search(condition) is not None


def holds(edge: Edge, context: Any) -> bool:
    """Tell whether an edge may be taken.

    Raises:
        ApplicationError: the condition failed.
    """
    return is_true(edge.condition, context, f"the condition of {edge!r}")


def is_true(condition: str | Condition | None, context: Any, what: str) -> bool:
    """Ask a condition; a label, or none, holds.

    Raises:
        ApplicationError: it failed.
    """
    if condition is None or isinstance(condition, str):
        return True
    try:
        return bool(condition(context))
    except errors.ControlFlow:
        raise
    except Exception as exc:
        raise errors.ApplicationError(
            f"{what} failed: {type(exc).__name__}: {exc}", kind="Internal", retryable=False
        ) from exc
