"""Where processes are killed, the server waits for the disk: commits take as long as in life."""

import pytest
from tests.support.fixtures import session_database, session_server
from tests.support.postgres import Server


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Server:
    return session_server(request, synced=True)


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: Server) -> str:
    return session_database(postgres_server)


@pytest.fixture
def postgres_url(postgres_server: Server, _postgres_database: str) -> str:
    postgres_server.clear_database(_postgres_database)
    return _postgres_database
