"""What stands where something was erased, and events without what users had put into them.

What an event is, its place, its time, who did it, and the names and ids in it stay. Payloads become
:data:`ERASED`, texts :data:`ERASED_TEXT`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, cast

from perdure.values import events as ev

ERASED: Final = b'{"$erased":true}'
"""Stands for a payload."""
ERASED_ARGS: Final = b'[{"$erased":true}]'
"""Stands for the arguments of a call."""
ERASED_TEXT: Final = "(erased)"
"""Stands for a text."""
_TEXTS = frozenset({"comment", "description", "detail", "message", "note", "reason", "title"})
_CODES = frozenset({"run_parked"})
"""Events whose ``reason`` is a code."""
_OF_STEPS = frozenset({"step.started", "step.loop", "step.poll", "step.skipped"})
"""Marks of a graph whose data are its own: what kind of step it is, how often tried, why not."""


class Erasure(StrEnum):
    """How far a run is erased: the reason in the row of a run that has ended."""

    BEGUN = "erasing"
    DONE = "erased"


ERASURES: Final = frozenset(str(stage) for stage in Erasure)


def without_payloads(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events, as :func:`~perdure.values.events.decode_plain` gave them, erased.

    What was at its default, and so is not there, is not there afterwards. An end that had a result
    always says that it was erased.
    """
    return [_event(event, str(event.get("kind", ""))) for event in events]


def _event(given: dict[str, Any], kind: str) -> dict[str, Any]:
    found = _erased(given, kind)
    if kind == "run_completed":
        found["result"] = ERASED
    elif kind == "emitted" and given.get("name") in _OF_STEPS and "data" in given:
        found["data"] = given["data"]
    return found


def _erased(given: dict[str, Any], kind: str) -> dict[str, Any]:
    return {key: _without(key, value, kind) for key, value in given.items()}


def _without(key: str, value: Any, kind: str) -> Any:
    if isinstance(value, bytes):
        return value if key == ev.SEED else _instead_of(key)
    if isinstance(value, str):
        if key == "trace":
            return ""
        is_code = key == "reason" and kind in _CODES
        return ERASED_TEXT if key in _TEXTS and value and not is_code else value
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        if "args" in inner and "key" in inner:  # a digest of arguments, which could be guessed
            inner = {**inner, "args": ""}
        return _erased(inner, kind)
    if isinstance(value, list):
        return [_without(key, item, kind) for item in cast("list[Any]", value)]
    return value


def _instead_of(key: str) -> bytes:
    return ERASED_ARGS if key == "args" else ERASED
