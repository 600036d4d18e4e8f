"""Behind a pooler in transaction mode: settings go with each transaction, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure import Client, Engine, activity, workflow
from perdure.errors import StoreError
from perdure.store.opening import open_store
from perdure.store.postgres.store import PostgresStore

WANTED = {
    "lock_timeout": "3s",
    "statement_timeout": "7s",
    "idle_in_transaction_session_timeout": "3s",
    "enable_seqscan": "off",
    "synchronous_commit": "remote_write",
}


@activity.define
async def shout(text: str) -> str:
    return text.upper()


@workflow.define
async def shouted(text: str) -> str:
    said = await workflow.listen("more").receive()
    return await shout(text) + await shout(said)


@pytest.fixture
def store(pooled_url: str) -> Iterator[PostgresStore]:
    store = open_store(f"{pooled_url}&statement_timeout=7s&synchronous_commit=remote_write")
    assert isinstance(store, PostgresStore)
    store.migrate(5)
    yield store
    store.close()


def settings(store: PostgresStore) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in WANTED:
        (found[name],) = store.database.execute(f"SHOW {name}").fetchone()
    return found


def test_reads_writes_and_snapshots_have_the_settings_that_a_session_would_have(
    store: PostgresStore,
):
    database = store.database

    def in_snapshot() -> dict[str, str]:
        with database.snapshot():
            level = database.execute("SHOW transaction_isolation").fetchone()
            assert level == ("repeatable read",)
            return settings(store)

    for _ in range(3):
        assert database.read(lambda: settings(store)) == WANTED
        assert database.write(lambda: settings(store)) == WANTED
        assert database.read(in_snapshot) == WANTED


def test_nothing_stays_in_a_session(store: PostgresStore):
    for _ in range(3):
        store.database.write(lambda: settings(store))
        store.database.read(lambda: settings(store))
        assert store.database.execute("SHOW lock_timeout").fetchone() == ("0",)
        prepared = store.database.execute("SELECT count(*) FROM pg_prepared_statements")
        assert prepared.fetchone() == (0,)


def test_a_reader_cannot_write(pooled_url: str, store: PostgresStore):
    reader = open_store(pooled_url, readonly=True)
    assert isinstance(reader, PostgresStore)
    with pytest.raises(StoreError, match="read-only"):
        reader.database.write(lambda: reader.database.execute("DELETE FROM perdure.perdure_run"))
    reader.close()


async def test_workflows_run_and_are_told_of_messages(pooled_url: str):
    async with (
        Engine(pooled_url, [shouted, shout], lease="3s") as engine,
        Client(pooled_url) as client,
    ):
        handle = await client.start(shouted, "a")
        await handle.send("more", "b")
        assert await handle.result("20s") == "AB"
        assert len(await engine.client.workers()) == 1


async def test_workers_that_can_listen_hear_of_those_who_are_behind_a_pooler(
    postgres_url: str, pooled_url: str
):
    async with Engine(postgres_url, [shouted, shout]) as engine, Client(pooled_url) as client:
        await engine.client.workers()
        handle = await client.start(shouted, "a")
        await handle.send("more", "b")
        assert await handle.result("20s") == "AB"
