"""A worker says at its start which lines of its workflows a replay may not repeat."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from tests.engine.support import engine_on

from perdure import activity, workflow


@activity.define
async def clock() -> float:
    return time.time()


def late() -> float:
    return time.time()


async def test_an_engine_warns_of_what_it_is_given_and_of_what_it_gets_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    @workflow.define
    async def careless() -> float:
        return time.time()

    @workflow.define
    async def careless_too() -> float:
        return late()

    @workflow.define
    async def careful() -> float:
        return await clock()

    with caplog.at_level(logging.WARNING, "perdure.lint"):
        async with engine_on(tmp_path, careless, careful, clock) as engine:
            assert [record.name for record in caplog.records] == ["perdure.lint"]
            caplog.clear()
            engine.register(careless_too)
            (record,) = caplog.records
            assert f"test_code_warnings.py:{late.__code__.co_firstlineno + 1}: clock: " in (
                record.getMessage()
            )
            caplog.clear()
        async with engine_on(tmp_path, careless, careful, clock):
            assert caplog.records == [], "once per process"


async def test_definitions_given_before_the_start_are_checked_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    @workflow.define
    async def careless() -> float:
        return time.time()

    engine = engine_on(tmp_path)
    engine.register(careless)
    assert caplog.records == []
    async with engine:
        assert "clock: time.time()" in caplog.text
