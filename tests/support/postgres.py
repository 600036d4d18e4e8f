"""PostgreSQL for tests: a server somewhere, or a cluster of the tests' own.

A ``Cluster`` lives in a ``Home``, a folder that ends with the process that opened it: the servers
in it are stopped and the folder is removed, also if that process was killed: see
``tests.support.keeper``.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psycopg

KEEPER = Path(__file__).with_name("keeper.py")
PROGRAMS = ("initdb", "pg_ctl", "postgres")
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/opt/local/lib/postgresql*/bin",
    "/usr/local/pgsql/bin",
)
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %a ",
}
UNSYNCED = {"fsync": "off", "full_page_writes": "off"}
"""For a server that nobody restarts: what it has not written is lost only with the machine."""
# Below the ports that systems give to clients (from 32768 or 49152): none of them can take it while
# the server restarts, and a client cannot be connected to itself.
PORTS = range(15_000, 32_000)
TRIES = 10
USER = "perdure"

END_OTHERS = """
SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class CannotStart(Exception):
    """The server's programs are there, but one of them failed."""


class Server:
    """A PostgreSQL server in which tests make databases of their own.

    Args:
        url: of a database to which the user may connect, as a user who may create databases.
        prefix: goes before the name of each database that is made here.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        self.address = url
        self.prefix = prefix

    def __repr__(self) -> str:
        parts = urlsplit(self.address)
        return f"<{type(self).__name__} {parts.hostname}:{parts.port}>"  # no password

    def url(self, database: str) -> str:
        """Return the URL of ``database``, which is named with its prefix."""
        return urlsplit(self.address)._replace(path=f"/{database}").geturl()

    def connect(self, url: str | None = None) -> psycopg.Connection[Any]:
        """Connect to ``url``, or to the database that was there before; each statement commits."""
        # Imported here: most test processes have nothing to do with PostgreSQL.
        import psycopg

        return psycopg.connect(url or self.address, autocommit=True, connect_timeout=30)

    def create_database(self, name: str) -> str:
        """Return the URL of a new, empty database."""
        from psycopg import sql

        with self.connect() as connection:
            new = sql.Identifier(self.prefix + name)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(new))
        return self.url(self.prefix + name)

    def drop_database(self, name: str) -> None:
        """Drop a database that ``create_database`` has made, whoever is connected to it."""
        from psycopg import sql

        with self.connect() as connection:
            old = sql.Identifier(self.prefix + name)
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(old))

    def clear_database(self, url: str) -> None:
        """Make the database as good as new: nobody else is connected, nothing is in it.

        This takes a fraction of the time of a new database, whose files are all synced.
        """
        from psycopg import sql

        with self.connect(url) as connection, connection.transaction():
            connection.execute(END_OTHERS)
            schemas = connection.execute(
                "SELECT nspname FROM pg_namespace"
                " WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
            ).fetchall()
            for (name,) in schemas:
                schema = sql.Identifier(name)
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(schema))
            connection.execute("CREATE SCHEMA public")
            database = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))

    def drop_databases(self) -> None:
        """Drop every database whose name begins with the prefix."""
        assert self.prefix, "these may be anybody's databases"
        with self.connect() as connection:
            names = connection.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix]
            ).fetchall()
        for (name,) in names:
            self.drop_database(name.removeprefix(self.prefix))


class Home:
    """A folder for clusters, and the claim of this process on it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="perdure-postgres-", dir=_open_to_all()))
        self.path.chmod(0o711)  # the server's user goes through it, and cannot look around
        (self.path / "keepers").touch()
        # Nobody else in this process may open it: closing any file on it would give up the lock.
        self._life = (self.path / "life").open("wb")
        fcntl.lockf(self._life, fcntl.LOCK_EX)

    def close(self) -> None:
        """Stop the servers in here, remove the folder, and return when that is done."""
        with (self.path / "keepers").open("r+b") as keepers:
            self._life.close()
            fcntl.lockf(keepers, fcntl.LOCK_EX)  # each keeper shares it until it is done
        shutil.rmtree(self.path, ignore_errors=True)


class Cluster(Server):
    """A server of the tests' own on a free port of 127.0.0.1, with PostgreSQL's default ``fsync``.

    Args:
        home: an open home's path; the server is stopped when that home ends.
        programs: the folder of the server's programs: see ``find_programs``.
        settings: of ``postgresql.conf``, besides those in ``SETTINGS``.
    """

    def __init__(
        self, home: Path, programs: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=home))
        self.data = self.folder / "data"
        self._account = unprivileged()
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        user = "" if self._account is None else self._account.pw_name
        subprocess.run(
            [sys.executable, "-I", KEEPER, home, self.folder, programs / "pg_ctl", user],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the keeper may outlive who reads ours
            stderr=subprocess.DEVNULL,
        )
        self._password = secrets.token_urlsafe(16)
        self._port = 0
        super().__init__("")
        self._initialise({**SETTINGS, **(settings or {})})

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            CannotStart: it does not; the text has the end of the server's log.
        """
        # Once it has a port it keeps it: clients know it.
        for port in [self._port] if self._port else random.sample(PORTS, TRIES):
            if not _is_free(port):
                continue
            begun = len(self._log_text())
            done = self._run(
                "pg_ctl", "start", "-w", "-t", "60", "-l", self._log_file, "-o", f"-p {port}"
            )
            if done.returncode == 0:
                self._port = port
                self.address = f"postgresql://{USER}:{self._password}@127.0.0.1:{port}/postgres"
                return
            if "could not bind" not in self._log_text()[begun:]:
                raise CannotStart(f"{done.stdout}{done.stderr}{self.log()}")
        raise CannotStart(f"no free port for it at 127.0.0.1\n{self.log()}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``smart``, ``fast``, or ``immediate``, which is like a crash."""
        done = self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", mode)
        if done.returncode != 0:
            raise CannotStart(f"pg_ctl stop: {done.stdout}{done.stderr}{self.log()}")

    def restart(self, mode: str = "immediate") -> None:
        """Stop the server in this mode and start it again on its port."""
        self.stop(mode)
        self.start()

    def log(self, lines: int = 30) -> str:
        """Return the last lines of the server's log."""
        return "\n".join(self._log_text().splitlines()[-lines:])

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _log_text(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def _initialise(self, settings: Mapping[str, str]) -> None:
        secret = self.folder / "password"
        secret.touch(0o600)
        secret.write_text(self._password)
        if self._account is not None:
            os.chown(secret, self._account.pw_uid, self._account.pw_gid)
        options = ["-N", "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}", "-E", "UTF8"]
        # Texts sort by a language, as on most servers; where it cannot do that, by their bytes.
        by_language = ["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"]
        done = self._run("initdb", *options, *by_language)
        if done.returncode != 0 and re.search(r"icu|locale-provider", done.stderr, re.IGNORECASE):
            done = self._run("initdb", *options, "--locale=C")
        if done.returncode != 0:
            raise CannotStart(f"initdb: {done.stdout}{done.stderr}")
        secret.unlink()
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
        account = self._account
        as_user: dict[str, Any] = {}
        if account is not None:
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        # Variables of the person who runs the tests (PGDATA, PGPORT) are not for this server.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        return subprocess.run(
            [self.programs / program, *options, "-D", self.data],
            cwd=self.folder,  # the user may not be allowed to be where we are
            env={**kept, "LC_ALL": "C"},  # `could not bind` is asked for in English
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **as_user,
        )


def find_programs() -> Path | None:
    """Return the folder of the server's programs: on the path, or the newest where they are put."""
    found: list[Path] = []
    if pg_ctl := shutil.which("pg_ctl"):
        found.append(Path(pg_ctl).parent)
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        found.append(Path(done.stdout.strip()))
    for pattern in FOLDERS:
        found += sorted(Path("/").glob(pattern[1:]), key=_version, reverse=True)
    return next((f for f in found if all((f / name).exists() for name in PROGRAMS)), None)


def _version(folder: Path) -> tuple[int, ...]:
    """Return the numbers in a folder's name: 9.6 is older than 15."""
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))


def unprivileged() -> pwd.struct_passwd | None:
    """Return the account that programs run as, or ``None`` for our own: they refuse to be root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _open_to_all() -> Path:
    """Return a folder for temporary files that the server's user can reach as well."""
    chosen = Path(tempfile.gettempdir()).resolve()
    if unprivileged() is None:
        return chosen
    for folder in (chosen, Path("/tmp"), Path("/var/tmp")):  # where root's own is private
        parts = (folder, *folder.parents)
        if folder.is_dir() and all(part.stat().st_mode & stat.S_IXOTH for part in parts):
            return folder
    raise CannotStart(f"the server's user cannot reach {chosen}: set TMPDIR")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
