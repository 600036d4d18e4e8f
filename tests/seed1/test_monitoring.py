"""Who hears of the end of an execution, and how one is ended from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import ApplicationError, Client, Status, activity, workflow
from perdure.errors import LinkedRunFailed, WorkflowCancelled, WorkflowFailed, WorkflowTerminated
from perdure.testing.simulator import SimulatedWorker

SHORT = "50ms"


@workflow.define
async def long_workflow(plan: dict[str, int]) -> int:
    steps = workflow.listen("step")
    for _ in range(plan["iterations"]):
        if await steps.receive() == "break":
            raise ApplicationError("it broke", kind="Broken", retryable=False, details=[1])
    return plan["iterations"]


ONE = {"iterations": 1}


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_post_start_monitoring(tmp_path: Path, through: str):
    """Who asks later hears of the end just the same, once."""
    async with engine_on(tmp_path, long_workflow) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        async with client.mailbox() as box:
            handle = await client.start("long_workflow", {"iterations": 2})
            await handle.send("step")
            await box.monitor(handle)
            await handle.send("step")
            notice = await box.events().receive(timeout="10s")
            assert (notice.kind, notice.sender, notice.result) == ("exit", handle.id, 2)
            with pytest.raises(TimeoutError):
                await box.events().receive(timeout=SHORT)


async def test_post_start_monitoring_of_what_has_ended(tmp_path: Path):
    """Exactly one Exit, at once, with the result or with the error."""
    async with engine_on(tmp_path, long_workflow) as engine, engine.client.mailbox() as box:
        for id, word in (("good", None), ("bad", "break")):
            handle = await engine.client.start(long_workflow, ONE, id=id, messages=[("step", word)])
            await until_status(handle, Status.FAILED if word else Status.COMPLETED)
            await box.monitor(id)
            notice = await box.events().receive(timeout="10s")
            kind = notice.error.kind if notice.error is not None else None
            assert (notice.sender, notice.result, kind) == (
                (id, None, "Broken") if word else (id, 1, None)
            )
            with pytest.raises(TimeoutError):
                await box.events().receive(timeout=SHORT)


async def test_post_start_linking(tmp_path: Path):
    """With ``trap_links`` the termination of a linked workflow is a LinkDown."""
    async with (
        engine_on(tmp_path, long_workflow) as engine,
        engine.client.mailbox(trap_links=True) as box,
    ):
        handle = await engine.client.start(long_workflow, {"iterations": 100})
        await handle.send("step")
        await box.link(handle)
        await handle.terminate()
        notice = await box.events().receive(timeout="10s")
        assert (notice.kind, notice.sender, notice.result) == ("link_down", handle.id, None)
        assert notice.error is not None and notice.error.kind == "Canceled"


async def test_post_start_linking_without_trap_links(tmp_path: Path):
    """The failure of a linked workflow ends the block that is linked to it."""
    async with engine_on(tmp_path, long_workflow) as engine:
        handle = await engine.client.start(long_workflow, ONE)
        with pytest.raises(LinkedRunFailed) as caught:
            async with engine.client.mailbox() as box:
                await box.link(handle)
                await handle.send("step", "break")
                await asyncio.wait_for(asyncio.Event().wait(), 20)
        assert (caught.value.kind, caught.value.details) == ("Broken", [1])


async def test_a_linked_workflow_that_ends_well_gives_an_exit(tmp_path: Path):
    async with engine_on(tmp_path, long_workflow) as engine, engine.client.mailbox() as box:
        handle = await box.start(long_workflow, ONE, link=True)
        await handle.send("step")
        notice = await box.events().receive(timeout="10s")
        assert (notice.kind, notice.result, notice.error) == ("exit", 1, None)


async def test_a_link_to_what_has_ended_badly_is_down_at_once(tmp_path: Path):
    async with (
        engine_on(tmp_path, long_workflow) as engine,
        engine.client.mailbox(trap_links=True) as box,
    ):
        handle = await engine.client.start(long_workflow, ONE, messages=[("step", "break")])
        await until_status(handle, Status.FAILED)
        await box.link(handle)
        assert (await box.events().receive(timeout="10s")).kind == "link_down"


@pytest.mark.parametrize("way", ["monitor", "link"])
async def test_unmonitor_and_unlink(tmp_path: Path, way: str):
    """Taken back, nothing arrives, however the workflow ends."""
    async with engine_on(tmp_path, long_workflow) as engine, engine.client.mailbox() as box:
        for word in (None, "break"):
            handle = await box.start(long_workflow, ONE, **{way: True})
            await getattr(box, f"un{way}")(handle)
            await handle.send("step", word)
            await until_status(handle, Status.FAILED if word else Status.COMPLETED)
        with pytest.raises(TimeoutError):
            await box.events().receive(timeout="200ms")


@pytest.mark.parametrize(("way", "kind"), [("monitor", "link_down"), ("link", "exit")])
async def test_unmonitor_and_unlink_leave_the_other_alone(tmp_path: Path, way: str, kind: str):
    """What was both monitored and linked still tells in the way that was not taken back."""
    async with (
        engine_on(tmp_path, long_workflow) as engine,
        engine.client.mailbox(trap_links=True) as box,
    ):
        started = await box.start(long_workflow, ONE, monitor=True, link=True)
        watched = await engine.client.start(long_workflow, ONE)
        await box.monitor(watched)
        await box.link(watched)
        for handle in (started, watched):
            await getattr(box, f"un{way}")(handle)
            await handle.send("step", "break")
            notice = await box.events().receive(timeout="10s")
            assert (notice.kind, notice.sender) == (kind, handle.id)
        with pytest.raises(TimeoutError):
            await box.events().receive(timeout=SHORT)


@pytest.mark.parametrize("way", ["monitor", "link"])
async def test_unmonitor_and_unlink_within_a_workflow(tmp_path: Path, way: str):
    @workflow.define
    async def fickle(target: str) -> str:
        await getattr(workflow, way)(target)
        await getattr(workflow, f"un{way}")(target)
        await workflow.send(target, "step", "break")
        try:
            await workflow.handle(target)
        except WorkflowFailed:
            pass
        try:
            return f"a notice: {await workflow.events().receive(SHORT)}"
        except TimeoutError:
            return "nothing"

    async with engine_on(tmp_path, long_workflow, fickle) as engine:
        await engine.client.start(long_workflow, ONE, id="target")
        assert await engine.client.execute(fickle, "target") == "nothing"


# -- termination and cancellation --------------------------------------------------------------


async def test_terminate(tmp_path: Path):
    """It ends at once, without its code; watchers get an Exit with an error of kind Canceled."""

    @workflow.define
    async def careful() -> None:
        try:
            await workflow.listen("never").receive()
        finally:
            await workflow.attrs(memo={"cleaned": True})

    async with engine_on(tmp_path, careful) as engine, engine.client.mailbox() as box:
        handle = await box.start(careful, monitor=True)
        await until_status(handle, Status.WAITING)
        assert await handle.terminate("no longer needed")
        notice = await box.events().receive(timeout="10s")
        assert notice.kind == "exit" and notice.result is None and notice.error is not None
        assert (notice.error.kind, notice.error.retryable) == ("Canceled", False)
        assert "no longer needed" in notice.error.message
        with pytest.raises(WorkflowTerminated, match="no longer needed"):
            await handle
        assert (await handle.describe()).memo is None
        assert await handle.terminate() is False, "it had ended"


async def test_terminate_within_a_workflow(tmp_path: Path):
    """A workflow may end its children and any other execution; the Exit says so."""

    @workflow.define
    async def ender() -> list[Any]:
        child = await workflow.start(long_workflow, ONE)
        await child.terminate("enough")
        event = await workflow.events().receive()
        assert event.error is not None
        return [event.kind, event.error.kind, event.error.retryable, event.result]

    async with engine_on(tmp_path, ender, long_workflow) as engine:
        assert await engine.client.execute(ender) == ["exit", "Canceled", False, None]


@activity.define
async def clean_up(what: str) -> str:
    return what


async def test_cancel(tmp_path: Path):
    """The code gets ``CancelledError`` where it waits and may clean up first."""

    @workflow.define
    async def tidy() -> None:
        try:
            await workflow.sleep("1h")
        finally:
            await clean_up("desk")

    async with engine_on(tmp_path, tidy, clean_up) as engine:
        handle = await engine.client.start(tidy)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel("lunch", deadline="30s")
        with pytest.raises(WorkflowCancelled, match="lunch") as caught:
            await handle.result("20s")
        assert caught.value.kind == "Canceled"
        assert len(await events_of(handle, "activity_completed")) == 1
        assert await handle.cancel() is False


async def test_cancel_with_a_deadline(tmp_path: Path):
    """What has not ended by then is terminated."""

    @workflow.define
    async def deaf() -> None:
        while True:
            try:
                await workflow.sleep("1h")
            except asyncio.CancelledError:
                continue

    async with engine_on(tmp_path, deaf) as engine, engine.client.mailbox() as box:
        handle = await box.start(deaf, monitor=True)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel(deadline="100ms")
        notice = await box.events().receive(timeout="20s")
        assert notice.error is not None and notice.error.kind == "Canceled"
        assert await handle.status() is Status.TERMINATED


@workflow.define
async def trapping(until_told: bool) -> list[Any]:
    workflow.trap_cancel(True)
    if until_told:
        await workflow.listen("look").receive()
    notice = await workflow.events().receive()
    await workflow.sleep("1ms")
    return [notice.kind, getattr(notice, "reason", None)]


async def test_cancel_as_an_event(tmp_path: Path):
    """With ``trap_cancel`` a cancel is only a notice: the workflow ends as it likes."""
    async with engine_on(tmp_path, trapping) as engine:
        handle = await engine.client.start(trapping, False)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel("please", deadline="30s")
        assert await handle.result("20s") == ["cancel_requested", "please"]
        assert await handle.status() is Status.COMPLETED


async def test_cancel_as_an_event_waits_for_whoever_reads_it(tmp_path: Path):
    """A notice that came before ``events()`` was opened is there when it is."""
    async with engine_on(tmp_path, trapping) as engine:
        handle = await engine.client.start(trapping, True)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel("early")

        async def is_recorded() -> bool:
            return bool(await events_of(handle, "cancel_requested"))

        await until(is_recorded)
        await handle.send("look")
        assert await handle.result("20s") == ["cancel_requested", "early"]


async def test_cancel_as_an_event_still_has_its_deadline(tmp_path: Path):
    async with engine_on(tmp_path, trapping) as engine:
        handle = await engine.client.start(trapping, True)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel("now", deadline="50ms")
        with pytest.raises(WorkflowTerminated, match="deadline"):
            await handle.result("20s")


async def test_cancel_within_a_workflow_interrupts_sleeps_activities_and_receives(tmp_path: Path):
    """A parent cancels a child wherever it waits; with a deadline, whether it likes or not."""

    @workflow.define
    async def sleeper(how: str) -> None:
        match how:
            case "sleep":
                await workflow.sleep("1h")
            case "receive":
                await workflow.listen("never").receive()
            case _:
                await workflow.execute(long_workflow, ONE)

    @workflow.define
    async def canceller(how: str) -> str:
        child = await workflow.start(sleeper, how)
        await child.cancel("enough", deadline="30s")
        event = await workflow.events().receive()
        assert event.error is not None
        return event.error.kind

    async with engine_on(tmp_path, canceller, sleeper, long_workflow) as engine:
        for how in ("sleep", "receive", "child"):
            assert await engine.client.execute(canceller, how) == "Canceled"


@pytest.mark.parametrize("deadline", ["soon", "-1s", object()])
async def test_cancel_with_a_deadline_that_is_none(tmp_path: Path, deadline: Any):
    async with engine_on(tmp_path, long_workflow) as engine:
        handle = await engine.client.start(long_workflow, ONE)
        with pytest.raises(ValueError, match="deadline"):
            await handle.cancel(deadline=deadline)
        assert await events_of(handle, "cancel_requested") == []


@workflow.define
async def trapping_thrice() -> list[Any]:
    workflow.trap_cancel(True)
    notices = [await workflow.events().receive() for _ in range(2)]
    workflow.trap_cancel(False)
    try:
        await workflow.listen("never").receive()
    except asyncio.CancelledError:
        await workflow.sleep("1ms")
    return [getattr(notice, "reason", None) for notice in notices]


async def test_each_cancel_is_a_notice_and_one_after_the_trap_is_off_interrupts(tmp_path: Path):
    async with engine_on(tmp_path, trapping_thrice) as engine:
        handle = await engine.client.start(trapping_thrice)
        for reason in ("one", "two", "three"):
            await until_status(handle, Status.WAITING)
            assert await handle.cancel(reason)
        assert await handle.result("20s") == ["one", "two"]


@pytest.mark.parametrize("first", [None, "1h"])
def test_the_soonest_deadline_of_all_cancels_holds(first: str | None):
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(trapping, True)
        await until_status(handle, Status.WAITING)
        assert await handle.cancel("later", deadline=first)
        assert await handle.cancel("now", deadline="50ms")
        assert await handle.cancel("whenever", deadline="2h")
        with pytest.raises(WorkflowTerminated, match="deadline"):
            await handle.result("20s")

    in_virtual_time(main, trapping)
