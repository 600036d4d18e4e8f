"""Activities: attempts, timeouts, heartbeats, threads, transactions."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.engine.support import engine_on, events_of, until

from perdure import ApplicationError, Retry, activity, workflow
from perdure.engine.activities import Runner
from perdure.engine.work import Work
from perdure.errors import ActivityFailed, UsageError, WorkflowFailed

calls: list[tuple[str, int, str]] = []
release = threading.Event()
FAST = Retry(interval="1ms")


@pytest.fixture(autouse=True)
def _fresh():
    calls.clear()
    release.clear()
    yield
    release.set()


@activity.define(retry=Retry(max_attempts=3, interval="1ms"))
async def shaky(succeed_at: int) -> int:
    info = activity.info()
    calls.append((info.activity, info.attempt, info.idempotency_key))
    if info.attempt < succeed_at:
        raise ApplicationError("not yet", kind="Shaky")
    return info.attempt


@workflow.define
async def call_shaky(succeed_at: int) -> int:
    return await shaky(succeed_at)


async def test_an_activity_is_tried_again_with_the_same_key_and_attempts_are_in_the_history(
    tmp_path: Path,
):
    async with engine_on(tmp_path, call_shaky) as engine:
        handle = await engine.client.start(call_shaky, 3)
        assert await handle == 3
        failed = await events_of(handle, "attempt_failed")
        assert [event.data["attempt"] for event in failed] == [1, 2]
    assert [attempt for _, attempt, _ in calls] == [1, 2, 3]
    assert len({key for _, _, key in calls}) == 1


async def test_when_attempts_run_out_the_failure_keeps_its_kind_up_to_the_client(tmp_path: Path):
    async with engine_on(tmp_path, call_shaky) as engine:
        with pytest.raises(WorkflowFailed) as caught:
            await engine.client.execute(call_shaky, 9)
    assert caught.value.kind == "Shaky"
    assert isinstance(caught.value.cause, ActivityFailed)
    assert len(calls) == 3


@activity.define
async def refuse() -> None:
    calls.append(("refuse", 1, ""))
    raise ApplicationError("no", kind="InvalidCard", retryable=False)


@activity.define(retry=Retry(interval="1ms", non_retryable=("ValueError",)))
async def wrong() -> None:
    calls.append(("wrong", 1, ""))
    raise ValueError("bad")


@workflow.define
async def try_both() -> list[str]:
    kinds: list[str] = []
    for what in (refuse, wrong):
        try:
            await what()
        except ActivityFailed as exc:
            kinds.append(exc.kind)
    return kinds


async def test_what_cannot_be_retried_is_tried_once(tmp_path: Path):
    async with engine_on(tmp_path, try_both) as engine:
        assert await engine.client.execute(try_both) == ["InvalidCard", "Internal"]
    assert [name for name, _, _ in calls] == ["refuse", "wrong"]


@activity.define(timeout="30ms", retry=Retry(max_attempts=2, interval="1ms"))
async def never() -> None:
    calls.append(("never", activity.info().attempt, ""))
    await asyncio.Event().wait()


@activity.define(timeout="30ms", retry=Retry(max_attempts=1))
def stuck_thread() -> None:
    release.wait(20)


@activity.define(schedule_timeout="20s", retry=Retry(interval="1m"))
async def always_fails() -> None:
    raise ApplicationError("again")


@activity.define(heartbeat_timeout="40ms", retry=Retry(max_attempts=1))
async def silent() -> None:
    await asyncio.Event().wait()


@workflow.define
async def timeouts() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for what in (never, stuck_thread, always_fails, silent):
        try:
            await what()
        except ActivityFailed as exc:
            found.append((exc.kind, str(exc.details)))
    return found


async def test_each_timeout_ends_its_attempt_and_says_which_it_was(tmp_path: Path):
    async with engine_on(tmp_path, timeouts) as engine:
        found = await engine.client.execute(timeouts)
    assert [kind for kind, _ in found][:2] == ["Timeout", "Timeout"]
    assert "attempt" in found[0][1]
    assert found[2][0] == "Unknown", "the schedule's time ran out between attempts"
    assert found[3][0] == "Timeout" and "heartbeat" in found[3][1]
    assert [attempt for _, attempt, _ in calls] == [1, 2]


@activity.define(queue_timeout="30ms", retry=Retry(max_attempts=1))
async def queued() -> None:
    calls.append(("queued", 1, ""))


@activity.define
async def occupy() -> None:
    while not release.is_set():
        await asyncio.sleep(0.005)  # sleep: the activity under test is busy


@workflow.define
async def crowd() -> str:
    first = asyncio.create_task(occupy())
    await asyncio.sleep(0)  # sleep: none, it lets the other task schedule first
    try:
        await queued()
    except ActivityFailed as exc:
        return f"{exc.kind} {exc.details}"
    finally:
        first.cancel()
    return "ran"


async def test_an_attempt_that_waits_too_long_for_a_slot_times_out_without_running(tmp_path: Path):
    async with engine_on(tmp_path, crowd, activity_slots=1) as engine:
        assert "queue" in await engine.client.execute(crowd)
        release.set()
    assert calls == []


@activity.define(retry=Retry(interval="1ms"))
async def resuming() -> str:
    before = activity.info().heartbeat_details
    if before is None:
        activity.heartbeat({"at": 7})
        raise ApplicationError("interrupted")
    return f"resumed at {before['at']}"


@workflow.define
async def resume() -> str:
    return await resuming()


async def test_heartbeat_details_reach_the_next_attempt(tmp_path: Path):
    async with engine_on(tmp_path, resume) as engine:
        assert await engine.client.execute(resume) == "resumed at 7"


@activity.define
def in_thread(value: int) -> tuple[int, bool]:
    return value, threading.current_thread() is threading.main_thread()


@dataclass
class Order:
    id: str
    cents: int


@activity.define
async def price(order: Order) -> int:
    return order.cents


@workflow.define
async def by_name() -> list[object]:
    value, in_main = await in_thread(3)
    named = await workflow.call("price", {"id": "a", "cents": 5})
    try:
        await workflow.call("price", {"id": "a", "cents": "five"})
    except ActivityFailed as exc:
        wrong = f"{exc.kind}: {exc}"
    try:
        await workflow.call("nobody")
    except ActivityFailed as exc:
        missing = exc.kind
    return [value, in_main, named, wrong, missing]


async def test_threads_names_and_arguments_that_do_not_fit(tmp_path: Path):
    async with engine_on(tmp_path, by_name, price) as engine:
        value, in_main, named, wrong, missing = await engine.client.execute(by_name)
    assert (value, in_main, named, missing) == (3, False, 5, "NotFound")
    assert "Invalid" in str(wrong)
    assert "order.cents" in str(wrong)


@activity.define
async def large() -> str:
    return "x" * 3_000


@activity.define
async def odd() -> object:
    return object()


@workflow.define
async def results() -> list[str]:
    texts: list[str] = []
    for what in (large, odd):
        try:
            await what()
        except ActivityFailed as exc:
            texts.append(f"{exc.kind}: {exc}")
    return texts


async def test_a_result_that_is_too_large_or_has_no_form_fails_the_activity_once(tmp_path: Path):
    async with engine_on(tmp_path, results, max_payload=2_000) as engine:
        too_large, no_form = await engine.client.execute(results)
    assert too_large.startswith("Invalid") and "max_payload" in too_large
    assert no_form.startswith("Invalid") and "JSON" in no_form


started = threading.Event()


@activity.define
async def cancellable() -> None:
    started.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        calls.append(("cancelled", 1, ""))
        raise


@workflow.define
async def give_up() -> str:
    task = asyncio.create_task(cancellable())
    await workflow.listen("enough").receive()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "gave up"
    return "?"


async def test_cancelling_the_await_stops_the_activity_and_is_its_outcome(tmp_path: Path):
    started.clear()
    async with engine_on(tmp_path, give_up) as engine:
        handle = await engine.client.start(give_up)
        await until(started.is_set)
        await handle.send("enough")
        assert await handle == "gave up"
        await until(lambda: bool(calls))
        assert len(await events_of(handle, "activity_cancelled")) == 1


@activity.define(transactional=True, retry=Retry(max_attempts=2, interval="1ms"))
def book(amount: int) -> int:
    connection: sqlite3.Connection = activity.connection()
    connection.execute("create table if not exists booked (amount)")
    connection.execute("insert into booked values (?)", (amount,))
    if amount < 0 and activity.info().attempt == 1:
        raise ApplicationError("first attempt fails after its insert")
    return amount


@activity.define(transactional=True, retry=Retry(max_attempts=1))
def cheat() -> None:
    activity.connection().commit()


@workflow.define
async def booking() -> list[object]:
    first, second = await book(5), await book(-1)
    try:
        await cheat()
    except ActivityFailed as exc:
        return [first, second, str(exc)]
    return []


async def test_a_transactional_activity_writes_with_its_outcome_or_not_at_all(tmp_path: Path):
    async with engine_on(tmp_path, booking) as engine:
        first, second, refused = await engine.client.execute(booking)
    assert (first, second) == (5, -1)
    assert "transaction" in str(refused)
    with sqlite3.connect(tmp_path / "test.db") as connection:
        rows = connection.execute("select amount from booked order by amount").fetchall()
    connection.close()
    assert rows == [(-1,), (5,)], "each committed once; the failed attempt left nothing"


async def test_outside_a_workflow_a_call_is_a_plain_call():
    assert await in_thread(1) == (1, False)
    assert await price(Order("a", 3)) == 3
    with pytest.raises(UsageError):
        activity.info()


async def test_an_attempt_that_is_cancelled_before_its_first_step_leaves_its_slot_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    begin = Runner.begin

    def begin_and_cancel_the_first(runner: Runner, work: Work) -> None:
        begin(runner, work)
        if work.run.workflow_id == "first":
            runner.cancel(work.run, work.number)

    monkeypatch.setattr(Runner, "begin", begin_and_cancel_the_first)
    async with engine_on(tmp_path, call_shaky, activity_slots=1) as engine:
        await engine.client.start(call_shaky, 1, id="first")
        handle = await engine.client.start(call_shaky, 1, id="second")
        assert await handle.result("20s") == 1
        await engine.client.get("first").terminate()
    assert len(calls) == 1
