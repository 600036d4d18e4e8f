"""Whatever an activity or a workflow raises is recorded; nothing of it ends the worker."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Retry, activity, workflow
from perdure.engine import activities
from perdure.errors import ActivityFailed, WorkflowFailed
from perdure.values.states import Status


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


RAISED: dict[str, type[BaseException]] = {
    cls.__name__: cls
    for cls in (
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        BaseException,
        StopAsyncIteration,
        StopIteration,
        Mute,
    )
}
ONCE = Retry(max_attempts=1)


@activity.define(retry=ONCE)
async def inline(name: str) -> None:
    raise RAISED[name]


@activity.define(retry=ONCE, timeout="20s")
async def limited(name: str) -> None:
    raise RAISED[name]


@activity.define(retry=ONCE)
def in_thread(name: str) -> None:
    raise RAISED[name]


@activity.define(retry=ONCE, transactional=True)
def in_transaction(name: str) -> None:
    activity.connection().execute("CREATE TABLE never (x)")
    raise RAISED[name]


KINDS: tuple[Any, ...] = (inline, limited, in_thread, in_transaction)


@workflow.define
async def call_all(name: str) -> list[str]:
    found: list[str] = []
    for what in KINDS:
        try:
            await what(name)
        except ActivityFailed as exc:
            found.append(exc.kind)
    return found


@pytest.mark.parametrize("name", RAISED)
async def test_an_activity_may_raise_anything_and_it_is_recorded_as_its_failure(
    tmp_path: Path, name: str
):
    async with engine_on(tmp_path, call_all, *KINDS) as engine:
        handle = await engine.client.start(call_all, name)
        assert await handle.result("20s") == ["Internal"] * len(KINDS)
        failed = await events_of(handle, "activity_failed")
    types = [event.data["failure"]["type"] for event in failed]
    # Python itself makes a RuntimeError of a StopIteration in a coroutine.
    inside = "RuntimeError" if name == "StopIteration" else name
    assert types == [inside, inside, name, name]


@activity.define(retry=Retry(max_attempts=3, interval="1ms"))
async def exits_once() -> int:
    if activity.info().attempt == 1:
        sys.exit(3)
    return activity.info().attempt


@workflow.define
async def tries_again() -> int:
    return await exits_once()


async def test_an_activity_that_exits_is_tried_again(tmp_path: Path):
    async with engine_on(tmp_path, tries_again) as engine:
        assert await (await engine.client.start(tries_again)).result("20s") == 2


@workflow.define
async def mute() -> None:
    raise Mute


async def test_a_workflow_that_raises_what_has_no_text_fails(tmp_path: Path):
    async with engine_on(tmp_path, mute) as engine:
        with pytest.raises(WorkflowFailed, match="Mute"):
            await (await engine.client.start(mute)).result("20s")


@workflow.define
async def interrupts(sleeps: bool) -> None:
    if sleeps:
        await asyncio.sleep(0.001)  # sleep: of the workflow
    raise KeyboardInterrupt


@pytest.mark.parametrize("sleeps", [False, True])
async def test_a_workflow_that_raises_keyboard_interrupt_is_parked(tmp_path: Path, sleeps: bool):
    async with engine_on(tmp_path, interrupts, tries_again) as engine:
        handle = await engine.client.start(interrupts, sleeps)
        await until_status(handle, Status.PARKED)
        assert await (await engine.client.start(tries_again)).result("20s") == 2


@pytest.mark.parametrize("place", ["_attempt_context", "_complete"])
async def test_an_error_of_the_engine_in_an_attempt_fails_the_activity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    def broken(*_: object) -> None:
        raise LookupError("a mistake of ours")

    monkeypatch.setattr(activities.Runner, place, broken)
    async with engine_on(tmp_path, call_all, *KINDS) as engine:
        handle = await engine.client.start(call_all, "Mute")
        assert await handle.result("20s") == ["Internal"] * len(KINDS)


INTERRUPTED = """
import asyncio, sys
from perdure import Engine, activity, workflow

@activity.define(timeout=TIMEOUT)
async def spin():
    print("ready", flush=True)
    if WAITS:
        await asyncio.Event().wait()
    while True:
        pass

@workflow.define
async def main():
    await spin()

async def serve():
    async with Engine(sys.argv[1], [main, spin]) as engine:
        try:
            await (await engine.client.start(main)).result()
        finally:
            await engine.stop("1ms")

HOW
"""
BY_RUNNER = "asyncio.run(serve())"
BY_LOOP = "loop = asyncio.new_event_loop(); loop.run_until_complete(serve())"


@pytest.mark.parametrize(
    ("how", "waits", "timeout"),
    [
        (BY_RUNNER, True, None),
        (BY_LOOP, True, None),
        (BY_LOOP, False, None),
        (BY_LOOP, False, "9h"),
    ],
)
async def test_ctrl_c_still_ends_a_worker_whatever_it_is_doing(
    tmp_path: Path, how: str, waits: bool, timeout: str | None
):
    place = Place(tmp_path)
    code = INTERRUPTED.replace("HOW", how).replace("WAITS", str(waits))
    process = place.start(code.replace("TIMEOUT", repr(timeout)))
    try:
        process.send_signal(signal.SIGINT)
        await until(lambda: process.poll() is not None)
    finally:
        kill(process)
    assert process.returncode not in (0, -signal.SIGKILL)
