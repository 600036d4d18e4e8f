"""While an engine runs the interpreter is set for it; afterwards it is as it was."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from perdure import Engine
from perdure.engine import interpreter


@pytest.fixture(autouse=True)
def usual_settings() -> Iterator[None]:
    before = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(0.005)
    gc.set_threshold(700, 10, 10)
    yield
    sys.setswitchinterval(before[0])
    gc.set_threshold(*before[1])


def settings() -> tuple[float, tuple[int, int, int]]:
    return round(sys.getswitchinterval(), 5), gc.get_threshold()


TUNED = interpreter.SWITCH_INTERVAL, (interpreter.FIRST_GENERATION, 10, 10)
USUAL = 0.005, (700, 10, 10)


async def test_settings_last_until_the_last_engine_stops() -> None:
    async with Engine("memory://"):
        async with Engine("memory://"):
            assert settings() == TUNED
        assert settings() == TUNED
    assert settings() == USUAL


async def test_an_engine_that_is_told_so_leaves_the_interpreter_alone() -> None:
    async with Engine("memory://", tune_interpreter=False):
        assert settings() == USUAL


async def test_values_that_are_further_already_stay() -> None:
    sys.setswitchinterval(0.0001)
    gc.set_threshold(50_000, 20, 30)
    async with Engine("memory://"):
        assert settings() == (0.0001, (50_000, 20, 30))
    assert settings() == (0.0001, (50_000, 20, 30))


async def test_collection_that_is_off_stays_off() -> None:
    gc.set_threshold(0, 10, 10)
    async with Engine("memory://"):
        assert gc.get_threshold()[0] == 0
