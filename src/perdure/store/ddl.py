"""What a database needs of migrations, told and written out for whoever may change its tables.

A role that runs workers need not have the right to make tables: somebody else runs the text that
``script`` gives, before each new version that brings migrations, and the workers find all done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.store import migrate
from perdure.store.migrate import Applied, Migration
from perdure.store.opening import is_server, open_store, parse_url


class State(msgspec.Struct, frozen=True):
    """How far a database is: ``applied`` and ``pending`` by number; ``tables`` with their rows."""

    name: str
    dialect: str
    schema: str
    applied: Sequence[Applied]
    pending: Sequence[Migration]
    tables: dict[str, int]


def state(url: str, *, counts: bool = True) -> State:
    """Read how far a database is; nothing is written.

    Raises:
        SchemaMismatch: it is newer than this Perdure, or a migration was edited.
        Unavailable: it cannot be opened.
    """
    store = open_store(url, readonly=True)
    try:
        ledger = store.ledger()
        applied = ledger.applied()
        pending = migrate.missing(store.migrations, applied, store.database.name)
        tables = ledger.tables() if counts else {}
    finally:
        store.close()
    dialect = "postgresql" if is_server(url) else "sqlite"
    schema = getattr(store.settings, "schema", "")
    return State(store.database.name, dialect, schema, applied, pending, tables)


def script(url: str, *, pending: bool = False, role: str = "") -> str:
    """Return the SQL that brings a database to this version.

    Args:
        url: which database; it is not touched, and read only for ``pending``.
        pending: only what is missing there, and ``""`` if nothing is; else everything.
        role: on PostgreSQL, also let this role work with the tables.

    Raises:
        Invalid: not the URL of a database that lasts, or a role where there are none.
    """
    if is_server(url):
        from perdure.store.postgres import ledger
        from perdure.store.postgres.connect import read_url
        from perdure.store.postgres.store import MIGRATIONS

        schema = read_url(url, None).schema
        wanted, is_new = _wanted(url, MIGRATIONS, pending)
        if not wanted and not role:
            return ""
        return ledger.script(wanted, schema, is_new=is_new, role=role)
    if parse_url(url) is None:
        raise Invalid("store: a database in memory is made by the process that has it")
    if role:
        raise Invalid("role: SQLite has no roles: whoever may write the file may write the tables")
    from perdure.store.sqlite import ledger as of_file
    from perdure.store.sqlite.store import MIGRATIONS as OF_FILE

    wanted, is_new = _wanted(url, OF_FILE, pending)
    return of_file.script(wanted, is_new=is_new) if wanted else ""


def _wanted(url: str, known: Sequence[Migration], pending: bool) -> tuple[Sequence[Any], bool]:
    """Return migrations, and whether the database has none yet."""
    if not pending:
        return known, True
    found = state(url, counts=False)
    return found.pending, not found.applied
