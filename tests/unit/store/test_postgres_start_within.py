"""Starts in a caller's own PostgreSQL transaction."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from tests.contract.store_contract import World, closing, request
from tests.support.postgres import Server

from perdure.errors import Invalid
from perdure.store.opening import open_store
from perdure.store.port import Started


@pytest.fixture
def world(postgres_url: str) -> Iterator[World]:
    store = open_store(postgres_url)
    world = World(store)
    yield world
    store.close()


@pytest.fixture
def caller(world: World, postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    connection = psycopg.connect(postgres_url)
    connection.execute("CREATE TABLE mine (x int)")
    connection.commit()
    yield connection
    connection.close()


def begin(caller: psycopg.Connection[Any]) -> None:
    caller.execute("INSERT INTO mine VALUES (1)")


def start(world: World, caller: object, id: str = "order-1", **rest: Any) -> Started:
    return world.store.start_within(caller, [request(id, **rest)], 5)[0]


@pytest.mark.parametrize("factory", [None, dict_row])
def test_a_start_is_committed_with_the_callers_rows(
    world: World, caller: psycopg.Connection[Any], factory: Any
):
    caller.row_factory = factory or caller.row_factory
    begin(caller)
    started = start(world, caller)
    assert started.created
    assert world.store.find("order-1") is None
    caller.commit()
    assert world.row(started.run).workflow_id == "order-1"
    assert world.payloads(started.run) == [b"started"]
    assert len(caller.execute("SELECT x FROM mine").fetchall()) == 1


def test_a_start_that_is_rolled_back_has_never_been(world: World, caller: psycopg.Connection[Any]):
    begin(caller)
    start(world, caller)
    caller.rollback()
    assert world.store.find("order-1") is None
    assert world.start().created


def test_a_start_in_a_savepoint_goes_with_it(world: World, caller: psycopg.Connection[Any]):
    begin(caller)
    with caller.transaction(force_rollback=True):
        start(world, caller)
    start(world, caller, "order-2")
    caller.commit()
    assert world.store.find("order-1") is None
    assert world.store.find("order-2") is not None


def test_a_refused_start_leaves_nothing_and_the_transaction_goes_on(
    world: World, caller: psycopg.Connection[Any]
):
    world.start()
    begin(caller)
    answers = world.store.start_within(
        caller, [request("order-1", run_id="again"), request("order-2")], 5
    )
    assert [answer.created for answer in answers] == [False, True]
    with pytest.raises(Exception, match="refused the data"):
        start(world, caller, "order-3", created_at=2**70)
    caller.execute("INSERT INTO mine VALUES (2)")
    caller.commit()
    assert caller.execute("SELECT x FROM mine ORDER BY x").fetchall() == [(1,), (2,)]
    assert world.store.find("order-2") is not None
    assert world.store.find("order-3") is None


def test_a_connection_that_cannot_carry_a_start_is_refused(
    world: World, caller: psycopg.Connection[Any]
):
    with pytest.raises(Invalid, match="begin its transaction"):
        start(world, caller)
    for nothing in (None, "connection", object()):
        with pytest.raises(Invalid, match=r"not a psycopg\.Connection"):
            start(world, nothing)
    begin(caller)
    with pytest.raises(psycopg.errors.DivisionByZero):
        caller.execute("SELECT 1 / 0")
    with pytest.raises(Invalid, match="roll it back"):
        start(world, caller)
    caller.close()
    with pytest.raises(Invalid, match="begin its transaction"):
        start(world, caller)


def test_a_connection_to_another_database_or_schema_is_told_apart(
    world: World, postgres_url: str, postgres_server: Server
):
    with psycopg.connect(postgres_server.address) as elsewhere:
        elsewhere.execute("SELECT 1")
        with pytest.raises(Invalid, match="another database"):
            start(world, elsewhere)
    assert world.start().created


@pytest.mark.parametrize(
    "level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE], ids=lambda it: it.name
)
def test_a_transaction_that_would_not_see_what_others_started_is_refused(
    world: World, caller: psycopg.Connection[Any], level: IsolationLevel
):
    caller.isolation_level = level
    begin(caller)
    world.start()
    with pytest.raises(Invalid, match="needs READ COMMITTED"):
        start(world, caller)
    caller.execute("INSERT INTO mine VALUES (2)")
    caller.commit()
    assert caller.execute("SELECT count(*) FROM mine").fetchone() == (2,)


def test_what_others_commit_meanwhile_is_seen(world: World, caller: psycopg.Connection[Any]):
    begin(caller)
    run = world.owned().run
    assert start(world, caller, run_id="again").refused == "already_exists"
    world.commit(closing(run))
    started = start(world, caller, run_id="again")
    caller.commit()
    assert started.created
    found = world.store.find("order-1")
    assert found is not None
    assert found.run == started.run > run


def test_the_stores_own_connection_is_not_asked_for_anything(
    world: World, caller: psycopg.Connection[Any]
):
    # It belongs to another thread, which may be in the middle of a batch.
    begin(caller)
    world.store.database.connection.close()  # type: ignore[attr-defined]
    assert start(world, caller).created
    assert world.store.database.connection.closed  # type: ignore[attr-defined]
    caller.commit()
