"""Documents of one kind: typed, changed by compare-and-set, and each change told to the audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from perdure.client import Client
from perdure.errors import Conflict, Corrupt, Invalid, NotFound
from perdure.values import limits, payload
from perdure.values.audit import AuditLine, Level, detail, line_by
from perdure.values.records import Amend, Put, Record
from perdure.views import Page

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")

_TRIES = 20
GRANTS = "directory", "grants"
"""The kind and id of a document whose version grows with each change of who there is and has which
role or key: so two changes of which each looks at all the others cannot pass each other by.
"""


class Found(NamedTuple, Generic[T]):
    """A document and its version; 0: there is none."""

    value: T
    version: int


class Kept(Generic[T]):
    """The documents of one kind in a namespace. ``secrets``: fields that no audit shows."""

    def __init__(
        self, client: Client, kind: str, type: type[T], secrets: tuple[str, ...] = ()
    ) -> None:
        self.client = client
        self.kind = kind
        self._type = type
        self._secrets = secrets

    async def find(self, id: str) -> Found[T] | None:
        """Return a document, or ``None``."""
        record = await self._record(id)
        return None if record is None else Found(self._read(record), record.version)

    async def get(self, id: str) -> Found[T]:
        """Return a document.

        Raises:
            NotFound: there is none with this id.
        """
        found = await self.find(id)
        if found is None:
            raise NotFound(f"there is no {self.kind} {id!r}")
        return found

    async def list(self, *, limit: int = limits.LIST_DEFAULT, cursor: str | None = None) -> Page[T]:
        """List them by id, up to 1,000 a page."""
        if not isinstance(cast("Any", limit), int) or not 1 <= limit <= limits.LIST_MAX:
            raise Invalid(f"limit: {limit!r} is not a number from 1 to {limits.LIST_MAX}")
        home, after = self.client.namespace, cursor or ""
        rows = await self.client.door.read(
            lambda store: store.records(self.kind, limit=limit + 1, after=after, namespace=home)
        )
        items = [self._read(row) for row in rows[:limit]]
        return Page(items, rows[limit - 1].id if len(rows) > limit else None)

    async def all(self) -> list[T]:
        """Return all of them."""
        found, cursor = list[T](), None
        while True:
            page = await self.list(limit=limits.LIST_MAX, cursor=cursor)
            found += page.items
            if (cursor := page.cursor) is None:
                return found

    def put(self, id: str, value: T, replaces: int = 0) -> Put:
        """Return what writes a document.

        Raises:
            Invalid: it could not be read again.
        """
        payload.text(id, what=f"{self.kind}: id", maximum=limits.LABEL)
        data = payload.encode(value, what=f"{self.kind} {id!r}")
        try:
            msgspec.json.decode(data, type=self._type)
        except msgspec.ValidationError as exc:
            raise Invalid(f"{self.kind} {id!r}: {exc}") from exc
        payload.limit(data, self.client.max_payload, what=f"{self.kind} {id!r}")
        return Put(self.kind, id, data, replaces, self.client.namespace)

    def line(self, verb: str, id: str, before: T | None, after: T | None) -> AuditLine:
        """Return the audit's line of a change; with what it was and is, if the level says so."""
        client, data = self.client, None
        if client.audit_level is Level.FULL:
            facts = {"before": self._shown(before), "after": self._shown(after)}
            data = detail(client.door.chance, facts)
        return line_by(
            client.acts_for,
            f"{self.kind}.{verb}",
            target=f"{self.kind}/{id}",
            namespace=client.namespace,
            data=data,
        )

    async def _record(self, id: str) -> Record | None:
        home = self.client.namespace
        return await self.client.door.read(
            lambda store: store.record(self.kind, id, namespace=home)
        )

    def _read(self, record: Record) -> T:
        try:
            return msgspec.json.decode(record.data, type=self._type)
        except msgspec.DecodeError as exc:
            raise Corrupt(f"{self.kind} {record.id!r} cannot be read: {exc}") from exc

    def _shown(self, value: T | None) -> Any:
        if value is None:
            return None
        fields: dict[str, Any] = msgspec.to_builtins(value)
        return {name: it for name, it in fields.items() if name not in self._secrets}


async def grants_as_they_are(client: Client) -> Put:
    """Return what goes with a change of who there is, who has which role or key, or of which roles
    there are: it is refused if another such change came between. Asked for before anything is
    looked at.
    """
    kind, id = GRANTS
    home = client.namespace
    found = await client.door.read(lambda store: store.record(kind, id, namespace=home))
    return Put(kind, id, b"{}", 0 if found is None else found.version, home)


async def write(client: Client, amend: Amend) -> None:
    """Write documents."""
    now = client.door.now()
    await client.door.write(lambda store: store.amend(amend, now))


async def until_written(change: Callable[[], Awaitable[R]]) -> R:
    """Read and write again when somebody else was faster.

    Raises:
        Conflict: that was so again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return await change()
        except Conflict as conflict:
            if conflict.details is None:  # not of a version: it is what the change itself says
                raise
    return await change()
