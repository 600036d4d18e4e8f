"""Migrations: numbered SQL files, applied once each and never edited.

The database keeps, for each applied file, its number, name, checksum and the version of Perdure
that applied it. From that follow two refusals: a database that a newer Perdure has changed is not
touched by an older one, and a file that was edited after it was applied is found out before
anything else happens. A dialect gives three functions (:class:`Ledger`); the rules stand here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from perdure.errors import DefinitionError, SchemaMismatch


class Migration(msgspec.Struct, frozen=True):
    """One migration file."""

    number: int
    name: str
    checksum: str
    sql: str


class Applied(msgspec.Struct, frozen=True):
    """One row of the ``migration`` table."""

    number: int
    name: str
    checksum: str
    version: str


class Ledger(Protocol):
    """What a dialect gives: the applied rows, and one transaction around what is missing."""

    def applied(self) -> list[Applied]:
        """Return the applied migrations by number; none if the table does not exist."""
        ...

    def apply(self, missing: Sequence[Migration], now: int) -> None:
        """Apply and record migrations in one transaction.

        Raises:
            SchemaMismatch: a statement failed, or whoever asks may not make tables.
        """
        ...

    def tables(self) -> dict[str, int]:
        """Return the names of the tables, and how many rows each has."""
        ...


def load_migrations(folder: Path) -> list[Migration]:
    """Read ``NNNN_name.sql`` files.

    Raises:
        DefinitionError: the numbers do not go 1, 2, 3 and so on.
    """
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        text = path.read_text(encoding="utf-8")
        found.append(Migration(int(number), name, checksum(text), text))
    if [one.number for one in found] != list(range(1, len(found) + 1)):
        raise DefinitionError(f"{folder}: migrations must be numbered 0001, 0002, ...")
    return found


def checksum(text: str) -> str:
    """Return what is compared to find an edited file; line ends do not count."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def missing(known: Sequence[Migration], applied: Sequence[Applied], where: str) -> list[Migration]:
    """Return the migrations that ``where`` still needs.

    Raises:
        SchemaMismatch: the database is newer, or an applied migration was edited.
    """
    by_number = {one.number: one for one in known}
    for row in applied:
        mine = by_number.get(row.number)
        if mine is None:
            raise SchemaMismatch(
                f"{where} was written by Perdure {row.version}, which is newer than this Perdure "
                f"{perdure_version()}: migration {row.number:04} ({row.name}) is unknown here. "
                "Upgrade Perdure, or restore a backup from before the upgrade"
            )
        if mine.checksum != row.checksum:
            raise SchemaMismatch(
                f"migration {row.number:04} ({row.name}) is not the one that Perdure "
                f"{row.version} applied to {where}: its text was edited. Restore the file, or "
                "reinstall Perdure; changes to the schema belong into a new migration"
            )
    done = {row.number for row in applied}
    return [one for one in known if one.number not in done]


def migrate(
    ledger: Ledger, known: Sequence[Migration], where: str, now: int, *, readonly: bool = False
) -> None:
    """Bring a database up to date; ``readonly``: make sure that it is.

    Raises:
        SchemaMismatch: see :func:`missing`; or something is missing, and nothing may be written.
    """
    needed = missing(known, ledger.applied(), where)
    if not needed:
        return
    if readonly:
        raise SchemaMismatch(
            f"{where} has no tables of this version yet: a worker makes them when it starts "
            "(`perdure dev MODULE`)"
        )
    ledger.apply(needed, now)


def recorded(one: Migration, now: str) -> str:
    """Return the statement that records a migration; ``now``: how its database says the time."""
    values = [one.name, one.checksum, perdure_version()]
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"INSERT INTO perdure_migration VALUES ({one.number}, {quoted}, {now});"  # noqa: S608 - ours


def listed(migrations: Sequence[Migration]) -> str:
    """Return numbers and names, for people."""
    return ", ".join(f"{one.number:04} ({one.name})" for one in migrations)


def perdure_version() -> str:
    """Return this package's version, or ``dev`` in a tree that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("perdure")
    except metadata.PackageNotFoundError:
        return "dev"
