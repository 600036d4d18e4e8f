"""What every class of the page is told in its class body counts as much as an argument does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import until

from perdure import Client, Engine, Retry
from perdure.errors import ApplicationError
from perdure.graph import (
    BaseGateway,
    BaseHumanStep,
    BaseMachineStep,
    ConditionalGroup,
    Edge,
    ExclusiveGateway,
    LocalExecutionEngine,
    ParallelGateway,
    ParallelGroup,
    SequentialGroup,
    TimerStep,
    WebhookStep,
    WorkflowContext,
    WorkflowDefinition,
    WorkflowRegistry,
    branch,
    flow,
)
from perdure.graph.steps import BaseStep


class Left(BaseMachineStep):
    name = "left"

    async def execute(self, context: WorkflowContext) -> str:
        return "left"


class Right(BaseMachineStep):
    name = "right"

    async def execute(self, context: WorkflowContext) -> str:
        return "right"


class Bare:
    """Follows the protocol, and is no class of Perdure's."""

    name = "bare"
    description = ""

    async def execute(self, context: WorkflowContext) -> str:
        return "bare"

    async def can_execute(self, context: WorkflowContext) -> bool:
        return True

    async def on_success(self, context: WorkflowContext, result: Any) -> None: ...

    async def on_failure(self, context: WorkflowContext, error: Exception) -> None: ...


async def play(*steps: Any, data: Mapping[str, Any] | None = None, edges: Any = ()) -> Any:
    definition = WorkflowDefinition("told", steps=steps, edges=edges)
    registry = WorkflowRegistry()
    registry.register_definition(definition)
    async with LocalExecutionEngine(registry) as engine:
        instance = await engine.start_workflow("told", {**(data or {})})
        await instance.ended()
        assert instance.error is None
        return instance


WAYS = (Edge("which", "left"), Edge("which", "right"))


class ByMethod(ExclusiveGateway):
    name = "which"

    def condition(self, context: WorkflowContext) -> str:
        return "right"


class ByLambda(ExclusiveGateway):
    name = "which"
    condition = lambda context: context.get("way")  # noqa: E731 - as users write it


class ByExpression(ExclusiveGateway):
    name = "which"
    condition = 'context.get("way")'


class Awaited(ExclusiveGateway):
    name = "which"

    async def condition(self, context: WorkflowContext) -> str:
        return "right"


class Plain(BaseGateway):
    name = "which"

    def evaluate(self, context: WorkflowContext) -> str:  # type: ignore[override]
        return "right"


@pytest.mark.parametrize("gateway", [ByMethod, ByLambda, ByExpression, Awaited, Plain])
async def test_a_gateway_decides_as_its_class_body_says(gateway: type[BaseGateway]):
    instance = await play(gateway, Left, Right, data={"way": "right"}, edges=WAYS)
    assert [*instance.context.steps] == ["right"]


async def test_the_branches_of_a_parallel_gateway_may_stand_in_its_class_body():
    class Both(ParallelGateway):
        name = "both"
        branches = ("left", Right)

    definition = WorkflowDefinition("told", steps=[Both, Left, Right])
    assert definition.validate() == []
    assert [*(await play(Both, Left, Right)).context.steps] == ["left", "right"]


class Short(TimerStep):
    name = "nap"
    duration = timedelta(milliseconds=1)


class ShortByLambda(TimerStep):
    name = "nap"
    duration = lambda context: context.get("span")  # noqa: E731 - as users write it


class ShortAwaited(TimerStep):
    name = "nap"

    async def get_duration(self, context: WorkflowContext) -> str:  # type: ignore[override]
        return "1ms"


@pytest.mark.parametrize("timer", [Short, ShortByLambda, ShortAwaited])
async def test_a_timer_waits_as_its_class_body_says(timer: type[TimerStep]):
    instance = await play(timer, Left, data={"span": "1ms"}, edges=[Edge("nap", "left")])
    assert instance.result == "left"


def test_a_webhook_takes_its_key_where_seed_4_has_it():
    step = WebhookStep("paid", "payment")
    assert (step.callback_key, step.description) == ("payment", "")
    assert WebhookStep("paid").callback_key == "webhook_data"


class OfLambda(BaseHumanStep):
    name = "review"
    title = lambda context: f"For {context.get('who')}"  # noqa: E731 - as users write it
    assignee = lambda context: context.get("who")  # noqa: E731


async def test_a_human_step_may_have_functions_of_the_context_in_its_class_body():
    registry = WorkflowRegistry()
    registry.register_definition(WorkflowDefinition("asks", steps=[OfLambda]))
    async with LocalExecutionEngine(registry) as engine:
        instance = await engine.start_workflow("asks", {"who": "ada"})
        await until(lambda: instance.status == "waiting")
        (asked,) = (await engine.client.human_tasks.list()).items
        assert (asked.title, asked.assignee) == ("For ada", "ada")


class Chosen(ConditionalGroup):
    name = "chosen"
    branches = {"l": Left, "r": Bare}  # noqa: RUF012 - as users write it

    def condition(self, context: WorkflowContext) -> Any:
        return context.get("way")


@pytest.mark.parametrize(
    ("group", "gives"),
    [
        (SequentialGroup(Left, Bare()), "bare"),
        (type("Two", (SequentialGroup,), {"steps": (Left, Right)})(), "right"),
        (ParallelGroup(Left, Bare), ["left", "bare"]),
        (type("All", (ParallelGroup,), {"steps": (Left,), "callback": Bare})(), "bare"),
        (Chosen(), "bare"),
        (ConditionalGroup('context.get("way")', {"l": Left, "r": Right}), "right"),
        (ConditionalGroup('context.get("way") == "l"', {True: Left, False: Right}), "right"),
    ],
)
async def test_a_group_takes_classes_and_objects_of_the_protocol(group: BaseStep, gives: Any):
    assert (await play(group, data={"way": "r"})).result == gives


def test_what_a_conditional_group_lacks_is_a_mistake():
    for condition, says in ((None, "no condition"), ("left", "names no context")):
        group = ConditionalGroup(condition, {"left": Left}, name="g")
        (mistake,) = WorkflowDefinition("g", steps=[group]).validate()
        assert says in mistake


def test_an_edge_evaluates_its_condition():
    context = WorkflowContext(data={"n": 2})
    assert Edge("a", "b").evaluate_condition(context)
    assert Edge("a", "b", "approved").evaluate_condition(context)
    assert not Edge("a", "b", 'context.get("n") > 2').evaluate_condition(context)
    assert not Edge("a", "b", lambda c: c.get("n") > 2).evaluate_condition(context)


async def never(context: WorkflowContext) -> bool:
    return False


async def test_a_condition_that_is_async_is_a_mistake_and_never_holds():
    graph = WorkflowDefinition("g", steps=[Left, Right], edges=[Edge("left", "right", never)])
    (mistake,) = graph.validate()
    assert mistake.startswith(
        "Edge from 'left' to 'right': condition never is async: write it with `def`"
    )
    with pytest.raises(ApplicationError, match="condition never is async"):
        Edge("left", "right", never).evaluate_condition(None)
    with pytest.raises(ApplicationError, match="is async"):
        Edge("left", "right", lambda c: never(c)).evaluate_condition(None)


async def test_steps_that_two_definitions_share_keep_their_place_in_each(tmp_path: Path):
    tries: list[str] = []

    class Shaky(BaseMachineStep):
        name = "shaky"

        async def execute(self, context: WorkflowContext) -> str:
            tries.append(context.workflow_id)
            raise ValueError("no")

    shared = Shaky()
    stubborn = WorkflowDefinition(
        "stubborn", steps=[shared], default_retry=Retry(max_attempts=3, interval="1ms")
    )
    plain = WorkflowDefinition("plain", steps=[shared])
    part = branch("part").task("one", _one)
    first = flow("first").parallel("both", [part]).build()
    second = flow("second").parallel("both", [part]).build()
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    async with Engine(url, [stubborn, plain, first, second]) as engine:
        for definition in (stubborn, plain, first):
            handle = await engine.client.start(definition, {}, id=definition.name)
            await asyncio.wait({asyncio.ensure_future(handle.result())})
    assert tries == ["stubborn"] * 3 + ["plain"]
    async with Client(url) as client:
        for name, activity in (("stubborn", "stubborn.shaky"), ("first", "first.both.part.one")):
            scheduled = [
                event.data["name"]
                for event in await client.get(name).history()
                if event.kind == "activity_scheduled"
            ]
            assert set(scheduled) == {activity}


async def _one(input: Any, ctx: WorkflowContext) -> int:
    return 1
