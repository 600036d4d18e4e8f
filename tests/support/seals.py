"""Codecs and raw looks at databases, for tests of what is stored and how."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perdure import errors


class Backwards:
    """A codec that nobody should use: it turns bytes round, under a key's name."""

    id = "backwards"

    def __init__(self, key: str = "k1", *others: str) -> None:
        self.key = key
        self.known = {key, *others}

    def encode(self, data: bytes) -> bytes:
        return self.key.encode() + data[::-1]

    def decode(self, data: bytes) -> bytes:
        key = data[:2].decode()
        if key not in self.known:
            raise errors.Sealed(f"key {key!r} is not here")
        return data[:1:-1]

    def is_current(self, data: bytes) -> bool:
        return data.startswith(self.key.encode())


class Raw:
    """All rows of all of Perdure's tables, past the store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _ask(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(Path(self.url.removeprefix("sqlite:///")))
            try:
                rows = connection.execute(text, parameters).fetchall()
                connection.commit()
            finally:
                connection.close()
            return rows
        import psycopg

        options = "-c search_path=perdure"
        with psycopg.connect(self.url, options=options) as server:
            cursor = server.execute(text.replace("?", "%s"), parameters)  # pyright: ignore[reportArgumentType] - our own words
            return cursor.fetchall() if cursor.description else []

    def columns(self) -> dict[str, list[str]]:
        """The columns of each table that may hold text or bytes."""
        if self.url.startswith("sqlite"):
            rows = self._ask(
                "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c "
                "WHERE m.type = 'table' AND m.name LIKE 'perdure%' AND c.type <> 'INTEGER'"
            )
        else:
            rows = self._ask(
                "SELECT table_name, column_name FROM information_schema.columns "
                "WHERE table_schema = 'perdure' AND data_type IN ('text', 'bytea', 'jsonb')"
            )
        found: dict[str, list[str]] = {}
        for table, column in rows:
            found.setdefault(table, []).append(column)
        return found

    def values(self, table: str, column: str) -> Iterator[bytes]:
        for (value,) in self._ask(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
            yield value if isinstance(value, bytes) else str(value).encode()

    def change(self, text: str, *parameters: Any) -> None:
        self._ask(text, *parameters)

    def ask(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._ask(text, *parameters)

    def holding(self, needle: bytes) -> set[tuple[str, str]]:
        """Return the columns in which some value holds these bytes."""
        return {
            (table, column)
            for table, columns in self.columns().items()
            for column in columns
            if any(needle in value for value in self.values(table, column))
        }
