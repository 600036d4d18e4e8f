"""Every test here runs over every store."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.store_contract import OPENERS, World

from perdure.store.opening import open_store
from perdure.store.port import Store

POOLED = ["pooled"] if os.environ.get("PERDURE_TEST_POOLER") == "1" else []
"""Through PgBouncer, when somebody asks for it: all of it takes minutes."""


@pytest.fixture(params=[*OPENERS, "postgres", *POOLED])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "postgres":
        store = open_store(request.getfixturevalue("postgres_tables_url"))
    elif request.param == "pooled":
        store = open_store(request.getfixturevalue("pooled_url"))
    else:
        store = OPENERS[request.param](tmp_path)
    yield store
    store.close()


@pytest.fixture
def world(store: Store) -> World:
    return World(store)
