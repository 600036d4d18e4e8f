"""How a connection is opened, and what is refused.

Every connection to a Perdure database has the same settings; durability is not a matter of taste:
``synchronous=FULL`` and a write-ahead log, or the caller says in so many words that losing
acknowledged work is acceptable. ``wal_autocheckpoint=0`` because SQLite's own checkpoints may
overlap with those of other processes, which older SQLite versions answer with lost transactions.

Whether a file is a database is asked of SQLite: opening it here to look would, on closing, drop the
locks this process holds on it.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from perdure.errors import Invalid, Unavailable, UsageError
from perdure.store.sealing import Seal
from perdure.store.sqlite import faults

_OLDEST = (3, 38, 0)
_STRONG = {"synchronous": ("FULL", "EXTRA"), "journal_mode": ("WAL",)}
_KNOWN = {
    "synchronous": ("OFF", "NORMAL", "FULL", "EXTRA"),
    "journal_mode": ("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"),
}
_CACHED_STATEMENTS = 512
_NO_WAY_IN = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


class Settings(msgspec.Struct, frozen=True):
    """What differs between databases. ``path`` is ``None`` in memory.

    ``warn_after`` and ``give_up_after``: seconds of waiting for another process's write lock.
    ``seal``: of all connections.
    """

    path: str | None
    readonly: bool = False
    synchronous: str = "FULL"
    journal_mode: str = "WAL"
    warn_after: float = 2.0
    give_up_after: float = 30.0
    factory: type[sqlite3.Connection] = sqlite3.Connection
    seal: Seal = msgspec.field(default_factory=Seal)

    @property
    def name(self) -> str:
        """What error messages call the database."""
        return "the database in memory" if self.path is None else f"the database {self.path}"


def check_options(options: Mapping[str, Any] | None, *, allow_data_loss: bool) -> dict[str, str]:
    """Return the options for :class:`Settings`.

    Raises:
        UsageError: an unknown option, or one that may lose acknowledged work.
    """
    result: dict[str, str] = {}
    for name, value in (options or {}).items():
        if name not in _KNOWN:
            raise UsageError(f"options: {name!r} is unknown; there are {', '.join(_KNOWN)}")
        text = str(value).upper()
        if text not in _KNOWN[name]:
            raise UsageError(f"options: {name}={value!r} is not one of {', '.join(_KNOWN[name])}")
        if text not in _STRONG[name] and not allow_data_loss:
            raise UsageError(
                f"options: {name}={text} may lose workflows that were already acknowledged when "
                f"the machine fails; keep {_STRONG[name][0]}, or pass allow_data_loss=True"
            )
        result[name] = text
    return result


def connect(settings: Settings) -> sqlite3.Connection:
    """Open a connection.

    Raises:
        Invalid: the path cannot be a database.
        Unavailable: it cannot be opened now.
        UsageError: this SQLite is too old, or the file system cannot hold a write-ahead log.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise UsageError(f"SQLite {sqlite3.sqlite_version} is too old; Perdure needs 3.38 or newer")
    try:
        connection = _open(settings)
        try:
            _configure(connection, settings)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as exc:
        raise _explain(exc, settings) from exc
    return connection


def _open(settings: Settings) -> sqlite3.Connection:
    target = ":memory:"
    if settings.path is not None:
        target = f"file:{quote(settings.path)}?mode={'rw' if settings.readonly else 'rwc'}"
    return sqlite3.connect(
        target,
        uri=settings.path is not None,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        factory=settings.factory,
    )


def _configure(connection: sqlite3.Connection, settings: Settings) -> None:
    run = connection.execute
    run("PRAGMA cache_size=-49152")
    run("PRAGMA mmap_size=0")
    run("PRAGMA temp_store=MEMORY")
    run("PRAGMA foreign_keys=OFF")
    # What is erased is not left in free space. Some SQLites are built so; those were measured.
    run("PRAGMA secure_delete=ON")
    if settings.path is None:
        return
    run("PRAGMA wal_autocheckpoint=0")
    # On macOS a plain fsync leaves the data in the drive's cache; elsewhere these do nothing.
    run("PRAGMA fullfsync=ON")
    run("PRAGMA checkpoint_fullfsync=ON")
    if settings.readonly:
        # Bytes that are no UTF-8 are shown as such: one damaged row must not hide all others.
        connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        run("PRAGMA query_only=ON")
        run("SELECT count(*) FROM sqlite_schema").fetchone()  # finds out what is no database
        return
    mode = str(run(f"PRAGMA journal_mode={settings.journal_mode}").fetchone()[0]).upper()
    if mode != settings.journal_mode:
        raise UsageError(
            f"{settings.name} cannot use journal_mode={settings.journal_mode} (SQLite stays at "
            f"{mode}): network file systems have no shared memory for a write-ahead log"
        )
    run(f"PRAGMA synchronous={settings.synchronous}")


def _explain(exc: sqlite3.Error, settings: Settings) -> Exception:
    path = settings.path or ""
    code = faults.code_of(exc)
    if code == sqlite3.SQLITE_NOTADB:
        return Invalid(f"{path} is not a SQLite database")
    file = Path(path)
    if file.is_dir():
        return Invalid(f"{path} is a folder; a database is a file")
    if not file.parent.is_dir():
        return Invalid(f"{path} cannot be a database: the folder {file.parent} does not exist")
    if settings.readonly and not file.exists():
        return Invalid(f"there is no database at {path}")
    if code in _NO_WAY_IN and not os.access(file.parent, os.W_OK):
        return Unavailable(
            f"{settings.name} cannot be opened: the folder {file.parent} must be writable, also to "
            "look only, because those who share a database meet in a file beside it (-shm). Run as "
            f"somebody who may write there, or copy {file.name} and {file.name}-wal elsewhere",
            cause=exc,
        )
    if faults.is_busy(exc):
        return Unavailable(f"{settings.name} is locked by another connection", cause=exc)
    return faults.translate(exc, settings.name)
