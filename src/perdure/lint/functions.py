"""Checks a function, and the functions of its module that it uses."""

from __future__ import annotations

import ast
import functools
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
    if function.__name__ == "<lambda>":
        return _visit_lambda(function)
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


def _visit_lambda(function: FunctionType) -> Visit | None:
    """Look at a lambda: it stands within a statement, which alone is often no code."""
    try:
        text = "".join(inspect.findsource(function)[0])
        node = _lambda_of(function.__code__, _lambdas(text))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if node is None:
        return None
    visit = Visit(function, text.splitlines(), 0)
    visit.run(node)
    return visit


@functools.lru_cache(maxsize=64)
def _lambdas(text: str) -> tuple[ast.Lambda, ...]:
    return tuple(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda))


def _lambda_of(code: CodeType, lambdas: tuple[ast.Lambda, ...]) -> ast.Lambda | None:
    """Return the innermost lambda whose body has the places that the code says it is from."""
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line
        and end_line
        and column is not None
        and end_column is not None
        and column < end_column
    ]
    if not places:
        return None
    begin, end = min(place[0] for place in places), max(place[1] for place in places)
    found: ast.Lambda | None = None
    for node in lambdas:
        body = node.body
        is_within = (body.lineno, body.col_offset) <= begin and end <= (
            body.end_lineno or 0,
            body.end_col_offset or 0,
        )
        if is_within:
            found = node  # inner ones come later
    return found


def _definition(tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node
    return None
