"""Checks a function, and the functions of its module that it uses."""

from __future__ import annotations

import ast
import inspect
from collections import deque
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from perdure.lint.finding import Finding
from perdure.lint.visit import Visit

_DEPTH = 8
_MOST = 200
"""Functions looked at for one workflow."""


def check_function(fn: Callable[..., Any]) -> list[Finding]:
    """Return the findings in a function and in what it uses of its module."""
    root = inspect.unwrap(fn)
    if not isinstance(root, FunctionType):
        return []
    found: list[Finding] = []
    seen: set[CodeType] = {root.__code__}
    waiting = deque([(root, 0)])
    while waiting and len(seen) < _MOST:
        function, depth = waiting.popleft()
        visit = _visit(function)
        if visit is None:
            continue
        found += visit.found
        for used in visit.used:
            helper = inspect.unwrap(used)
            is_near = isinstance(helper, FunctionType) and helper.__module__ == root.__module__
            if is_near and depth < _DEPTH and helper.__code__ not in seen:
                seen.add(helper.__code__)
                waiting.append((helper, depth + 1))
    return found


def _visit(function: FunctionType) -> Visit | None:
    """Look at one function; ``None`` if its source is not at hand."""
    try:
        lines, first = inspect.getsourcelines(function)
        text = "".join(lines)
        if text[:1].isspace():  # an inner function: not dedented, which would change its texts
            text, first = f"if 1:\n{text}", first - 1
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    node = _definition(tree)
    if node is None or node.name != function.__name__:
        return None
    visit = Visit(function, text.splitlines(), first - 1)
    visit.run(node)
    return visit


def _definition(tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node
    return None
