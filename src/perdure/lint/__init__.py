"""Looks at workflow code for what a replay cannot repeat.

``check`` reads the source of a workflow (of a graph: of its conditions and mappers) and of the
plain functions of its module that it uses, and says what depends on the clock, on chance, on the
environment, on the order of a set, on threads or the world outside, and what changes state that all
runs share. It looks at names, and follows them
to what they stand for: ``from time import time as t; t()`` is found, a function of your own that is
called ``now`` is not.

It finds the usual mistakes, not all: what it misses, the audit hook refuses or the replay notices.
A line that ends with ``# perdure: allow``, or ``# perdure: allow clock``, is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from perdure.definition import Workflow
from perdure.lint.finding import Finding
from perdure.lint.functions import check_function

__all__ = ["Finding", "check", "check_all", "warn"]

_log = logging.getLogger("perdure.lint")
_warned: WeakSet[Workflow[Any, Any]] = WeakSet()


def check(definition: Workflow[Any, Any]) -> list[Finding]:
    """Return what a replay of this workflow may not repeat, by file and line."""
    return check_all([definition])


def check_all(definitions: Iterable[Workflow[Any, Any]]) -> list[Finding]:
    """Return the findings of several workflows; a function that they share is checked once."""
    found: set[Finding] = set()
    for definition in definitions:
        for code in (definition.fn, *definition.parts):
            if callable(code):
                found.update(check_function(code))
    return sorted(found)


def warn(definition: Workflow[Any, Any]) -> None:
    """Log the findings of a workflow as warnings, once per process."""
    if definition in _warned:
        return
    _warned.add(definition)
    try:
        found = check(definition)
    except Exception:  # noqa: BLE001 - advice must not keep a worker from starting
        _log.debug("could not check %r", definition, exc_info=True)
        return
    for finding in found:
        _log.warning("%s", finding)
