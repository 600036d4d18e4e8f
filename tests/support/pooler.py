"""PgBouncer in transaction mode before a server: each transaction may be in another session."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from tests.support.postgres import PORTS, Server, unprivileged

HOW_TO_GET_IT = (
    "needs PgBouncer, which is not on this machine. "
    "Debian, Ubuntu: apt install pgbouncer; Fedora: dnf install pgbouncer"
)
_SETTINGS = """[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
# The next transaction gets the session that was not used for longest.
server_round_robin = 1
max_client_conn = 200
default_pool_size = 20
min_pool_size = 0
server_login_retry = 1
"""


def find_program() -> str | None:
    """Return the path of PgBouncer."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class Pooler:
    """One process of PgBouncer, for all databases of a server."""

    def __init__(self, program: str, server: Server) -> None:
        parts = urlsplit(server.address)
        self._folder = Path(tempfile.mkdtemp(prefix="perdure-pooler-", dir="/tmp"))
        account = unprivileged()
        who: dict[str, Any] = {}
        if account is not None:
            who = {"user": account.pw_uid, "group": account.pw_gid}
        self._port = random.choice(PORTS)
        file = self._folder / "pgbouncer.ini"
        file.touch(0o600)
        file.write_text(
            _SETTINGS.format(
                host=parts.hostname,
                port=parts.port or 5432,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                listen=self._port,
            )
        )
        if account is not None:
            for path in (self._folder, file):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._process = subprocess.Popen(
            [program, "-q", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **who,
        )

    def url(self, direct: str) -> str:
        """Return the URL of a database through the pooler, once it answers."""
        parts = urlsplit(direct)
        host = f"{parts.username or 'tests'}@127.0.0.1:{self._port}"
        return urlunsplit(parts._replace(netloc=host, query="pooler=true"))

    def await_answer(self, direct: str) -> None:
        """Return when a database can be reached through it."""
        while True:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                raise AssertionError(f"PgBouncer ended: {self._process.stderr.read().decode()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    break
        # Imported here: most test processes have nothing to do with PostgreSQL.
        import psycopg

        psycopg.connect(self.url(direct).partition("?")[0]).close()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)
