"""A store behind threads: the asyncio side of the store port.

One thread writes and one reads, each with a connection of its own; an in-memory database has one
connection and therefore one thread for both. Verbs run in the order they were handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from perdure.store.port import Reader, Store

T = TypeVar("T")


class Desk(Protocol):
    """Where the engine and the client hand in store verbs.

    ``on_change`` is called in the event loop's thread when another process has committed.
    """

    on_change: Callable[[], None] | None

    async def write(self, verb: Callable[[Store], T]) -> T:
        """Run ``verb`` on the writing connection."""
        ...

    async def read(self, verb: Callable[[Reader], T]) -> T:
        """Run ``verb`` on the reading connection."""
        ...

    async def close(self) -> None:
        """Finish what was handed in and close the store."""
        ...
