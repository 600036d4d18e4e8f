"""What follows when the time that policies allow is over: fail, cancel, continue."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Engine, Retry, activity, workflow
from perdure.errors import ActivityFailed
from perdure.graph import flow
from perdure.handle import Handle
from perdure.named import NamedEvent
from perdure.values.granted import Granted
from perdure.values.states import Status

done: list[str] = []
_SOON, _LONG = 20_000, 60_000_000


@pytest.fixture(autouse=True)
def forget() -> None:
    done.clear()


@activity.define
async def hang() -> None:
    await asyncio.Event().wait()


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def hang_twice() -> None:
    await asyncio.Event().wait()


@activity.define(task_queue="elsewhere")
async def hang_elsewhere() -> None:
    await asyncio.Event().wait()


released = asyncio.Event()


@activity.define
async def slow() -> str:
    done.append("began")
    await released.wait()
    return "slow"


@workflow.define
async def careful(which: str) -> str:
    calls: dict[str, Any] = {"once": hang, "twice": hang_twice, "elsewhere": hang_elsewhere}
    try:
        await calls[which]()
    except ActivityFailed as failed:
        return f"handled {failed.kind}"
    except asyncio.CancelledError:
        done.append("cleaned up")
        raise
    return "went on"


@workflow.define
async def waiting(_: None) -> str:
    try:
        return str(await workflow.listen("go").receive())
    except asyncio.CancelledError:
        done.append("cleaned up")
        raise


@workflow.define
async def stubborn(_: None) -> None:
    try:
        await workflow.listen("go").receive()
    except asyncio.CancelledError:
        await workflow.listen("never").receive()


@workflow.define
async def patient(_: None) -> str:
    return await slow()


async def first(_: Any) -> str:
    await asyncio.Event().wait()
    return "first"


async def second(given: Any) -> str:
    return f"second after {given}"


machine = flow("steps").task("first", first).task("second", second).build()
polls = (
    flow("polls")
    .poll("ask", lambda _input, _ctx: {"done": False}, interval="1ms", timeout="5ms")
    .task("second", second)
    .build()
)


def engine_at(folder: Path, **options: Any) -> AbstractAsyncContextManager[Engine]:
    known = (careful, waiting, stubborn, patient, machine, polls, hang_elsewhere)
    return engine_on(folder, *known, task_queues=["default", "elsewhere"], **options)


async def start(engine: Engine, definition: Any, given: Any = None, **granted: Any) -> Handle[Any]:
    return await engine.client.under(Granted(**granted)).start(definition, given)


# -- activities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["once", "twice", "elsewhere"])
@pytest.mark.parametrize("action", ["fail", "cancel"])
async def test_an_activity_whose_time_is_over_fails_or_cancels_its_run(
    tmp_path: Path, which: str, action: str
):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, careful, which, step_timeout=_SOON, timeout_action=action)
        if action == "fail":
            assert await handle.result("20s") == "handled Timeout"
            return
        await until_status(handle, Status.CANCELLED)
        [asked] = await events_of(handle, "cancel_requested")
        assert "took too long: the attempt timeout of 0.02 s passed" in asked.data["reason"]
        assert done[:1] == ["cleaned up"], "its code can clean up"
        tried = await events_of(handle, "attempt_failed")
        assert len(tried) == (which == "twice"), "its own retries come first"


async def test_without_an_action_it_is_tried_again_as_ever(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, careful, "once", step_timeout=_SOON)

        async def is_tried_again() -> bool:
            return len(await events_of(handle, "attempt_failed")) > 0

        await until(is_tried_again)


async def test_with_continue_an_activity_goes_on_and_listeners_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    told: list[NamedEvent] = []
    async with engine_at(tmp_path) as engine:
        engine.events.on("workflow.step.overdue", told.append)
        released.clear()
        handle = await start(engine, patient, step_timeout=_SOON, timeout_action="continue")
        with caplog.at_level(logging.WARNING, "perdure.runs"):
            await until(lambda: bool(told))
        [event] = told
        assert (event.data["activity"], event.data["limit"]) == ("slow", 0.02)
        assert "takes longer than 20ms; it goes on" in caplog.text
        released.set()
        assert await handle.result("20s") == "slow"
        assert done == ["began"], "one attempt"


async def test_an_activity_that_ends_in_time_is_not_told_of(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        released.set()
        handle = await start(engine, patient, step_timeout=_LONG, timeout_action="continue")
        assert await handle.result("20s") == "slow"
        waiting_calls = [
            call
            for call in asyncio.get_running_loop()._scheduled  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - what is left of it
            if not call.cancelled() and "_tell_late" in repr(call)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        ]
        assert waiting_calls == []


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "given"), [(machine, "the input"), (polls, "the input")], ids=["task", "poll"]
)
async def test_with_continue_a_step_is_marked_failed_and_the_next_one_runs(
    tmp_path: Path, definition: Any, given: str
):
    told: list[NamedEvent] = []
    async with engine_at(tmp_path) as engine:
        engine.events.on("workflow.step.*", told.append)
        granted = {"step_timeout": _SOON, "timeout_action": "continue"}
        handle = await start(engine, definition, given, **granted)
        assert await handle.result("20s") == f"second after {given}"
        name = "first" if definition is machine else "ask"
        ends = [(it.name, it.data["step_name"]) for it in told]
        assert ("workflow.step.failed", name) in ends
        assert ("workflow.step.completed", "second") in ends


@pytest.mark.parametrize("definition", [machine, polls], ids=["task", "poll"])
@pytest.mark.parametrize(("action", "status"), [("fail", "failed"), ("cancel", "cancelled")])
async def test_a_step_whose_time_is_over_fails_or_cancels_its_run(
    tmp_path: Path, definition: Any, action: str, status: str
):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, definition, "x", step_timeout=_SOON, timeout_action=action)
        await until_status(handle, Status(status))
        if action == "cancel":
            [asked] = await events_of(handle, "cancel_requested")
            assert "took too long" in asked.data["reason"]


# -- the run ---------------------------------------------------------------------------------------


async def test_with_fail_a_run_whose_time_is_over_times_out(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, waiting, max_duration=_SOON, timeout_action="fail")
        await until_status(handle, Status.TIMED_OUT)
        assert done == []


async def test_with_cancel_a_run_whose_time_is_over_is_asked_to_end(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, waiting, max_duration=_SOON, timeout_action="cancel")
        await until_status(handle, Status.CANCELLED)
        [asked] = await events_of(handle, "cancel_requested")
        assert (asked.data["by"], asked.data["reason"]) == ("policy", "it took longer than 20ms")
        assert done[:1] == ["cleaned up"]


async def test_a_run_that_does_not_end_when_asked_is_ended_as_long_after(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        handle = await start(engine, stubborn, max_duration=_SOON, timeout_action="cancel")
        await until_status(handle, Status.TERMINATED)
        assert len(await events_of(handle, "cancel_requested")) == 1


async def test_a_paused_run_is_asked_to_end_all_the_same(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        limit = 300_000
        handle = await start(engine, waiting, max_duration=limit, timeout_action="cancel")
        await until_status(handle, Status.WAITING)
        assert await handle.pause()
        await until_status(handle, Status.CANCELLED)


async def test_with_continue_a_run_goes_on_and_its_history_says_once_that_it_is_late(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    told: list[NamedEvent] = []
    async with engine_at(tmp_path) as engine:
        engine.events.on("workflow.overdue", told.append)
        handle = await start(engine, waiting, max_duration=_SOON, timeout_action="continue")
        with caplog.at_level(logging.WARNING, "perdure.runs"):
            await until(lambda: bool(told))
        assert "takes longer than 20ms; it goes on" in caplog.text
        row = await engine.client.door.read(lambda store: store.find(handle.id))
        assert row is not None
        assert (row.status, row.wake_at) == (Status.WAITING, None), "nothing is due any more"
    async with engine_at(tmp_path) as engine:  # another worker does not tell it again
        handle = engine.client.get(handle.id)
        await handle.send("go", "at last")
        assert await handle.result("20s") == "at last"
        assert len(await events_of(handle, "run_overdue")) == 1
    assert [event.data["limit"] for event in told] == [0.02]


async def test_a_late_run_that_was_paused_says_so_when_it_goes_on(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        limit = 300_000
        handle = await start(engine, waiting, max_duration=limit, timeout_action="continue")
        await until_status(handle, Status.WAITING)
        assert await handle.pause()
        await until_status(handle, Status.PAUSED)
        due = engine.client.door.now() + limit
        await until(lambda: engine.client.door.now() > due)
        assert await handle.resume()

        async def is_told() -> bool:
            return len(await events_of(handle, "run_overdue")) == 1

        await until(is_told)
        assert await handle.status() is Status.WAITING
