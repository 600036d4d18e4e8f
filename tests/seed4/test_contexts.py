"""What steps see of their run, and what becomes of their mistakes."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure.errors import DefinitionError, UsageError, WorkflowFailed
from perdure.graph import (
    BaseGateway,
    BaseMachineStep,
    Edge,
    SequentialGroup,
    TimerStep,
    WorkflowDefinition,
    WorkflowGraph,
    branch,
    flow,
)


class Wait(BaseMachineStep):
    """Begins first and ends last."""

    name = "wait"
    others_are_done: asyncio.Event

    async def execute(self, context: Any) -> list[str]:
        async with asyncio.timeout(20):
            await type(self).others_are_done.wait()
        context.set("wait", True)
        return sorted(context.data)


class Put(BaseMachineStep):
    async def execute(self, context: Any) -> None:
        context.set(self.name, True)
        context.data.pop("drop", None)


class Release(Put):
    async def execute(self, context: Any) -> None:
        await super().execute(context)
        Wait.others_are_done.set()


class Tell(BaseMachineStep):
    name = "tell"

    async def execute(self, context: Any) -> Any:
        last = context.get_last_execution("put")
        return [
            sorted(context.data),
            context.get_step_result("wait"),
            context.get_step_result("nobody", "-"),
            last.status if last is not None else None,
            context.with_step("other").current_step,
        ]


async def test_what_a_step_sets_stays_though_one_that_began_before_it_ends_after_it(tmp_path: Path):
    Wait.others_are_done = asyncio.Event()
    edges = [("start", "wait"), ("start", "put"), ("put", "let"), ("let", "tell"), ("wait", "tell")]
    steps = [Put("start"), Wait(), Put("put"), Release("let"), Tell()]
    graph = WorkflowDefinition("side-by-side", steps=steps, edges=[Edge(*ends) for ends in edges])
    async with engine_on(tmp_path, graph) as engine:
        data, seen_by_wait, nothing, status, other = await engine.client.execute(graph, {"drop": 1})
    assert data == ["let", "put", "start", "wait"]
    assert seen_by_wait == ["start", "wait"], "as it was when the step began"
    assert (nothing, status, other) == ("-", "succeeded", "other")


class Mark(BaseGateway):
    """Workflow code that changes what it was lent, while a handler that began before it waits."""

    async def evaluate(self, context: Any) -> str:
        context.set(self.name, True)
        return "let"


@pytest.mark.parametrize("first", ["gate", "put"])
async def test_what_workflow_code_sets_reaches_no_step_that_began_before(
    tmp_path: Path, first: str
):
    Wait.others_are_done = asyncio.Event()
    start = Mark("gate") if first == "gate" else Put("put")
    begin = type("Begin", (BaseGateway,), {"evaluate": _both})("begin")
    steps = [start, begin, Wait(), Mark("late"), Release("let")]
    edges = [Edge(first, "begin"), Edge("begin", "wait"), Edge("begin", "late")]
    if first == "gate":
        start.evaluate = _go_on  # type: ignore[method-assign]
    graph = WorkflowDefinition("marked", steps=steps, edges=[*edges, Edge("late", "let")])
    async with engine_on(tmp_path, graph) as engine:
        handle = await engine.client.start(graph, {})
        await handle.result("20s")
        seen = (await handle.query("graph"))["steps"]["wait"]
    assert seen == sorted([first, "wait"])


async def _both(_: Any, context: Any) -> list[str]:
    return ["wait", "late"]


async def _go_on(context: Any) -> str:
    context.set("gate", True)
    return "begin"


async def test_a_mistake_in_workflow_code_is_told_by_its_class_and_the_step(tmp_path: Path):
    def wrong(context: Any) -> bool:
        return context.steps["nobody"]["n"] > 1

    choosing = flow("choosing").choice("which", [(wrong, "end")], default="end").end().build()
    mapped = flow("mapped").pass_("shape", transform=lambda context: context.no_such).build()
    async with engine_on(tmp_path, choosing, mapped) as engine:
        for definition, says in ((choosing, "KeyError: 'nobody'"), (mapped, "AttributeError")):
            handle = await engine.client.start(definition)
            with pytest.raises(WorkflowFailed, match=says):
                await handle.result("20s")
            error = (await handle.describe()).error
            assert error is not None
            assert f"of {definition.name!r}" in error["trace"]


async def test_a_webhook_that_nobody_calls_fails_its_step_with_the_topic(tmp_path: Path):
    waiting = flow("waiting").webhook("paid", timeout="1ms").build()
    async with engine_on(tmp_path, waiting) as engine:
        text = "Step \"paid\" failed: no message on 'paid' came within 1ms"
        with pytest.raises(WorkflowFailed, match=text) as caught:
            await engine.client.execute(waiting)
        assert caught.value.kind == "Timeout"


async def test_a_machine_may_begin_in_the_middle(tmp_path: Path):
    def step(name: str) -> Any:
        return lambda before: [*(before or []), name]

    looped = (
        flow("looped")
        .task("a", step("a"))
        .task("b", step("b"))
        .loop("back", lambda c: "a" not in c.prev, "a", max_iterations=1)
        .start_at("b")
        .build()
    )
    async with engine_on(tmp_path, looped) as engine:
        assert await engine.client.execute(looped) == ["b", "a", "b"]


def test_options_that_mean_nothing_to_a_kind_are_mistakes():
    graph = WorkflowDefinition("g", steps=[TimerStep("nap", "1s", timeout="5s")])
    assert graph.validate() == ["Step 'nap': timeout= means nothing to a TimerStep"]
    assert WorkflowGraph.from_definition(graph).validate() == graph.validate()


def test_a_graph_is_made_of_a_definition_in_each_of_three_ways():
    made = flow("f").task("a", lambda before: before).end().build()
    ways = [WorkflowGraph(made), WorkflowGraph.from_definition(made), made.get_graph()]
    assert [way.get_next_steps("a") for way in ways] == [["end"]] * 3
    given: Any = {"a": "b"}
    with pytest.raises(UsageError, match=r"'b'} is no definition; give a WorkflowDefinition"):
        WorkflowGraph(given)


class Hasty(BaseMachineStep):
    name = "hasty"

    def execute(self, context: Any) -> Any:  # type: ignore[override]
        return 1

    def can_execute(self, context: Any) -> Any:  # type: ignore[override]
        return True


class Foreign:
    """Follows the protocol, and is no step class of Perdure's."""

    name = "foreign"
    description = ""

    def execute(self, context: Any) -> Any:
        return 1

    async def can_execute(self, context: Any) -> bool:
        return True

    async def on_success(self, context: Any, result: Any) -> None: ...

    async def on_failure(self, context: Any, error: Exception) -> None: ...


def test_methods_that_are_awaited_and_are_plain_are_mistakes_with_class_and_name():
    said = "is not async, and is awaited: write it with `async def`"
    both = f"Hasty.execute {said}; Hasty.can_execute {said}"
    for steps in ([Hasty()], [Hasty]):
        with pytest.raises(DefinitionError) as caught:
            WorkflowDefinition("g", steps=steps)
        assert caught.value.message == f"step 'hasty': {both}"
    with pytest.raises(DefinitionError, match=r"step 'hasty': Hasty\.execute is not async"):
        SequentialGroup(Hasty)
    with pytest.raises(DefinitionError, match=r"step 'foreign': Foreign\.execute is not async"):
        WorkflowDefinition("g", steps=[Foreign()])
    with pytest.raises(DefinitionError, match=r"branch 'b': Step 'hasty': Hasty\.can_execute is"):
        flow("f").parallel("p", [branch("b").add(Hasty())]).build()


def wrapped(fn: Any) -> Any:
    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        return fn(*args)

    return call


def test_a_decorated_method_is_what_it_wraps():
    class Wrapped(BaseMachineStep):
        @wrapped
        async def execute(self, context: Any) -> Any:
            return 1

    assert WorkflowDefinition("g", steps=[Wrapped]).validate() == []
