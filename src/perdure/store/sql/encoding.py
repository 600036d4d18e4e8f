"""How a batch goes into a statement: as one JSON text, so that its cost in calls does not grow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.errors import StoreRefused
from perdure.values.states import BY_CODE, Status

_encode = msgspec.json.encode
_MAX_INTEGER = 2**63 - 1

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


def attribute_of(run: int, key: str, value: Any, kinds: Any) -> Any:
    """Return a search attribute, or one of its texts.

    Raises:
        StoreRefused: no database can hold it.
    """
    if not isinstance(value, kinds):
        raise StoreRefused(
            f"run {run}: search attribute {key!r} is {type(value).__name__}; "
            "it must be text, a number, a boolean or a list of texts"
        )
    if isinstance(value, int) and not -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
        raise StoreRefused(f"run {run}: search attribute {key!r} = {value} has over 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise StoreRefused(f"run {run}: search attribute {key!r} is {value}")
    return value


def memo_text(memo: bytes) -> str:
    """Return a memo as a column has it.

    Raises:
        StoreRefused: it is not UTF-8.
    """
    try:
        return memo.decode()
    except UnicodeDecodeError as exc:
        raise StoreRefused(f"the memo is not UTF-8: {exc}", cause=exc) from exc
