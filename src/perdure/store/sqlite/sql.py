"""The named queries, and statements whose text depends on a number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import StoreRefused
from perdure.store.queries import load_queries
from perdure.values.states import BY_CODE, Status

SQL = load_queries(Path(__file__).with_name("queries.sql"))

CHUNK = 100
"""Rows of one multi-row INSERT: beyond, the statement only gets slower to prepare."""

_encode = msgspec.json.encode


def status_of(code: int) -> Status:
    """Return the status of a stored code."""
    return BY_CODE[code]


class ManyRows:
    """``INSERT ... VALUES`` of several rows that hold bytes; the texts are made once per size."""

    def __init__(self, name: str, columns: int) -> None:
        self.columns = columns
        self._head = SQL[name]
        self._row = "(" + ",".join("?" * columns) + ")"
        self._texts: dict[int, str] = {}

    def statements(self, flat: list[Any]) -> Iterator[tuple[str, list[Any]]]:
        """Yield statements and their parameters for rows laid end to end in ``flat``."""
        size = CHUNK * self.columns
        for start in range(0, len(flat), size):
            part = flat if len(flat) <= size else flat[start : start + size]
            rows = len(part) // self.columns
            text = self._texts.get(rows)
            if text is None:
                text = self._texts[rows] = f"{self._head} {','.join([self._row] * rows)}"
            yield text, part


def to_json(rows: Any) -> str:
    """Encode rows for ``json_each``.

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
