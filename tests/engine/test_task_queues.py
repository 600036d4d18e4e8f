"""Activities of another task queue than their run's, carried out by whoever serves that queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine import isolated as apart
from tests.engine.queued import (
    ACTIVITIES,
    WORKFLOWS,
    attempts,
    both,
    by_name,
    despairing,
    double,
    doubling,
    giving_up,
    here,
    many,
    seen,
    telling,
    waiting,
    waits,
)
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Engine, Status, TaskQueue, activity, workflow
from perdure.errors import ActivityFailed, Invalid


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    attempts.clear()
    seen.clear()


def gpu(folder: Path, **options: Any) -> Engine:
    options.setdefault("task_queues", ("gpu",))
    options.setdefault("name", "gpu")
    return engine_on(folder, *ACTIVITIES, **options)


async def test_the_outcome_comes_back_from_the_worker_of_the_queue(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS) as engine, gpu(tmp_path):
        handle = await engine.client.start(doubling, 21)
        assert await handle.result("20s") == 42
        [completed] = await events_of(handle, "activity_completed")
        assert str(completed.data["worker"]).startswith("gpu")
        handle = await engine.client.start(both, 8)
        assert await handle.result("20s") == ["here", 16, 4]


async def test_one_worker_that_serves_both_queues_carries_out_both(tmp_path: Path):
    async with engine_on(
        tmp_path, *WORKFLOWS, *ACTIVITIES, task_queues=("default", "gpu")
    ) as engine:
        assert await engine.client.execute(both, 8) == ["here", 16, 4]
        assert await engine.client.execute(many, 300) == 300 * 299


async def test_an_attempt_is_told_whose_it_is(tmp_path: Path):
    async with (
        engine_on(tmp_path, *WORKFLOWS) as engine,
        gpu(tmp_path, services={"mail": "mailer"}),
    ):
        handle = await engine.client.start(telling, context={"trace": "t1"}, id="one")
        found = await handle.result("20s")
        assert found["queue"] == "gpu"
        assert found["attempt"] == 1
        assert (found["workflow"], found["workflow_id"]) == ("telling", "one")
        assert found["run_id"] == handle.run_id
        assert found["services"] == {"mail": "mailer"}
        assert found["context"] == {"trace": "t1"}
        assert len(seen["key"]) == 32


async def test_a_call_by_name_goes_to_the_queue_of_the_definition(tmp_path: Path):
    async with (
        engine_on(tmp_path, *WORKFLOWS, double) as engine,
        gpu(tmp_path),
    ):
        handle = await engine.client.start(by_name)
        assert await handle.result("20s") == 8
        [completed] = await events_of(handle, "activity_completed")
        assert str(completed.data["worker"]).startswith("gpu")


async def test_an_activity_of_the_runs_own_queue_stays_with_the_run(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS, task_queues=("gpu",)) as engine:
        handle = await engine.client.start(doubling, 1, task_queue="gpu")
        assert await handle.result("20s") == 2


async def test_a_failure_for_good_is_the_runs(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS) as engine, gpu(tmp_path):
        assert "no way" in await engine.client.execute(despairing)


async def test_a_run_that_waits_for_another_queue_is_nobodys_and_says_so(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS) as engine:
        handle = await engine.client.start(doubling, 1, id="one")
        await until_status(handle, Status.WAITING)
        why = await handle.why()
        assert "activity 'double'" in why
        assert "task queue 'gpu'" in why
        assert "no live worker serves it" in why
        assert "`perdure dev MODULE -q gpu`" in why
        async with gpu(tmp_path, task_queues=("gpu",), name="other") as other:
            del other
            assert await handle.result("20s") == 2


async def test_why_names_an_activity_that_nobody_knows_and_who_carries_one_out(tmp_path: Path):
    async with (
        engine_on(tmp_path, *WORKFLOWS) as engine,
        engine_on(tmp_path, here, task_queues=("gpu",), name="ignorant") as ignorant,
    ):
        handle = await engine.client.start(waiting, id="one")
        await until_status(handle, Status.WAITING)
        why = await handle.why()
        assert "ignorant" in why
        assert "does not know the activity" in why
        ignorant.register(waits)
        async with gpu(tmp_path, name="knowing"):
            await until(lambda: bool(attempts))
            why = await handle.why()
            assert "is being carried out by worker 'knowing'" in why or "'ignorant'" in why
            assert "attempt 1" in why
            await handle.terminate()


@pytest.mark.parametrize(
    ("options", "lane"),
    [({"tenant": "acme"}, "acme"), ({"concurrency_key": "k"}, "k"), ({}, "")],
    ids=["tenant", "key", "nobody's"],
)
async def test_an_attempt_has_the_lane_and_priority_of_its_run_where_it_is_carried_out(
    tmp_path: Path, options: dict[str, Any], lane: str
):
    async with engine_on(tmp_path, *WORKFLOWS) as engine, gpu(tmp_path) as there:
        await engine.client.start(waiting, priority=7, **options)
        await until(lambda: bool(attempts))
        assert there._core is not None
        [work] = there._core.carrier.works
        assert (work.run.lane, work.run.priority) == (lane, 7)
        await there.stop(0)


async def test_a_cancelled_activity_is_cancelled_where_it_runs(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS) as engine, gpu(tmp_path) as there:
        handle = await engine.client.start(giving_up)
        await until(lambda: bool(attempts))
        await handle.send("enough")
        assert await handle.result("20s") == "gave up"
        await until(lambda: bool(seen.get("cancelled")))
        await until(lambda: there.under_way == 0)


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_the_end_of_a_run_cancels_what_others_carry_out_for_it(tmp_path: Path, how: str):
    async with engine_on(tmp_path, *WORKFLOWS) as engine, gpu(tmp_path) as there:
        handle = await engine.client.start(waiting)
        await until(lambda: bool(attempts))
        await getattr(handle, how)()
        await until(lambda: bool(seen.get("cancelled")))
        await until(lambda: there.under_way == 0)
        ended = Status.TERMINATED if how == "terminate" else Status.CANCELLED
        await until_status(handle, ended)


async def test_no_more_are_carried_out_at_a_time_than_the_worker_has_slots(tmp_path: Path):
    running: list[int] = []
    most: list[int] = []

    @activity.define(task_queue="gpu", name="counted")
    async def counted(number: int) -> int:
        running.append(number)
        most.append(len(running))
        await asyncio.sleep(0.002)  # sleep: so that others could begin meanwhile
        running.remove(number)
        return number

    @workflow.define
    async def counting(count: int) -> int:
        return sum(await asyncio.gather(*(counted(n) for n in range(count))))

    async with (
        engine_on(tmp_path, counting) as engine,
        engine_on(tmp_path, counted, task_queues={"default": 0, "gpu": 2}),
    ):
        assert await engine.client.execute(counting, 40) == sum(range(40))
    assert max(most) == 2


async def test_what_a_queue_allows_holds_over_all_workers(tmp_path: Path):
    running: list[int] = []
    most: list[int] = []

    @activity.define(task_queue="api", name="limited")
    async def limited(number: int) -> int:
        running.append(number)
        most.append(len(running))
        await asyncio.sleep(0.002)  # sleep: so that others could begin meanwhile
        running.remove(number)
        return number

    @workflow.define
    async def calling(count: int) -> int:
        return sum(await asyncio.gather(*(limited(n) for n in range(count))))

    queue = TaskQueue("api", max_concurrent=3)
    async with (
        engine_on(tmp_path, calling) as engine,
        engine_on(tmp_path, limited, task_queues=[queue]),
        engine_on(tmp_path, limited, task_queues=[queue]),
    ):
        assert await engine.client.execute(calling, 60) == sum(range(60))
    assert 1 < max(most) <= 3


async def test_functions_run_in_threads_and_in_subprocesses_there_too(tmp_path: Path):
    where = apart.where_plain.options(task_queue="gpu")

    @workflow.define
    async def asking() -> list[dict[str, Any]]:
        return list(await asyncio.gather(where(str(tmp_path)), where(str(tmp_path))))

    async with (
        engine_on(tmp_path, asking) as engine,
        engine_on(tmp_path, apart.where_plain, task_queues=("gpu",), process_slots=1),
    ):
        found = await engine.client.execute(asking)
    assert len({one["pid"] for one in found}) == 1
    assert os.getpid() not in {one["pid"] for one in found}


async def test_a_transactional_activity_of_another_queue_fails_with_the_reason(tmp_path: Path):
    @activity.define(transactional=True, task_queue="gpu")
    def writes() -> None:
        raise AssertionError("never called")

    @workflow.define
    async def writing() -> str:
        try:
            await writes()
        except ActivityFailed as exc:
            return str(exc)
        return "?"

    async with engine_on(tmp_path, writing, writes, task_queues=("default", "gpu")) as engine:
        text = await engine.client.execute(writing)
    assert "transactional" in text
    assert "'gpu'" in text


async def test_a_stop_lets_attempts_finish_within_the_grace(tmp_path: Path):
    release = asyncio.Event()

    @activity.define(task_queue="gpu", name="slow")
    async def slow() -> str:
        attempts.append(("slow", activity.info().attempt))
        await release.wait()
        return "finished"

    @workflow.define
    async def slowly() -> str:
        return await slow()

    async with engine_on(tmp_path, slowly) as engine:
        there = engine_on(tmp_path, slow, task_queues=("gpu",))
        await there.start()
        handle = await engine.client.start(slowly)
        await until(lambda: bool(attempts))
        stopping = asyncio.ensure_future(there.stop("20s"))
        await asyncio.sleep(0)  # sleep: gives way once
        release.set()
        await stopping
        assert await handle.result("20s") == "finished"
        assert attempts == [("slow", 1)]


async def test_an_attempt_that_a_stop_cuts_off_counts_and_is_done_again(tmp_path: Path):
    async with engine_on(tmp_path, *WORKFLOWS) as engine:
        there = gpu(tmp_path)
        await there.start()
        handle = await engine.client.start(waiting)
        await until(lambda: len(attempts) == 1)
        await there.stop(0)
        [lost] = await until_events(handle, "attempt_lost", 1)
        assert lost.data["by_stop"] is True
        async with gpu(tmp_path):
            await until(lambda: len(attempts) == 2)
            assert attempts == [("waits", 1), ("waits", 2)]
            await handle.terminate()


async def until_events(handle: Any, kind: str, count: int) -> list[Any]:
    found: list[Any] = []

    async def there() -> bool:
        found[:] = await events_of(handle, kind)
        return len(found) == count

    await until(there)
    return found


async def test_the_log_of_an_attempt_elsewhere_is_the_runs(tmp_path: Path):
    @activity.define(task_queue="gpu", name="chatty")
    async def chatty() -> None:
        activity.logger.info("from afar")

    @workflow.define
    async def listening() -> None:
        await chatty()

    async with (
        engine_on(tmp_path, listening) as engine,
        engine_on(tmp_path, chatty, task_queues=("gpu",)),
    ):
        handle = await engine.client.start(listening)
        await handle.result("20s")

        async def is_there() -> bool:
            return [line.message for line in await handle.logs()] == ["from afar"]

        await until(is_there)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("gpu", "not a list"),
        (["gpu", "gpu"], "named twice"),
        ({"gpu": -1}, "slots=-1"),
        ([3], "task_queues"),
    ],
)
def test_queues_that_are_none_are_refused(given: Any, text: str):
    with pytest.raises(Invalid, match=text):
        Engine(task_queues=given)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TaskQueue(""),
        lambda: TaskQueue("a", slots=-1),
        lambda: TaskQueue("a", max_concurrent=True),
        lambda: TaskQueue("a", rate="fast"),
        lambda: TaskQueue("a", rate="0/s"),
        lambda: TaskQueue("a", rate="10/s burst 0"),
    ],
)
def test_a_task_queue_checks_what_it_is_given(make: Callable[[], TaskQueue]):
    with pytest.raises(Invalid):
        make()
