"""From a URL to a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.errors import Invalid, UsageError
from perdure.store.sealing import Seal

if TYPE_CHECKING:
    from perdure.store.postgres.store import PostgresStore
    from perdure.store.sqlite.store import SqliteStore

_FORMS = (
    "sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://user@host/db or memory://"
)


def open_store(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    allow_data_loss: bool = False,
    readonly: bool = False,
    seal: Seal | None = None,
) -> SqliteStore | PostgresStore:
    """Open the store that ``url`` names.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user@host/db`` or
            ``memory://`` (each open gives a new, private database).
        options: ``synchronous`` and ``journal_mode`` of SQLite, ``synchronous_commit`` and others
            of PostgreSQL, of which only the safe values are accepted.
        allow_data_loss: accept the others as well.
        readonly: never create or change the file.
        seal: how what is stored is sealed, and opened; left out, it is stored as it is.

    Raises:
        Invalid: the URL or the file cannot be a store.
        UsageError: an option is unknown or would lose data.
        Unavailable: the database cannot be opened now.
    """
    if is_server(url):
        return _open_postgres(
            url,
            options,
            allow_data_loss=allow_data_loss,
            readonly=readonly,
            seal=seal or Seal(),
        )
    path = parse_url(url)
    # Imported here, so that naming a store does not load a driver.
    from perdure.store.sqlite.connect import Settings, check_options
    from perdure.store.sqlite.store import SqliteStore

    checked = check_options(options, allow_data_loss=allow_data_loss)
    settings = Settings(path, readonly=readonly and path is not None, seal=seal or Seal())
    return SqliteStore(msgspec.structs.replace(settings, **checked))


def is_server(url: str) -> bool:
    """Tell whether a URL names a database on a server, which is no file of this machine."""
    return url.partition("://")[0] in ("postgresql", "postgres")


def public(url: str) -> str:
    """Return a URL as it may be shown: a password is left out."""
    head, at, rest = url.rpartition("@")
    if not at:
        return url
    scheme, separator, user = head.partition("://")
    return f"{scheme}{separator}{user.partition(':')[0]}@{rest}"


def _open_postgres(
    url: str,
    options: Mapping[str, Any] | None,
    *,
    allow_data_loss: bool,
    readonly: bool,
    seal: Seal,
) -> PostgresStore:
    try:
        from perdure.store.postgres.connect import read_url
        from perdure.store.postgres.store import PostgresStore
    except ImportError as exc:
        raise UsageError(
            "store: PostgreSQL needs psycopg: pip install 'perdure[postgres]'", cause=exc
        ) from exc
    settings = read_url(url, options, allow_data_loss=allow_data_loss, readonly=readonly)
    return PostgresStore(msgspec.structs.replace(settings, seal=seal))


def parse_url(url: str) -> str | None:
    """Return the file's real path, or ``None`` for a database in memory.

    Raises:
        Invalid: not a URL of a store that is no server.
    """
    scheme, separator, rest = url.partition("://")
    url = public(url)
    if not separator:
        raise Invalid(f"store: {url!r} is not a URL; write {_FORMS}")
    if scheme == "memory":
        if rest:
            raise Invalid(f"store: {url!r}: a database in memory has no name; write memory://")
        return None
    if scheme != "sqlite":
        raise Invalid(f"store: {url!r}: {scheme}:// is unknown; write {_FORMS}")
    if not rest.startswith("/"):
        raise Invalid(f"store: {url!r} names a host; write {_FORMS}")
    path = rest[1:]
    if path in ("", ":memory:"):
        raise Invalid(f"store: {url!r} names no file; for a database in memory write memory://")
    if "?" in path or "#" in path:
        raise Invalid(f"store: {url!r}: settings are given as options, not in the URL")
    if "\0" in path:
        raise Invalid("store: the path holds a NUL character")
    # The real path: side files and the write token must be the same whatever link led here.
    return os.path.realpath(path)
