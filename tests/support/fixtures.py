"""What a session has: fixtures for tests that need PostgreSQL, one server for all its processes.

``PERDURE_TEST_POSTGRES_URL`` names the server; without it the first test that asks starts a
cluster. A machine that has no PostgreSQL skips these tests, unless ``PERDURE_REQUIRE_POSTGRES`` is
``1``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import forked, pooler
from tests.support.postgres import UNSYNCED, Cluster, Home, Server, find_programs
from tests.support.tables import Tables

URL = "PERDURE_TEST_POSTGRES_URL"
REQUIRED = "PERDURE_REQUIRE_POSTGRES"
HOW_TO_GET_IT = (
    "needs PostgreSQL, and its server programs are not on this machine. "
    "Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; "
    f"macOS: brew install postgresql@17; or set {URL} to a server where tests may create databases"
)
RESTARTS = f"restarts its server, and the one of {URL} is not for the tests to restart"

_home = pytest.StashKey[Home]()


def home_of(config: pytest.Config) -> Path:
    """Return the folder of this session; the process that began the session keeps it."""
    given = getattr(config, "workerinput", {}).get("postgres_home")
    if given is not None:
        return Path(given)
    if _home not in config.stash:
        config.stash[_home] = Home()
    return config.stash[_home].path


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a new xdist worker where the processes of this session meet."""
    node.workerinput["postgres_home"] = str(home_of(node.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let all tests that want PostgreSQL be one line of the summary, not one for each of them."""
    report = yield
    if (
        report.skipped
        and isinstance(report.longrepr, tuple)
        and HOW_TO_GET_IT in report.longrepr[2]
    ):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the session has, also when it was interrupted or a worker crashed."""
    forked.end()
    home = config.stash.get(_home, None)
    if home is None:
        return
    try:
        if (home.path / "visited").exists():
            _elsewhere(home.path).drop_databases()
    finally:
        home.close()
        del config.stash[_home]


def _elsewhere(home: Path) -> Server:
    tag = home.name.rpartition("-")[2].lower()
    return Server(os.environ[URL], prefix=f"perdure_test_{tag}_")


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """The folder of the server's programs, for a test that starts a server by itself."""
    programs = find_programs()
    if programs is None:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(HOW_TO_GET_IT, pytrace=False)
        pytest.skip(HOW_TO_GET_IT)
    return programs


def session_server(request: pytest.FixtureRequest, *, synced: bool) -> Server:
    """Return a server that all processes of the session share, started by the first that asks.

    ``synced``: it waits for the disk, as servers do.
    """
    home = home_of(request.config)
    if os.environ.get(URL):
        (home / "visited").touch()
        return _elsewhere(home)
    programs: Path = request.getfixturevalue("postgres_programs")
    address = home / ("synced" if synced else "address")
    with (home / "meeting").open("w") as meeting:
        fcntl.lockf(meeting, fcntl.LOCK_EX)
        if not address.exists():
            cluster = Cluster(home, programs, None if synced else UNSYNCED)
            cluster.start()
            address.touch(0o600)
            address.write_text(cluster.address)
    return Server(address.read_text())


def session_database(server: Server, kind: str = "") -> str:
    """Return the URL of a new database for the tests of this process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return server.create_database(f"{worker}_{os.getpid()}{kind}")


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    """The server of this test run. Others use it at the same time: no test restarts it."""
    return session_server(request, synced=False)


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: Server) -> str:
    return session_database(postgres_server)


@pytest.fixture
def postgres_url(postgres_server: Server, _postgres_database: str) -> str:
    """The URL of an empty database that nobody else has."""
    postgres_server.clear_database(_postgres_database)
    return _postgres_database


@pytest.fixture(scope="session")
def _postgres_tables(postgres_server: Server) -> Tables:
    return Tables(postgres_server, session_database(postgres_server, "_tables"))


@pytest.fixture
def postgres_tables_url(_postgres_tables: Tables) -> str:
    """The URL of a database of one's own that has the store's tables, as they are when made."""
    _postgres_tables.renew()
    return _postgres_tables.url


@pytest.fixture(scope="session")
def _pooler(postgres_server: Server) -> Iterator[pooler.Pooler]:
    program = pooler.find_program()
    if program is None:
        pytest.skip(pooler.HOW_TO_GET_IT)
    running = pooler.Pooler(program, postgres_server)
    yield running
    running.close()


@pytest.fixture
def pooled_url(_pooler: pooler.Pooler, postgres_url: str) -> str:
    """The URL of the same database through PgBouncer in transaction mode."""
    _pooler.await_answer(postgres_url)
    return _pooler.url(postgres_url)


@pytest.fixture
def postgres_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server that runs, and that is this test's alone: to stop, restart and crash."""
    if os.environ.get(URL):
        pytest.skip(RESTARTS)
    programs: Path = request.getfixturevalue("postgres_programs")
    home = Home()
    try:
        cluster = Cluster(home.path, programs)
        cluster.start()
        yield cluster
    finally:
        home.close()
