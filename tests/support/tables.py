"""A database on PostgreSQL that has the store's tables, as good as new for each test.

To drop and make them takes longer than most tests. So what a test has written is deleted, and what
the migrations have written is there again. If a test has changed a table itself, or may not switch
triggers off, all of it is made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.postgres import END_OTHERS, Server

from perdure.store.opening import open_store

if TYPE_CHECKING:
    import psycopg

_SHAPE = """
SELECT string_agg(part, E'\\n' ORDER BY part) FROM (
    SELECT format('%s %s %s', c.oid, a.attname, format_type(a.atttypid, a.atttypmod)) AS part
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace IN ('perdure'::regnamespace, 'public'::regnamespace) AND a.attnum > 0
    UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'perdure'::regnamespace
    UNION ALL SELECT format('%s %s', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger
    UNION ALL SELECT proname || prosrc FROM pg_proc WHERE pronamespace = 'perdure'::regnamespace
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) parts
"""
_TABLES = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'perdure'::regnamespace
"""
_DELETE = f"""
DO $$ DECLARE name text; BEGIN
    FOR name IN {_TABLES} LOOP EXECUTE format('DELETE FROM perdure.%I', name); END LOOP;
    PERFORM setval(seqrelid::regclass, seqstart, false) FROM pg_sequence;
END $$
"""


class Tables:
    """See the module's text; ``url`` is that of an empty database, which is all ours."""

    def __init__(self, server: Server, url: str) -> None:
        self.url = url
        self._server = server
        self._shape = ""
        self._rows: dict[str, bytes] = {}

    def renew(self) -> None:
        """Let there be the tables, and in them what is there when they are made."""
        if not self._shape or not self._is_emptied():
            self._make()

    def _make(self) -> None:
        self._server.clear_database(self.url)
        store = open_store(self.url)
        store.ledger().apply(store.migrations, 0)
        store.close()
        with self._server.connect(self.url) as connection:
            self._shape = _shape(connection)
            for (name,) in connection.execute(_TABLES).fetchall():
                with connection.cursor().copy(f"COPY perdure.{name} TO STDOUT".encode()) as copy:
                    self._rows[name] = b"".join(bytes(piece) for piece in copy)

    def _is_emptied(self) -> bool:
        with self._server.connect(self.url) as connection, connection.transaction():
            connection.execute(END_OTHERS)
            if not _may_do_all(connection) or _shape(connection) != self._shape:
                return False
            connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
            connection.execute(_DELETE.encode())
            for name, rows in self._rows.items():
                if rows:
                    with connection.cursor().copy(
                        f"COPY perdure.{name} FROM STDIN".encode()
                    ) as copy:
                        copy.write(rows)
        return True


def _may_do_all(connection: psycopg.Connection[Any]) -> bool:
    own = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper"
    return connection.execute(own).fetchone() is not None


def _shape(connection: psycopg.Connection[Any]) -> str:
    """Return all that a test could change of the database but rows."""
    row = connection.execute(_SHAPE).fetchone()
    assert row is not None
    return str(row[0])
