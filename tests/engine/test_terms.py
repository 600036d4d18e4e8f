"""What a start asks for about time: timeouts, retries of the whole workflow, cron, a delay."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from perdure import ApplicationError, Retry, Status, activity, workflow
from perdure.errors import Invalid, WorkflowFailed, WorkflowTimedOut
from perdure.handle import Handle
from perdure.testing.simulator import SimulatedWorker, Simulation

Main = Callable[[SimulatedWorker], Coroutine[Any, Any, Any]]


def run(main: Main, *definitions: Any, seed: int = 1) -> Any:
    """Run ``main`` with a worker, in virtual time: an hour passes at once."""

    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", list(definitions))
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=seed, limit_seconds=20_000) as sim:
        return sim.run(story(sim))


async def kinds(handle: Handle[Any]) -> list[str]:
    return [event.kind for event in await handle.history()]


@workflow.define
async def sleeper(duration: str) -> str:
    await workflow.sleep(duration)
    return "slept"


@activity.define
async def hang() -> None:
    await asyncio.sleep(3600 * 24)  # sleep: an attempt that is under way


@workflow.define
async def hanging() -> None:
    await hang()


@workflow.define
async def third_time_lucky(_: None) -> int:
    info = workflow.info()
    await workflow.sleep("1s")
    if info.attempt < 3:
        raise ApplicationError(f"attempt {info.attempt}", kind="Busy")
    return info.attempt


@workflow.define
async def hopeless(kind: str) -> None:
    raise ApplicationError("no", kind=kind)


@workflow.define
async def ticking(_: None) -> str:
    return workflow.now().isoformat()


@workflow.define
async def patient() -> list[str]:
    texts = workflow.listen("text", str)
    return [await texts.receive(), await texts.receive()]


def test_a_run_timeout_ends_a_run_that_waits():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(sleeper, "2h", run_timeout="1h")
        with pytest.raises(WorkflowTimedOut, match="run timeout"):
            await handle
        found = await handle.describe()
        assert found.status is Status.TIMED_OUT
        assert found.completed_at is not None
        assert found.completed_at - found.started_at == timedelta(hours=1)
        assert (await kinds(handle))[-1] == "run_timed_out"

    run(main, sleeper)


def test_a_run_timeout_ends_a_run_whose_activity_is_under_way():
    async def main(worker: SimulatedWorker) -> None:
        with pytest.raises(WorkflowTimedOut):
            await worker.client.execute(hanging, run_timeout="10s")

    run(main, hanging, hang)


def test_an_execution_timeout_covers_all_runs():
    @workflow.define
    async def again(count: int) -> None:
        await workflow.sleep("10s")
        await workflow.continue_as_new(count + 1)

    async def main(worker: SimulatedWorker) -> int:
        handle = await worker.client.start(again, 1, execution_timeout="35s", run_timeout="1h")
        with pytest.raises(WorkflowTimedOut, match="execution timeout"):
            await handle
        page = await worker.client.list(workflow=again)
        assert {one.status for one in page.items} == {Status.TIMED_OUT, Status.CONTINUED_AS_NEW}
        return len(page.items)

    assert run(main, again) == 4


def test_a_run_that_ends_in_time_is_left_alone():
    async def main(worker: SimulatedWorker) -> str:
        return await worker.client.execute(
            sleeper, "59m", run_timeout="1h", execution_timeout="1h", task_timeout="1s"
        )

    assert run(main, sleeper) == "slept"


def test_a_failed_workflow_is_run_again_by_its_policy():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(
            third_time_lucky, id="w", retry=Retry(max_attempts=5, interval="30s", backoff=2.0)
        )
        first = handle.run_id
        assert await handle == 3
        runs = (await worker.client.list(workflow_id="w")).items
        assert [(one.attempt, one.status) for one in runs] == [
            (3, Status.COMPLETED),
            (2, Status.FAILED),
            (1, Status.FAILED),
        ]
        pauses = [b.started_at - a.started_at for b, a in itertools.pairwise(runs)]
        assert pauses == [timedelta(seconds=61), timedelta(seconds=31)]
        with pytest.raises(WorkflowFailed, match="attempt 1"):
            await worker.client.get("w", first).result()

    run(main, third_time_lucky)


@pytest.mark.parametrize(
    ("kind", "policy", "attempts"),
    [
        ("Busy", Retry(max_attempts=3, interval="1s"), 3),
        ("Bad", Retry(max_attempts=3, interval="1s", non_retryable=["Bad"]), 1),
        ("Busy", None, 1),
    ],
)
def test_the_policy_says_how_often_and_for_what(kind: str, policy: Retry | None, attempts: int):
    async def main(worker: SimulatedWorker) -> int:
        handle = await worker.client.start(hopeless, kind, id="w", retry=policy)
        with pytest.raises(WorkflowFailed, match="no") as caught:
            await handle
        assert caught.value.kind == kind
        return len((await worker.client.list(workflow_id="w")).items)

    assert run(main, hopeless) == attempts


def test_a_run_that_timed_out_is_retried_but_not_past_the_executions_deadline():
    async def main(worker: SimulatedWorker) -> int:
        handle = await worker.client.start(
            sleeper,
            "1h",
            id="w",
            run_timeout="10s",
            execution_timeout="31s",
            retry=Retry(interval="1s", backoff=1),
        )
        with pytest.raises(WorkflowTimedOut):
            await handle
        return len((await worker.client.list(workflow_id="w")).items)

    assert run(main, sleeper) == 3


def test_cron_starts_a_run_at_each_tick_until_it_is_cancelled():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(ticking, id="c", cron="*/10 * * * *")
        assert await handle.status() is Status.PENDING
        minutes = []
        for _ in range(3):
            text = await worker.client.get("c").result()
            minutes.append(text[14:16])
        assert [int(b) - int(a) for a, b in itertools.pairwise(minutes)] in (
            [10, 10],
            [10, -50],
            [-50, 10],
        )
        assert await worker.client.get("c").cancel()
        assert await worker.client.get("c").status() is Status.CANCELLED

    run(main, ticking)


def test_a_delayed_start_is_pending_and_begins_when_it_is_due():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(patient, start_delay="1h")
        assert await handle.status() is Status.PENDING
        await handle.send("text", "early")
        assert await handle.status() is Status.PENDING
        assert "begins in 1h" in await handle.why() or "59m" in await handle.why()
        await worker.client.execute(sleeper, "61m")
        assert await handle.status() is Status.WAITING
        await handle.send("text", "late")
        assert await handle == ["early", "late"]
        events = await handle.history()
        begun = next(event for event in events if event.kind == "run_taken")
        assert begun.time - events[0].time >= timedelta(hours=1)

    run(main, patient, sleeper)


def test_a_cancel_before_the_first_turn_ends_the_run_without_its_code():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(hopeless, "x", start_delay="1h")
        assert await handle.cancel("not wanted")
        assert await handle.status() is Status.CANCELLED
        assert await kinds(handle) == ["run_started", "cancel_requested", "run_cancelled"]

    run(main, hopeless)


def test_a_paused_run_takes_no_turns_until_it_is_resumed():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(patient)
        await handle.send("text", "one")
        assert await handle.pause()
        assert not await handle.pause()
        assert await handle.status() is Status.PAUSED
        await handle.send("text", "two")
        await worker.client.execute(sleeper, "1h")
        assert await handle.status() is Status.PAUSED
        assert "resume" in await handle.why()
        assert await handle.resume()
        assert await handle == ["one", "two"]
        assert not await handle.resume()

    run(main, patient, sleeper)


def test_a_timer_that_comes_due_while_a_run_is_paused_fires_when_it_is_resumed():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(sleeper, "10m")
        await handle.pause()
        await worker.client.execute(sleeper, "1h")
        assert await handle.status() is Status.PAUSED
        await handle.resume()
        assert await handle == "slept"

    run(main, sleeper)


def test_an_outcome_that_comes_while_a_run_is_paused_is_recorded_and_used_later():
    @activity.define
    async def soon() -> str:
        await asyncio.sleep(5)  # sleep: the pause comes meanwhile, in virtual time
        return "done"

    @workflow.define
    async def one_step() -> str:
        return await soon()

    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(one_step)
        await handle.pause()
        await worker.client.execute(sleeper, "1m")
        assert "activity_completed" in await kinds(handle)
        assert await handle.status() is Status.PAUSED
        await handle.resume()
        assert await handle == "done"
        assert (await kinds(handle)).count("activity_scheduled") == 1

    run(main, one_step, soon, sleeper)


def test_a_deadline_ends_a_paused_run():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(patient, run_timeout="10m")
        await handle.pause()
        await worker.client.execute(sleeper, "11m")
        assert await handle.status() is Status.TIMED_OUT

    run(main, patient, sleeper)


@workflow.define
async def tidy() -> str:
    try:
        await workflow.listen("never").receive()
    finally:
        await workflow.sleep("1s")
        await workflow.attrs(memo={"tidied": True})
    return "never"


def test_a_cancel_resumes_a_paused_run_so_that_it_can_clean_up():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(tidy)
        await handle.pause()
        assert await handle.cancel("enough")
        await worker.client.execute(sleeper, "1m")
        found = await handle.describe()
        assert (found.status, found.memo) == (Status.CANCELLED, {"tidied": True})
        assert "run_resumed" in await kinds(handle)

    run(main, tidy, sleeper)


def test_a_cancel_with_a_deadline_ends_a_run_that_does_not_obey():
    @workflow.define
    async def stubborn() -> None:
        while True:
            try:
                await workflow.sleep("1h")
            except asyncio.CancelledError:
                pass

    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(stubborn)
        await handle.cancel("go", deadline="5s")
        await worker.client.execute(sleeper, "4s")
        assert await handle.status() is Status.WAITING
        await worker.client.execute(sleeper, "2s")
        assert await handle.status() is Status.TERMINATED

    run(main, stubborn, sleeper)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"run_timeout": "0s"}, "run_timeout: '0s' leaves no time"),
        ({"execution_timeout": "soon"}, "execution_timeout: 'soon'"),
        ({"retry": 3}, "retry: 3 is not a Retry"),
        ({"cron": "x"}, "cron: 'x'"),
        ({"retry": Retry(), "retry_policy": Retry()}, "two names"),
    ],
)
def test_a_bad_term_is_refused(options: dict[str, Any], text: str):
    async def main(worker: SimulatedWorker) -> None:
        with pytest.raises(Invalid, match=text.replace("(", r"\(")):
            await worker.client.start(sleeper, "1s", **options)

    run(main, sleeper)


@workflow.define
async def hears_in_the_end(last: int) -> list[str]:
    if workflow.info().attempt < last:
        await workflow.sleep("1h")
    texts = workflow.listen("text", str)
    return [await texts.receive() for _ in range(3)]


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_run_out_of_time_leaves_what_it_has_not_received_to_the_next_attempt(is_paused: bool):
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(
            hears_in_the_end,
            2,
            run_timeout="10m",
            retry=Retry(max_attempts=2),
            messages=[("text", "startup")],
        )
        await handle.send("text", "early")
        if is_paused:
            await worker.client.execute(sleeper, "1s")
            await handle.pause()
        await handle.send("text", "late")
        await worker.client.execute(sleeper, "11m")
        assert await handle.result("1h") == ["startup", "early", "late"]

    run(main, hears_in_the_end, sleeper)
