"""Options of steps that are changed under an open run: it goes on, or is parked until they fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Engine, Retry, Status
from perdure.engine import sweep
from perdure.graph import (
    ExclusiveGateway,
    ParallelGroup,
    TaskStep,
    TimerStep,
    WorkflowDefinition,
    flow,
)

asked: list[int] = []


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "FIRST_SECONDS", 0.0)
    asked.clear()


def count(number: int) -> int:
    return number + 1


def ask() -> dict[str, Any]:
    asked.append(1)
    return {"done": len(asked) == 3, "result": 1}


def machine(**changed: Any) -> WorkflowDefinition:
    """Return a machine that has polled and gone round three times when it waits for a message."""

    def of(step: str, **options: Any) -> dict[str, Any]:
        return options | changed.get(step, {})

    return (
        flow("machine")
        .poll("poll", ask, **of("poll", interval="1ms", max_attempts=9, timeout="1h"))
        .task("count", count, **of("count"))
        .loop(
            "again",
            lambda c: c.prev < 4,
            "count",
            **of("again", interval="1ms", max_iterations=9, timeout="1h"),
        )
        .wait("pause", **of("pause", duration="1ms"))
        .webhook("come", **of("come", timeout="1h"))
        .build()
    )


HARMLESS: list[dict[str, Any]] = [
    {"poll": {"interval": "2h", "max_attempts": 3, "timeout": "2h"}},
    {"again": {"interval": "2h", "max_iterations": 2, "timeout": "2h"}},
    {"count": {"retry": Retry(max_attempts=3), "timeout": "1s", "output": {"type": "string"}}},
    {"pause": {"duration": "2h"}, "come": {"timeout": "2h"}},
]
STRANDING: list[dict[str, Any]] = [
    {"poll": {"max_attempts": 2}},
    {"poll": {"timeout": "1us"}},
    {"count": {"input": {"type": "string"}}},
    {"again": {"interval": None}},
    {"again": {"max_iterations": 1}},
    {"again": {"timeout": "1us"}},
    {"pause": {"duration": 0}},
    {"come": {"timeout": None}},
]


@pytest.mark.parametrize("changed", HARMLESS, ids=str)
async def test_spans_and_bounds_that_a_run_has_not_passed_may_change(
    tmp_path: Path, changed: dict[str, Any]
):
    await begin(tmp_path)
    async with swept(tmp_path, machine(**changed)) as engine:
        handle = engine.client.get("m-1")
        await handle.send("come", "there")
        assert await handle.result("20s") == "there"


@pytest.mark.parametrize("changed", STRANDING, ids=str)
async def test_a_change_that_a_run_does_not_fit_is_found_by_the_sweep_and_undone_by_the_old_option(
    tmp_path: Path, changed: dict[str, Any]
):
    await begin(tmp_path)
    async with swept(tmp_path, machine(**changed)) as engine:
        handle = engine.client.get("m-1")
        await until_status(handle, Status.PARKED)
        said = await handle.why()
        assert "the old version beside the new one" in said
        assert ".py" not in said, "no line of the user's is to blame"
    async with swept(tmp_path, machine()) as engine:
        handle = engine.client.get("m-1")
        await until_status(handle, Status.WAITING)
        await handle.send("come", "there")
        assert await handle.result("20s") == "there"


async def test_what_a_step_class_says_of_itself_is_looked_at_too(tmp_path: Path):
    def asleep(span: str) -> WorkflowDefinition:
        nap = type("Nap", (TimerStep,), {"name": "nap", "duration": span})
        return WorkflowDefinition("machine", steps=[nap])

    await begin(tmp_path, asleep("1h"))
    async with swept(tmp_path, asleep("0s")) as engine:
        await until_status(engine.client.get("m-1"), Status.PARKED)
    async with swept(tmp_path, asleep("2h")) as engine:
        await until_status(engine.client.get("m-1"), Status.WAITING)


def test_what_subclasses_decide_is_workflow_code():
    class Nap(TimerStep):
        async def get_duration(self, context: Any) -> str:
            return "1s"

    class Which(ExclusiveGateway):
        async def evaluate(self, context: Any) -> str:
            return "nap"

    made = WorkflowDefinition("w", steps=[Which("which"), Nap("nap")], edges=[("which", "nap")])
    assert made.validate() == []
    assert {Which.evaluate, Nap.get_duration} <= {*made.parts}


def test_what_is_told_of_options_is_the_same_in_each_process():
    class Odd:
        pass

    def made() -> WorkflowDefinition:
        group = ParallelGroup(TaskStep("a", count, input={"b": {1, 2}}), TaskStep("b", count))
        group.given["data"] = {"odd": Odd(), Odd(): 1, "fn": lambda: 1}
        return WorkflowDefinition("w", steps=[group])

    assert made().parts == made().parts
    assert any(str(part).startswith("a [") for part in made().parts), "parts of groups count"


async def begin(folder: Path, definition: WorkflowDefinition | None = None) -> None:
    async with swept(folder, definition or machine()) as engine:
        handle = await engine.client.start("machine", 0, id="m-1")

        async def is_there() -> bool:
            last = (await handle.describe()).current_step
            return last in ("come", "nap")

        await until(is_there)
        await until_status(handle, Status.WAITING)


@asynccontextmanager
async def swept(folder: Path, definition: WorkflowDefinition) -> AsyncGenerator[Engine]:
    """Run an engine; the block begins when it has looked at what waits."""
    async with engine_on(folder, definition) as engine:
        core = engine._core
        assert core is not None

        async def is_done() -> bool:
            found = await core.desk.read(lambda store: store.sweeps())
            done = {mark.workflow: mark.code for mark in found if not mark.worker}
            return done == core.registry.codes()

        await until(is_done)
        yield engine
