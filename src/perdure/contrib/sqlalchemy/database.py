"""From a session to Perdure's database: where it is, whether it may be written now, and the one
engine that this process has for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID
from weakref import WeakKeyDictionary

from advanced_alchemy.exceptions import NotFoundError
from sqlalchemy.engine import URL
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from perdure import errors
from perdure.contrib.sqlalchemy.urls import place_of, store_url
from perdure.executing.carrier import Carrier
from perdure.graph.exceptions import WorkflowInstanceNotFoundError

AnySession = AsyncSession | Session


def url_of(session: Any) -> str:
    """Return Perdure's URL of the database that a session is bound to.

    Raises:
        UsageError: it is no session, or bound to no database, or to one that Perdure cannot share.
    """
    if not hasattr(session, "get_bind"):
        raise errors.UsageError(
            f"session: {session!r} is no SQLAlchemy session; pass an AsyncSession (what "
            "async_sessionmaker(engine)() gives) or a Session: its database is the one to use. "
            "Without SQLAlchemy there is LocalExecutionEngine(registry, url=…)"
        )
    try:
        bind: Any = session.get_bind()
    except UnboundExecutionError as exc:
        raise errors.UsageError(
            "the session is bound to no database: make it with async_sessionmaker(engine)"
        ) from exc
    return store_url(cast("URL", bind.engine.url))


async def check_writable(session: Any) -> None:
    """Refuse a session that holds SQLite's write lock: Perdure, on a connection of its own, would
    wait for it in vain.

    Raises:
        Conflict: it does.
    """
    if not session.in_transaction() or session.get_bind().dialect.name != "sqlite":
        return
    if isinstance(session, AsyncSession):
        raw: Any = await (await session.connection()).get_raw_connection()
    else:
        raw = session.connection().connection
    if raw.driver_connection.in_transaction:
        raise errors.Conflict(
            "the session has an open transaction that has written: SQLite lets one connection "
            "write at a time, and Perdure writes by its own. Commit or roll back first"
        )


class InstanceNotFoundError(WorkflowInstanceNotFoundError, NotFoundError):
    """There is no such instance: also what Advanced Alchemy's repositories raise then."""

    def __init__(self, instance_id: UUID | str) -> None:
        super().__init__(instance_id)
        self.detail = self.message


class _SessionCarrier(Carrier):
    not_found = InstanceNotFoundError


class _Shared:
    """A carrier, and how many engines hold it."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.holders = 0
        self.lock = asyncio.Lock()
        self.is_started = False


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]] = WeakKeyDictionary()


async def acquire(url: str, options: dict[str, Any], prepare: Callable[[Carrier], None]) -> Carrier:
    """Return the carrier of a database in this event loop, started; the first holder's ``prepare``
    gives it its definitions before that.

    Raises:
        UsageError: it runs with other ``options``.
    """
    place = place_of(url)
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.get(place)
    if shared is None:
        shared = of_loop[place] = _Shared(_SessionCarrier(url, **options))
    elif options and options != shared.carrier.options:
        raise errors.UsageError(
            f"the engine of {url} runs already, with other options ({shared.carrier.options}): "
            "give all engines of a database the same, or give them to the first"
        )
    shared.holders += 1
    try:
        async with shared.lock:
            if not shared.is_started:
                prepare(shared.carrier)
                await shared.carrier.start()
                shared.is_started = True
    except BaseException:
        shared.holders -= 1
        if not shared.holders:
            of_loop.pop(place, None)
        raise
    return shared.carrier


async def release(carrier: Carrier) -> None:
    """Let a carrier go; the last holder stops it."""
    of_loop = _shared.get(asyncio.get_running_loop(), {})
    for place, shared in list(of_loop.items()):
        if shared.carrier is carrier:
            shared.holders -= 1
            if not shared.holders:
                del of_loop[place]
                async with shared.lock:
                    await carrier.stop()


def at_hand(session: Any) -> Carrier | None:
    """Return the carrier that runs in this event loop for a session's database, if there is one."""
    of_loop = _shared.get(asyncio.get_running_loop(), {})
    shared = of_loop.get(place_of(url_of(session)))
    return shared.carrier if shared is not None and shared.is_started else None
