"""A simulation's database is a copy: like one that was migrated, and nobody else's."""

from __future__ import annotations

from typing import Any

from perdure.store.opening import open_store
from perdure.testing.blank import new_database

NOW = 1_800_000_000_000_000


def all_of(store: Any) -> dict[str, list[Any]]:
    """Return the schema and the rows of all tables, but for the database's own random id."""

    def select(sql: str) -> list[Any]:
        return store.database.execute(sql).fetchall()

    found = {"schema": select("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")}
    found["settings"] = [select(f"PRAGMA {name}") for name in ("user_version", "page_size")]
    for kind, name, _, _ in found["schema"]:
        if kind == "table" and name != "perdure_identity":
            found[name] = sorted(select(f"SELECT * FROM {name}"))
    return found


def test_a_copy_is_what_the_migrations_make():
    migrated = open_store("memory://")
    migrated.migrate(NOW)
    copied = new_database(NOW)
    assert all_of(copied) == all_of(migrated)
    assert copied.ledger().applied() == migrated.ledger().applied()
    migrated.close()
    copied.close()


def test_what_is_written_to_a_copy_is_in_no_other():
    first = new_database(NOW)
    before = all_of(first)
    first.database.execute("INSERT INTO perdure_tag VALUES ('default', 'mine', 1)")
    first.database.execute("CREATE TABLE mine (id)")
    second = new_database(NOW)
    assert all_of(second) == before != all_of(first)
    first.close()
    assert second.workers() == []
    second.close()
