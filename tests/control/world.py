"""A database with an admin's client on it, and a clock that a test moves."""

from __future__ import annotations

from typing import Any, Self

from perdure import Client
from perdure.control import Authenticator, Identity, Principal

ROOT = Principal("root", roles=["superadmin"])


class World:
    """Opened for a test, in its event loop (``conftest.py``)."""

    client: Client
    identity: Identity
    authenticator: Authenticator

    def __init__(self, url: str) -> None:
        self.url = url
        self.ahead = 0

    async def __aenter__(self) -> Self:
        self.client = await Client(self.url, identity=ROOT).__aenter__()
        self.identity = Identity(self.client)
        self.authenticator = Authenticator(self.client)
        door: Any = self.client.door
        machine = door._now
        door._now = lambda: machine() + self.ahead
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def of(self, key: str) -> Principal:
        return await self.authenticator.of(f"Bearer {key}")

    async def told(self, **filters: Any) -> list[str]:
        page = await self.client.audit.list(**filters)
        return [entry.action for entry in reversed(page.items)]
