"""Group commit: the turns of all runs that are ready now, in one transaction.

Theory of operation
-------------------
One task. While the store writes a batch, everything that becomes ready gathers for the next; so a
batch grows with the load and a lone turn waits for nobody. Effects are released only by
``on_committed``, after the store's acknowledgement (I3).

A batch is shared fate (R15): *fenced*, everything this worker holds is dropped; *refused*, the
batch is halved until the guilty turn stands alone; *in doubt*, the store is asked for the number
of the last batch until it answers, before anything else is written (I12).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from perdure import errors
from perdure.engine.clock import Clock
from perdure.store.complaints import Complaints
from perdure.store.desk import Desk
from perdure.store.port import Batch, Committed, Post, Posted, StartRequest, TurnWrite
from perdure.values import limits

_log = logging.getLogger("perdure.engine")
_RESOLVE_PAUSE = 0.05
_RESOLVE_PAUSE_MAX = 2.0


class Outcomes(Protocol):
    """Who is told what became of a batch (``engine/release.py``)."""

    def committed(self, batch: Batch, result: Committed) -> None:
        """The batch is durable."""
        ...

    def refused(self, batch: Batch, error: errors.StoreError) -> None:
        """A batch of a single turn or start was refused for its data."""
        ...

    def unresolved(self, batch: Batch, *, was_written: bool) -> None:
        """The acknowledgement was lost; the store says whether it was written."""
        ...

    def fenced(self) -> None:
        """This worker's lease is gone."""
        ...


class Committer:
    """See the module's text."""

    def __init__(self, desk: Desk, clock: Clock, outcomes: Outcomes) -> None:
        self._desk = desk
        self._clock = clock
        self._outcomes = outcomes
        self._starts: list[StartRequest] = []
        self._turns: list[TurnWrite] = []
        self._posts: list[tuple[Post, Callable[[Posted], None]]] = []
        self._bytes = 0
        self._number = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False
        self.worker = 0
        self.epoch = 0
        self.lease = 10_000_000
        self.batches = 0
        self.is_in_doubt = False
        self._failures = 0
        self._trouble = Complaints(_log, asyncio.get_running_loop().time)

    def bind(self, worker: int, epoch: int, last_batch: int, lease: int) -> None:
        """Commit as this worker from here on."""
        self.worker, self.epoch, self._number, self.lease = worker, epoch, last_batch, lease

    def add_start(self, request: StartRequest) -> None:
        """Commit a start (with its first turn)."""
        self._starts.append(request)
        self._bytes += len(request.event) + (len(request.first.payload) if request.first else 0)
        self._wake.set()

    def add_turn(self, write: TurnWrite) -> None:
        """Commit a turn."""
        self._turns.append(write)
        self._bytes += len(write.payload)
        self._wake.set()

    def add_post(self, post: Post, done: Callable[[Posted], None]) -> None:
        """Commit an inbox row in the next batch."""
        self._posts.append((post, done))
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written or waits to be."""
        return self._idle.is_set() and not (self._starts or self._turns or self._posts)

    async def drained(self) -> None:
        """Wait until everything handed in is decided."""
        while not self.is_idle:
            await self._idle.wait()
            if not self.is_idle:
                await asyncio.sleep(0)

    def discard(self) -> None:
        """Forget what has not been written (the lease is gone)."""
        posts = self._posts
        self._starts, self._turns, self._posts, self._bytes = [], [], [], 0
        for _, done in posts:
            done(Posted("unavailable"))

    def stop(self) -> None:
        """End :meth:`run` after what is under way."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Write batches until stopped."""
        while True:
            if not (self._starts or self._turns or self._posts):
                self._idle.set()
                self._wake.clear()
                if self._stopped:
                    return
                await self._wake.wait()
                self._idle.clear()
                continue
            self._idle.clear()
            starts, turns, posts = self._take()
            batch = self._batch(starts, turns, [post for post, _ in posts])
            try:
                await self._write(batch, [done for _, done in posts])
            except errors.LeaseLost:
                for _, done in posts:
                    done(Posted("unavailable"))
                if (batch.worker, batch.epoch) == (self.worker, self.epoch):
                    self.discard()
                    self._outcomes.fenced()
                else:
                    # This worker has joined again since: what came between is to be done anew.
                    self._outcomes.unresolved(batch, was_written=False)

    def _take(
        self,
    ) -> tuple[list[StartRequest], list[TurnWrite], list[tuple[Post, Callable[[Posted], None]]]]:
        total = len(self._starts) + len(self._turns)
        if total <= limits.BATCH_TURNS and self._bytes <= limits.BATCH_BYTES:
            taken = self._starts, self._turns, self._posts
            self._starts, self._turns, self._posts, self._bytes = [], [], [], 0
            return taken
        starts: list[StartRequest] = []
        turns: list[TurnWrite] = []
        size = 0
        while self._starts and self._room(starts, turns, size):
            starts.append(self._starts.pop(0))
            size += len(starts[-1].event)
        cut = 0
        for write in self._turns:
            if not self._room(starts, turns, size):
                break
            turns.append(write)
            size += len(write.payload)
            cut += 1
        del self._turns[:cut]
        posts, self._posts = self._posts, []
        self._bytes = sum(len(t.payload) for t in self._turns) + sum(
            len(s.event) for s in self._starts
        )
        return starts, turns, posts

    @staticmethod
    def _room(starts: list[StartRequest], turns: list[TurnWrite], size: int) -> bool:
        count = len(starts) + len(turns)
        return count < limits.BATCH_TURNS and (size < limits.BATCH_BYTES or count == 0)

    def _batch(
        self, starts: list[StartRequest], turns: list[TurnWrite], posts: list[Post]
    ) -> Batch:
        self._number += 1
        now = self._clock.now()
        return Batch(
            worker=self.worker,
            epoch=self.epoch,
            number=self._number,
            now=now,
            lease_until=now + self.lease,
            starts=starts,
            turns=turns,
            posts=posts,
        )

    async def _write(self, batch: Batch, posted: list[Callable[[Posted], None]]) -> None:
        try:
            result = await self._desk.write(lambda store: store.commit(batch))
        except errors.StoreRefused as error:
            await self._bisect(batch, posted, error)
            return
        except (errors.LeaseLost, errors.UsageError):
            raise
        except errors.Unavailable as error:
            self._trouble.add("a commit was not acknowledged: %s", error)
            was_written = await self._resolve(batch)
            await self._back_off()
            self._outcomes.unresolved(batch, was_written=was_written)
            for done in posted:
                done(Posted("unavailable"))
            return
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end this task
            _log.exception("an internal error of the store")
            refused = errors.StoreRefused(f"internal error: {type(exc).__name__}: {exc}")
            await self._bisect(batch, posted, refused)
            return
        self.batches += 1
        self._failures = 0
        self._trouble.over("the store takes commits again")
        for done, answer in zip(posted, result.posted, strict=True):
            done(answer)
        self._outcomes.committed(batch, result)

    async def _back_off(self) -> None:
        """Wait longer after each failure in a row: a full disk does not empty itself in a moment.

        Once is an accident, and costs no time.
        """
        if self._failures:
            doubled = _RESOLVE_PAUSE * 2.0 ** min(self._failures - 1, 16)
            await asyncio.sleep(min(doubled, _RESOLVE_PAUSE_MAX))
        self._failures += 1

    async def _bisect(
        self, batch: Batch, posted: list[Callable[[Posted], None]], error: errors.StoreError
    ) -> None:
        items: list[StartRequest | TurnWrite] = [*batch.starts, *batch.turns]
        if len(items) + len(posted) <= 1:
            for done in posted:
                done(Posted("refused"))
            self._outcomes.refused(batch, error)
            return
        if posted:
            # Posts were checked at the door; write them apart from whatever was refused.
            for post, done in zip(batch.posts, posted, strict=True):
                await self._write(self._batch([], [], [post]), [done])
        half = (len(items) + 1) // 2
        for part in (items[:half], items[half:]):
            if part:
                starts = [item for item in part if isinstance(item, StartRequest)]
                turns = [item for item in part if isinstance(item, TurnWrite)]
                await self._write(self._batch(starts, turns, []), [])

    async def _resolve(self, batch: Batch) -> bool:
        """Ask until the store says whether ``batch`` was written (I12)."""
        pause = _RESOLVE_PAUSE
        self.is_in_doubt = True
        try:
            while True:
                try:
                    last = await self._desk.write(
                        lambda store: store.resolve(batch.worker, batch.epoch)
                    )
                except errors.Unavailable:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _RESOLVE_PAUSE_MAX)
                else:
                    return last >= batch.number
        finally:
            self.is_in_doubt = False
