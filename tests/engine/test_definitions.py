"""Which code runs a run: versions of one name, and workers that know different workflows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Client, Engine, Status, workflow
from perdure.engine import leases
from perdure.engine.intake import Intake
from perdure.engine.revival import Revival
from perdure.errors import ChildFailed, NotFound, WorkflowTimedOut
from perdure.handle import Handle
from perdure.store.port import Worker
from perdure.testing.simulator import Simulation
from perdure.values.states import ParkReason


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leases, "_UNSERVED_AFTER", 200_000)


def version(number: str) -> Any:
    async def pinned() -> str:
        await workflow.listen("go").receive()
        return number

    return workflow.define(name="pinned", version=number)(pinned)


ONE, TWO, NINE, TEN = version("1.0.0"), version("2.0.0"), version("9.0.0"), version("10.0.0")


async def _finish(handle: Handle[Any]) -> str:
    await handle.send("go")
    return await handle.result("20s")


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_start_by_name_takes_the_highest_version_and_the_one_that_is_asked_for(
    tmp_path: Path, through: str
):
    async with engine_on(tmp_path, NINE, TEN, ONE) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        highest = await client.start("pinned")
        asked = await client.start("pinned", version="9.0.0")
        assert (await highest.describe()).version == "10.0.0"
        assert (await asked.describe()).version == "9.0.0"
        assert await _finish(highest) == "10.0.0"
        assert await _finish(asked) == "9.0.0"
        with pytest.raises(NotFound, match=r"version '3\.0\.0'"):
            await client.start("pinned", version="3.0.0")


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_start_by_name_passes_over_what_another_process_has_deactivated(
    tmp_path: Path, through: str
):
    async with engine_on(tmp_path, ONE, NINE, TEN) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other

        async def is_active(number: str, *, active: bool) -> None:
            await other.door.write(lambda store: store.activate("pinned", number, is_active=active))

        await is_active("10.0.0", active=False)
        assert await _finish(await client.start("pinned")) == "9.0.0"
        assert await _finish(await client.start("pinned", version="10.0.0")) == "10.0.0"
        for number in ("9.0.0", "1.0.0"):
            await is_active(number, active=False)
        with pytest.raises(NotFound, match="no active version"):
            await client.start("pinned")
        await is_active("1.0.0", active=True)
        assert await _finish(await client.start("pinned")) == "1.0.0"


async def test_a_child_by_name_is_of_the_highest_active_version(tmp_path: Path):
    @workflow.define
    async def parent(id: str) -> str:
        child = await workflow.start("pinned", id=id)
        await child.send("go")
        return await child

    async with engine_on(tmp_path, ONE, TWO, parent) as engine, Client(engine.url) as other:
        assert await engine.client.execute(parent, "before") == "2.0.0"
        await other.door.write(lambda store: store.activate("pinned", "2.0.0", is_active=False))
        core = engine._core
        assert core is not None
        await until(lambda: bool(core.registry.inactive))
        assert await engine.client.execute(parent, "after") == "1.0.0"


async def test_a_child_by_name_of_which_no_version_is_active_is_refused_as_a_start_is(
    tmp_path: Path,
):
    @workflow.define
    async def parent() -> str:
        try:
            await workflow.execute("pinned", id="child")
        except ChildFailed as failed:
            assert isinstance(failed.cause, NotFound)
            return failed.cause.message
        return "it was started"

    @workflow.define
    async def careless() -> str:
        await workflow.start("pinned", id="child")
        return "it did not wait"

    async with (
        engine_on(tmp_path, ONE, TWO, parent, careless) as engine,
        Client(engine.url) as other,
    ):
        for number in ("1.0.0", "2.0.0"):
            await other.door.write(
                lambda store, it=number: store.activate("pinned", it, is_active=False)
            )
        core = engine._core
        assert core is not None
        await until(lambda: len(core.registry.inactive) == 2)
        with pytest.raises(NotFound) as refused:
            await engine.client.start("pinned")
        assert await engine.client.execute(parent) == refused.value.message
        assert await engine.client.execute(careless) == "it did not wait"
        assert (await engine.client.list(workflow="pinned")).items == []


async def test_a_definition_that_is_handed_in_is_started_whatever_is_higher(tmp_path: Path):
    async with engine_on(tmp_path, ONE, TWO) as engine:
        assert await _finish(await engine.client.start(ONE)) == "1.0.0"


async def test_an_open_run_keeps_its_version_after_a_restart_with_a_higher_one(tmp_path: Path):
    async with engine_on(tmp_path, ONE) as engine:
        await until_status(await engine.client.start("pinned", id="old"), Status.WAITING)
    async with engine_on(tmp_path, ONE, TWO) as engine:
        old = engine.client.get("old")
        assert (await old.describe()).version == "1.0.0"
        assert await _finish(await engine.client.start("pinned")) == "2.0.0"
        assert await _finish(old) == "1.0.0"


async def test_a_version_that_was_replaced_by_one_other_goes_on_under_that(tmp_path: Path):
    async with engine_on(tmp_path, ONE) as engine:
        await until_status(await engine.client.start("pinned", id="old"), Status.WAITING)
    async with engine_on(tmp_path, TWO) as engine:
        assert await _finish(engine.client.get("old")) == "2.0.0"


async def _left_behind(tmp_path: Path) -> None:
    async with engine_on(tmp_path, ONE) as engine:
        await until_status(await engine.client.start("pinned", id="old"), Status.WAITING)


async def test_a_version_that_is_gone_waits_untouched_for_a_worker_that_has_it(tmp_path: Path):
    await _left_behind(tmp_path)
    async with engine_on(tmp_path, NINE, TEN) as engine:
        old = engine.client.get("old")
        await old.send("go")
        assert await _finish(await engine.client.start("pinned")) == "10.0.0"
        assert await events_of(old, "message_received") == []
    async with engine_on(tmp_path, ONE, NINE, TEN) as engine:
        assert await engine.client.get("old").result("20s") == "1.0.0"


async def test_a_run_whose_version_is_gone_says_so(tmp_path: Path):
    await _left_behind(tmp_path)
    async with engine_on(tmp_path, NINE, TEN) as engine:
        old = engine.client.get("old")
        await old.send("go")

        async def is_told() -> bool:
            return "1.0.0" in await old.why()

        await until(is_told, seconds=20)


async def test_a_run_on_a_queue_that_nobody_serves_says_so(tmp_path: Path):
    async with engine_on(tmp_path, ONE) as engine:
        handle = await engine.client.start("pinned", task_queue="nobodys")

        async def is_told() -> bool:
            return "nobodys" in await handle.why()

        await until(is_told, seconds=20)
        assert "Start one with `perdure dev MODULE -q nobodys`" in await handle.why()
        await until_status(handle, Status.PARKED)
        said = await handle.why()
        assert "start a worker that serves this task queue: `perdure dev MODULE -q nobodys`" in said


NOT_ASKED = (
    "the engine's own door asks whether the workflow is known, not whether its queue is served"
)


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_run_on_another_queue_is_left_to_a_worker_of_that_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str
):
    monkeypatch.setattr(leases, "_UNSERVED_AFTER", 60_000_000)
    async with engine_on(tmp_path, ONE) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        handle = await client.start("pinned", task_queue="theirs")
        await handle.send("go")
        async with engine_on(tmp_path, ONE, task_queues=["theirs"], name="theirs"):
            assert await handle.result("20s") == "1.0.0"
            assert await _workers(handle, engine) == {"theirs"}


# -- two engines on one file -------------------------------------------------------------------


@workflow.define
async def alpha(number: int) -> str:
    await workflow.sleep("1ms")
    return f"alpha {number}"


@workflow.define
async def beta(number: int) -> str:
    await workflow.sleep("1ms")
    return f"beta {number}"


async def _workers(handle: Handle[Any], engine: Engine) -> set[str]:
    """Return the names of the workers that recorded the run's events after its start."""
    names = {worker.id: worker.name for worker in await engine.client.workers()}
    events = await handle.history()
    return {names[event.worker] for event in events if event.kind != "run_started"}


async def test_two_engines_of_one_file_run_each_what_it_knows(tmp_path: Path):
    async with (
        engine_on(tmp_path, alpha, name="a") as one,
        engine_on(tmp_path, beta, name="b") as two,
        Client(one.url) as client,
    ):
        for starter in (one.client, two.client, client):
            handles = [
                *[await starter.start("alpha", n) for n in range(5)],
                *[await starter.start("beta", n) for n in range(5)],
            ]
            async with asyncio.timeout(30):
                results = await asyncio.gather(*handles)
            assert results == [f"{name} {n}" for name in ("alpha", "beta") for n in range(5)]
            for handle in handles:
                known_by = "a" if (await handle.describe()).workflow == "alpha" else "b"
                assert await _workers(handle, one) == {known_by}


async def test_an_engine_refuses_a_definition_it_was_not_given(tmp_path: Path):
    async with engine_on(tmp_path, alpha) as one, engine_on(tmp_path, beta):
        with pytest.raises(NotFound, match=r"definitions="):
            await one.client.start(beta, 1)


async def test_a_run_nobody_knows_is_parked_and_goes_on_when_one_that_knows_it_joins(
    tmp_path: Path,
):
    async with engine_on(tmp_path, beta):
        pass  # its definition is known from here on
    async with engine_on(tmp_path, alpha, name="a") as one:
        handle = await one.client.start("beta", 7)
        assert "no worker knows workflow 'beta'" in await handle.why()
        await until_status(handle, Status.PARKED)
        parked = await handle.describe()
        assert parked.reason == "unknown_workflow"
        assert "'beta' (version 1.0.0)" in (parked.detail or "")
        assert "start a worker that defines this workflow" in await handle.why()
        assert await one.client.execute(alpha, 1) == "alpha 1", "the others are not held up"
        async with engine_on(tmp_path, beta, name="b"):
            assert await handle.result("60s") == "beta 7"
            kinds = [event.kind for event in await handle.history()]
            assert kinds.count("run_parked") == kinds.count("run_unparked") == 1


@workflow.define
async def patient() -> str:
    return str(await workflow.listen("word").receive())


async def test_a_delayed_run_is_parked_when_nobody_serves_it_at_its_time(tmp_path: Path):
    async with engine_on(tmp_path, alpha, name="a") as one:
        async with engine_on(tmp_path, patient, name="b") as other:
            late = await other.client.start(patient, start_delay="1s")
            over = await other.client.start(patient, start_delay="1s", execution_timeout="1s")
        late, over = one.client.get(late.id), one.client.get(over.id)
        await until_status(late, Status.PARKED)
        assert (await late.describe()).reason == ParkReason.UNKNOWN_WORKFLOW
        with pytest.raises(WorkflowTimedOut):
            await over.result("20s")
        async with engine_on(tmp_path, patient, name="c"):
            await late.send("word", "on")
            assert await late.result("20s") == "on"


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_nobody_serves_ends_all_the_same_when_its_time_is_over(*, begun: bool):
    async def main(sim: Simulation) -> None:
        one = sim.worker("a", [alpha])
        await one.start()
        if begun:
            other = sim.worker("b", [patient])
            await other.start()
            start = other.client.start(patient, id="it", execution_timeout="10s")
            await other.spawn(until_status(await other.spawn(start), Status.WAITING))
            await other.stop()
        else:
            options = {"task_queue": "nowhere", "execution_timeout": "10s"}
            await one.spawn(one.client.start("alpha", 1, id="it", **options))
        with pytest.raises(WorkflowTimedOut):
            await one.spawn(one.client.get("it").result("60s"))

    with Simulation(seed=1) as sim:
        sim.run(main(sim))


def test_a_run_that_waits_until_a_time_is_parked_when_nobody_serves_it_then():
    @workflow.define(name="napping")
    async def napping() -> str:
        await workflow.sleep("10s")
        return "rested"

    async def main(sim: Simulation) -> None:
        one, other = sim.worker("a", [alpha]), sim.worker("b", [napping])
        for worker in (one, other):
            await worker.start()
        started = await other.spawn(other.client.start(napping, id="it"))
        await other.spawn(until_status(started, Status.WAITING))
        await other.stop()
        handle = one.client.get("it")
        await one.spawn(until_status(handle, Status.PARKED))
        assert (await one.spawn(handle.describe())).reason == ParkReason.UNKNOWN_WORKFLOW
        await sim.worker("c", [napping]).start()
        assert await one.spawn(handle.result("60s")) == "rested"

    with Simulation(seed=1) as sim:
        sim.run(main(sim))


async def test_a_run_that_is_parked_while_a_worker_that_knows_it_joins_goes_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One worker looks before the other joins, and parks when that has looked for parked runs."""
    monkeypatch.setattr(leases, "_UNSERVED_AFTER", 60_000_000)
    has_parked, try_all, look = asyncio.Event(), Revival.try_all, Intake.run
    async with engine_on(tmp_path, beta):
        pass
    async with engine_on(tmp_path, alpha, name="a") as one:
        assert one._core is not None and one._leases is not None
        desk, its_leases = one._core.desk, one._leases
        handle = await one.client.start("beta", 7)
        read = desk.read

        async def read_before(verb: Any) -> Any:
            found = await read(verb)
            is_workers = isinstance(found, list) and any(isinstance(it, Worker) for it in found)
            return [it for it in found if it.name == "a"] if is_workers else found

        async def slow_try(self: Revival) -> None:
            await try_all(self)
            monkeypatch.setattr(leases, "_UNSERVED_AFTER", -1)
            monkeypatch.setattr(desk, "read", read_before)
            await its_leases.look_once()
            monkeypatch.setattr(desk, "read", read)
            await until_status(handle, Status.PARKED)
            has_parked.set()

        async def slow_look(self: Intake) -> None:
            await has_parked.wait()
            await look(self)

        monkeypatch.setattr(Revival, "try_all", slow_try)
        monkeypatch.setattr(Intake, "run", slow_look)
        async with engine_on(tmp_path, beta, name="b"):
            assert await handle.result("20s") == "beta 7"
