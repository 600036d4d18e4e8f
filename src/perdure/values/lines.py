"""Log lines that are kept with a run."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from perdure import errors
from perdure.values import limits, payload


class Line(msgspec.Struct, frozen=True):
    """One line: ``level`` as Python's logging counts, ``data`` encoded, ``step`` if it is known."""

    level: int
    message: str
    data: bytes | None = None
    step: str = ""


def make(level: int, message: object, data: Any = None, *, step: str = "") -> Line:
    """Return a line that a database can hold, whatever was logged.

    What has no JSON form is kept as text, and what is too long is cut; the message says so.
    """
    text = _text(message)
    encoded: bytes | None = None
    if data is not None:
        try:
            encoded = payload.encode(data)
        except errors.Invalid:
            encoded = payload.encode(cut(_text(data, repr), limits.LOG_DATA))
            text += " (its data has no JSON form and is kept as text)"
        if len(encoded) > limits.LOG_DATA:
            size = len(encoded)
            encoded = payload.encode(encoded[: limits.LOG_DATA // 2].decode(errors="replace"))
            text += f" (its data had {size:,} bytes and is kept as text, cut)"
    return Line(level, cut(text, limits.LOG_TEXT), encoded, step)


def cut(text: str, maximum: int) -> str:
    """Return text of about ``maximum`` characters that says how many were left out."""
    if len(text) <= maximum:
        return text
    return f"{text[:maximum]} … ({len(text) - maximum:,} more characters)"


def level_number(level: object) -> int:
    """Return the number of a level that is given by name or number.

    Raises:
        Invalid: it is no level.
    """
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    found = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else None
    if found is None:
        raise errors.Invalid(
            f"log: {level!r} is no level; write log(level, message) with 'debug', 'info', "
            "'warning', 'error' or 'critical'"
        )
    return found


def level_name(number: int) -> str:
    """Return the name of a level in lower case, as users write it."""
    return logging.getLevelName(number).lower()


def _text(value: object, read: Any = str) -> str:
    """Return text that can be encoded: no lone surrogates, and no NUL."""
    try:
        text = read(value)
    except Exception as exc:  # noqa: BLE001 - logging raises nowhere, least of all into a workflow
        text = f"<{type(value).__name__}: its {read.__name__}() raised {type(exc).__name__}>"
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
