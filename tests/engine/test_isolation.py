"""Activities in subprocesses: what reaches them, what comes back, what becomes of those lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.engine import isolated
from tests.engine.isolated import calls, calls_together, notes
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import Engine, Status, Watchdog, workflow
from perdure.engine.processes import frames
from perdure.engine.processes.process import Subprocess
from perdure.errors import PerdureError, WorkflowFailed

QUICK = Watchdog(interval="50ms", missed=20)


def pids(engine: Engine) -> list[int]:
    assert engine._core is not None
    return engine._core.runner.apart.pids


def heard(engine: Engine, pattern: str = "workflow.watchdog.*") -> list[tuple[str, dict[str, Any]]]:
    """Return a list that gets the events of an engine."""
    found: list[tuple[str, dict[str, Any]]] = []
    engine.events.on(pattern, lambda event: found.append((event.name, event.data)))
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def call(engine: Engine, *names: Any, **options: Any) -> Any:
    handle = await engine.client.start(calls, list(names), **options)
    return await handle.result("30s")


async def test_async_and_plain_functions_run_in_a_process_that_is_used_again(tmp_path: Path):
    async with engine_on(tmp_path, calls) as engine:
        assert pids(engine) == [], "none before it is needed"
        first, second, third = await call(
            engine,
            ["where", ""],
            ["where_plain", ""],
            ["where", ""],
            id="w",
            context={"tenant": "acme"},
        )
        assert first["pid"] not in {0, os.getpid()}
        assert first["pid"] == second["pid"] == third["pid"]
        assert pids(engine) == [first["pid"]]
    assert (first["id"], first["attempt"], first["tenant"]) == ("w", 1, "acme")
    assert first["key"]
    assert first["key"] != third["key"]
    assert second["id"] == "w"
    assert not is_alive(first["pid"])


async def test_attempts_run_side_by_side_up_to_the_number_of_processes(tmp_path: Path):
    folder = str(tmp_path)
    async with engine_on(tmp_path, calls_together, process_slots=2) as engine:
        both = [["finishes_when_told", folder]] * 4
        handle = await engine.client.start(calls_together, both)
        await until(lambda: len(notes(tmp_path)) == 2)
        busy = {int(pid) for _, pid in notes(tmp_path)}
        assert set(pids(engine)) == busy
        assert engine.under_way == 2
        (tmp_path / "release").touch()
        assert set(await handle.result("30s")) == busy
        assert len(notes(tmp_path)) == 4


impatient = isolated.where.options(queue_timeout="100ms")


@workflow.define
async def queueing() -> Any:
    return await impatient("")


async def test_an_attempt_that_waits_for_a_process_too_long_times_out(tmp_path: Path):
    folder = str(tmp_path)
    async with engine_on(tmp_path, calls, queueing, process_slots=1) as engine:
        first = await engine.client.start(calls, [["finishes_when_told", folder]])
        await until(lambda: bool(notes(tmp_path)))
        second = await engine.client.start(queueing)
        with pytest.raises(WorkflowFailed, match="queue timeout of 0.1 s"):
            await second.result("30s")
        (tmp_path / "release").touch()
        await first.result("30s")


@pytest.mark.parametrize("name", ["waits_once", "spins_once"])
async def test_an_attempt_whose_process_is_killed_is_tried_again_in_another(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [[name, str(tmp_path)]], id="k")
        await until(lambda: len(notes(tmp_path)) == 1)
        pid = int(notes(tmp_path)[0][1])
        os.kill(pid, signal.SIGKILL)
        [result] = await handle.result("30s")
        assert (result["attempt"] if name == "waits_once" else result) == 2
        failed = await events_of(handle, "attempt_failed")
        assert len(await events_of(handle, "attempt_lost")) == 0
    [one, two] = [int(line[1]) for line in notes(tmp_path)]
    assert one == pid != two
    failure = failed[0].data["failure"]
    assert failure["kind"] == "WorkerLost"
    assert failure["message"] == f"lost with its process: subprocess {pid} was ended by SIGKILL"
    facts = {"instance_id": "k", "workflow_name": "calls", "activity": name, "attempt": 1}
    facts |= {"pid": pid, "reason": "exited"}
    assert events == [
        ("workflow.watchdog.stale", {**facts, "timeout": 60.0}),
        ("workflow.watchdog.killed", {**facts, "exit_code": -9}),
    ]
    assert any(f"subprocess {pid}" in record.getMessage() for record in caplog.records)


async def test_a_process_that_is_stopped_is_stale_and_killed_and_its_attempt_is_tried_again(
    tmp_path: Path,
):
    options: dict[str, Any] = {"watchdog": QUICK, "kill_grace": "50ms"}
    async with engine_on(tmp_path, calls, **options) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["waits_once", str(tmp_path)]], id="s")
        await until(lambda: bool(notes(tmp_path, "beaten")))
        pid = int(notes(tmp_path)[0][1])
        os.kill(pid, signal.SIGSTOP)
        [result] = await handle.result("30s")
        assert result["attempt"] == 2
        assert result["left"] == {"page": 7}
        failed = await events_of(handle, "attempt_failed")
    assert not is_alive(pid)
    assert [name for name, _ in events] == ["workflow.watchdog.stale", "workflow.watchdog.killed"]
    assert events[0][1]["timeout"] == 1.0
    assert [facts["reason"] for _, facts in events] == ["heartbeat", "heartbeat"]
    # A stopped process hears SIGTERM when it goes on: SIGKILL, after the grace, does not wait.
    assert events[1][1]["exit_code"] == -9
    assert "gave no sign of life for 1 s" in failed[0].data["failure"]["message"]


async def test_without_the_watchdog_a_stopped_process_is_left_alone(tmp_path: Path):
    watchdog = Watchdog(enabled=False, interval="10ms", missed=1)
    async with engine_on(tmp_path, calls, watchdog=watchdog, kill_grace="10ms") as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["waits_once", str(tmp_path)]])
        await until(lambda: len(notes(tmp_path)) == 1)
        pid = int(notes(tmp_path)[0][1])
        os.kill(pid, signal.SIGSTOP)
        await call(engine, ["where", ""])
        await call(engine, ["where", ""])
        assert is_alive(pid)
        assert events == []
        await handle.terminate()


async def test_a_cpu_bound_function_is_not_taken_for_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, pulses, read = str(tmp_path), 0, frames.read_from_child

    def counted(data: bytes) -> frames.FromChild:
        nonlocal pulses
        frame = read(data)
        pulses += isinstance(frame, frames.Pulse)
        return frame

    monkeypatch.setattr(frames, "read_from_child", counted)
    watchdog = Watchdog(interval="50ms", missed=400)  # it may stand still for long
    async with engine_on(tmp_path, calls, watchdog=watchdog) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["finishes_when_told", folder]])
        await until(lambda: bool(notes(tmp_path)))
        before = pulses
        await until(lambda: pulses > before + 20)
        (tmp_path / "release").touch()
        await handle.result("30s")
        assert events == []


async def test_a_cancelled_async_handler_cleans_up_and_its_process_goes_on(tmp_path: Path):
    async with engine_on(tmp_path, calls) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["cleans_up", str(tmp_path)]])
        await until(lambda: bool(notes(tmp_path)))
        await handle.cancel()
        await until_status(handle, Status.CANCELLED)
        await until(lambda: len(notes(tmp_path)) == 2)
        [[result]] = [await call(engine, ["where", ""])]
        (_, pid), (_, same) = notes(tmp_path)
        assert (int(pid), int(same)) == (result["pid"], result["pid"])
        assert [word for word, _ in notes(tmp_path)] == ["began", "cleaned"]
        assert events == []


async def test_a_plain_handler_that_goes_on_after_a_cancel_is_killed_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    send = Subprocess._signal

    def only_sigterm(process: Subprocess, number: signal.Signals) -> None:
        if number is not signal.SIGKILL:  # a slow machine may take its time
            send(process, number)

    monkeypatch.setattr(Subprocess, "_signal", only_sigterm)
    async with engine_on(tmp_path, calls, kill_grace="50ms", process_slots=1) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["spins_once", str(tmp_path)]])
        await until(lambda: bool(notes(tmp_path)))
        pid = int(notes(tmp_path)[0][1])
        await handle.cancel()
        await until_status(handle, Status.CANCELLED)
        [result] = await call(engine, ["where", ""])
        assert result["pid"] != pid
    assert not is_alive(pid)
    [(name, facts)] = events
    assert name == "workflow.watchdog.killed"
    assert (facts["reason"], facts["pid"], facts["exit_code"]) == ("unresponsive", pid, -15)


async def test_a_program_that_a_handler_has_started_ends_with_its_process(tmp_path: Path):
    async with engine_on(tmp_path, calls, kill_grace="50ms") as engine:
        handle = await engine.client.start(calls, [["starts_a_program", str(tmp_path)]])
        await until(lambda: bool(notes(tmp_path)))
        [[program, _]] = notes(tmp_path)
        assert is_alive(int(program))
        await handle.cancel()
        await until_status(handle, Status.CANCELLED)
        await until(lambda: not is_alive(int(program)) or is_zombie(int(program)))


def is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and nobody has asked how."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_an_attempt_that_times_out_is_over_at_once_and_its_process_soon(tmp_path: Path):
    options: dict[str, Any] = {"kill_grace": "50ms", "process_slots": 2}
    async with engine_on(tmp_path, calls, **options) as engine:
        events = heard(engine)
        handle = await engine.client.start(calls, [["spins_over_its_time", str(tmp_path)]])
        assert await handle.result("30s") == [2]
        failed = await events_of(handle, "attempt_failed")
        assert failed[0].data["failure"]["kind"] == "Timeout"
        await until(lambda: bool(events))
    [one, two] = [int(line[1]) for line in notes(tmp_path)]
    assert one != two
    assert not is_alive(one)
    assert (events[0][1]["reason"], events[0][1]["pid"]) == ("unresponsive", one)


@pytest.mark.parametrize("name", ["cleans_up", "finishes_when_told"])
async def test_a_stop_cuts_off_what_still_runs_and_counts_it(tmp_path: Path, name: str):
    kill_grace = "20s" if name == "cleans_up" else "100ms"
    async with engine_on(tmp_path, calls, kill_grace=kill_grace) as engine:
        await engine.client.start(calls, [[name, str(tmp_path)]], id="cut")
        await until(lambda: bool(notes(tmp_path)))
        pid = int(notes(tmp_path)[0][1])
        await engine.stop("1ms")
        assert not is_alive(pid)
    if name == "cleans_up":
        assert [word for word, _ in notes(tmp_path)] == ["began", "cleaned"]
    (tmp_path / "release").touch()
    async with engine_on(tmp_path, calls) as engine:
        handle = engine.client.get("cut")
        await until(lambda: len(notes(tmp_path)) >= (3 if name == "cleans_up" else 2))
        lost = await events_of(handle, "attempt_lost")
        assert [(e.data["attempt"], e.data["by_stop"]) for e in lost] == [(1, True)]
        await handle.terminate()


async def test_a_stop_gives_what_runs_its_grace(tmp_path: Path):
    async with engine_on(tmp_path, calls) as engine:
        handle = await engine.client.start(calls, [["finishes_when_told", str(tmp_path)]], id="g")
        await until(lambda: bool(notes(tmp_path)))
        stopping = asyncio.create_task(engine.stop("30s"))
        await asyncio.sleep(0)  # sleep: gives way once
        (tmp_path / "release").touch()
        await stopping
    async with engine_on(tmp_path, calls) as engine:
        handle = engine.client.get("g")
        assert await handle.result("30s") == [int(notes(tmp_path)[0][1])]
        assert len(await events_of(handle, "attempt_lost")) == 0


HOWS = ["application", "value", "exit", "cancelled", "result", "large", "interrupt"]


@pytest.mark.parametrize("how", HOWS)
async def test_failures_are_told_as_those_of_inline_activities(tmp_path: Path, how: str):
    async with engine_on(tmp_path, calls, max_payload=5_000) as engine:
        found: list[Any] = []
        for name in ("fails_inline", "fails", "fails_plain"):
            handle = await engine.client.start(calls, [[name, how]])
            with pytest.raises(WorkflowFailed):
                await handle.result("30s")
            failed = await events_of(handle, "activity_failed")
            failure = failed[-1].data["failure"]
            assert "isolated.py" in failure.get("trace", "isolated.py")
            for part in (failure, failure.get("cause") or {}):
                part.pop("trace", None)
            text = str(failure).replace(name, "NAME")
            found.append(text)
        assert found[0] == found[1] == found[2]


async def test_a_failure_keeps_kind_details_cause_and_traceback(tmp_path: Path):
    async with engine_on(tmp_path, calls) as engine:
        with pytest.raises(WorkflowFailed) as caught:
            await call(engine, ["fails", "application"])
        failed = caught.value.cause
        assert isinstance(failed, PerdureError)
        assert (failed.kind, failed.retryable, failed.details) == ("Sold", False, {"sku": 5})
        with pytest.raises(WorkflowFailed) as caught:
            await call(engine, ["fails", "value"])
        assert 'isolated.py", line' in "".join(notes_of(caught.value))
        assert "as it is" in str(caught.value)


def notes_of(error: BaseException | None) -> list[str]:
    found: list[str] = []
    while error is not None:
        found += getattr(error, "__notes__", [])
        error = getattr(error, "cause", None)
    return found


async def test_a_handler_that_ends_its_process_has_failed_and_says_so(tmp_path: Path):
    async with engine_on(tmp_path, calls) as engine:
        with pytest.raises(WorkflowFailed, match="ended with exit code 7"):
            await call(engine, ["fails", "hard exit"])
        assert await call(engine, ["where", ""])


async def test_records_of_logging_come_to_the_engines_loggers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls) as engine:
        await call(engine, ["logs"], id="l")
    told = {(r.name, r.levelname, r.getMessage()) for r in caplog.records}
    assert ("orders.stock", "WARNING", "low: bolts") in told
    assert ("perdure.activity", "WARNING", '[l logs] careful {"shelf":3}') in told
