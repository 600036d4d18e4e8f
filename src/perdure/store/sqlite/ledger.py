"""The migration ledger of a SQLite database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from perdure.errors import SchemaMismatch
from perdure.store.migrate import Applied, Migration, listed, perdure_version, recorded
from perdure.store.sql.database import reading, writing
from perdure.store.sqlite import faults
from perdure.store.sqlite.database import Database

_TABLE = """
CREATE TABLE perdure_migration (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    version TEXT NOT NULL,
    applied_at INTEGER NOT NULL
)
"""


_NOW = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"


def script(missing: Sequence[Migration], *, is_new: bool) -> str:
    """Return what ``apply`` does as a text for sqlite3; ``is_new``: nothing is there yet."""
    parts = [f"-- Perdure {perdure_version()} for SQLite: {listed(missing)}", "BEGIN IMMEDIATE;"]
    if is_new:
        parts.append(f"{_TABLE.strip()};")
    for one_of in missing:
        parts += [one_of.sql.strip(), recorded(one_of, _NOW)]
    return "\n\n".join([*parts, "COMMIT;"])


class SqliteLedger:
    """Reads and writes the ``migration`` table."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def applied(self) -> list[Applied]:
        """Return the applied migrations by number."""
        return self._applied()

    @writing
    def apply(self, missing: Sequence[Migration], now: int) -> None:
        """Apply migrations in one transaction; another process may have been faster."""
        done = {row.number for row in self._applied()}
        if not done and not self._has_table():
            self._run(_TABLE, "the migration table")
        version = perdure_version()
        for one_of in missing:
            if one_of.number in done:
                continue
            for statement in statements(one_of.sql):
                self._run(statement, f"migration {one_of.number:04} ({one_of.name})")
            row = (one_of.number, one_of.name, one_of.checksum, version, now)
            self.database.execute("INSERT INTO perdure_migration VALUES (?, ?, ?, ?, ?)", row)

    @reading
    def tables(self) -> dict[str, int]:
        """Return the names of the tables, and how many rows each has."""
        names = self.database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'perdure\\_%'"
            " ESCAPE '\\' ORDER BY name"
        ).fetchall()
        count = "SELECT count(*) FROM "
        return {name: self.database.execute(count + name).fetchone()[0] for (name,) in names}

    def _applied(self) -> list[Applied]:
        if not self._has_table():
            return []
        rows = self.database.execute(
            "SELECT number, name, checksum, version FROM perdure_migration ORDER BY number"
        )
        return [Applied(*row) for row in rows.fetchall()]

    def _has_table(self) -> bool:
        sql = (
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'perdure_migration'"
        )
        return bool(self.database.execute(sql).fetchone()[0])

    def _run(self, statement: str, what: str) -> None:
        try:
            self.database.execute(statement)
        except sqlite3.Error as exc:
            if faults.code_of(exc) != sqlite3.SQLITE_ERROR:
                raise
            raise SchemaMismatch(
                f"{self.database.name}: {what} failed: {exc}. If the file holds tables of another "
                "application under these names, give Perdure a file of its own",
                cause=exc,
            ) from exc


def statements(sql: str) -> Iterator[str]:
    """Split a script; the driver's own splitting would commit first."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    assert not pending.strip() or pending.lstrip().startswith("--"), pending
