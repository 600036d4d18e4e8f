"""Starts inside a caller's own transaction: on the caller's connection and thread, never ours.

The rows stand or fall with what else the caller writes. A savepoint around them keeps a start that
is refused half way from leaving anything behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from perdure.errors import Invalid, Unavailable, UsageError
from perdure.store.sealing import Seal
from perdure.store.sqlite import faults
from perdure.store.sqlite.sql import Statements
from perdure.store.sqlite.transaction import GatedConnection

R = TypeVar("R")


class Borrowed(Statements):
    """What the commit's code needs of a database, on a connection that is somebody else's."""

    def __init__(self, connection: sqlite3.Connection, name: str, seal: Seal) -> None:
        self.connection = connection
        self.name = name
        self.seal = seal
        self.written = 0

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> sqlite3.Cursor:
        """Run a statement. The caller's row factory does not apply."""
        cursor = self.connection.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, parameters)


def borrow(connection: object, path: str | None, name: str, seal: Seal) -> Borrowed:
    """Return the caller's connection if a start can be written on it.

    Raises:
        UsageError: the store is in memory, where Perdure's connection is the only one.
        Invalid: no SQLite connection, one to another file, or one without a transaction.
    """
    if path is None:
        raise UsageError("connection=: a database in memory has one connection, which is Perdure's")
    if not isinstance(connection, sqlite3.Connection):
        raise Invalid(f"connection: {connection!r} is not a sqlite3.Connection to {name}")
    rows = connection.execute("PRAGMA database_list").fetchall()
    file = next((row[2] for row in rows if row[1] == "main"), "")
    if not file or not Path(file).samefile(path):
        raise Invalid(f"connection: it is to {file or 'a database in memory'}, not to {name}")
    if not connection.in_transaction:
        raise Invalid("connection: begin its transaction first, with BEGIN IMMEDIATE")
    return Borrowed(connection, name, seal)


def written_on(borrowed: Borrowed, write: Callable[[], R]) -> R:
    """Call ``write()`` within a savepoint on the caller's connection.

    Raises:
        Unavailable: another process holds the write lock: the transaction began without it.
        StoreError: what the database refused, translated.
    """
    connection = borrowed.connection
    own = connection.gate.own() if isinstance(connection, GatedConnection) else nullcontext()
    with own:
        try:
            borrowed.execute("SAVEPOINT perdure_start")
            try:
                result = write()
            except BaseException:
                borrowed.execute("ROLLBACK TO perdure_start")
                borrowed.execute("RELEASE perdure_start")
                raise
            borrowed.execute("RELEASE perdure_start")
        except (sqlite3.Error, *faults.BAD_VALUES) as exc:
            if faults.is_busy(exc):
                raise Unavailable(
                    f"{borrowed.name} is being written by somebody else: begin the transaction "
                    "with BEGIN IMMEDIATE, which waits for its turn",
                    cause=exc,
                ) from exc
            raise faults.translate(exc, borrowed.name) from exc
    return result
