"""A graceful stop: what it cuts off is counted, and nothing else is."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Handle, Retry, Status, activity, workflow
from perdure.engine import activities, draining
from perdure.errors import ActivityFailed, Unavailable

began: list[tuple[str, int]] = []
release = threading.Event()


@pytest.fixture(autouse=True)
def _fresh():
    began.clear()
    release.clear()
    yield
    release.set()


def note(name: str) -> int:
    attempt = activity.info().attempt
    began.append((name, attempt))
    return attempt


@activity.define
async def hangs() -> str:
    attempt = note("hangs")
    if attempt == 1:
        activity.heartbeat({"page": 7})
        await asyncio.Event().wait()
    return f"attempt {attempt} after {activity.info().heartbeat_details}"


@activity.define
def hangs_in_thread() -> str:
    attempt = note("hangs_in_thread")
    if attempt == 1:
        release.wait(20)
    return f"attempt {attempt} after None"


@activity.define(transactional=True)
def hangs_in_transaction() -> str:
    attempt = note("hangs_in_transaction")
    if attempt == 1:
        raised = release.wait(0.3)
        assert raised
    return f"attempt {attempt} after None"


KINDS = {
    "hangs": (hangs, "attempt 2 after {'page': 7}"),
    "hangs_in_thread": (hangs_in_thread, "attempt 2 after None"),
    "hangs_in_transaction": (hangs_in_transaction, "attempt 2 after None"),
}


@workflow.define
async def calls(name: str) -> str:
    return await KINDS[name][0]()


@pytest.mark.parametrize("name", KINDS)
async def test_an_attempt_that_a_stop_cut_off_is_counted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls, name="first") as engine:
        handle = await engine.client.start(calls, name, id="cut")
        await until(lambda: bool(began))
        await engine.stop("1ms")
    assert any("cut off" in r.message and name in r.message for r in caplog.records)
    async with engine_on(tmp_path, calls) as engine:
        handle = engine.client.get("cut")
        assert await handle.result("20s") == KINDS[name][1]
        lost = await events_of(handle, "attempt_lost")
    assert [(e.data["attempt"], e.data["by_stop"]) for e in lost] == [(1, True)]
    assert lost[0].data["worker"].startswith("first#")
    assert began == [(name, 1), (name, 2)]


@activity.define(retry=Retry(max_attempts=1))
async def once() -> None:
    note("once")
    await asyncio.Event().wait()


@workflow.define
async def calls_once() -> str:
    try:
        await once()
    except ActivityFailed as exc:
        return exc.kind
    return "it ran again"


def told_of_attempts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "attempt 1 " in r.getMessage()]


async def test_a_stop_that_cuts_off_the_last_attempt_fails_the_activity(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls_once) as engine:
        await engine.client.start(calls_once, id="cut")
        await until(lambda: bool(began))
        await engine.stop("1ms")
    async with engine_on(tmp_path, calls_once) as engine:
        assert await engine.client.get("cut").result("20s") == "WorkerLost"
    assert began == [("once", 1)]
    [said] = told_of_attempts(caplog)
    assert said.startswith("[cut] activity 'once', attempt 1 was cut off by the stop; ")
    assert said.endswith("the last one allowed, not tried again")


async def test_a_stop_that_cuts_off_an_attempt_in_a_pause_says_so_in_one_line_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls) as engine:
        handle = await engine.client.start(calls, "hangs", id="cut")
        await until(lambda: bool(began))
        assert await handle.pause()
        await until_status(handle, Status.PAUSED)
        await engine.stop("1ms")
    [said] = told_of_attempts(caplog)
    assert said.startswith("[cut] activity 'hangs', attempt 1 was cut off by the stop; ")
    assert said.endswith("tried again when the run goes on")


async def test_stop_after_stop_does_not_park_a_run_as_one_that_kills_its_workers(tmp_path: Path):
    @activity.define
    async def endless() -> None:
        note("endless")
        await asyncio.Event().wait()

    @workflow.define
    async def patient() -> None:
        await endless()

    for attempt in range(1, 6):
        async with engine_on(tmp_path, patient) as engine:
            handle = await engine.client.start(patient, id="patient")
            await until(lambda attempt=attempt: ("endless", attempt) in began)
            await engine.stop("1ms")
    async with engine_on(tmp_path, patient) as engine:
        handle = engine.client.get("patient")
        await until(lambda: ("endless", 6) in began)
        assert len(await events_of(handle, "attempt_lost")) == 5
        await engine.stop("1ms")


@activity.define(retry=Retry(interval="1h"))
async def fails() -> None:
    note("fails")
    raise ValueError("not yet")


@workflow.define
async def waits_its_turn(name: str) -> None:
    await (fails if name == "fails" else hangs)()


async def test_attempts_in_backoff_or_in_the_queue_are_not_counted_by_a_stop(tmp_path: Path):
    async with engine_on(tmp_path, waits_its_turn, activity_slots=1) as engine:
        failing = await engine.client.start(waits_its_turn, "fails", id="failing")
        await until(lambda: ("fails", 1) in began)
        first = await engine.client.start(waits_its_turn, "first", id="first")
        await until(lambda: ("hangs", 1) in began)
        await engine.client.start(waits_its_turn, "queued", id="queued")

        async def is_scheduled() -> bool:
            return bool(await events_of(engine.client.get("queued"), "activity_scheduled"))

        async def has_failed() -> bool:
            return bool(await events_of(failing, "attempt_failed"))

        await until(is_scheduled)
        await until(has_failed)
        await engine.stop("1ms")
    async with engine_on(tmp_path, waits_its_turn) as engine:
        first = engine.client.get("first")
        await first.result("20s")
        assert len(await events_of(first, "attempt_lost")) == 1
        for name in ("failing", "queued"):
            assert not await events_of(engine.client.get(name), "attempt_lost")
        await engine.stop("1ms")


async def test_a_cut_that_cannot_be_recorded_is_handed_back_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(activities, "_RECORD_SECONDS", 0.01)
    async with engine_on(tmp_path, calls) as engine:
        await engine.client.start(calls, "hangs", id="cut")
        await until(lambda: bool(began))
        with monkeypatch.context() as patched:
            patched.setattr(activities.Runner, "_cut", lambda *_: None)
            await engine.stop("1ms")
    with sqlite3.connect(tmp_path / "test.db") as connection:
        [(owner, lost_by)] = connection.execute("SELECT owner, lost_by FROM perdure_state")
    connection.close()
    assert owner is None
    assert lost_by is not None
    async with engine_on(tmp_path, calls) as engine:
        handle = engine.client.get("cut")
        assert (await handle.result("20s")).startswith("attempt 2")
        assert len(await events_of(handle, "attempt_lost")) == 1


async def test_a_stop_that_the_store_does_not_answer_writes_nothing_more_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(draining, "_SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(draining, "_DRAIN_SECONDS", 0.01)
    async with engine_on(tmp_path, calls) as engine:
        core = engine._core
        assert core is not None
        core.desk.write(lambda store: release.wait())
        starts: list[asyncio.Task[Handle[str]]] = []
        for name in ("handed in", "gathered behind"):
            starts.append(asyncio.create_task(engine.client.start(calls, "once", id=name)))
            await until(lambda: len(core.start_waiters) == len(starts))
        stopping = asyncio.create_task(engine.stop())
        await until(lambda: "the store does not answer" in caplog.text)
        release.set()
        await stopping
        with pytest.raises(Unavailable):
            await starts[1]
        await asyncio.gather(*starts, return_exceptions=True)
    async with engine_on(tmp_path, calls) as engine:
        assert [it.id for it in (await engine.client.list()).items] == ["handed in"]
    assert "was taken over" not in caplog.text, "it wrote on as a worker that had left"


async def test_a_stop_with_a_long_grace_keeps_the_lease(tmp_path: Path):
    async with engine_on(tmp_path, calls, lease="300ms") as engine:
        await engine.client.start(calls, "hangs_in_thread", id="h")
        await until(lambda: bool(began))
        core = engine._core
        assert core is not None

        async def lease() -> int:
            (worker,) = await core.desk.read(lambda store: store.workers())
            return worker.lease_until

        stopping = asyncio.create_task(engine.stop(grace=None))
        await asyncio.sleep(0)  # sleep: none, it lets the stop begin
        first = await lease()

        async def is_longer() -> bool:
            return await lease() > first + 300_000

        await until(is_longer, seconds=10)
        release.set()
        await stopping
    async with engine_on(tmp_path, calls) as engine:
        assert await engine.client.get("h").result("20s") == "attempt 1 after None"
