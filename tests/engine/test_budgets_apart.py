"""Budgets and activities in subprocesses: what they spend there is spent, and refused, here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.engine.spending_apart import spends
from tests.engine.support import engine_on

from perdure import Engine
from perdure.errors import WorkflowFailed
from perdure.handle import Handle
from perdure.values.budgets import RUNS


async def start(engine: Engine, *calls: list[Any], budget: Mapping[str, Any]) -> Handle[Any]:
    return await engine.client.start(spends, list(calls), budget=budget)


async def used(engine: Engine, handle: Handle[Any], unit: str = "tokens") -> tuple[float, float]:
    """Return what is used and reserved."""
    rows = await engine.client.door.read(lambda store: store.budgets([handle.run_id]))
    [row] = [row for row in rows if row.unit == unit]
    return row.used / 1_000_000, row.reserved / 1_000_000


@pytest.mark.parametrize("name", ["ask", "ask_plainly"])
async def test_they_spend_and_what_is_too_much_fails_without_a_retry(tmp_path: Path, name: str):
    async with engine_on(tmp_path, spends) as engine:
        handle = await start(engine, [name, 30], [name, 40], [name, 50], budget={"tokens": 100})
        with pytest.raises(WorkflowFailed) as failed:
            await handle.result("30s")
        cause: Any = failed.value.cause
        while cause.cause is not None:
            cause = cause.cause
        assert (cause.code, cause.kind) == ("budget_exceeded", "RateLimited")
        kept = 28 if name == "ask_plainly" else 30
        assert cause.details == {
            "unit": "tokens",
            "wanted": "50",
            "left": f"{kept}",
            "budget": handle.run_id,
        }
        assert "test_budgets_apart" not in cause.message
        assert await used(engine, handle) == (100 - kept, 0)


@pytest.mark.parametrize(
    ("how", "most", "given", "expected"),
    [
        ("", 60, 20, (20, 0)),  # the rest is given back
        ("", 60, None, (60, 0)),  # nothing was said: it counts as used
        ("fail", 60, 20, (40, 0)),  # two attempts
        ("die", 60, 20, (80, 0)),  # what the lost one had reserved may have been used
    ],
)
async def test_what_was_reserved_is_settled(
    tmp_path: Path, how: str, most: int, given: int | None, expected: tuple[float, float]
):
    async with engine_on(tmp_path, spends) as engine:
        handle = await start(engine, ["careful", most, given, how], budget={"tokens": 200})
        assert await handle.result("30s") == ["answer"]
        assert await used(engine, handle) == expected


async def test_each_question_gets_its_own_answer(tmp_path: Path):
    async with engine_on(tmp_path, spends) as engine:
        handle = await start(engine, ["many_at_once", 5], budget={"tokens": 65})
        [told] = await handle.result("30s")
        assert told == ["spent", "spent", "spent", "40 of 5", "50 of 5"]
        assert await used(engine, handle) == (60, 0)


async def test_an_attempt_pays_for_its_call_before_its_function_begins(tmp_path: Path):
    folder = str(tmp_path)
    async with engine_on(tmp_path, spends) as engine:
        paid = await start(engine, ["noted", folder], budget={"calls": 2, RUNS: 0})
        assert await paid.result("30s") == [2]
        assert await used(engine, paid, "calls") == (2, 0)
        poor = await start(engine, ["noted", folder], budget={"calls": 1})
        with pytest.raises(WorkflowFailed, match="calls"):
            await poor.result("30s")
        assert (tmp_path / "notes").read_text().splitlines() == ["entered"] * 3


async def test_without_a_budget_they_spend_without_limit(tmp_path: Path):
    async with engine_on(tmp_path, spends) as engine:
        handle = await engine.client.start(spends, [["ask", 10**6], ["ask_plainly", 10**6]])
        assert await handle.result("30s") == ["answer", "answer"]
