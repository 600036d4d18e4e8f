"""A start inside the caller's own transaction stands or falls with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Client, activity, workflow
from perdure.errors import AlreadyExists, Invalid, NotFound, UsageError


@workflow.define
async def greet(name: str) -> str:
    return f"hello {name}"


@contextmanager
def own(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / "test.db", isolation_level=None, timeout=5)
    connection.row_factory = lambda _, row: list(row)
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT)")
    try:
        yield connection
    finally:
        connection.close()


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_start_is_committed_with_the_callers_rows(tmp_path: Path, through: str):
    async with engine_on(tmp_path, greet) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        with own(tmp_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO orders VALUES ('a')")
            handle = await client.start(greet, "you", id="g", connection=connection)
            with pytest.raises(NotFound):
                await handle.status()
            connection.execute("COMMIT")
        assert await handle.result("20s") == "hello you"


async def test_a_start_that_is_rolled_back_has_never_been(tmp_path: Path):
    async with engine_on(tmp_path, greet) as engine:
        with own(tmp_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            handle = engine.client.start_within(connection, greet, "you", id="g")
            connection.execute("ROLLBACK")
        with pytest.raises(NotFound):
            await handle.status()
        assert await engine.client.count(exact=True) == 0
        assert await engine.client.execute(greet, "me") == "hello me"


async def test_a_refused_start_leaves_the_transaction_as_it_was(tmp_path: Path):
    async with engine_on(tmp_path, greet) as engine:
        await engine.client.execute(greet, "you", id="g")
        with own(tmp_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO orders VALUES ('a')")
            with pytest.raises(AlreadyExists):
                engine.client.start_within(
                    connection, greet, "you", id="g", id_reuse_policy="reject_duplicate"
                )
            connection.execute("COMMIT")
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == [1]


async def test_a_connection_that_cannot_carry_a_start_is_refused(tmp_path: Path):
    async with engine_on(tmp_path, greet) as engine:
        start = engine.client.start_within
        with own(tmp_path) as connection, pytest.raises(Invalid, match="BEGIN IMMEDIATE"):
            start(connection, greet, "you")
        elsewhere = sqlite3.connect(":memory:")
        try:
            with pytest.raises(Invalid, match="a database in memory"):
                start(elsewhere, greet, "you")
        finally:
            elsewhere.close()
        with pytest.raises(Invalid, match="not a sqlite3"):
            start("connection", greet, "you")


async def test_a_database_in_memory_has_no_second_connection():
    from perdure import Engine

    async with Engine("memory://", [greet]) as engine:
        with pytest.raises(UsageError, match="in memory"):
            engine.client.start_within(None, greet, "you")


class Shared:
    client: Any = None


@activity.define(transactional=True)
def order(id: str, fails: bool) -> str:
    connection = activity.connection()
    connection.execute("INSERT INTO orders VALUES (?)", (id,))
    handle = Shared.client.start_within(connection, greet, id, id=f"greet-{id}")
    connection.execute("INSERT INTO orders VALUES (?)", (id + "-second",))
    if fails:
        raise ValueError("undone")
    return handle.id


@workflow.define
async def ordering(fails: bool) -> str:
    call = order.options(retry=None) if not fails else order
    return await call("b", fails)


async def test_a_transactional_activity_starts_an_execution_exactly_once(tmp_path: Path):
    async with engine_on(tmp_path, greet, ordering, order) as engine:
        with own(tmp_path):
            pass
        Shared.client = engine.client
        async with asyncio.timeout(20):
            assert await engine.client.execute(ordering, False) == "greet-b"
        assert await engine.client.get("greet-b").result("20s") == "hello b"
        failing = await engine.client.start(ordering, True)

        async def has_failed() -> bool:
            return any(event.kind == "attempt_failed" for event in await failing.history())

        await until(has_failed)
        assert await engine.client.count(workflow=greet, exact=True) == 1
        await failing.terminate()
