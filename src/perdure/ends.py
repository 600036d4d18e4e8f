"""How clients hear of a run's end: one watcher for all waits, and the event a run ended with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from perdure import errors
from perdure.store.complaints import Complaints
from perdure.store.desk import Desk, check_loop
from perdure.store.port import Reader, TurnRow
from perdure.values import events as ev

_SAFETY_SECONDS = 1.0
_CLOSED = "the client was closed, or the engine it belongs to has stopped"
_log = logging.getLogger("perdure.client")


class Watch:
    """One watcher for all waits of a client: it looks when another process has committed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._trouble = Complaints(_log, self._loop.time)
        self._is_closed = False
        self._waiting: dict[int, list[asyncio.Future[ev.Event]]] = {}
        self._changes: list[asyncio.Future[None]] = []
        self._commits: list[asyncio.Future[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.is_at_hand: Callable[[int], bool] = lambda _run: False
        """Tells which runs somebody here will :meth:`resolve`."""
        desk.on_change = self.look

    def check(self) -> None:
        """Make sure that a wait can be answered.

        Raises:
            Unavailable: the watch was closed.
            UsageError: called in workflow code, or in another loop than its own.
        """
        check_loop(self._loop)
        if self._is_closed:
            raise errors.Unavailable(_CLOSED)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future that is done at the next foreign commit.

        Raises:
            Unavailable: the watch was closed.
        """
        self.check()
        future: asyncio.Future[None] = self._loop.create_future()
        self._changes.append(future)
        return future

    def next_commit(self) -> asyncio.Future[None]:
        """Return a future that is done at the next commit, foreign or not.

        Raises:
            Unavailable: the watch was closed.
        """
        self.check()
        future: asyncio.Future[None] = self._loop.create_future()
        self._commits.append(future)
        return future

    def committed(self) -> None:
        """Somebody of this process has committed."""
        if self._commits:
            commits, self._commits = self._commits, []
            _resolve(commits)

    async def ended(self, run: int) -> ev.Event:
        """Wait for a run's end.

        Raises:
            Corrupt, SchemaMismatch: what it ended with cannot be read.
            Unavailable: the watch was closed first.
        """
        self.check()
        loop = self._loop
        future: asyncio.Future[ev.Event] = loop.create_future()
        self._waiting.setdefault(run, []).append(future)
        self._changed.set()
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look())
        try:
            return await future
        finally:
            waiting = self._waiting.get(run)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[run]

    def resolve(self, run: int, closing: ev.Event) -> None:
        """A run of this process has ended."""
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_result(closing)

    def look(self) -> None:
        """Look which of the awaited runs have ended."""
        changes, self._changes = self._changes, []
        _resolve(changes)
        self.committed()
        self._changed.set()

    def close(self) -> None:
        """Stop watching; who waits hears of it. A second call does nothing."""
        self._is_closed = True
        if self._looking is not None:
            self._looking.cancel()
        self.look()
        waiting, self._waiting = self._waiting, {}
        for future in (future for futures in waiting.values() for future in futures):
            if not future.done():
                future.set_exception(errors.Unavailable(_CLOSED))

    async def _look(self) -> None:
        """Look after each change, and once a second: a change may go unnoticed."""
        while self._waiting:
            try:
                async with asyncio.timeout(_SAFETY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                await self._look_once()
            except (errors.PerdureError, OSError) as error:
                # Whatever it is: without this task nobody who waits would hear anything.
                self._trouble.add("could not look for ended runs, will try again: %s", error)

    async def _look_once(self) -> None:
        keys = [run for run in self._waiting if not self.is_at_hand(run)]
        if not keys:
            return
        rows = await self._desk.read(lambda store: store.rows(keys))
        for run in set(keys) - {row.run for row in rows}:
            self._fail(run, errors.NotFound(f"run {run} has been deleted, after it had ended"))
        for row in rows:
            if not row.status.is_terminal:
                continue
            try:
                closing = await closing_event(self._desk.read, row.run)
            except (errors.Corrupt, errors.SchemaMismatch, errors.Sealed) as error:
                # Trying again would not help those who wait for it, and the others wait on.
                self._fail(row.run, error)
            else:
                self.resolve(row.run, closing)

    def _fail(self, run: int, error: errors.PerdureError) -> None:
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_exception(error)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


async def closing_event(read: Callable[[Callable[[Reader], Any]], Any], run: int) -> ev.Event:
    """Return the last event of an ended run.

    Raises:
        Corrupt: its last row is damaged or missing; the message names run and event.
        SchemaMismatch: a newer Perdure wrote it.
    """
    turn: TurnRow | None = await read(lambda store: store.last_turn(run))
    if turn is None:
        raise errors.Corrupt(f"run {run} has ended and has no history")
    try:
        closing = ev.decode_turn(turn.payload)[-1]
    except errors.StoreError as exc:
        raise type(exc)(f"{turn.place}: {exc.message}") from exc
    except IndexError:
        raise errors.Corrupt(f"{turn.place}: it holds no events") from None
    if type(closing) not in ev.CLOSING:
        raise errors.Corrupt(f"{turn.place}: the run has ended, and its end is missing")
    return closing
