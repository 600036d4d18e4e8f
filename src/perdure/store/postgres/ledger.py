"""The migration ledger of a schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import psycopg

from perdure.errors import SchemaMismatch
from perdure.store.migrate import Applied, Migration, listed, perdure_version, recorded
from perdure.store.postgres import faults
from perdure.store.postgres.database import Database
from perdure.store.sql.database import reading

_TABLE = """CREATE TABLE perdure_migration (
    number bigint PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    version text NOT NULL,
    applied_at bigint NOT NULL
)"""


_TABLES = """SELECT c.relname, c.reltuples::bigint FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY c.relname"""
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def script(missing: Sequence[Migration], schema: str, *, is_new: bool, role: str = "") -> str:
    """Return what ``apply`` does as a text for psql.

    Args:
        missing: the migrations.
        schema: where the tables are to be.
        is_new: whether nothing is there yet.
        role: who is to work with the tables, if that is not who makes them.
    """
    head = f"-- Perdure {perdure_version()} for PostgreSQL, schema {schema}: {listed(missing)}"
    parts = [
        f"{head}\n-- psql -v ON_ERROR_STOP=1 -f THIS_FILE",
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock(hashtext('perdure_migration'), hashtext('{schema}'));",
    ]
    if is_new:
        parts.append(f'CREATE SCHEMA IF NOT EXISTS "{schema}";')
    parts.append(f'SET LOCAL search_path = "{schema}";')
    if is_new:
        parts.append(f"{_TABLE};")
    for one_of in missing:
        parts += [one_of.sql.strip(), recorded(one_of, _NOW)]
    if role:
        quoted = '"' + role.replace('"', '""') + '"'
        parts += [
            f'GRANT USAGE ON SCHEMA "{schema}" TO {quoted};',
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {quoted};',
            f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "{schema}" TO {quoted};',
            f'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "{schema}" TO {quoted};',
        ]
    return "\n\n".join([*parts, "COMMIT;"])


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

    @reading
    def tables(self) -> dict[str, int]:
        """Return the names of the tables, and how many rows each has by the server's books."""
        rows = self.database.execute(_TABLES, [self.database.schema]).fetchall()
        return {name: max(0, count) for name, count in rows}

    def _apply(self, missing: Sequence[Migration], now: int) -> None:
        run, schema = self.database.execute, self.database.schema
        # A migration may take its time, and others wait for it.
        run("SET LOCAL lock_timeout = 0")
        run("SET LOCAL statement_timeout = 0")
        run("SELECT pg_advisory_xact_lock(hashtext('perdure_migration'), hashtext($1))", [schema])
        # Not IF NOT EXISTS: that asks for the right to make one even if it is there.
        if run("SELECT 1 FROM pg_namespace WHERE nspname = $1", [schema]).fetchone() is None:
            self._run(f'CREATE SCHEMA "{schema}"', "its schema", missing)
        run(f'SET LOCAL search_path = "{schema}"')
        done = {row.number for row in self._applied()}
        if not done and not self._has_table():
            self._run(_TABLE, "the migration table", missing)
        version = perdure_version()
        for one_of in missing:
            if one_of.number in done:
                continue
            self._run(one_of.sql, f"migration {one_of.number:04} ({one_of.name})", missing)
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

    def _run(self, script: str, what: str, missing: Sequence[Migration]) -> None:
        try:
            # Without parameters, and unprepared, a script goes whole.
            self.database.connection.cursor().execute(script.encode(), prepare=False)
        except psycopg.Error as exc:
            if faults.is_forbidden(exc):
                role = self.database.connection.info.user
                raise SchemaMismatch(
                    f"{self.database.name} needs {listed(missing)}, and the role {role} may not "
                    f"make that ({str(exc).strip()}). Let somebody who may run what "
                    f"`perdure db migrate --sql --pending --role {role}` prints",
                    cause=exc,
                ) from exc
            raise SchemaMismatch(
                f"{self.database.name}: {what} failed: {str(exc).strip()}. If the schema holds "
                "tables of another application under these names, give Perdure one of its own",
                cause=exc,
            ) from exc
