"""A time limit of a whole run, and of one attempt of a step of each kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import Retry, Status
from perdure.errors import DefinitionError, Invalid, WorkflowFailed, WorkflowTimedOut
from perdure.graph import BaseMachineStep, WorkflowDefinition, branch, flow
from perdure.handle import Handle
from perdure.testing.simulator import SimulatedWorker, Simulation

slow = flow("slow").timeout("10m").wait("nap", "20m").build()
slow_parent = flow("slow-parent").subflow("child", slow).build()
Story = Callable[[Simulation, SimulatedWorker], Coroutine[Any, Any, None]]


def play(story: Story, *definitions: Any) -> None:
    """Run a story with a worker, in virtual time."""

    async def begin(sim: Simulation) -> None:
        worker = sim.worker("a", list(definitions))
        await worker.start()
        await worker.spawn(story(sim, worker))

    with Simulation(seed=1, limit_seconds=50_000) as sim:
        sim.run(begin(sim))


async def took(handle: Handle[Any]) -> timedelta:
    with pytest.raises(WorkflowTimedOut, match="run timeout"):
        await handle.result()
    found = await handle.describe()
    assert found.status is Status.TIMED_OUT
    assert found.error["message"] == "the run timeout passed"
    assert found.error["type"] == "WorkflowTimedOut"
    assert found.completed_at is not None
    return found.completed_at - found.started_at


def test_a_definitions_timeout_ends_its_runs_as_timed_out():
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        assert await took(await worker.client.start(slow)) == timedelta(minutes=10)

    play(story, slow)


@pytest.mark.parametrize(("asked", "limit"), [("3m", 3), ("15m", 10)])
def test_the_smaller_of_the_definitions_and_the_starts_timeout_wins(asked: str, limit: int):
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        handle = await worker.client.start(slow, run_timeout=asked)
        assert await took(handle) == timedelta(minutes=limit)

    play(story, slow)


def test_whoever_starts_it_by_name_need_not_know_the_definition():
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        process, client = sim.foreign_client("elsewhere")

        async def start() -> str:
            async with client:
                return (await client.start("slow")).id

        id = await process.spawn(start())
        handle = worker.client.get(id)
        assert abs(await took(handle) - timedelta(minutes=10)) < timedelta(seconds=5)
        taken = [e for e in await handle.history() if e.kind == "run_taken"]
        assert taken[0].data["run_deadline"]

    play(story, slow)


def test_a_child_is_out_of_time_by_its_own_definition():
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        with pytest.raises(WorkflowFailed, match='Step "child" failed') as caught:
            await worker.client.execute(slow_parent)
        assert caught.value.kind == "Timeout"

    play(story, slow_parent, slow)


def test_the_time_goes_on_while_no_worker_is_there_and_after_a_kill():
    async def begin(sim: Simulation) -> None:
        worker = sim.worker("a", [slow])
        await worker.start()
        handle = await worker.spawn(worker.client.start(slow))
        worker.kill()
        other = sim.worker("b", [slow])
        await other.start()
        assert await other.spawn(took(other.client.get(handle.id))) == timedelta(minutes=10)

    with Simulation(seed=2, limit_seconds=50_000) as sim:
        sim.run(begin(sim))


def test_a_retried_run_gets_its_time_anew():
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        handle = await worker.client.start(slow, id="again")
        await took(handle)
        again = await handle.retry()
        assert await took(again) == timedelta(minutes=10)

    play(story, slow)


def test_a_parked_run_that_was_started_elsewhere_is_out_of_time_too():
    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        process, client = sim.foreign_client("elsewhere")

        async def start() -> str:
            async with client:
                return (await client.start("slow")).id

        handle = worker.client.get(await process.spawn(start()))
        await sim.until(lambda: worker.core.loader.loaded > 0)
        await handle.pause()
        assert abs(await took(handle) - timedelta(minutes=10)) < timedelta(seconds=5)

    play(story, slow)


def test_a_timeout_that_is_no_span_is_refused_where_it_is_written():
    with pytest.raises(Invalid, match="timeout of 'f': 'soon' is not a duration"):
        flow("f").timeout("soon").end().build()
    with pytest.raises((DefinitionError, Invalid), match="leaves no time"):
        flow("f").timeout("0s").end().build()


class Hangs(BaseMachineStep):
    name = "hang"
    timeout = "1s"
    retry = Retry(max_attempts=2)

    async def execute(self, context: Any) -> None:
        await forever()


async def forever() -> None:
    begun.append("attempt")
    await asyncio.Event().wait()


begun: list[str] = []
TWICE = {"timeout": "1s", "retry": Retry(max_attempts=2)}


@pytest.mark.parametrize(
    "made",
    [
        flow("task").task("hang", forever, **TWICE).build(),
        flow("side").parallel("p", [branch("b").task("hang", forever, **TWICE)]).build(),
        flow("each")
        .pass_("i", result=[1])
        .map("m", branch("b").task("hang", forever, **TWICE))
        .build(),
        WorkflowDefinition("class", steps=[Hangs()]),
    ],
    ids=lambda made: made.name,
)
def test_an_attempt_that_takes_too_long_is_tried_again_and_then_fails_the_step(made: Any):
    begun.clear()

    async def story(sim: Simulation, worker: SimulatedWorker) -> None:
        with pytest.raises(
            WorkflowFailed, match='Step "hang" failed: Step timed out: the attempt timeout'
        ) as caught:
            await worker.client.execute(made)
        assert caught.value.kind == "Timeout"

    play(story, made)
    assert begun == ["attempt"] * 2


async def test_a_plain_handler_in_its_thread_is_out_of_time_too(tmp_path: Path):
    let_go = threading.Event()

    def hang() -> None:
        let_go.wait(60)

    plain = flow("plain").task("hang", hang, timeout="10ms", retry=Retry(2, "1ms")).build()
    try:
        async with engine_on(tmp_path, plain) as engine:
            with pytest.raises(
                WorkflowFailed, match='Step "hang" failed: Step timed out: the attempt timeout'
            ):
                await engine.client.execute(plain, id="p")
            handle = engine.client.get("p")
            kinds = [event.kind for event in await handle.history()]
            assert (kinds.count("attempt_failed"), kinds.count("activity_failed")) == (1, 1)
    finally:
        let_go.set()
