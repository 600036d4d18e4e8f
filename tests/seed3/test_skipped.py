"""Skipped steps: those that a run passes over, in what it tells and shows of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status
from tests.seed3.test_machines import order_flow
from tests.seed4.steps import Note

from perdure import Engine, Status
from perdure.errors import WorkflowFailed
from perdure.graph import ConditionalGroup, ParallelGateway, WorkflowDefinition, branch, flow


async def told(engine: Engine, id: str) -> list[tuple[str, str]]:
    """Return what listeners are told of steps: the event and the step."""
    return [
        (event.name.removeprefix("workflow.step."), event.data["step_name"])
        async for event in engine.client.events("workflow.step.*", follow=False, workflow_id=id)
    ]


async def skipped(engine: Engine, id: str) -> list[str]:
    return [name for kind, name in await told(engine, id) if kind == "skipped"]


async def statuses(engine: Engine, id: str) -> dict[str, str]:
    found = await engine.client.get(id).describe()
    return {name: visit["status"] for name, visit in found.step_results.items()}


async def run(folder: Path, definition: WorkflowDefinition, input: Any = None) -> Any:
    """Run it to its end; return what is skipped, in the order in which that was told."""
    async with engine_on(folder, definition) as engine:
        await engine.client.execute(definition, input, id="a")
        found = await skipped(engine, "a")
        shown = await statuses(engine, "a")
        assert [name for name, status in shown.items() if status == "skipped"] == found
        history = (await engine.client.get("a").query("graph"))["step_history"]
        assert [it["step_name"] for it in history if it["status"] == "skipped"] == found
        assert sorted(shown) == sorted({it["step_name"] for it in history})
        return found


def forked(default: str = "small") -> WorkflowDefinition:
    return (
        flow("forked")
        .choice("size", [("context.input > 10", "large")], default=default)
        .pass_("large", result="large")
        .pass_("check", next="rest")
        .pass_("small", result="small")
        .pass_("rest")
        .build()
    )


async def test_steps_of_a_way_that_is_not_taken_are_skipped_when_that_is_decided(tmp_path: Path):
    definition = forked()
    async with engine_on(tmp_path, definition) as engine:
        await engine.client.execute(definition, 1, id="a")
        kinds = [(kind, name) for kind, name in await told(engine, "a") if kind != "started"]
        found = await engine.client.get("a").describe()
    assert kinds == [
        ("completed", "size"),
        ("skipped", "large"),
        ("skipped", "check"),
        ("completed", "small"),
        ("completed", "rest"),
    ]
    large = found.step_results["large"]
    assert (large["status"], large["started_at"], large["attempts"]) == ("skipped", None, 0)
    assert large["completed_at"] is not None
    assert large["output"] is large["error"] is large["input"] is None


async def test_what_both_ways_lead_to_is_not_skipped(tmp_path: Path):
    assert await run(tmp_path, forked(), 11) == ["small"]


async def test_a_step_that_a_later_round_may_come_to_is_not_skipped_before_the_last(tmp_path: Path):
    definition = (
        flow("rounds")
        .task("count", lambda n: (n or 0) + 1)
        .choice("third", [("context.prev == 3", "cheer")], default="again")
        .pass_("cheer")
        .loop("again", "context.prev < 4", "count", max_iterations=9)
        .pass_("never", end=True)
        .build()
    )
    assert await run(tmp_path, definition) == []


async def test_a_step_that_another_branch_may_come_to_is_not_skipped(tmp_path: Path):
    both = (
        flow("both")
        .add(ParallelGateway("split", ["slow", "fast"]))
        .wait("slow", "5ms", next="late")
        .choice("fast", [("context.input", "late")], default="done")
        .pass_("late", end=True)
        .pass_("done", end=True)
        .build()
    )
    assert await run(tmp_path, both, False) == []


async def test_each_item_of_a_map_passes_over_its_own(tmp_path: Path):
    each = (
        branch("each")
        .choice("odd", [("context.prev % 2 == 1", "odds")], default="evens")
        .pass_("odds", end=True)
        .pass_("evens", end=True)
    )
    definition = flow("mapped").map("all", each, items=lambda _: [1, 3]).build()
    async with engine_on(tmp_path, definition) as engine:
        await engine.client.execute(definition, id="a")
        assert await skipped(engine, "a") == ["evens", "evens"]
        assert (await statuses(engine, "a"))["odds"] == "completed"


async def test_a_group_passes_over_what_its_condition_does_not_name(tmp_path: Path):
    group = ConditionalGroup(lambda _: "a", {"a": Note("in"), "b": Note("out")}, name="group")
    assert await run(tmp_path, flow("grouped").add(group).build()) == ["out"]


async def test_what_an_early_end_leaves_behind_is_skipped_and_progress_is_whole(tmp_path: Path):
    definition = flow("ends").pass_("a").end("b").build()
    assert await run(tmp_path, definition) == []
    early = (
        flow("early")
        .choice("way", [("true || context.prev", "out")], default="on")
        .end("out")
        .pass_("on")
        .build()
    )
    (tmp_path / "b").mkdir()
    async with engine_on(tmp_path / "b", early) as engine:
        await engine.client.execute(early, id="a")
        assert await skipped(engine, "a") == ["on"]
        assert (await engine.client.get("a").describe()).progress == {
            "done": 100,
            "total": 100,
            "note": "out",
        }


async def test_of_a_run_that_fails_what_was_still_ahead_is_not_skipped(tmp_path: Path):
    def fail() -> None:
        raise ValueError("no")

    definition = (
        flow("failing")
        .choice("way", [("context.input", "fail")], default="other")
        .task("fail", fail)
        .pass_("after", end=True)
        .pass_("other")
        .build()
    )
    async with engine_on(tmp_path, definition) as engine:
        with pytest.raises(WorkflowFailed):
            await engine.client.execute(definition, True, id="a")
        assert await skipped(engine, "a") == ["other"]
        assert "after" not in await statuses(engine, "a")


async def test_skipped_steps_are_told_once_though_the_run_is_replayed(tmp_path: Path):
    definition = (
        flow("replayed")
        .choice("way", [("context.input", "ask")], default="other")
        .webhook("ask", end=True)
        .pass_("other")
        .build()
    )
    async with engine_on(tmp_path, definition) as engine:
        handle = await engine.client.start(definition, True, id="a")
        await until_status(handle, Status.WAITING)
        assert await skipped(engine, "a") == ["other"]
    async with engine_on(tmp_path, definition) as engine:
        handle = engine.client.get("a")
        await handle.send("ask", 1)
        assert await handle == 1
        assert await skipped(engine, "a") == ["other"]
        history = (await handle.query("graph"))["step_history"]
        assert [it["step_name"] for it in history] == ["way", "other", "ask"]


async def test_a_retry_from_a_step_that_was_skipped_says_that_the_run_never_came_there(
    tmp_path: Path,
):
    definition = forked()
    async with engine_on(tmp_path, definition) as engine:
        handle = await engine.client.start(definition, 1)
        await handle
        with pytest.raises(Exception, match="never scheduled a step 'large'"):
            await handle.retry(from_step="large")


def test_a_diagram_shows_what_was_skipped():
    styled = order_flow().to_mermaid_with_state(skipped_steps=["backorder"]).splitlines()[-1]
    assert styled == "    style backorder fill:#F5F5F5,stroke:#999999,stroke-dasharray:4"
