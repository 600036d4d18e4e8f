"""One server for a session of tests, however many processes it has, and none after it."""

import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tests.support.postgres import Cluster

ROOT = Path(__file__).parents[2]
PLUGINS = ("-p", "tests.support.fixtures", "-p", "no:hypothesispytest", "-p", "no:randomly")
# A test of another session: it says where its server is, and ends when it may.
INNER = """
import os, socket

def test_that_uses_the_server(postgres_url):
    with socket.create_connection(("127.0.0.1", int(os.environ["SAY_TO"]))) as outside:
        outside.sendall(postgres_url.encode() + b"\\n")
        outside.recv(1)
"""


# Two tests, which go to a worker each.
BOTH = """
import os, pytest

@pytest.mark.parametrize("number", range(2))
def test_in_a_worker(postgres_url, number):
    with open(os.environ["FILE"], "a") as servers:
        servers.write(postgres_url + "\\n")
"""
NOWHERE = """
from tests.support import postgres

postgres.FOLDERS = ()
"""


def begun(folder: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """Begin a session of tests in a process of its own."""
    (folder / "test_inner.py").write_text(INNER)
    (folder / "pytest.ini").write_text("[pytest]\n")
    # What the processes of this session are told is not for that one.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PERDURE_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *PLUGINS, "-ra", *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class Session:
    """Another session of tests, which stands in its only test or has ended."""

    def __init__(self, process: subprocess.Popen[bytes], listener: socket.socket) -> None:
        assert process.stdout is not None
        self.process = process
        self.printed = b""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            while all(key.fileobj is not listener for key, _ in selector.select()):
                if not (text := os.read(process.stdout.fileno(), 65_536)):
                    raise AssertionError(f"it ended early: {self.printed.decode()}")
                self.printed += text
        self.inside, _ = listener.accept()
        with self.inside.makefile() as lines:
            self.url = lines.readline().strip()


@contextmanager
def session(folder: Path, *options: str, **environment: str) -> Iterator[Session]:
    """Begin a session; yield it when it stands in its test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment["SAY_TO"] = str(listener.getsockname()[1])
        with begun(folder, *options, **environment) as process:
            try:
                other = Session(process, listener)
                with other.inside:
                    yield other
            finally:
                process.kill()


ENDS = {
    "its test is over": lambda session: session.inside.close(),
    "it is interrupted": lambda session: session.process.send_signal(signal.SIGINT),
    "it is killed": lambda session: session.process.kill(),
}


@pytest.mark.usefixtures("postgres_programs")
@pytest.mark.parametrize(
    ("end", "workers"),
    [
        ("its test is over", ("-n", "1")),
        ("it is interrupted", ()),
        ("it is killed", ()),
        ("it is killed", ("-n", "1")),
    ],
)
def test_the_server_ends_with_the_session(
    tmp_path: Path, end: str, workers: tuple[str, ...]
) -> None:
    with session(tmp_path, *workers) as other, psycopg.connect(other.url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        home = Path(row[0]).parents[1]
        with (home / "keepers").open("r+b") as keepers:
            ENDS[end](other)
            fcntl.lockf(keepers, fcntl.LOCK_EX)  # waits until the server's keeper is done
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(other.url)
        other.inside.close()
        other.process.wait()
        assert not home.exists()


@pytest.mark.usefixtures("postgres_programs")
def test_the_workers_of_a_session_share_one_server(tmp_path: Path) -> None:
    (tmp_path / "test_both.py").write_text(BOTH)
    with begun(tmp_path, "-n", "2", "test_both.py", FILE=str(tmp_path / "servers")) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0, printed.decode()
    first, second = sorted((tmp_path / "servers").read_text().split())
    assert first.rpartition("/")[0] == second.rpartition("/")[0]  # the server
    assert first != second  # its database


def test_a_server_that_is_given_is_used_and_left_as_it_was(
    tmp_path: Path, postgres_cluster: Cluster
) -> None:
    databases = "SELECT datname FROM pg_database ORDER BY datname"
    with postgres_cluster.connect() as connection:
        before = connection.execute(databases).fetchall()
        given = {"PERDURE_TEST_POSTGRES_URL": postgres_cluster.address}
        with session(tmp_path, **given) as other:
            assert other.url.startswith(postgres_cluster.address.removesuffix("postgres"))
            assert len(connection.execute(databases).fetchall()) == len(before) + 1
            other.inside.close()
            other.process.wait()
        assert connection.execute(databases).fetchall() == before


@pytest.mark.parametrize(("required", "code"), [("0", 0), ("1", 1)])
def test_a_machine_without_postgresql_is_told_how_to_get_it(
    tmp_path: Path, required: str, code: int
) -> None:
    (tmp_path / "conftest.py").write_text(NOWHERE)
    (tmp_path / "test_other.py").write_text("def test_other(postgres_cluster): ...")
    with begun(tmp_path, PERDURE_REQUIRE_POSTGRES=required, PATH="/nowhere") as process:
        printed, _ = process.communicate()
    assert process.returncode == code, printed.decode()
    assert b"apt install postgresql" in printed
    assert (b"SKIPPED [2]" in printed) is not bool(code)
