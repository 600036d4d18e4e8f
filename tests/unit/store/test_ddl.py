"""The SQL that is printed for somebody else to run makes what a worker would have made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from tests.contract.store_contract import World, request

from perdure import Engine, workflow
from perdure.errors import Invalid, SchemaMismatch
from perdure.store import ddl
from perdure.store.opening import open_store

ROLE = f"perdure_test_worker_{os.getpid()}"
_SHAPE = """
SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE n.nspname = %s ORDER BY 1, 3
"""


@workflow.define
async def greet(name: str) -> str:
    return f"hello {name}"


@pytest.fixture
def worker_url(postgres_url: str) -> Iterator[str]:
    """The database, for a role that may make nothing in it."""
    name = sql.Identifier(ROLE)
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'pw'").format(name))
    parts = urlsplit(postgres_url)
    host = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{ROLE}:pw@{host}"))
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(sql.SQL("DROP OWNED BY {}").format(name))
        owner.execute(sql.SQL("DROP ROLE {}").format(name))


def run(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


async def test_an_engine_without_the_right_to_make_tables_starts_on_those_that_were_made(
    postgres_url: str, worker_url: str
):
    run(postgres_url, ddl.script(postgres_url, role=ROLE))
    async with Engine(worker_url, [greet]) as engine:
        handle = await engine.client.start(greet, "Ada")
        assert await handle.result("10s") == "hello Ada"


async def test_an_engine_that_may_not_make_its_tables_says_who_can_and_how(worker_url: str):
    with pytest.raises(SchemaMismatch) as refused:
        await Engine(worker_url, [greet]).start()
    assert "0001 (core)" in refused.value.message
    assert ROLE in refused.value.message
    assert f"perdure db migrate --sql --pending --role {ROLE}" in refused.value.message


async def test_a_role_that_was_given_nothing_is_told_what_it_lacks(
    postgres_url: str, worker_url: str
):
    run(postgres_url, ddl.script(postgres_url))
    with pytest.raises(SchemaMismatch, match="--role ROLE"):
        await Engine(worker_url, [greet]).start()


def test_who_owns_the_schema_needs_no_right_in_the_database(postgres_url: str, worker_url: str):
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE SCHEMA mine AUTHORIZATION {}").format(sql.Identifier(ROLE)))
    store = open_store(f"{worker_url}?schema=mine")
    store.migrate(5)
    store.close()
    assert not ddl.state(f"{worker_url}?schema=mine").pending


def test_the_printed_sql_makes_the_same_tables_as_a_worker(postgres_url: str):
    run(postgres_url, ddl.script(f"{postgres_url}?schema=printed"))
    store = open_store(f"{postgres_url}?schema=migrated")
    store.migrate(5)
    store.close()
    with psycopg.connect(postgres_url) as connection:
        printed, migrated = (
            connection.execute(_SHAPE, [schema]).fetchall() for schema in ("printed", "migrated")
        )
    assert printed == migrated
    assert printed


def test_the_printed_sql_is_all_that_a_store_misses(postgres_url: str):
    assert ddl.script(postgres_url, pending=True) == ddl.script(postgres_url)
    before = ddl.state(postgres_url)
    assert (list(before.applied), len(before.pending) > 0) == ([], True)
    run(postgres_url, ddl.script(postgres_url, pending=True))
    after = ddl.state(postgres_url)
    assert not after.pending
    assert [one.number for one in after.applied] == [one.number for one in before.pending]
    assert "perdure_run" in after.tables
    assert ddl.script(postgres_url, pending=True) == ""


def test_migrations_that_are_half_done_are_gone_on_with(tmp_path: Path):
    path = tmp_path / "a.db"
    url = f"sqlite:///{path}"
    text = ddl.script(url)
    connection = sqlite3.connect(path, isolation_level=None)
    third = text.index("CREATE", text.index("INSERT INTO perdure_migration VALUES (2,"))
    connection.executescript(text[:third] + "COMMIT;")
    assert [one.number for one in ddl.state(url).applied] == [1, 2]
    connection.executescript(ddl.script(url, pending=True))
    connection.close()
    assert not ddl.state(url).pending
    store = open_store(url)
    World(store).store.start([request("a")], 1_000)
    store.close()


def test_what_has_no_tables_to_print_says_so():
    with pytest.raises(Invalid, match="in memory"):
        ddl.script("memory://")
    with pytest.raises(Invalid, match="no roles"):
        ddl.script("sqlite:///a.db", role="app")
