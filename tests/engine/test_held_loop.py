"""What holds the event loop outside of turns is reported, and does not cost the lease at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from tests.engine.support import engine_on, until

from perdure import activity, workflow
from perdure.engine.guard import _LOOK_EVERY as LOOK_EVERY
from perdure.engine.guard import TurnGuard

looks = threading.Semaphore(0)


def hold(count: int) -> None:
    """Hold the thread until a guard has looked so often."""
    while looks.acquire(blocking=False):
        pass
    for _ in range(count):
        assert looks.acquire(timeout=20)


@activity.define
async def blocks() -> None:
    hold(30)


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
    look = TurnGuard._watch_loop

    def counted(guard: TurnGuard) -> None:
        look(guard)
        looks.release()

    monkeypatch.setattr(TurnGuard, "_watch_loop", counted)
    async with engine_on(tmp_path, calls) as engine:
        handle = await engine.client.start(calls, id="held")
        await handle.result("20s")
    # A slow machine may have held the loop before.
    [text] = [text for text in _held(caplog) if "blocks" in text]
    assert "activity blocks of 'held' (attempt 1)" in text
    assert "looks.acquire(timeout=20)" in text


async def test_while_the_loop_is_held_the_lease_is_extended_up_to_the_limit(
    caplog: pytest.LogCaptureFixture,
):
    extended: list[int] = []
    looked = 0
    guard = TurnGuard(limit=0.5, warn_after=0.1, on_held=lambda: extended.append(looked))
    guard._loop = asyncio.get_running_loop()  # no thread: this test says when to look

    def look() -> None:
        nonlocal looked
        looked += 1
        guard._watch_loop()

    async def look_often() -> None:
        for _ in range(40):
            look()
            await asyncio.sleep(0)  # sleep: the loop goes on

    await look_often()
    assert not extended
    began = looked
    for _ in range(40):
        look()
    assert extended
    assert extended[-1] - began < 0.8 / LOOK_EVERY, "not beyond the limit, after it was asked"
    count = len(extended)
    await look_often()
    assert len(extended) == count, "a loop that goes on is left alone"
    assert len(_held(caplog)) == 1


async def test_an_extension_that_fails_does_not_end_the_guard():
    from perdure.errors import LeaseLost

    failures = threading.Semaphore(0)

    def fail() -> None:
        failures.release()
        raise LeaseLost("gone")

    guard = TurnGuard(limit=9, warn_after=0.05, on_held=fail)
    guard.start()
    try:
        for _ in range(3):
            assert failures.acquire(timeout=20), "the loop is held meanwhile"
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
