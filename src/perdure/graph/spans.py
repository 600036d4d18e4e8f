"""What is wrong with spans and counts that steps are given; nothing if they can be used."""

from __future__ import annotations

from typing import Any

from perdure import errors
from perdure.values.duration import microseconds


def no_span(name: str, given: Any) -> list[str]:
    """Say why something is no duration."""
    try:
        microseconds(given, what=name)
    except errors.Invalid as exc:
        return [exc.message]
    return []


def no_limit(name: str, given: Any) -> list[str]:
    """Say why something is no limit in time: no duration, or none at all."""
    found = no_span(name, given)
    if not found and not microseconds(given, what=name):
        return [f"{name}={given!r} leaves no time; leave it out for no limit"]
    return found


def no_count(name: str, given: Any, *, least: int) -> list[str]:
    """Say why something is no count."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        return [f"{name}={given!r}: give a whole number from {least} on"]
    return []
