"""`why` says in one sentence what a run waits for, also when the answer lies elsewhere."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tests.engine.support import engine_on, until, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import Client, Retry, activity, workflow
from perdure.handle import Handle
from perdure.store.port import Filter, RunRow
from perdure.testing.simulator import SimulatedWorker
from perdure.values.states import Status
from perdure.why import why

SECOND = 1_000_000


@workflow.define
async def lost() -> None:
    await asyncio.Event().wait()


@workflow.define
async def updatable() -> None:
    approved = asyncio.Event()

    @workflow.update("approve")
    def approve() -> None:
        approved.set()

    await approved.wait()


@workflow.define
async def listening() -> None:
    await workflow.listen("go").receive()


@workflow.define
async def parent_of(name: str) -> None:
    await workflow.execute(name, id=f"child {name}")


@workflow.define
async def loops() -> None:
    raise RecursionError("for ever")


async def waiting(started: Handle[None]) -> str:
    await until_status(started, Status.WAITING)
    return await started.why()


async def test_a_run_that_nothing_can_wake_is_said_to_be_stuck_with_the_line(tmp_path: Path):
    async with engine_on(tmp_path, lost) as engine:
        said = await waiting(await engine.client.start(lost, id="l"))
    assert re.match(
        r"lost 'l' is stuck: nothing can wake it: since .* it waits at .*test_why\.py:\d+ in lost "
        r"for something only its own code could do\. To end it: `perdure cancel`",
        said,
    )


async def test_a_run_that_an_update_can_wake_is_not_stuck(tmp_path: Path):
    async with engine_on(tmp_path, updatable) as engine:
        said = await waiting(await engine.client.start(updatable))
    assert "for update 'approve' at " in said


async def test_a_parent_tells_what_its_child_waits_for(tmp_path: Path):
    async with engine_on(tmp_path, parent_of, listening) as engine:
        parent = await engine.client.start(parent_of, "listening", id="p")
        await until_status(engine.client.get("child listening"), Status.WAITING)
        said = await waiting(parent)
    assert re.match(r"parent_of 'p' is waiting since .* for child 'child listening' at ", said)
    assert re.search(
        r"; listening 'child listening' is waiting since .* for message 'go' at [^;]*\.$", said
    )


async def test_a_parent_tells_why_its_child_is_parked(tmp_path: Path):
    async with engine_on(tmp_path, parent_of, loops) as engine:
        parent = await engine.client.start(parent_of, "loops")
        await until_status(engine.client.get("child loops"), Status.PARKED)
        said = await waiting(parent)
    assert "; loops 'child loops' is parked since" in said
    assert "RecursionError: for ever" in said
    assert "To go on: mend the code" in said


async def test_a_parent_tells_that_nobody_serves_its_child(tmp_path: Path):
    async with engine_on(tmp_path, parent_of) as engine:
        parent = await engine.client.start(parent_of, "nobodys")
        child = engine.client.get("child nobodys")

        async def is_there() -> bool:
            return len(await engine.client.find("child nobodys")) == 1

        await until(is_there)
        said = await waiting(parent)
        assert "; nobodys 'child nobodys' " in said
        assert "workflow 'nobodys'" in said
        await until_status(child, Status.PARKED)
        assert "(version )" not in await child.why()


def row(**values: object) -> RunRow:
    given: dict[str, object] = {**dict.fromkeys(RunRow.__struct_fields__)}
    given |= {"workflow": "w", "workflow_id": "1", "version": "", "queue": "default"}
    return RunRow(**{**given, **values})  # pyright: ignore[reportArgumentType]


def test_spans_under_a_second_read_well():
    now = 1_000 * SECOND
    ended = row(status=Status.COMPLETED, closed_at=now - 1)
    assert why(ended, [], [], now) == "w '1' ended just now as completed."
    parked = row(status=Status.PARKED, since=now, reason="r", detail="it differs.", unblock="mend")
    assert why(parked, [], [], now) == (
        "w '1' is parked since just now (r): it differs. To go on: mend."
    )


async def test_a_run_that_waits_while_no_worker_runs_says_both(tmp_path: Path):
    async with engine_on(tmp_path, listening) as engine:
        await waiting(await engine.client.start(listening, id="l"))
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        said = await client.get("l").why()
    assert re.fullmatch(
        r"listening 'l' is waiting since .* for message 'go' at .*test_why\.py:\d+ in listening, "
        r"and for a worker: no worker is running\. Start one with `perdure dev MODULE`\.",
        said,
    )


async def test_a_retry_that_is_due_does_not_run_while_no_worker_does(tmp_path: Path):
    @activity.define(retry=Retry(interval="1ms"))
    async def broken() -> None:
        if activity.info().attempt > 1:
            await asyncio.Event().wait()
        raise ValueError("at first")

    @workflow.define
    async def calling() -> None:
        await broken()

    async with engine_on(tmp_path, calling) as engine:
        handle = await engine.client.start(calling, id="c")

        async def runs() -> bool:
            return "whose attempt 2 runs (attempt 1 failed: " in await handle.why()

        await until(runs)
        assert "for a worker" not in await handle.why()
        rows = await engine.client.door.read(lambda store: store.list(Filter(), limit=1).rows)
        turns = await engine.client.door.read(lambda store: store.history(rows[0].run))
        said = why(rows[0], turns, [], rows[0].since + SECOND)
        await engine.stop("1ms")
    assert re.search(r"whose attempt 2 is due now .*, and for a worker: no worker is running", said)


def test_a_timer_that_is_due_at_once_is_due_in_less_than_a_second():
    @workflow.define
    async def short() -> None:
        await workflow.sleep("900ms")

    async def main(worker: SimulatedWorker) -> str:
        return await waiting(await worker.client.start(short))

    said = in_virtual_time(main, short)
    assert "for a timer that is due in less than a second at" in said
    assert "since just now" in said
