"""What models say that an instance has gathered: the same as the instance itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import until
from tests.seed4.database import engine_in
from tests.seed4.steps import Note
from tests.seed4.test_models import compare

from perdure import activity
from perdure.graph import (
    BaseHumanStep,
    DeferredChoice,
    Edge,
    SequentialGroup,
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
