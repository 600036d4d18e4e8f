"""What models say of an instance's data and visits: the same as the instance itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.engine.support import until
from tests.seed4.database import engine_in
from tests.seed4.steps import Note
from tests.seed4.test_models import compare

from perdure import activity, workflow
from perdure.contrib.sqlalchemy import HumanTaskRepository, WorkflowInstanceRepository
from perdure.executing.state import QUERY
from perdure.graph import (
    BaseHumanStep,
    BaseMachineStep,
    DeferredChoice,
    Edge,
    SequentialGroup,
    TimerStep,
    WebhookStep,
    WorkflowDefinition,
    branch,
    flow,
)

WAITS = {"ask", "which", "pay", "end"}
Act = Callable[[Any, Any], Awaitable[None]]


@activity.define(name="lookup")
async def lookup(_: Any) -> dict[str, Any]:
    """Give what looks like what a handler's outcome is recorded as."""
    return {"output": 3, "changes": {"data": {"x": 1}, "metadata": {"y": 2}}}


async def send(engine: Any, instance: Any) -> None:
    await instance.handle.send("pay", {"amount": 1})


async def reject(engine: Any, instance: Any) -> None:
    people = engine.client.human_tasks
    asked = (await people.list(workflow_id=instance.handle.id)).items[0]
    await people.reject(asked.id, "too dear", by="bob")


async def set_metadata(engine: Any, instance: Any) -> None:
    await instance.handle.set_metadata({"approved": True})
    await instance.handle.send("pay")


async def enter(engine: Any, instance: Any) -> None:
    await engine.complete_human_task(instance.id, "ask", "ada", {"sum": 5})
    await until(lambda: "pay" in instance.current_steps)
    await send(engine, instance)


async def nothing(engine: Any, instance: Any) -> None:
    """Nobody does anything."""


def grouped() -> WorkflowDefinition:
    group = SequentialGroup(BaseHumanStep("ask", title="?"), WebhookStep("pay", "paid"), name="all")
    steps = [group, WebhookStep("end")]
    return WorkflowDefinition("grouped", steps=steps, edges=[Edge("all", "end")])


@pytest.mark.parametrize(
    ("definition", "act"),
    [
        (
            flow("rejected")
            .human("ask", title="?", on_reject="no")
            .pass_("yes", end=True)
            .pass_("no"),
            reject,
        ),
        (
            flow("expired")
            .human("ask", title="?", due="1ms", on_expire="no")
            .pass_("yes", end=True)
            .pass_("no"),
            nothing,
        ),
        (
            flow("deferred").add(DeferredChoice("which", {"pay": "a", "other": "a"})).pass_("a"),
            send,
        ),
        (
            flow("within").parallel(
                "both",
                [branch("one").add(WebhookStep("pay", "paid")), branch("two").add(Note("note"))],
            ),
            send,
        ),
        (flow("job").task("look", job="lookup"), nothing),
        (flow("told").add(WebhookStep("pay", "paid")), set_metadata),
        (grouped(), enter),
    ],
    ids=lambda given: given.name if hasattr(given, "name") else "",
)
async def test_the_models_have_what_came_from_outside_as_the_instance_has_it(
    tmp_path: Path, definition: Any, act: Act
):
    if not isinstance(definition, WorkflowDefinition):
        definition = definition.webhook("end").build()
    async with engine_in(tmp_path, definition, definitions=[lookup]) as (engine, session):
        instance = await engine.start_workflow(definition, {"n": 1})
        await until(lambda: not WAITS.isdisjoint(instance.current_steps))
        await act(engine, instance)
        await until(lambda: instance.current_step == "end")
        await compare(engine, session, instance.id)


class Late(BaseMachineStep):
    """Ends once the test has let its item go on."""

    doors: ClassVar[dict[int, asyncio.Event]] = {}

    async def execute(self, context: Any) -> int:
        await self.doors[context.prev["n"]].wait()
        return context.prev["n"] * 10


def items(_: Any) -> list[dict[str, Any]]:
    return [{"n": 1, "who": "ada"}, {"n": 2, "who": "bob"}, {"n": 3, "who": "eve"}]


def once_each(name: str, step: Any) -> WorkflowDefinition:
    return flow(name).map("each", branch("one").add(step), items=items).webhook("end").build()


async def test_visits_of_one_step_that_are_under_way_together_are_told_apart(tmp_path: Path):
    Late.doors = {n: asyncio.Event() for n in (1, 2, 3)}
    definition = once_each("late", Late("late"))
    async with engine_in(tmp_path, definition) as (engine, session):
        instance = await engine.start_workflow(definition)
        handle = engine.client.get(instance.id)
        Late.doors[2].set()

        async def is_told(count: int) -> bool:
            history = await handle.history()
            told = [it for it in history if it.kind == "emitted" and it.data.get("step") == "late"]
            return sum(it.data["name"] == "step.completed" for it in told) == count

        await until(lambda: is_told(1))
        model = await compare(engine, session, instance.id)
        outputs = [it.output_data for it in model.step_executions if it.step_name == "late"]
        assert outputs == [None, 20, None]
        last = (await handle.describe()).step_results["late"]
        assert (last["status"], last["output"]) == ("running", None)
        Late.doors[3].set()
        await until(lambda: is_told(2))
        last = (await handle.describe()).step_results["late"]
        assert (last["status"], last["output"]) == ("completed", 30)
        Late.doors[1].set()
        await until(lambda: instance.current_step == "end")
        await compare(engine, session, instance.id)


async def test_each_human_task_is_of_the_visit_that_asked(tmp_path: Path):
    ask = BaseHumanStep("ask", title="?", assignee=lambda context: context.prev["who"])
    definition = once_each("asked", ask)
    async with engine_in(tmp_path, definition) as (engine, session):
        instance = await engine.start_workflow(definition)
        tasks = HumanTaskRepository(session=session)

        async def is_asked() -> bool:
            return len(await tasks.find_by_instance(instance.id)) == 3

        await until(is_asked)
        found = {it.assignee_id: it for it in await tasks.find_by_instance(instance.id)}
        for person in ("eve", "ada"):
            await tasks.complete_task(found[person].id, person, {"by": person})

        async def is_done() -> bool:
            model = await WorkflowInstanceRepository(session=session).get(instance.id)
            return sum(it.output_data is not None for it in model.step_executions) == 2

        await until(is_done)
        visits = {
            it.id: (it.assigned_to, it.completed_by, it.output_data)
            for it in (await compare(engine, session, instance.id)).step_executions
        }
        assert {who: visits[task.step_execution_id] for who, task in found.items()} == {
            "ada": ("ada", "ada", {"by": "ada"}),
            "bob": ("bob", None, None),
            "eve": ("eve", "eve", {"by": "eve"}),
        }


async def test_timers_polls_and_children_are_told_apart_by_what_they_wait_for(tmp_path: Path):
    @workflow.define(name="nap")
    async def nap(item: Any) -> int:
        await workflow.sleep(f"{4 - item['n']}ms")
        return item["n"]

    async def check(item: Any) -> dict[str, Any]:
        return {"done": True, "result": item["n"]}

    def some_time(context: Any) -> str:
        return f"{4 - context.prev['n']}ms"

    definition = (
        flow("mixed")
        .map("naps", branch("a").add(TimerStep("wait", some_time)), items=items)
        .map("polls", branch("b").poll("poll", check, interval="1ms", max_attempts=2), items=items)
        .map("children", branch("c").subflow("child", nap), items=items)
        .webhook("end")
        .build()
    )
    async with engine_in(tmp_path, definition, definitions=[nap]) as (engine, session):
        instance = await engine.start_workflow(definition)
        await until(lambda: instance.current_step == "end")
        model = await compare(engine, session, instance.id)
        said = (await engine.client.get(instance.id).query(QUERY))["step_history"]
        ends = [it.completed_at for it in model.step_executions if it.completed_at]
        assert ends == [datetime.fromisoformat(it["completed_at"]) for it in said[:-1]]
