"""Where a run of a graph stands, as `list`, `why` and a divergence tell it: its steps' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.support import engine_on, until_status

from perdure import Client, Status
from perdure.graph import branch, flow

ANY: dict[str, Any] = {"type": "object"}


def asking(name: str = "ask") -> Any:
    return flow("asking").human(name, title="May I?", form=ANY, role="boss").build()


async def test_a_waiting_run_stands_at_its_step(tmp_path: Path):
    async with engine_on(tmp_path, asking()) as engine:
        handle = await engine.client.start("asking")
        await until_status(handle, Status.WAITING)
        assert (await handle.describe()).current_step == "ask"
        assert "for a person: 'May I?' (role 'boss') at step 'ask'." in await handle.why()


async def test_a_run_stands_at_all_its_branches_steps(tmp_path: Path):
    graph = (
        flow("waits")
        .parallel("both", [branch("a").wait("one", "1h"), branch("b").webhook("two", topic="t")])
        .build()
    )
    async with engine_on(tmp_path, graph) as engine:
        handle = await engine.client.start("waits")
        await until_status(handle, Status.WAITING)
        assert (await handle.describe()).current_step == "both, one, two"
        assert "at steps 'both', 'one', 'two'." in await handle.why()


async def test_a_graph_that_was_changed_tells_its_steps_and_nothing_of_who_runs_the_worker(
    tmp_path: Path,
):
    async with engine_on(tmp_path, asking()) as engine:
        handle = await engine.client.start("asking", id="a-1")
        await until_status(handle, Status.WAITING)

    async with engine_on(tmp_path, asking("renamed")) as engine:
        handle = engine.client.get("a-1")
        task = (await engine.client.human_tasks.list()).items[0]
        await engine.client.human_tasks.complete(task.id, {}, by="ada")
        await until_status(handle, Status.PARKED)
        said = await handle.why()
    assert "history has human_task_opened 'May I?' (name 'ask')" in said
    assert "asked for human_task_opened 'May I?' (name 'renamed') at step 'renamed'." in said
    assert "give the changed definition a new version" in said
    assert ".py" not in said


async def test_a_decision_that_no_worker_has_taken_up_is_not_waited_for(tmp_path: Path):
    async with engine_on(tmp_path, asking()) as engine:
        handle = await engine.client.start("asking", id="a-1")
        await until_status(handle, Status.WAITING)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}", identity="ada") as client:
        task = (await client.human_tasks.list()).items[0]
        await client.human_tasks.complete(task.id, {})
        said = await client.get("a-1").why()
    assert "what has come in is to be taken up (human_task_decided" in said
    assert "and for a worker: no worker is running" in said
    assert "a person" not in said


def broken(context: Any) -> bool:
    raise KeyError("whoops")


async def test_what_a_condition_raises_is_told_with_its_step(tmp_path: Path):
    graph = flow("deciding").choice("which", [(broken, "one")], default="one").pass_("one").build()
    async with engine_on(tmp_path, graph) as engine:
        handle = await engine.client.start("deciding")
        await until_status(handle, Status.FAILED)
        said = await handle.why()
    assert "KeyError: 'whoops' (test_where_a_run_stands.py:" in said
    assert ', in step "which")' in said
