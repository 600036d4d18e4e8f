"""How a batch goes into a statement: as one JSON text, so that its cost in calls does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import StoreRefused
from perdure.values.states import BY_CODE, Status

_encode = msgspec.json.encode

from_json: Callable[[str], Any] = msgspec.json.decode
"""Decode what a query that answers with one JSON text gave."""


def status_of(code: int) -> Status:
    """Return the status of a stored code."""
    return BY_CODE[code]


def to_json(rows: Any) -> str:
    """Encode rows, to be taken apart inside a statement.

    Raises:
        StoreRefused: text that no column can hold (a NUL, half a surrogate pair).
    """
    try:
        text = _encode(rows).decode()
    except UnicodeError as exc:
        raise StoreRefused(f"the text cannot be stored: {exc}", cause=exc) from exc
    if "\\u0000" in text:
        _refuse_nul(rows)
    return text


def _refuse_nul(value: Any) -> None:
    # The cheap test above also meets an escaped backslash before "u0000": look at the values.
    if isinstance(value, str):
        if "\0" in value:
            raise StoreRefused(f"the text {value[:80]!r} holds a NUL character")
    elif isinstance(value, (list, tuple)):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            _refuse_nul(inner)
