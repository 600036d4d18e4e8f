"""What ended long ago is deleted: by one worker at a time, and whoever does it may die."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Engine, Status, errors, workflow
from perdure.engine import retention
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
