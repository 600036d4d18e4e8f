"""Group commit: the turns of all runs that are ready now, in one transaction.

Theory of operation
-------------------
While the store writes a batch, everything that becomes ready gathers for the next; so a batch grows
with the load and a lone turn waits for nobody. Effects are released only by
``Outcomes.committed``, after the store's acknowledgement (I3).

No task stands between an acknowledgement, its effects and the next batch: each round of the event
loop gives the interpreter lock away, and beside a CPU-bound thread gets it back 5 ms later. Only
what goes wrong is put right in a task.

A batch is shared fate (R15): *fenced*, everything this worker holds is dropped; *refused*, the
batch is halved until the guilty turn stands alone; *in doubt*, the store is asked for the number
of the last batch until it answers, before anything else is written (I12).
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from perdure import errors
from perdure.engine.clock import Clock
from perdure.store.complaints import Complaints
from perdure.store.desk import Desk
from perdure.store.offers import Outcome
from perdure.store.port import Batch, Committed, LogLine, Post, Posted, StartRequest, TurnWrite
from perdure.values import limits

_Done = Callable[[Posted], None]
_Settled = Callable[["Fate"], None]
_log = logging.getLogger("perdure.engine")
_RESOLVE_PAUSE = 0.05
_RESOLVE_PAUSE_MAX = 2.0


class Fate(enum.Enum):
    """What became of an attempt's outcome."""

    COUNTED = "counted"
    VOID = "void"
    """It came too late."""
    UNWRITTEN = "unwritten"
    REFUSED = "refused"
    FENCED = "fenced"


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


class Lines(Protocol):
    """Where log lines wait for a batch (``engine/logs.py``)."""

    def take(self) -> list[LogLine]:
        """Return, once, what is to be written."""
        ...

    def give_back(self, lines: Sequence[LogLine]) -> None:
        """Keep lines that were not written."""
        ...


class Committer:
    """See the module's text."""

    def __init__(self, desk: Desk, clock: Clock, outcomes: Outcomes, lines: Lines) -> None:
        self._lines = lines
        self._has_lines = False
        self._desk = desk
        self._clock = clock
        self._outcomes = outcomes
        self._starts: list[StartRequest] = []
        self._turns: list[TurnWrite] = []
        self._posts: list[tuple[Post, _Done]] = []
        self._attempts: list[Outcome] = []
        self._settled: dict[int, _Settled] = {}
        """Who is told of each outcome that is handed in, by its identity."""
        self._bytes = 0
        self._number = 0
        self._is_writing = False
        self._is_stopped = False
        self._is_gathering = False
        self._is_scheduled = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._mending: asyncio.Task[None] | None = None
        self.worker = 0
        self.epoch = 0
        self.lease = 10_000_000
        self.batches = 0
        self.is_in_doubt = False
        self._failures = 0
        self._trouble = Complaints(_log, self._loop.time)

    def bind(self, worker: int, epoch: int, last_batch: int, lease: int) -> None:
        """Commit as this worker from here on."""
        self.worker, self.epoch, self._number, self.lease = worker, epoch, last_batch, lease

    def add_start(self, request: StartRequest) -> None:
        """Commit a start (with its first turn)."""
        self._starts.append(request)
        self._bytes += len(request.event) + (len(request.first.payload) if request.first else 0)
        self._soon()

    def add_turn(self, write: TurnWrite) -> None:
        """Commit a turn."""
        self._turns.append(write)
        self._bytes += len(write.payload)
        self._soon()

    def add_post(self, post: Post, done: _Done) -> None:
        """Commit an inbox row in the next batch."""
        self._posts.append((post, done))
        self._soon()

    def add_outcome(self, outcome: Outcome, settled: _Settled) -> None:
        """Commit what came of an attempt of another worker's run."""
        self._attempts.append(outcome)
        self._settled[id(outcome)] = settled
        self._soon()

    def flush_lines(self) -> None:
        """Write the log lines that wait, also if there is nothing else."""
        self._has_lines = True
        self._soon()

    @contextmanager
    def gathering(self) -> Generator[None]:
        """Gather what is handed in within; it is written when the block ends."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
            self._go()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written or waits to be."""
        return not (self._is_writing or self._has_work)

    @property
    def _has_work(self) -> bool:
        work = self._starts or self._turns or self._posts or self._attempts
        return bool(work or self._has_lines)

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
        attempts, self._attempts = self._attempts, []
        for _, done in posts:
            done(Posted("unavailable"))
        self._settle(attempts, Fate.FENCED)

    async def stop(self, *, at_once: bool) -> None:
        """Write nothing from here on but what was handed in, or not even that (``at_once``)."""
        if not at_once:
            await self.drained()
        self._is_stopped = True
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait([self._mending])

    def _soon(self) -> None:
        """Write what gathers in this round of the event loop, when it is over."""
        if not (self._is_writing or self._is_gathering or self._is_scheduled):
            self._is_scheduled = True
            self._loop.call_soon(self._when_over)

    def _when_over(self) -> None:
        self._is_scheduled = False
        self._go()

    def _go(self) -> None:
        """Write what has gathered, unless a batch is being written: the next follows it."""
        if self._is_writing or self._is_stopped:
            return
        if not self._has_work:
            self._idle.set()
            return
        starts, turns, posts = self._take()
        self._has_lines = False
        batch = self._batch(starts, turns, [post for post, _ in posts], self._lines.take())
        if self._attempts:
            batch.outcomes = self._take_outcomes()
        then = functools.partial(self._answered, batch, [done for _, done in posts])
        self._desk.write(lambda store: store.commit(batch), then=then)
        self._is_writing = True
        self._idle.clear()

    def _answered(
        self, batch: Batch, posted: list[_Done], answer: asyncio.Future[Committed]
    ) -> None:
        error = answer.exception()
        if error is not None:
            self._mending = self._loop.create_task(self._mend(batch, posted, error))
            return
        try:
            self._committed(batch, posted, answer.result())
        finally:
            self._is_writing = False
            self._go()

    def _committed(self, batch: Batch, posted: list[_Done], result: Committed) -> None:
        self.batches += 1
        self._failures = 0
        self._trouble.over("the store takes commits again")
        for done, answer in zip(posted, result.posted, strict=True):
            done(answer)
        self._outcomes.committed(batch, result)
        if batch.outcomes:
            void = result.void
            for it in batch.outcomes:
                is_void = (it.run, it.activity, it.attempt) in void
                self._settle([it], Fate.VOID if is_void else Fate.COUNTED)

    def _settle(self, outcomes: Sequence[Outcome], fate: Fate) -> None:
        for outcome in outcomes:
            settled = self._settled.pop(id(outcome), None)
            if settled is not None:
                settled(fate)

    async def _mend(self, batch: Batch, posted: list[_Done], error: BaseException) -> None:
        """Find out what became of a batch, write what can be written, and go on."""
        try:
            await self._put_right(batch, posted, error)
        except errors.LeaseLost:
            for done in posted:
                done(Posted("unavailable"))
            self._settle(batch.outcomes, Fate.FENCED)
            if (batch.worker, batch.epoch) == (self.worker, self.epoch):
                self.discard()
                self._outcomes.fenced()
            else:
                # This worker has joined again since: what came between is to be done anew.
                self._outcomes.unresolved(batch, was_written=False)
        except Exception:  # noqa: BLE001 - nobody waits for this task
            _log.critical("the committer met an unexpected error and writes no more", exc_info=True)
            return
        self._mending = None
        self._is_writing = False
        self._go()

    def _take(
        self,
    ) -> tuple[list[StartRequest], list[TurnWrite], list[tuple[Post, _Done]]]:
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

    def _take_outcomes(self) -> list[Outcome]:
        size = count = 0
        for outcome in self._attempts:
            size += len(outcome.event)
            if count and (size > limits.BATCH_BYTES or count >= limits.BATCH_TURNS):
                break
            count += 1
        taken, self._attempts = self._attempts[:count], self._attempts[count:]
        return taken

    @staticmethod
    def _room(starts: list[StartRequest], turns: list[TurnWrite], size: int) -> bool:
        count = len(starts) + len(turns)
        return count < limits.BATCH_TURNS and (size < limits.BATCH_BYTES or count == 0)

    def _batch(
        self,
        starts: Sequence[StartRequest],
        turns: Sequence[TurnWrite],
        posts: Sequence[Post],
        lines: Sequence[LogLine] = (),
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
            lines=lines,
        )

    async def _write(self, batch: Batch, posted: list[_Done]) -> None:
        try:
            result = await self._desk.write(lambda store: store.commit(batch))
        except Exception as error:  # noqa: BLE001 - it is looked at there
            await self._put_right(batch, posted, error)
        else:
            self._committed(batch, posted, result)

    async def _put_right(self, batch: Batch, posted: list[_Done], error: BaseException) -> None:
        if isinstance(error, (errors.LeaseLost, errors.UsageError)):
            self._lines.give_back(batch.lines)
            raise error
        if isinstance(error, errors.StoreRefused):
            await self._bisect(batch, posted, error)
        elif isinstance(error, errors.Unavailable):
            self._trouble.add("a commit was not acknowledged: %s", error)
            was_written = await self._resolve(batch)
            await self._back_off()
            if not was_written:
                self._lines.give_back(batch.lines)
            self._outcomes.unresolved(batch, was_written=was_written)
            for done in posted:
                done(Posted("unavailable"))
            self._settle(batch.outcomes, Fate.COUNTED if was_written else Fate.UNWRITTEN)
        else:
            _log.error("an internal error of the store", exc_info=error)
            refused = errors.StoreRefused(f"internal error: {type(error).__name__}: {error}")
            await self._bisect(batch, posted, refused)

    async def _back_off(self) -> None:
        """Wait longer after each failure in a row: a full disk does not empty itself in a moment.

        Once is an accident, and costs no time.
        """
        if self._failures:
            doubled = _RESOLVE_PAUSE * 2.0 ** min(self._failures - 1, 16)
            await asyncio.sleep(min(doubled, _RESOLVE_PAUSE_MAX))
        self._failures += 1

    async def _bisect(self, batch: Batch, posted: list[_Done], error: errors.StoreError) -> None:
        items: list[StartRequest | TurnWrite] = [*batch.starts, *batch.turns]
        if batch.lines:
            if not items and not posted:
                _log.error("%d log lines could not be stored: %s", len(batch.lines), error)
                return
            lines, batch.lines = batch.lines, ()
            await self._write(self._batch([], [], [], lines), [])
            rest = self._batch(batch.starts, batch.turns, batch.posts)
            rest.outcomes = batch.outcomes
            await self._write(rest, posted)
            return
        if len(batch.outcomes) == 1 and not items and not posted:
            _log.error("the store refused what came of an activity: %s", error)
            self._settle(batch.outcomes, Fate.REFUSED)
            return
        for outcome in batch.outcomes:
            alone = self._batch([], [], [])
            alone.outcomes = [outcome]
            await self._write(alone, [])
        if batch.outcomes:
            batch.outcomes = ()
            if not items and not posted:
                return
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
