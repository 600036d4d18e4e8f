"""Hints come and go on one connection, which may be lost and is opened again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from perdure.store.opening import open_store
from perdure.store.postgres import hints
from perdure.store.postgres.hints import Hints
from perdure.store.postgres.store import PostgresStore

PATIENCE = 10.0
_LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE starts_with(query, 'LISTEN') AND pid <> ALL(%s)"
)


class Party:
    """A store whose hints are looked at."""

    def __init__(self, url: str) -> None:
        store = open_store(url)
        assert isinstance(store, PostgresStore)
        self.store = store
        self.hints = Hints(store.database)
        self.told = threading.Semaphore(0)
        stop = self.hints.listen(self.told.release)
        assert stop is not None
        self.stop = stop
        assert self.is_told(), "it looks once when it begins to listen"

    def is_told(self, seconds: float = PATIENCE) -> bool:
        return self.told.acquire(timeout=seconds)

    def tell(self) -> None:
        self.hints.add()
        assert self.hints.send() is None

    def close(self) -> None:
        self.stop()
        self.store.close()


@pytest.fixture
def parties(postgres_url: str) -> Iterator[tuple[Party, Party]]:
    both = Party(postgres_url), Party(postgres_url)
    yield both
    for party in both:
        party.close()


@pytest.fixture
def server(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def test_others_are_told_and_not_oneself(parties: tuple[Party, Party]):
    a, b = parties
    a.tell()
    assert b.is_told()
    b.tell()
    assert a.is_told(), "only what the other has said comes"
    assert not a.told.acquire(blocking=False)


def test_who_has_nothing_to_tell_sends_nothing(parties: tuple[Party, Party]):
    a, b = parties
    assert a.hints.send() is None
    b.tell()
    assert a.is_told()
    assert not b.told.acquire(blocking=False)


def test_what_is_due_is_sent_before_the_end(parties: tuple[Party, Party]):
    a, b = parties
    a.tell()
    assert b.is_told()
    a.tell()  # too soon after the one before: it would wait
    a.stop()
    assert b.is_told()


def test_who_listens_no_more_sends_on_the_writing_connection(
    parties: tuple[Party, Party], monkeypatch: pytest.MonkeyPatch
):
    a, b = parties
    a.stop()
    a.tell()
    assert b.is_told()
    monkeypatch.setattr(hints, "_EVERY_SECONDS", 3_600)
    a.hints.add()
    assert 0 < (a.hints.send() or 0.0) <= 3_600, "not so soon again"
    assert not b.told.acquire(blocking=False)


def test_a_connection_that_was_lost_is_opened_again_and_what_was_due_is_sent(
    postgres_url: str, server: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "perdure.store")
    b = Party(postgres_url)
    others = [row[0] for row in server.execute(_LISTENERS, [[0]])]
    a = Party(postgres_url)
    try:
        [(its,)] = server.execute(_LISTENERS, [others]).fetchall()
        server.execute("SELECT pg_terminate_backend(%s, 5000)", [its])
        a.tell()
        assert b.is_told()
        assert a.is_told(), "it looks when it listens again"
        while a.told.acquire(blocking=False):
            ...
        b.tell()
        assert a.is_told()
        said = [record.getMessage() for record in caplog.records]
        assert sum("hints to and of other workers are not sent" in text for text in said) == 1
        assert sum("come again" in text for text in said) == 1
    finally:
        a.close()
        b.close()


def test_many_at_once_are_few_notifications(
    parties: tuple[Party, Party], server: psycopg.Connection[Any]
):
    a, b = parties
    schema = a.store.database.schema
    server.execute(f'LISTEN "perdure_{schema}"'.encode())
    for _ in range(2_000):
        a.tell()
    a.stop()
    mark = os.urandom(6).hex()
    server.execute(f"NOTIFY \"perdure_{schema}\", '{mark}'".encode())
    count = 0
    for hint in server.notifies(timeout=PATIENCE):
        if hint.payload == mark:
            break
        count += 1
    assert 1 <= count < 200
    assert b.is_told()
