"""A database with tables is as good as new for each test, whatever was done to it before."""

from typing import Any

import pytest
from tests.support.postgres import Server
from tests.support.tables import Tables

from perdure.store.opening import open_store

NEW = """
SELECT table_name, query_to_xml('SELECT * FROM perdure.' || table_name, true, false, '')::text
FROM information_schema.tables WHERE table_schema = 'perdure' ORDER BY table_name
"""
WRITES = [
    "INSERT INTO perdure.perdure_tag VALUES ('default', 'mine', 1)",
    "DELETE FROM perdure.perdure_journal",
    "SELECT nextval('perdure.perdure_run_number') FROM generate_series(1, 7)",
    "UPDATE perdure.perdure_audit_head SET hash = 'mine'",
]
CHANGES = [
    "DROP TABLE perdure.perdure_tag",
    "ALTER TABLE perdure.perdure_tag ADD COLUMN mine int",
    "CREATE INDEX mine ON perdure.perdure_tag (run)",
    "CREATE TABLE public.mine (id int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE perdure.perdure_audit DISABLE TRIGGER ALL",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
]


def everything(server: Server, url: str) -> list[Any]:
    with server.connect(url) as connection:
        return [
            connection.execute(NEW).fetchall(),
            connection.execute("SELECT nextval('perdure.perdure_run_number')").fetchall(),
            connection.execute("SHOW work_mem").fetchall(),
        ]


@pytest.fixture
def tables(postgres_server: Server, postgres_url: str) -> Tables:
    return Tables(postgres_server, postgres_url)


@pytest.mark.parametrize("sql", WRITES)
def test_what_was_written_is_gone_and_what_was_there_is_there(
    postgres_server: Server, tables: Tables, sql: str
):
    tables.renew()
    before = everything(postgres_server, tables.url)
    with postgres_server.connect(tables.url) as connection:
        connection.execute(sql.encode())
    tables.renew()
    assert everything(postgres_server, tables.url) == before


@pytest.mark.parametrize("sql", CHANGES)
def test_tables_that_were_changed_are_made_anew(postgres_server: Server, tables: Tables, sql: str):
    tables.renew()
    before = everything(postgres_server, tables.url)
    with postgres_server.connect(tables.url) as connection:
        connection.execute(sql.encode())
    tables.renew()
    found = everything(postgres_server, tables.url)
    assert found[1:] == before[1:]
    assert [name for name, _ in found[0]] == [name for name, _ in before[0]]
    with postgres_server.connect(tables.url) as connection:
        connection.execute(sql.encode())  # it can be done for the first time


def test_a_store_finds_nothing_to_migrate(tables: Tables):
    tables.renew()
    store = open_store(tables.url)
    applied = store.ledger().applied()
    store.migrate(1)
    assert store.ledger().applied() == applied
    assert len(applied) == len(store.migrations)
    store.close()
