"""What holds the event loop outside of turns is reported, and does not cost the lease at once."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from tests.engine.support import engine_on, until

from perdure import activity, workflow
from perdure.engine.guard import TurnGuard


@activity.define
async def blocks() -> None:
    time.sleep(0.6)  # noqa: ASYNC251 # sleep: the activity under test blocks the loop


@workflow.define
async def calls() -> None:
    await blocks()


def _held(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [text for text in texts if "held the event loop" in text]


async def test_an_activity_that_blocks_the_loop_is_named_once_with_its_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    defaults = TurnGuard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "warn_after", 0.2)
    async with engine_on(tmp_path, calls) as engine:
        handle = await engine.client.start(calls, id="held")
        await handle.result("20s")
    [text] = _held(caplog)
    assert "activity blocks of 'held' (attempt 1)" in text
    assert "time.sleep(0.6)" in text  # sleep: none, it is what the stack shows


async def test_while_the_loop_is_held_the_lease_is_extended_up_to_the_limit(
    caplog: pytest.LogCaptureFixture,
):
    extended: list[float] = []
    guard = TurnGuard(limit=0.5, warn_after=0.1, on_held=lambda: extended.append(time.monotonic()))
    guard.start()
    try:
        await asyncio.sleep(0.3)  # sleep: the guard has asked the loop at least once
        assert not extended
        began = time.monotonic()
        time.sleep(1.2)  # noqa: ASYNC251 # sleep: the loop is held
        assert extended
        assert extended[-1] - began < 1.1, "not beyond the limit"
        await until(lambda: guard._is_answered)
        count = len(extended)
        await asyncio.sleep(0.4)  # sleep: a loop that goes on is left alone
        assert len(extended) == count
    finally:
        guard.stop()
    assert len(_held(caplog)) == 1


async def test_an_extension_that_fails_does_not_end_the_guard():
    from perdure.errors import LeaseLost

    def fail() -> None:
        raise LeaseLost("gone")

    guard = TurnGuard(limit=9, warn_after=0.05, on_held=fail)
    guard.start()
    try:
        time.sleep(0.6)  # noqa: ASYNC251 # sleep: the loop is held
        assert guard._thread is not None
        assert guard._thread.is_alive()
    finally:
        guard.stop()


async def test_a_takeover_from_a_worker_that_lives_says_that_it_is_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, calls, name="first", lease="300ms") as first:
        assert first._leases is not None
        first._leases.is_stopping = True  # it lives and does not extend its lease
        async with engine_on(tmp_path, calls, name="second"):
            await until(lambda: any("took its runs over" in r.getMessage() for r in caplog.records))
    [text] = [r.getMessage() for r in caplog.records if "took its runs over" in r.getMessage()]
    assert "first" in text
    assert "is silent" in text
    assert "is gone" not in text
