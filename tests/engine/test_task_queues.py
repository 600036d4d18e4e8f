"""Activities of another task queue than their run's, carried out by whoever serves that queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine import isolated as apart
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Engine, Retry, Status, TaskQueue, activity, workflow
from perdure.errors import ActivityFailed, ApplicationError, Invalid
from perdure.testing.simulator import Simulation

attempts: list[tuple[str, int]] = []
seen: dict[str, Any] = {}


@activity.define(task_queue="gpu")
async def double(number: int) -> int:
    return number * 2


@activity.define(task_queue="gpu")
def halve(number: int) -> int:
    return number // 2


@activity.define(task_queue="gpu")
async def told() -> dict[str, Any]:
    info = activity.info()
    seen["key"] = info.idempotency_key
    return {
        "queue": info.queue,
        "attempt": info.attempt,
        "workflow": info.workflow,
        "workflow_id": info.workflow_id,
        "run_id": info.run_id,
        "context": dict(activity.context),
        "services": dict(activity.services()),
    }


@activity.define(task_queue="gpu", retry=Retry(max_attempts=3, interval="1s", backoff=1.0))
async def flaky(fails: int) -> list[Any]:
    info = activity.info()
    attempts.append((activity.info().activity, info.attempt))
    activity.heartbeat({"done": info.attempt})
    if info.attempt <= fails:
        raise ValueError(f"attempt {info.attempt}")
    return [info.attempt, info.heartbeat_details]


@activity.define(task_queue="gpu", retry=Retry(max_attempts=5))
async def hopeless() -> None:
    raise ApplicationError("no way", retryable=False)


@activity.define(task_queue="gpu")
async def waits() -> str:
    attempts.append(("waits", activity.info().attempt))
    try:
        await asyncio.sleep(100)  # sleep: cancelled, or in virtual time
    except asyncio.CancelledError:
        seen["cancelled"] = True
        raise
    return "done"


@activity.define
async def here() -> str:
    return "here"


@workflow.define
async def doubling(number: int) -> int:
    return await double(number)


@workflow.define
async def both(number: int) -> list[Any]:
    return list(await asyncio.gather(here(), double(number), halve(number)))


@workflow.define
async def telling() -> dict[str, Any]:
    return await told()


@workflow.define
async def by_name() -> int:
    return await workflow.call("double", 4)


@workflow.define
async def trying(fails: int) -> list[Any]:
    return await flaky(fails)


@workflow.define
async def despairing() -> str:
    try:
        await hopeless()
    except ActivityFailed as exc:
        return str(exc)
    return "?"


@workflow.define
async def waiting() -> str:
    return await waits()


@workflow.define
async def giving_up() -> str:
    task = asyncio.ensure_future(waits())
    await workflow.listen("enough").receive()
    task.cancel()
    return "gave up"


@workflow.define
async def many(count: int) -> int:
    return sum(await asyncio.gather(*(double(n) for n in range(count))))


WORKFLOWS = [doubling, both, telling, by_name, trying, despairing, waiting, giving_up, many]
ACTIVITIES = [double, halve, told, flaky, hopeless, waits, here]


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
        await asyncio.sleep(0)
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
        lambda: TaskQueue("a", rate="10/s burst 11"),
    ],
)
def test_a_task_queue_checks_what_it_is_given(make: Callable[[], TaskQueue]):
    with pytest.raises(Invalid):
        make()


# -- in virtual time -------------------------------------------------------------------------------


def simulated(main: Callable[[Simulation], Any], *, seed: int = 1) -> Any:
    with Simulation(seed=seed) as sim:
        return sim.run(main(sim))


async def begun(
    sim: Simulation, flow: Any, *args: Any, workers: int = 1, **options: Any
) -> tuple[list[Any], Any, Any]:
    """Start a worker for runs, some for the queue, and an execution; return workers and handle."""
    found = [sim.worker("home", WORKFLOWS)]
    found += [
        sim.worker(f"gpu{n}", ACTIVITIES, task_queues=("gpu",), **options) for n in range(workers)
    ]
    for worker in found:
        await worker.start()
    process, client = sim.foreign_client("c")
    handle = await process.spawn(client.start(flow.name, *args, id="w"))
    return found, process, handle


def test_failed_attempts_are_tried_again_as_the_policy_says_and_counted_in_the_history():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 2, workers=2)
        result = await process.spawn(handle.result("60s"))
        history = await process.spawn(handle.history())
        failed = [event.data["attempt"] for event in history if event.kind == "attempt_failed"]
        return result, failed, sim.loop.time()

    result, failed, _ = simulated(main)
    assert result == [3, {"done": 2}]
    assert failed == [1, 2]


def test_the_last_failure_that_the_policy_allows_is_the_outcome():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 9)
        with pytest.raises(Exception, match="attempt 3"):
            await process.spawn(handle.result("60s"))

    simulated(main)
    assert [number for _, number in attempts] == [1, 2, 3]


TIMED = {
    "timeout": {"timeout": "2s", "retry": Retry(max_attempts=1)},
    "heartbeat": {"heartbeat_timeout": "2s", "retry": Retry(max_attempts=1)},
    "schedule": {"schedule_timeout": "2s"},
    "queue": {"queue_timeout": "2s"},
}


@pytest.mark.parametrize("which", list(TIMED))
def test_each_timeout_holds(which: str):
    calls = waits.options(**TIMED[which])

    @workflow.define
    async def timed() -> list[str]:
        try:
            await calls()
        except ActivityFailed as exc:
            return [str(exc), str(exc.kind)]
        return []

    async def main(sim: Simulation) -> Any:
        home = sim.worker("home", [timed])
        await home.start()
        if which != "queue":
            await sim.worker("gpu", [waits], task_queues=("gpu",)).start()
        process, client = sim.foreign_client("c")
        began = sim.loop.time()
        handle = await process.spawn(client.start(timed.name))
        found = await process.spawn(handle.result("60s"))
        return found, sim.loop.time() - began

    (text, kind), took = simulated(main)
    named = "attempt" if which == "timeout" else which
    assert f"the {named} timeout of 2 s passed" in text
    assert kind == "Timeout"
    assert 2 <= took < 4


def test_timeouts_of_the_queue_hold_while_nobody_has_the_run_and_only_for_the_first_attempt():
    calls = flaky.options(queue_timeout="2s", retry=Retry(max_attempts=2, interval="10s"))

    @workflow.define
    async def twice() -> list[Any]:
        return await calls(1)

    async def main(sim: Simulation) -> Any:
        await sim.worker("home", [twice]).start()
        await sim.worker("gpu", ACTIVITIES, task_queues=("gpu",)).start()
        process, client = sim.foreign_client("c")
        handle = await process.spawn(client.start(twice.name))
        return await process.spawn(handle.result("60s"))

    assert simulated(main)[0] == 2


def test_an_attempt_that_lost_its_worker_is_counted_and_done_again_elsewhere():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=1)
        await sim.until(lambda: len(attempts) == 1)
        await asyncio.sleep(5)  # sleep: virtual time
        workers[1].kill()
        await sim.worker("next", ACTIVITIES, task_queues=("gpu",)).start()
        result = await process.spawn(handle.result("300s"))
        history = await process.spawn(handle.history())
        return result, [event.kind for event in history]

    result, kinds = simulated(main)
    assert result == "done"
    assert attempts == [("waits", 1), ("waits", 2)]
    assert kinds.count("attempt_lost") == 1
    assert kinds.count("activity_completed") == 1


def test_an_activity_that_lost_its_worker_three_times_in_a_row_parks_the_run_and_can_go_on():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=1)
        for number in (1, 2, 3):
            await sim.until(lambda number=number: len(attempts) == number)
            await asyncio.sleep(1)  # sleep: virtual time
            workers[-1].kill()
            workers.append(sim.worker(f"next{number}", ACTIVITIES, task_queues=("gpu",)))
            await workers[-1].start()
        await asyncio.sleep(5)  # sleep: virtual time
        parked = await process.spawn(handle.describe())
        assert len(attempts) == 3
        await process.spawn(handle.unpark())
        return parked.status, parked.reason, await process.spawn(handle.result("300s"))

    assert simulated(main) == (Status.PARKED, "worker_lost", "done")
    assert [number for _, number in attempts] == [1, 2, 3, 4]


def test_the_death_of_the_runs_own_worker_does_not_touch_what_others_carry_out():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting)
        await sim.until(lambda: len(attempts) == 1)
        workers[0].kill()
        await asyncio.sleep(20)  # sleep: virtual time
        await sim.worker("home2", WORKFLOWS).start()
        return await process.spawn(handle.result("300s"))

    assert simulated(main) == "done"
    assert attempts == [("waits", 1)]


def test_a_paused_run_takes_in_what_comes_and_goes_on_with_it():
    async def main(sim: Simulation) -> Any:
        _, process, handle = await begun(sim, trying, 1)
        await sim.until(lambda: len(attempts) == 1)
        await process.spawn(handle.pause())
        await asyncio.sleep(10)  # sleep: virtual time
        assert (await process.spawn(handle.describe())).status is Status.PAUSED
        await process.spawn(handle.resume())
        return await process.spawn(handle.result("60s"))

    assert simulated(main)[0] == 2


def test_an_attempt_lost_while_its_run_was_paused_is_done_again_when_it_goes_on():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting)
        await sim.until(lambda: len(attempts) == 1)
        await process.spawn(handle.pause())
        await asyncio.sleep(1)  # sleep: virtual time
        workers[1].kill()
        await sim.worker("next", ACTIVITIES, task_queues=("gpu",)).start()
        await asyncio.sleep(60)  # sleep: virtual time
        assert len(attempts) == 1
        await process.spawn(handle.resume())
        return await process.spawn(handle.result("300s"))

    assert simulated(main) == "done"
    assert attempts == [("waits", 1), ("waits", 2)]


def test_a_frozen_worker_tells_nothing_of_what_another_does_again():
    async def main(sim: Simulation) -> Any:
        workers, process, handle = await begun(sim, waiting, workers=2)
        await sim.until(lambda: len(attempts) == 1)
        carrying = next(it for it in workers[1:] if it.engine.under_way)
        carrying.freeze()
        await asyncio.sleep(60)  # sleep: virtual time; past its lease
        assert len(attempts) == 2
        carrying.thaw()
        result = await process.spawn(handle.result("300s"))
        kinds = [event.kind for event in await process.spawn(handle.history())]
        return result, kinds.count("activity_completed"), kinds.count("attempt_lost")

    assert simulated(main) == ("done", 1, 1)
