"""Migrations are applied once, in order, and never edited."""

import sqlite3
from pathlib import Path

import pytest
from tests.contract.store_contract import World

from perdure.errors import DefinitionError, SchemaMismatch
from perdure.store.migrate import checksum, load_migrations
from perdure.store.opening import open_store
from perdure.store.queries import load_queries
from perdure.store.sqlite.connect import Settings
from perdure.store.sqlite.ledger import SqliteLedger, statements
from perdure.store.sqlite.store import MIGRATIONS, SqliteStore


def migrated(path: Path) -> Path:
    store = open_store(f"sqlite:///{path}")
    store.migrate(5)
    store.close()
    return path


def change(path: Path, sql: str, *parameters: object) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql, parameters)
    connection.close()


def refusal(path: Path, *, readonly: bool = False) -> str:
    store = open_store(f"sqlite:///{path}", readonly=readonly)
    try:
        with pytest.raises(SchemaMismatch) as caught:
            store.migrate(6)
    finally:
        store.close()
    return caught.value.message


def test_each_migration_is_recorded_with_its_checksum_and_applied_once(tmp_path: Path):
    path = migrated(migrated(tmp_path / "a.db"))
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT number, name, checksum, applied_at FROM perdure_migration"
    ).fetchall()
    connection.close()
    assert rows == [(one.number, one.name, one.checksum, 5) for one in MIGRATIONS]


def test_a_migration_that_was_edited_is_found_out(tmp_path: Path):
    path = migrated(tmp_path / "a.db")
    change(path, "UPDATE perdure_migration SET checksum = 'x' WHERE number = 1")
    message = refusal(path)
    assert "0001 (core)" in message
    assert "edited" in message


def test_a_database_of_a_newer_version_is_left_alone_and_says_which(tmp_path: Path):
    path = migrated(tmp_path / "a.db")
    change(path, "INSERT INTO perdure_migration VALUES (99, 'later', 'x', '9.9.9', 1)")
    message = refusal(path)
    assert "9.9.9" in message
    assert "0099 (later)" in message
    assert "Upgrade Perdure" in message
    assert refusal(path, readonly=True) == message


def test_a_reader_of_a_database_without_tables_is_told_so(tmp_path: Path):
    path = tmp_path / "a.db"
    change(path, "CREATE TABLE theirs (x)")
    assert "no tables of this version yet" in refusal(path, readonly=True)


def test_tables_of_another_application_are_named_and_nothing_is_changed(tmp_path: Path):
    path = tmp_path / "a.db"
    change(path, "CREATE TABLE perdure_inbox (x)")
    assert "file of its own" in refusal(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("perdure_inbox",)]
    connection.close()


def test_a_database_beside_tables_of_another_application_works(tmp_path: Path):
    path = tmp_path / "a.db"
    change(path, "CREATE TABLE theirs (x)")
    store = open_store(f"sqlite:///{path}")
    assert World(store).start().created
    store.close()


def test_two_that_migrate_at_once_do_it_once(tmp_path: Path):
    one, two = (SqliteStore(Settings(str(tmp_path / "a.db"))) for _ in range(2))
    SqliteLedger(one.database).apply(MIGRATIONS, 1)
    SqliteLedger(two.database).apply(MIGRATIONS, 2)
    assert len(SqliteLedger(two.database).applied()) == len(MIGRATIONS)
    one.close()
    two.close()


def test_line_ends_do_not_count_as_edits():
    assert checksum("a;\r\nb;\r\n") == checksum("a;\nb;\n") != checksum("a;\nc;\n")


def test_a_gap_in_the_numbers_is_a_mistake(tmp_path: Path):
    (tmp_path / "0001_a.sql").write_text("")
    (tmp_path / "0003_c.sql").write_text("")
    with pytest.raises(DefinitionError, match="0001, 0002"):
        load_migrations(tmp_path)


def test_scripts_are_split_at_whole_statements():
    sql = "-- a; b\nCREATE TABLE t (x DEFAULT ';');\nCREATE INDEX i\n  ON t (x);\n-- end"
    assert [part.splitlines()[-1].strip() for part in statements(sql)] == [
        "CREATE TABLE t (x DEFAULT ';');",
        "ON t (x);",
    ]


def test_a_block_of_sql_may_use_another(tmp_path: Path):
    path = tmp_path / "q.sql"
    path.write_text(
        "-- head\n-- name: a\nSELECT {b}; \n-- why\n-- name: b\n1 + {c}\n-- name: c\n2\n"
    )
    assert load_queries(path) == {"a": "SELECT 1 + 2", "b": "1 + 2", "c": "2"}


@pytest.mark.parametrize(
    "text", ["-- name: a\n1\n-- name: a\n2\n", "-- name: a\nSELECT {nothing}\n"]
)
def test_a_block_named_twice_or_never_is_a_mistake(tmp_path: Path, text: str):
    path = tmp_path / "q.sql"
    path.write_text(text)
    with pytest.raises(DefinitionError):
        load_queries(path)
