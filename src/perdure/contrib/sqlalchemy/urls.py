"""From SQLAlchemy's URL of a database to Perdure's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy.engine import URL

from perdure import errors
from perdure.store.opening import is_server, parse_url

_OF_ASYNCPG = {
    "ssl": "sslmode",
    "sslmode": "sslmode",
    "timeout": "connect_timeout",
    "passfile": "passfile",
    "service": "service",
    "target_session_attrs": "target_session_attrs",
    "krbsrvname": "krbsrvname",
}
"""What asyncpg's parameters are called elsewhere; the others are about asyncpg itself."""
_SSL = {"true": "require", "false": "disable"}


def store_url(url: URL) -> str:
    """Return Perdure's URL of the same database; the driver is its own.

    Raises:
        UsageError: it is one that Perdure cannot share.
    """
    kind = url.get_backend_name()
    if kind == "postgresql":
        return _of_server(url)
    if kind != "sqlite":
        # Perdure's own words for what it cannot open.
        return url.set(drivername=kind).render_as_string(hide_password=False)
    path = url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        what = "a database in memory" if not path or path == ":memory:" else f"{path!r}"
        raise errors.UsageError(
            f"the session's database is {what}, which no other connection can share: give it a "
            'file ("sqlite+aiosqlite:///app.db"), or use LocalExecutionEngine'
        )
    return f"sqlite:///{path}"


def place_of(url: str) -> str:
    """Return what two of Perdure's URLs have in common that name one database.

    Raises:
        Invalid: it is no URL of Perdure's.
    """
    return url if is_server(url) else parse_url(url) or url


def _of_server(url: URL) -> str:
    query = _hosts(url.query)
    if url.get_driver_name() == "asyncpg":
        said = {_OF_ASYNCPG[name]: it for name, it in query.items() if name in _OF_ASYNCPG}
        if "sslmode" in said:
            said["sslmode"] = _SSL.get(said["sslmode"].lower(), said["sslmode"])
        query = {**said, **{name: query[name] for name in ("host", "port") if name in query}}
    made = url.set(drivername="postgresql", query=query)
    return made.render_as_string(hide_password=False)


def _hosts(query: Mapping[str, str | Iterable[str]]) -> dict[str, str]:
    """Return parameters as PostgreSQL's own URLs have them: hosts and ports apart, with commas."""
    found = {
        name: value if isinstance(value, str) else ",".join(value) for name, value in query.items()
    }
    hosts = [it.strip() for it in found.get("host", "").split(",") if it.strip()]
    if any(_port(host) for host in hosts):
        found["port"] = ",".join(_port(host) for host in hosts)
    if hosts:
        names = (host.removesuffix(f":{_port(host)}") for host in hosts)
        found["host"] = ",".join(name.strip("[]") for name in names)
    return found


def _port(host: str) -> str:
    """Return the port of ``host:port``; nothing of an IPv6 address, or a socket's folder, alone."""
    name, _, port = host.rpartition(":")
    is_apart = name.endswith("]") or not (":" in name or name.startswith("/"))
    return port if port.isdigit() and is_apart else ""
