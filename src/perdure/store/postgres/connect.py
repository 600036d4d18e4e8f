"""How a connection is opened: settings from a URL, and what every connection is told.

A Perdure database is one schema of a PostgreSQL database; several may lie in one. Tables are named
with their schema in each statement, so that nothing depends on a session's search path, which a
pooler in transaction mode does not keep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg import conninfo
from psycopg.types.numeric import Int8Dumper

from perdure.errors import Invalid, Unavailable, UsageError
from perdure.store.sealing import Seal
from perdure.values.duration import microseconds

_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,54}")
"""With ``perdure_`` before it, it is a name as well: of the channel for hints."""
_OLDEST = 140_000
SILENT_SECONDS = 3
"""How long a transaction may wait for its client, or for the locks of another."""
_KNOWN = ("connect_timeout", "pooler", "schema", "statement_timeout", "synchronous_commit")
_STRONG = ("on", "remote_apply", "remote_write")
_WEAK = ("off", "local")
_SESSION = {
    "idle_in_transaction_session_timeout": SILENT_SECONDS * 1_000,
    "lock_timeout": SILENT_SECONDS * 1_000,
    "client_min_messages": "warning",
    # Statements are prepared once, and their tables' sizes do not change their plans.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # Every statement is written to go through an index, row by row, also while tables are small or
    # have never been analyzed.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": 0,
    # Of two indexes, the one whose rows are all wanted is right, wherever they lie. With a price on
    # pages the planner goes through runs in the order in which they lie and filters them, and
    # believes that those wanted are spread evenly among them.
    "random_page_cost": 0,
    "seq_page_cost": 0,
}
"""What our statements want. A user's have the server's own settings."""
_QUOTING = "in a password @ is written as %40, / as %2F, ? as %3F and % as %25"

Connection = psycopg.Connection[tuple[Any, ...]]


class Settings(msgspec.Struct, frozen=True):
    """What differs between databases.

    ``url``: without Perdure's own parameters; it may hold a password. ``statement_timeout``: in
    milliseconds. ``pooler``: a pooler in transaction mode stands between: nothing may be kept in
    the session. ``synchronous_commit``: ``""`` is the server's own setting.
    ``seal``: of all connections.
    """

    url: str
    name: str
    schema: str = "perdure"
    statement_timeout: int = 10_000
    pooler: bool = False
    synchronous_commit: str = ""
    readonly: bool = False
    seal: Seal = msgspec.field(default_factory=Seal)

    def __repr__(self) -> str:
        return f"<Settings of {self.name}>"  # no password


def read_url(
    url: str,
    options: Mapping[str, Any] | None,
    *,
    allow_data_loss: bool = False,
    readonly: bool = False,
) -> Settings:
    """Return the settings that a URL and options ask for.

    Raises:
        Invalid: no URL of a PostgreSQL database.
        UsageError: an option is unknown, or would lose acknowledged work.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise Invalid(f"store: not a PostgreSQL URL: {exc}") from None
    own: dict[str, Any] = {}
    rest: list[tuple[str, str]] = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in _KNOWN and key != "connect_timeout":
            own[key] = value
        else:
            rest.append((key, value))
    for key, value in (options or {}).items():
        if key not in _KNOWN:
            raise UsageError(f"options: {key!r} is unknown; there are {', '.join(_KNOWN)}")
        if key == "connect_timeout":
            rest.append((key, str(value)))
        else:
            own[key] = value
    if "@" in parts.path or parts.netloc.count("@") > 1 or any("@" in key for key, _ in rest):
        raise Invalid(f"store: not a PostgreSQL URL: an @ where none can be; {_QUOTING}")
    # libpq knows no + for a space.
    plain = urlunsplit(parts._replace(query=urlencode(rest, quote_via=quote)))
    try:
        known = conninfo.conninfo_to_dict(plain)
    except psycopg.ProgrammingError as exc:
        raise Invalid(f"store: not a PostgreSQL URL: {_blame(parts, exc)}") from None
    schema = str(own.get("schema", "perdure"))
    if not _SCHEMA.fullmatch(schema):
        raise Invalid(
            f"store: schema={schema!r}: a schema's name has small letters, digits and _, at most "
            "55, and does not begin with a digit or pg_"
        )
    where = f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
    return Settings(
        url=plain,
        name=f"the database {where} (schema {schema})",
        schema=schema,
        statement_timeout=_milliseconds(own.get("statement_timeout", "10s")),
        pooler=_flag("pooler", own.get("pooler", False)),
        synchronous_commit=_durability(own.get("synchronous_commit", ""), allow_data_loss),
        readonly=readonly,
    )


def _blame(parts: SplitResult, exc: Exception) -> str:
    """Return what libpq says of a URL, unless that may quote the password."""
    said = str(exc).strip()
    if "@" not in parts.netloc and "password" not in parts.query:
        return said
    return f"{said.partition(':')[0]}; {_QUOTING}"


def connect(settings: Settings, kind: type[Connection] | None = None) -> Connection:
    """Open a connection that commits by itself outside of BEGIN.

    ``kind``: a class for users; then it is as psycopg's users know it, with the server's own plans.

    Raises:
        Unavailable: the server cannot be reached, or refuses.
        UsageError: it is too old.
    """
    try:
        connection = (kind or psycopg.Connection[tuple[Any, ...]]).connect(
            settings.url,
            autocommit=True,
            cursor_factory=psycopg.Cursor if kind else psycopg.RawCursor,
            **_defaults(settings, is_lent=kind is not None),
        )
    except psycopg.Error as exc:
        raise Unavailable(
            f"{settings.name} cannot be reached: {str(exc).strip()}", cause=exc
        ) from None
    try:
        version = connection.info.server_version
        if version < _OLDEST:
            raise UsageError(
                f"{settings.name} is served by PostgreSQL {version // 10_000}; Perdure needs 14"
            )
        if kind is not None:
            lend(connection, settings)
            return connection
        # One width for all numbers: else a statement would be prepared anew for each mix.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.prepare_threshold = None if settings.pooler else 1
        if connection.prepare_threshold is not None:
            connection.prepared_max = 1_000
    except BaseException:
        connection.close()
        raise
    return connection


def lend(connection: Connection, settings: Settings) -> None:
    """Make a connection one as its users know it."""
    connection.autocommit = True
    if settings.pooler:
        connection.prepare_threshold = None


def _defaults(settings: Settings, *, is_lent: bool) -> dict[str, Any]:
    """Return what a URL need not say."""
    given = conninfo.conninfo_to_dict(settings.url)
    wanted: dict[str, Any] = {
        "application_name": "perdure",
        "connect_timeout": 5,
        # A server that is gone is noticed within a third of a lease.
        "tcp_user_timeout": 3_000,
        "keepalives_idle": 3,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    if not settings.pooler:
        session = _lent_settings(settings) if is_lent else _own_settings(settings)
        if settings.readonly:
            session["default_transaction_read_only"] = "on"
        said = str(given.get("options", ""))
        wanted["options"] = f"{said} " + " ".join(f"-c {key}={session[key]}" for key in session)
        given.pop("options", None)
    return {key: value for key, value in wanted.items() if key not in given}


def _own_settings(settings: Settings) -> dict[str, Any]:
    """Return what our statements want of the server."""
    own = {**_SESSION, "statement_timeout": settings.statement_timeout}
    return {**own, **_lent_settings(settings)}


def _lent_settings(settings: Settings) -> dict[str, Any]:
    wanted = settings.synchronous_commit
    return {"synchronous_commit": wanted} if wanted else {}


def local_settings(settings: Settings) -> tuple[str, str]:
    """Return what begins a transaction that writes, and one that reads, behind a pooler.

    Behind one, the next transaction may be in another session: so settings go with each. To set
    them takes no snapshot; it is one statement where a pipeline takes no more, else a script.
    """
    own = {key: str(value) for key, value in _own_settings(settings).items()}
    if settings.readonly:
        own["transaction_read_only"] = "on"
    calls = ", ".join(f"set_config('{key}', '{value}', true)" for key, value in own.items())
    lines = "; ".join(f"SET LOCAL {key} = '{value}'" for key, value in own.items())
    return f"SELECT {calls}", f"BEGIN ISOLATION LEVEL READ COMMITTED; {lines}"


def _milliseconds(value: Any) -> int:
    return max(1, microseconds(value, what="options: statement_timeout") // 1_000)


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("", "0", "false", "no", "off"):
        return False
    raise UsageError(f"options: {name}={value!r}: write true or false")


def _durability(value: Any, allow_data_loss: bool) -> str:
    text = str(value).lower()
    if text and text not in (*_STRONG, *_WEAK):
        raise UsageError(
            f"options: synchronous_commit={value!r} is not one of {', '.join(_STRONG + _WEAK)}"
        )
    if text in _WEAK and not allow_data_loss:
        raise UsageError(
            f"options: synchronous_commit={text} may lose workflows that were already acknowledged "
            "when a machine fails; keep on, or pass allow_data_loss=True"
        )
    return text
