"""The migration ledger of a schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import psycopg

from perdure.errors import SchemaMismatch
from perdure.store.migrate import Applied, Migration, perdure_version
from perdure.store.postgres.database import Database
from perdure.store.sql.database import reading

_TABLE = """CREATE TABLE perdure_migration (
    number bigint PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    version text NOT NULL,
    applied_at bigint NOT NULL
)"""


class PostgresLedger:
    """Reads and writes the ``migration`` table."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def applied(self) -> list[Applied]:
        """Return the applied migrations by number."""
        return self._applied()

    def apply(self, missing: Sequence[Migration], now: int) -> None:
        """Apply migrations in one transaction; who starts meanwhile waits, and finds them done."""
        self.database.write(partial(self._apply, missing, now), is_script=True)

    def _apply(self, missing: Sequence[Migration], now: int) -> None:
        run, schema = self.database.execute, self.database.schema
        # A migration may take its time, and others wait for it.
        run("SET LOCAL lock_timeout = 0")
        run("SET LOCAL statement_timeout = 0")
        run("SELECT pg_advisory_xact_lock(hashtext('perdure_migration'), hashtext($1))", [schema])
        run(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        run(f'SET LOCAL search_path = "{schema}"')
        done = {row.number for row in self._applied()}
        if not done and not self._has_table():
            self._run(_TABLE, "the migration table")
        version = perdure_version()
        for one_of in missing:
            if one_of.number in done:
                continue
            self._run(one_of.sql, f"migration {one_of.number:04} ({one_of.name})")
            row = (one_of.number, one_of.name, one_of.checksum, version, now)
            run("INSERT INTO perdure_migration VALUES ($1, $2, $3, $4, $5)", row)

    def _applied(self) -> list[Applied]:
        if not self._has_table():
            return []
        rows = self.database.execute(
            f'SELECT number, name, checksum, version FROM "{self.database.schema}"'  # noqa: S608
            ".perdure_migration ORDER BY number"
        )
        return [Applied(*row) for row in rows.fetchall()]

    def _has_table(self) -> bool:
        found = self.database.execute(
            "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'perdure_migration'",
            [self.database.schema],
        )
        return found.fetchone() is not None

    def _run(self, script: str, what: str) -> None:
        try:
            # Without parameters, and unprepared, a script goes whole.
            self.database.connection.cursor().execute(script.encode(), prepare=False)
        except psycopg.Error as exc:
            raise SchemaMismatch(
                f"{self.database.name}: {what} failed: {str(exc).strip()}. If the schema holds "
                "tables of another application under these names, give Perdure one of its own",
                cause=exc,
            ) from exc
