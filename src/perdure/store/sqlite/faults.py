"""What SQLite's errors mean to the store.

Every driver error is translated here, by its result code and never by its text. Two questions
decide: is somebody else holding the lock (then it is tried again and nobody sees it), and did the
data or the disk fail (then the batch was refused, or the store is unavailable)?
"""

from __future__ import annotations

import sqlite3

from perdure.errors import Corrupt, SchemaMismatch, StoreError, StoreRefused, Unavailable

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DATA = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_RANGE,
    }
)
_AWAY = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# What the driver raises, besides sqlite3.Error, for values that no column can hold.
BAD_VALUES = (OverflowError, UnicodeError)


def code_of(exc: BaseException) -> int:
    """Return the primary result code of a driver's error; 0 if it has none."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return 0 if code is None else code & 0xFF


def is_busy(exc: BaseException) -> bool:
    """Tell whether another connection holds the lock."""
    return code_of(exc) in _BUSY


def is_io(exc: BaseException) -> bool:
    """Tell whether the disk failed: the connection must not be trusted any more."""
    return code_of(exc) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN)


def translate(exc: BaseException, where: str) -> StoreError:
    """Return the store's error for a driver's error."""
    code = code_of(exc)
    if code in _DATA or isinstance(exc, (*BAD_VALUES, sqlite3.DataError, sqlite3.InterfaceError)):
        return StoreRefused(f"{where} refused the data: {exc}", cause=exc)
    if code in _BUSY:
        return Unavailable(f"{where} is locked by another connection", cause=exc)
    if code in _AWAY:
        return Unavailable(f"{where} cannot be used now: {exc}", cause=exc)
    if code in _BROKEN:
        return Corrupt(f"{where} is damaged: {exc}. Restore a backup", cause=exc)
    if "no such table" in str(exc) or "no such column" in str(exc):
        return SchemaMismatch(
            f"{where} does not have Perdure's tables ({exc}): a worker makes them when it starts "
            "(`perdure dev MODULE`)",
            cause=exc,
        )
    return StoreError(f"{where}: {exc}", cause=exc)
