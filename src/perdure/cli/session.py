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
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from perdure.client import Client

DEFAULT = "sqlite:///perdure.db"
VARIABLE = "PERDURE_DB"
TELLING = "PERDURE_AUDIT"

_SEALING = {
    "codec": ("MODULE:NAME", "PERDURE_CODEC", "Codec that opens what the workers seal."),
    "blobs": ("URL|MODULE:NAME", "PERDURE_BLOBS", "Blob store of the workers, like file:///path."),
}

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
        ctx = click.get_current_context(silent=True)
        meta: dict[str, Any] = {} if ctx is None else ctx.meta
        for name in _SEALING:
            if given := meta.get(f"{__name__}.{name}"):
                db += [f"--{name}", given]
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
    """Add ``--db``, and ``--codec`` and ``--blobs`` which :func:`sealing` reads; the command gets a
    :class:`Database` as ``database``.
    """
    for name, (metavar, variable, what) in _SEALING.items():
        command = click.option(
            f"--{name}",
            metavar=metavar,
            expose_value=False,
            callback=_note,
            help=f"{what}  [{variable}]",
        )(command)
    return click.option(
        "--db",
        "database",
        metavar="URL|FILE",
        callback=_database,
        help=f"Database.  [{VARIABLE}, else {DEFAULT}]",
    )(command)


def _note(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[f"{__name__}.{option.name}"] = value


def sealing() -> dict[str, Any]:
    """Return ``codec`` and ``blobs`` for an engine or a client, as far as the user has given them.

    Raises:
        UsageError: there is no such module, or nothing of that name in it.
        Invalid: the URL of a blob store that is none.
    """
    found: dict[str, Any] = {}
    ctx = click.get_current_context()
    for name, (_, variable, _) in _SEALING.items():
        option = ctx.meta.get(f"{__name__}.{name}") or ctx.find_root().params.get(name)
        where = f"--{name}" if option else f"the environment variable {variable}"
        if wanted := option or os.environ.get(variable):
            is_url = name == "blobs" and "://" in wanted
            found[name] = wanted if is_url else _named(wanted, where)
    return found


def _named(wanted: str, where: str) -> Any:
    """Return the object ``MODULE:NAME``; of a function, what it returns."""
    from perdure import errors
    from perdure.cli.loading import load_module

    home, colon, name = wanted.partition(":")
    if not colon or not home or not name:
        raise errors.UsageError(f"{where}: {wanted!r} is not MODULE:NAME")
    try:
        found = getattr(load_module(home), name)
    except AttributeError:
        raise errors.UsageError(f"{where}: {home} has no {name!r}") from None
    return found() if isfunction(found) else found


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
    """Open a client on a database that exists, or with ``create`` on a new one. What it changes is
    told to the audit, as done by whoever uses this computer.

    Raises:
        Unavailable: there is no such database.
        UsageError: it is in memory, where only its own process can look; or what ``PERDURE_AUDIT``
            says is no level.
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
    async with Client(database.url, read_only=not write, **sealing()) as client:
        yield await _told(client) if write else client


async def _told(client: Client) -> Client:
    """Return a view of a client whose acts are told: where nobody says how much, in short, if the
    database has an audit. Runs act for nobody all the same: a name here proves nothing.
    """
    from perdure import errors
    from perdure.values.audit import Level, level_of
    from perdure.values.granted import Granted

    if wanted := os.environ.get(TELLING):
        try:
            level = level_of(wanted)
        except errors.Invalid as exc:
            raise errors.UsageError(f"{TELLING}: {exc.message}") from exc
    else:
        head = await client.door.read(lambda store: store.audit_head())
        level = Level.SUMMARY if head.number else Level.NONE
    return client.under(Granted(audit=level, service=user()))


def user() -> str:
    """Return who uses this computer; ``""``: that has no name."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
