"""What ended long ago is deleted: by one worker at a time, and whoever does it may die."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Engine, Status, errors, workflow
from perdure.engine import retention
from perdure.store.blobs import Blob
from perdure.store.port import Prune, Pruned
from perdure.testing.simulator import SimulatedWorker, Simulation

MINUTE = 60.0
DAY = 86_400.0
OFTEN = {"retention": "10m", "retention_interval": "1m"}
Story = Callable[[Simulation], Coroutine[Any, Any, None]]


@workflow.define
async def short(n: int) -> int:
    return n


@workflow.define
async def long(days: int) -> str:
    await workflow.sleep(timedelta(days=days))
    return "slept"


@workflow.define
async def large(size: int) -> str:
    return "x" * size


def told(story: Story) -> None:
    with Simulation(seed=3, limit_seconds=100 * DAY) as sim:
        sim.run(story(sim))


def ids(sim: Simulation) -> set[str]:
    from perdure.store.port import Filter

    return {row.workflow_id for row in sim.store.list(Filter(), limit=1_000).rows}


async def started(sim: Simulation, name: str = "a", **options: Any) -> SimulatedWorker:
    worker = sim.worker(name, [short, long], **options)
    await worker.start()
    return worker


async def finish(worker: SimulatedWorker, *names: str) -> None:
    async def all_of_them() -> None:
        for name in names:
            await worker.client.execute(short, 1, id=name)

    await worker.spawn(all_of_them())


async def start_long(worker: SimulatedWorker, name: str, days: int) -> None:
    async def begin() -> None:
        handle = await worker.client.start(long, days, id=name)
        while (await handle.describe()).status is not Status.WAITING:
            await asyncio.sleep(1)  # sleep: virtual time

    await worker.spawn(begin())


def test_what_ended_that_long_ago_is_deleted_and_open_runs_stay():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, **OFTEN)
        await finish(worker, "old-1", "old-2")
        await start_long(worker, "open", 60)
        await asyncio.sleep(5 * MINUTE)  # sleep: virtual time
        await finish(worker, "newer")
        assert ids(sim) == {"old-1", "old-2", "open", "newer"}
        await asyncio.sleep(6.5 * MINUTE)  # sleep: virtual time
        assert ids(sim) == {"open", "newer"}

    told(story)


async def after_days(sim: Simulation, days: int, **options: Any) -> set[str]:
    """Return what is left after days without a worker, and some minutes with one."""
    await asyncio.sleep(days * DAY)  # sleep: virtual time
    worker = await started(sim, **options)
    await asyncio.sleep(5 * MINUTE)  # sleep: virtual time
    await worker.stop()
    return ids(sim)


def test_thirty_days_are_kept_unless_something_else_is_said():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        await finish(worker, "old")
        await start_long(worker, "open", 60)
        await worker.stop()
        assert await after_days(sim, 29) == {"old", "open"}
        assert await after_days(sim, 1) == {"open"}

    told(story)


def test_a_retention_of_0_keeps_everything():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention=0)
        await finish(worker, "old")
        await start_long(worker, "open", 90)
        await worker.stop()
        assert await after_days(sim, 70, retention=0) == {"old", "open"}

    told(story)


async def test_what_was_deleted_is_counted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "perdure.engine")
    async with engine_on(tmp_path, short, retention=0) as engine:
        for n in range(3):
            await engine.client.execute(short, n)
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.0)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "deleted" in record.message]

    async with engine_on(tmp_path, short, retention="1us"):
        await until(lambda: bool(lines()))
    [line] = lines()
    assert re.fullmatch(
        r"retention: deleted 2 runs that had ended before \S+\+00:00, with 2 history rows", line
    )


def test_a_deleted_run_is_not_found_and_its_id_is_free():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, **OFTEN)
        await finish(worker, "old", "newest")
        gone = worker.client.get("old")
        await worker.spawn(gone.describe())
        await asyncio.sleep(12 * MINUTE)  # sleep: virtual time
        for ask in (gone.describe(), gone.result(), gone.retry(), gone.fork(after_event=0)):
            with pytest.raises(errors.NotFound):
                await worker.spawn(ask)
        again = worker.client.start(short, 2, id="old", id_reuse_policy="reject_duplicate")
        assert (await worker.spawn(again)).id == "old"

    told(story)


def test_whoever_waits_for_a_run_hears_that_it_was_deleted():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention=0)
        await finish(worker, "old", "newest")
        row = sim.store.find("old")
        assert row is not None
        sim.store.prune(Prune(before=row.closed_at or 0))
        _, client = sim.foreign_client("shop")
        with pytest.raises(errors.NotFound, match="has been deleted"):
            await client.door.ended(row.run)

    told(story)


def test_one_worker_does_it_and_once_in_each_interval():
    async def story(sim: Simulation) -> None:
        one = await started(sim, "a", **OFTEN)
        two = await started(sim, "b", **OFTEN)
        await finish(one, *(f"old-{n}" for n in range(5)), "newest")
        calls: list[int] = []
        prune = sim.store.prune

        def counted(wish: Prune) -> Pruned:
            [mark] = [mark for mark in sim.store.sweeps() if mark.scope == retention.SCOPE]
            if wish.scope == "others":
                calls.append(mark.worker)
            return prune(wish)

        sim.store.prune = counted  # type: ignore[method-assign]
        await asyncio.sleep(20 * MINUTE)  # sleep: virtual time
        assert ids(sim) == {"newest"}
        deleted = one.core.retention.deleted + two.core.retention.deleted
        assert deleted == 5
        # One look of each worker may come a little later than the interval.
        assert 15 <= len(calls) <= 21
        assert set(calls) <= {one.core.committer.worker, two.core.committer.worker}

    told(story)


def test_another_worker_goes_on_where_one_that_died_had_stopped(monkeypatch: pytest.MonkeyPatch):
    for name in ("_LEAST", "_FIRST", "_MOST", "_RECORD_EVERY"):
        monkeypatch.setattr(retention, name, 1)

    async def story(sim: Simulation) -> None:
        workers = {}
        for name in ("a", "b"):
            worker = await started(sim, name, **OFTEN)
            workers[worker.core.committer.worker] = worker
        await finish(worker, *(f"old-{n}" for n in range(20)), "newest")
        prune = sim.store.prune
        places: list[int] = []
        deaths: list[tuple[int, int]] = []

        def dies_half_way(wish: Prune) -> Pruned:
            found = prune(wish)
            if found.runs:
                assert wish.after is not None
                places.append(wish.after.at)
            if len(places) == 8 and not deaths:
                [mark] = [mark for mark in sim.store.sweeps() if mark.scope == retention.SCOPE]
                deaths.append((mark.worker, len(ids(sim))))
                workers[mark.worker].kill()
            return found

        sim.store.prune = dies_half_way  # type: ignore[method-assign]
        await asyncio.sleep(15 * MINUTE)  # sleep: virtual time
        [(dead, left)] = deaths
        assert left == 21 - 8
        assert ids(sim) == {"newest"}
        [other] = workers.keys() - {dead}
        assert workers[other].core.retention.deleted == left - 1
        # It began behind what was deleted, not at the beginning.
        assert places[8] > 0

    told(story)


class Shelf:
    """Blobs in memory, of which some were put two days ago; ``lists``: how often it was asked."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.old: set[str] = set()
        self.lists = 0
        self.trouble: Exception | None = None

    def put(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    def get(self, name: str) -> bytes:
        return self.kept[name]

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)

    def list(self, after: str, limit: int) -> list[Blob]:
        self.lists += 1
        if self.trouble is not None:
            raise self.trouble
        now = datetime.now(UTC)
        names = sorted(name for name in self.kept if name > after)[:limit]
        return [Blob(name, now - timedelta(days=2 * (name in self.old))) for name in names]

    def grow_old(self) -> None:
        """All that was put until now, and a blob whose commit came to nothing."""
        [folder] = {name.partition("/")[0] for name in self.kept}
        self.kept[f"{folder}/{'0' * 40}"] = b"left over"
        self.old = set(self.kept)


async def with_a_blob(folder: Path, shelf: Shelf) -> dict[str, Any]:
    """Let a run end whose result is a blob; return the options of an engine."""
    options = {"blobs": shelf, "offload_above": 1_000, "compress_above": None, "retention": 0}
    async with engine_on(folder, large, **options) as engine:
        await engine.client.execute(large, 2_000, id="large")
    shelf.grow_old()
    return options


async def test_blobs_that_nothing_refers_to_go_by_one_worker_once_in_each_interval(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "perdure.engine")
    shelf = Shelf()
    options = await with_a_blob(tmp_path, shelf)
    of_the_run = sorted(shelf.kept)[1:]
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.0)
    async with engine_on(tmp_path, large, **options) as one:
        await until(lambda: "1 of 2 blobs deleted: nothing refers to them" in caplog.text)
        assert sorted(shelf.kept) == of_the_run
        monkeypatch.setattr(retention, "FIRST_SECONDS", 3_600.0)
        lists = shelf.lists
        async with engine_on(tmp_path, large, **options) as two:
            for engine in (one, two):
                assert engine._core is not None
                assert 3_000 < await engine._core.retention.look_once() <= 3_600
        assert shelf.lists == lists
        assert len(await one.client.get("large").result("20s")) == 2_000


async def test_a_blob_store_that_fails_is_told_and_the_pass_is_done_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "perdure.engine")
    shelf = Shelf()
    options = await with_a_blob(tmp_path, shelf)
    shelf.trouble = ValueError("the shelf is locked")
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.0)
    said = "blobs that nothing refers to could not be deleted, will try again: ValueError('the"
    async with engine_on(tmp_path, large, **options | {"retention_interval": "1s"}) as engine:
        await until(lambda: said in caplog.text)
        assert engine._core is not None
        marks = await engine._core.desk.read(lambda store: store.sweeps())
        assert [mark.worker for mark in marks if mark.scope == retention.SCOPE] == [0]
        assert len(shelf.kept) == 2
        shelf.trouble = None
        await until(lambda: "1 of 2 blobs deleted" in caplog.text)
        assert "blobs that nothing refers to can be deleted again" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retention": "soon"}, "retention"),
        ({"retention": -1}, "retention"),
        ({"retention_interval": 0}, "retention_interval: 0 is under a second"),
    ],
)
def test_what_is_no_time_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(errors.Invalid, match=said):
        Engine("memory://", **options)
