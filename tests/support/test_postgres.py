"""What the tests' own PostgreSQL promises each test: a database of its own, and restarts."""

import os
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from tests.support.postgres import Cluster, Home, Server


def one(server: Server, url: str, query: LiteralString) -> Any:
    with server.connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def test_the_session_has_a_server(postgres_server: Server, postgres_url: str) -> None:
    assert one(postgres_server, postgres_url, "SELECT 1") == 1


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_an_empty_database(
    postgres_server: Server, postgres_url: str, time: str
) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'"
    assert one(postgres_server, postgres_url, tables) == 0
    with postgres_server.connect(postgres_url) as connection:
        connection.execute('CREATE SCHEMA "A schema"')
        connection.execute('CREATE TABLE "A schema".kept (id int)')
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")


def test_a_database_is_cleared_of_who_still_uses_it(
    postgres_server: Server, postgres_url: str
) -> None:
    with postgres_server.connect(postgres_url) as other:
        other.execute("CREATE TABLE held (id int)")
        other.execute("BEGIN")
        other.execute("LOCK TABLE held")
        postgres_server.clear_database(postgres_url)
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


def test_the_databases_of_a_prefix_are_dropped_and_no_other(postgres_server: Server) -> None:
    tag = f"tag{os.getpid()}_"
    mine = Server(postgres_server.address, prefix=tag)
    others = postgres_server.create_database(f"not_{tag}")
    for name in ("one", "two"):
        mine.create_database(name)
    mine.drop_databases()
    with postgres_server.connect() as connection:
        left = connection.execute(
            "SELECT datname FROM pg_database WHERE strpos(datname, %s) > 0", [tag]
        ).fetchall()
    assert [postgres_server.url(name) for (name,) in left] == [others]


def test_a_restarted_server_keeps_its_address_and_what_was_committed(
    postgres_cluster: Cluster,
) -> None:
    url = postgres_cluster.create_database("kept")
    with postgres_cluster.connect(url) as connection:
        connection.execute("CREATE TABLE number AS SELECT 7 AS value")
        postgres_cluster.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert one(postgres_cluster, url, "SELECT value FROM number") == 7
    assert "automatic recovery in progress" in postgres_cluster.log()


def test_a_server_syncs_what_it_commits_and_wants_its_password(postgres_cluster: Cluster) -> None:
    assert one(postgres_cluster, postgres_cluster.address, "SHOW fsync") == "on"
    secret = postgres_cluster.address.partition("@")[0].rpartition(":")[2]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        postgres_cluster.connect(postgres_cluster.address.replace(secret, "guessed"))
    assert secret not in repr(postgres_cluster) + postgres_cluster.log()


def test_a_closed_home_leaves_nothing(postgres_programs: Path) -> None:
    home = Home()
    cluster = Cluster(home.path, postgres_programs)
    cluster.start()
    home.close()
    assert not home.path.exists()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        cluster.connect()
