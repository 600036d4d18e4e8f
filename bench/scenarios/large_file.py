"""A file that has seen a million runs: new work must not pay for old work.

The file is made through the store port, with histories as the kernel makes them, and kept under
bench/.data for a week, or until the schema or this module changes: its runs must be younger than
what retention deletes. Every fiftieth run in it sleeps, and is due when the file is opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import statistics
import time
from pathlib import Path

import msgspec

from harness import DATA, BenchError, Figure, measure, say, scenario, until
from perdure.kernel.instance import Instance
from perdure.store import sqlite
from perdure.store.opening import open_store
from perdure.store.port import Batch, StartRequest, StateWrite, Store, TurnWrite
from perdure.values import events as ev
from perdure.values.ids import uuid7
from perdure.values.states import Status
from scenarios.programs import engine_in, nap, steps

FINISHED = 1_000_000
ASLEEP = 20_000
EVERY = FINISHED // ASLEEP
PER_BATCH = 1_000
SECOND = 1_000_000
WEEK_SECONDS = 7 * 86_400
REPEATS = 3


@scenario(
    Figure("rate over an empty file's", "ratio", at_least=0.8),
    Figure("old runs wake", "turns/s", at_least=5_000),
    Figure("rate", "steps/s"),
    heavy=True,
)
async def million_finished(folder: Path) -> dict[str, float]:
    """Beside 1,000,000 finished runs: 1,000 by 10 steps, and the waking of 20,000 old ones."""
    (folder / "large").mkdir()
    await asyncio.to_thread(copy_large_file, folder / "large/bench.db")
    woken = await asyncio.to_thread(measure, "scenarios.large_file:wake_old_runs", folder / "large")
    large: list[float] = []
    empty: list[float] = []
    for number in range(REPEATS):
        (folder / f"empty-{number}").mkdir()
        target = "scenarios.throughput:thousand_by_ten"
        large.append((await asyncio.to_thread(measure, target, folder / "large"))["rate"])
        other = await asyncio.to_thread(measure, target, folder / f"empty-{number}")
        empty.append(other["rate"])
    rate = statistics.median(large)
    return {"rate": rate, "rate over an empty file's": rate / statistics.median(empty)} | woken


async def wake_old_runs(folder: Path) -> dict[str, float]:
    """Open the file and wait until no run in it sleeps."""
    begin = time.perf_counter()
    async with engine_in(folder) as engine:

        async def all_awake() -> bool:
            return await engine.client.count(workflow="nap", status="waiting") == 0

        last = f"old-{FINISHED - EVERY}"  # due last; asking for all of them would cost, too
        await engine.client.get(last).result()
        await until(all_awake)
        seconds = time.perf_counter() - begin
        done = await engine.client.count(workflow="nap", status="completed")
    if done < ASLEEP and done < 10_000:  # counts may stop there
        raise BenchError(f"{done} of {ASLEEP} old runs completed")
    return {"old runs wake": ASLEEP / seconds}


# -- making the file -------------------------------------------------------------------------------


def copy_large_file(target: Path) -> None:
    """Copy the large file, making it first if there is none of this schema."""
    kept = DATA / f"million-{_fingerprint()}.db"
    if not kept.exists() or time.time() - kept.stat().st_mtime > WEEK_SECONDS:
        say(f"making {kept.name} (once)")
        for old in DATA.glob("million-*"):
            old.unlink()
        making = kept.with_suffix(".making")
        making.unlink(missing_ok=True)
        make(making)
        assert not Path(f"{making}-wal").exists(), "closing the last connection empties the log"
        making.rename(kept)
        for side_file in DATA.glob("*.making-*"):
            side_file.unlink()
    shutil.copyfile(kept, target)


def _fingerprint() -> str:
    migrations = Path(sqlite.__file__).with_name("migrations")
    digest = hashlib.blake2b(digest_size=6)
    for part in [Path(__file__), *sorted(migrations.glob("*.sql"))]:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def make(path: Path) -> None:
    """Fill a new file with finished and sleeping runs."""
    store: Store = open_store(f"sqlite:///{path}")
    begin = (int(time.time()) - 3_600) * SECOND
    try:
        store.migrate(begin)
        worker = store.join(
            "bench",
            os.getpid(),
            "bench",
            now=begin,
            lease_until=begin + SECOND,
            workflows=(),
            queues=(),
            definitions=(),
        )
        filler = _Filler(store, worker.id, worker.epoch, begin)
        for first in range(0, FINISHED, PER_BATCH):
            filler.add(range(first, first + PER_BATCH))
        store.leave(worker.id, worker.epoch, filler.now)
        store.tidy(idle=True)
    finally:
        store.close()


class _Filler:
    """Starts runs and ends them, a batch at a time."""

    def __init__(self, store: Store, worker: int, epoch: int, begin: int) -> None:
        self.now = begin
        self._store = store
        self._worker = worker
        self._epoch = epoch
        self._number = 0
        self._finished = _Recorded(steps, b"1", ev.ActivityCompleted(activity=2, result=b"0"))
        self._asleep = _Recorded(nap, b"1", None)

    def add(self, numbers: range) -> None:
        """Start these runs; all but every fiftieth end."""
        self.now += 3 * SECOND
        recorded = [self._finished if n % EVERY else self._asleep for n in numbers]
        starts = [run.start(n, self.now) for n, run in zip(numbers, recorded, strict=True)]
        started = self._commit(starts=starts).started
        turns = [
            run.end(row.run, row.execution, self.now)
            for run, row in zip(recorded, started, strict=True)
            if run is self._finished
        ]
        self._commit(turns=turns)

    def _commit(self, starts=(), turns=()):  # noqa: ANN001, ANN202 - as Batch has them
        self._number += 1
        batch = Batch(
            worker=self._worker,
            epoch=self._epoch,
            number=self._number,
            now=self.now,
            lease_until=self.now + SECOND,
            starts=starts,
            turns=turns,
        )
        return self._store.commit(batch)


class _Recorded:
    """A history made once by the kernel, and written under many names."""

    def __init__(self, program, input_: bytes, outcome: ev.Event | None) -> None:  # noqa: ANN001
        self._started = ev.RunStarted(
            workflow=program.name,
            version=program.version,
            workflow_id="",
            run_id="",
            seed=bytes(16),
            input=input_,
            code=program.code,
        )
        instance = Instance(program)
        self._first = instance.apply([self._started], SECOND).commands
        self._facts = [] if outcome is None else [outcome]
        self._rest = instance.apply(self._facts, SECOND).commands if self._facts else []

    def start(self, number: int, now: int) -> StartRequest:
        """Return the start of a run with its first turn; a timer in it is due a second later."""
        workflow_id, run_id = f"old-{number}", uuid7(now // 1000, number.to_bytes(10, "big"))
        started = msgspec.structs.replace(
            self._started,
            workflow_id=workflow_id,
            run_id=run_id,
            started_at=now,
            first_started_at=now,
        )
        due = None if self._facts else now + SECOND
        events = [started, *self._first] if due is None else [started, ev.TimerStarted(due=due)]
        status = Status.RUNNING if due is None else Status.WAITING
        first = TurnWrite(
            run=0,
            execution=0,
            first=1,
            count=len(events),
            time=now,
            payload=ev.encode_turn(events),
            state=StateWrite(
                status=status, owned=due is None, length=len(events), wake_at=due, since=now
            ),
        )
        return StartRequest(
            workflow=started.workflow,
            version=started.version,
            workflow_id=workflow_id,
            run_id=run_id,
            event=ev.encode_turn([started]),
            first=first,
        )

    def end(self, run: int, execution: int, now: int) -> TurnWrite:
        """Return the turn that ends the run."""
        events = [*self._facts, *self._rest]
        first = 2 + len(self._first)
        return TurnWrite(
            run=run,
            execution=execution,
            first=first,
            count=len(events),
            time=now,
            payload=ev.encode_turn(events),
            closes=True,
            state=StateWrite(
                status=Status.COMPLETED,
                owned=False,
                length=first + len(events) - 1,
                closed_at=now,
                since=now,
            ),
        )
