"""Which database a command works on, and a client on it.

Reading commands open the file read-only and never create one. Acting commands do not create one
either: what they act on would not be in it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from perdure.client import Client

DEFAULT = "sqlite:///perdure.db"
VARIABLE = "PERDURE_DB"

F = TypeVar("F", bound=Callable[..., Any])


class Database(NamedTuple):
    """The database of a command. ``given`` is what the user wrote after ``--db``, if anything."""

    url: str
    given: str = ""

    @property
    def path(self) -> str | None:
        """The file, or ``None`` in memory or on a server.

        Raises:
            Invalid: not the URL of a store.
        """
        from perdure.store.opening import parse_url

        return None if self.is_server else parse_url(self.url)

    @property
    def is_server(self) -> bool:
        """Whether it is on a server: then only connecting tells whether it is there."""
        from perdure.store.opening import is_server

        return is_server(self.url)

    @property
    def exists(self) -> bool:
        """Whether there is such a file, or may be such a database."""
        return self.is_server or (self.path is not None and Path(self.path).exists())

    @property
    def name(self) -> str:
        """What messages call it: the file as seen from here, or the URL without a password."""
        from perdure.store.opening import public

        path = self.path
        if path is None:
            return public(self.url)
        near = os.path.relpath(path)
        return path if near.startswith("..") else near

    def line(self, *words: str) -> str:
        """Return a command for the user to type that works on this database."""
        from perdure.store.opening import public

        db = ["--db", public(self.given)] if self.given else []
        return shlex.join([*_program(), *words, *db])


def _program() -> list[str]:
    """Return how this command was called, so that what is printed works where it is typed."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [_from_here(sys.executable), "-m", "perdure"]
    found = shutil.which("perdure")
    if found is not None and Path(found).absolute() == called.absolute():
        return ["perdure"]
    return [_from_here(str(called))] if called.name.startswith("perdure") else ["perdure"]


def _from_here(path: str) -> str:
    near = os.path.relpath(path)
    return path if near.startswith("..") or os.sep not in path else near


def database_option(command: F) -> F:
    """Add ``--db``; the command gets a :class:`Database` as ``database``."""
    return click.option(
        "--db",
        "database",
        metavar="URL|FILE",
        callback=_database,
        help=f"Database.  [{VARIABLE}, else {DEFAULT}]",
    )(command)


def _database(ctx: click.Context, _: click.Parameter, value: str | None) -> Database:
    option: str | None = value if value is not None else ctx.find_root().params.get("db")
    wanted = option if option is not None else os.environ.get(VARIABLE, DEFAULT)
    if not wanted.strip():
        where = "--db" if option is not None else f"the environment variable {VARIABLE}"
        raise click.UsageError(f"{where} is empty: name a file or a URL, or leave it out", ctx)
    url = wanted if "://" in wanted else f"sqlite:///{wanted}"
    return Database(url, option or "")


@asynccontextmanager
async def client_on(
    database: Database, *, write: bool = False, create: bool = False
) -> AsyncGenerator[Client]:
    """Open a client on a database that exists, or with ``create`` on a new one.

    Raises:
        Unavailable: there is no such database.
        UsageError: it is in memory, where only its own process can look.
    """
    from perdure import errors
    from perdure.client import Client

    if database.path is None and not database.is_server:
        raise errors.UsageError(
            f"{database.url} exists only inside the process that opened it; name a file with --db"
        )
    if not database.exists and not create:
        raise errors.Unavailable(
            f"there is no database at {database.name}; start a worker with `perdure dev MODULE`, "
            f"or name another database with --db or {VARIABLE}"
        )
    async with Client(database.url, read_only=not write) as client:
        yield client
