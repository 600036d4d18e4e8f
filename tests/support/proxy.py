"""A TCP proxy in front of a server, whose connections a test cuts."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)  # close with a reset: nothing that waits is sent


class Link:
    """One connection through the proxy. ``is_mute``: answers are swallowed, requests are not."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._sides = client, server
        self.is_mute = False

    def close(self, *, resets: bool) -> None:
        for side in self._sides:
            peer: socket.socket | None = side.get_extra_info("socket")
            if resets and peer is not None and peer.fileno() >= 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.close()


class Proxy:
    """Passes on what comes to :attr:`port`, in a thread of its own. Use it as a context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._target = parts.hostname, parts.port
        self._parts = parts
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0
        self.cuts = 0

    @property
    def url(self) -> str:
        """The URL that was given, by way of the proxy."""
        netloc = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{netloc}@127.0.0.1:{self.port}").geturl()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, chance: random.Random, share: float = 0.5) -> int:
        """Cut about this share of the connections; return how many.

        A third ends as a program would end it, a third with a reset, and a third first loses some
        answers: what was asked for may have been done.
        """
        return self._call(self._cut(chance, share))

    def _call(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    # -- in the proxy's thread -------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        link = Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                _pass(reader, to_server, None, link), _pass(from_server, writer, link, link)
            )
        finally:
            self._links.discard(link)
            link.close(resets=False)

    async def _cut(self, chance: random.Random, share: float) -> int:
        chosen = [link for link in list(self._links) if chance.random() < share]
        mute = [link for link in chosen if chance.random() < 1 / 3]
        for link in mute:
            link.is_mute = True
        if mute:
            await asyncio.sleep(chance.uniform(0, 0.03))  # sleep: time in which answers get lost
        for link in chosen:
            link.close(resets=chance.random() < 0.5)
        self.cuts += len(chosen)
        return len(chosen)

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.close(resets=True)
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mutes: Link | None, link: Link
) -> None:
    try:
        while data := await reader.read(_CHUNK):
            if mutes is None or not mutes.is_mute:
                writer.write(data)
                await writer.drain()
    except OSError:
        pass
    finally:
        link.close(resets=False)
