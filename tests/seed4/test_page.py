"""The examples of seed 4's page; what they import is there, by class attributes and arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from tests.engine.support import until

import perdure.graph
from perdure.errors import (
    ApplicationError,
    Conflict,
    DefinitionError,
    Invalid,
    NotFound,
    PerdureError,
)
from perdure.graph import (
    BaseGateway,
    BaseMachineStep,
    ConditionalGroup,
    Edge,
    ExclusiveGateway,
    HumanTaskError,
    InvalidTransitionError,
    LocalExecutionEngine,
    ParallelGateway,
    ParallelGroup,
    SequentialGroup,
    Step,
    StepExecution,
    StepExecutionError,
    StepStatus,
    StepType,
    TaskAlreadyCompletedError,
    TaskNotFoundError,
    TimerStep,
    UnauthorizedTaskError,
    ValidationError,
    WebhookStep,
    WorkflowAlreadyCompletedError,
    WorkflowCanceled,
    WorkflowContext,
    WorkflowDefinition,
    WorkflowGraph,
    WorkflowInstanceNotFoundError,
    WorkflowNotFoundError,
    WorkflowRegistry,
    WorkflowsError,
    WorkflowStatus,
    WorkflowValidationError,
)


def context(**data: Any) -> WorkflowContext:
    return WorkflowContext(
        workflow_id=uuid4(),
        instance_id=uuid4(),
        data=data,
        metadata={"from": "a test"},
        current_step="start",
        step_history=[],
        started_at=datetime.now(UTC),
        user_id="ada",
        tenant_id="acme",
    )


async def play(definition: WorkflowDefinition, data: dict[str, Any]) -> Any:
    registry = WorkflowRegistry()
    registry.register_definition(definition)
    async with LocalExecutionEngine(registry) as engine:
        instance = await engine.start_workflow(definition.name, initial_data=data)
        await until(lambda: instance.is_ended)
        return instance


class SubmitStep(BaseMachineStep):
    async def execute(self, context: WorkflowContext) -> None:
        context.set("submitted", True)


class ReviewStep(BaseMachineStep):
    name = "review"
    description = "Look at it"

    async def execute(self, context: WorkflowContext) -> None:
        context.set("reviewed", context.get("submitted"))


async def test_a_definition_of_class_attribute_steps_runs_and_is_named_by_its_mapping():
    definition = WorkflowDefinition(
        name="approval",
        version="1.0.0",
        description="Simple approval workflow",
        steps={"submit": SubmitStep(), "review": ReviewStep()},
        edges=[Edge("submit", "review")],
        initial_step="submit",
        terminal_steps={"review"},
    )
    assert definition.validate() == []
    assert isinstance(definition.get_graph(), WorkflowGraph)
    assert definition.to_mermaid().startswith("graph TD\n    submit[START: Submit]")
    instance = await play(definition, {"by": "ada"})
    assert instance.status is WorkflowStatus.COMPLETED
    assert instance.context.data == {"by": "ada", "submitted": True, "reviewed": True}


async def test_steps_may_be_classes_and_anything_that_has_the_methods_of_one():
    class Bare:
        name = "bare"
        description = "no base class"
        step_type = StepType.MACHINE

        def __init__(self) -> None:
            self.heard: list[Any] = []

        async def execute(self, context: WorkflowContext) -> int:
            context.set("bare", True)
            if context.get("break"):
                raise ValueError("broken")
            return 7

        async def can_execute(self, context: WorkflowContext) -> bool:
            return not context.get("skip")

        async def on_success(self, context: WorkflowContext, result: Any) -> None:
            self.heard.append(result)

        async def on_failure(self, context: WorkflowContext, error: Exception) -> None:
            self.heard.append(str(error))

    bare = Bare()
    assert isinstance(bare, Step)
    steps = {"submit": SubmitStep, "bare": bare}
    definition = WorkflowDefinition("mixed", steps=steps, edges=[Edge("submit", "bare")])
    done = await play(definition, {})
    assert (done.result, done.context.data) == (7, {"submitted": True, "bare": True})
    skipped = await play(definition, {"skip": True})
    assert skipped.context.get_last_execution("bare").status is StepStatus.SKIPPED
    failed = await play(definition, {"break": True})
    assert failed.error == 'Step "bare" failed: broken'
    assert bare.heard == [7, "broken"]


def test_what_is_no_step_is_refused_with_what_it_lacks():
    class Almost:
        name = "almost"
        description = ""

        async def execute(self, context: Any) -> None: ...

    with pytest.raises(DefinitionError, match="it has no can_execute, on_success, on_failure"):
        WorkflowDefinition("wrong", steps=[Almost()])


async def test_a_single_step_is_done_by_the_engine_with_guard_hooks_and_the_result_before():
    class Guarded(BaseMachineStep):
        name = "guarded"

        async def can_execute(self, context: WorkflowContext) -> bool:
            return context.get("allowed", False)

        async def execute(self, context: WorkflowContext) -> Any:
            if context.get("break"):
                raise KeyError("broken")
            return [context.prev, context.get("_previous_result")]

        async def on_failure(self, context: WorkflowContext, error: Exception) -> None:
            context.set("heard", repr(error))

    engine = LocalExecutionEngine(WorkflowRegistry())
    assert await engine.execute_step(Guarded(), context(), 1) is None
    assert await engine.execute_step(Guarded(), context(allowed=True), 1) == [1, 1]
    seen = context(allowed=True)
    seen.set("break", True)
    with pytest.raises(StepExecutionError, match="Step 'guarded' failed: 'broken'") as caught:
        await engine.execute_step(Guarded(), seen)
    assert isinstance(caught.value.cause, KeyError)
    assert seen.get("heard") == "KeyError('broken')"


async def test_groups_gateways_timers_and_webhooks_can_be_tried_by_themselves():
    class Add(BaseMachineStep):
        by = 1

        async def execute(self, context: WorkflowContext) -> Any:
            before = context.prev
            return (sum(before) if isinstance(before, list) else before or 0) + self.by

    class Wrong(Add):
        async def execute(self, context: WorkflowContext) -> Any:
            raise ValueError("no")

    engine = LocalExecutionEngine(WorkflowRegistry())
    both = SequentialGroup(Add("one"), ParallelGroup(Add("a"), Add("b", by=10)))
    assert await both.execute(context(), engine) == [2, 11]
    with_sum = ParallelGroup(Add("a"), Add("b", by=10), callback=Add("sum", by=100))
    assert await engine.execute_step(with_sum, context(), 1) == 113
    chosen = ConditionalGroup(lambda c: c.get("way"), {"yes": Add("y")})
    assert await chosen.execute(context(way="yes")) == 1
    assert await chosen.execute(context(way="no")) is None
    with pytest.raises(StepExecutionError, match="Step 'bad' failed: no"):
        await SequentialGroup(Add("one"), Wrong("bad")).execute(context())

    gateway = ExclusiveGateway("which", lambda c: c.get("way"))
    assert await engine.execute_step(gateway, context(way="left")) == "left"
    assert await ParallelGateway("all", ["a", "b"]).execute(context()) == ["a", "b"]
    assert await engine.execute_step(WebhookStep("paid"), context(webhook_data=1)) == 1
    assert await engine.execute_step(TimerStep("nap", "1ms"), context()) is None


def test_a_context_is_read_and_written_as_on_the_page():
    seen = context(score=80)
    assert (seen.get("score"), seen.get("other", 1)) == (80, 1)
    seen.set("other", 2)
    assert seen.data == {"score": 80, "other": 2}
    assert seen.with_step("next").data is seen.data
    assert (seen.user_id, seen.tenant_id, seen.current_step) == ("ada", "acme", "start")
    assert seen.metadata["from"] == "a test"
    with pytest.raises(TypeError):
        seen.metadata["from"] = "elsewhere"  # type: ignore[index]


def test_a_hook_that_nothing_would_call_is_a_mistake():
    class Nap(TimerStep):
        async def can_execute(self, context: WorkflowContext) -> bool:
            return False

    graph = WorkflowDefinition("g", steps=[Nap("nap", "1s")])
    assert graph.validate() == ["Step 'nap': can_execute is not called of a TimerStep"]


def test_edges_name_their_ends_and_a_graph_says_which_of_them_hold():
    small = Edge(ReviewStep, "pay", lambda c: c.get("amount") < 10)
    label, plain = Edge("review", "file", "approved"), Edge("review", "tell")
    assert (small.get_source_name(), small.get_target_name()) == ("review", "pay")
    names = ["pay", "file", "tell"]
    graph = WorkflowDefinition(
        "g", steps=[ReviewStep(), *[SubmitStep(n) for n in names]], edges=[small, label, plain]
    ).get_graph()
    assert graph.get_next_steps("review") == names
    assert graph.get_next_steps("review", context(amount=50)) == ["file", "tell"]
    assert graph.get_next_steps("review", context(amount=5)) == names


class Both(BaseGateway):
    name = "both"

    async def evaluate(self, context: WorkflowContext) -> list[str]:
        return ["left", "right"]


@pytest.mark.parametrize(
    "step",
    [
        SubmitStep(),
        ReviewStep("other"),
        Both(),
        ExclusiveGateway(name="which", condition=lambda c: "a"),
        ParallelGateway(name="all", branches=["a", "b"]),
        TimerStep(name="nap", duration="1s"),
        WebhookStep(name="paid", callback_key="data"),
        SequentialGroup(SubmitStep(), ReviewStep()),
    ],
    ids=lambda step: type(step).__name__,
)
def test_each_kind_of_step_follows_the_protocol_and_has_a_name_and_a_type(step: Any):
    assert step.name
    assert step.step_type in [*StepType]
    assert isinstance(step, Step)


def test_the_words_are_those_of_the_page():
    assert [*StepType] == ["machine", "human", "webhook", "timer", "gateway"]
    statuses = "pending scheduled running waiting succeeded failed canceled skipped"
    assert [*StepStatus] == statuses.split()
    assert {"pending", "running", "waiting", "completed", "failed", "canceled"} <= {*WorkflowStatus}
    assert StepExecution("a", StepStatus.RUNNING).output_data is None
    event = WorkflowCanceled(uuid4(), datetime.now(UTC), reason="enough")
    assert (event.reason, event.canceled_by) == ("enough", None)


@pytest.mark.parametrize(
    ("error", "says", "kinds"),
    [
        (
            WorkflowNotFoundError("n", "v"),
            "Workflow 'n' version 'v' not found",
            (NotFound, KeyError),
        ),
        (
            WorkflowInstanceNotFoundError("id"),
            "Workflow instance 'id' not found",
            (NotFound, KeyError, ValueError),
        ),
        (
            StepExecutionError("s", ValueError("no")),
            "Step 's' failed: no",
            (ApplicationError,),
        ),
        (
            InvalidTransitionError("a", "b", "reason"),
            "Invalid transition from 'a' to 'b': reason",
            (Conflict, ValueError),
        ),
        (
            WorkflowValidationError(["a", "b"]),
            "Workflow validation failed: a; b",
            (DefinitionError, Invalid, ValidationError),
        ),
        (WorkflowAlreadyCompletedError("id", "failed"), "Workflow 'id' is already failed", ()),
        (TaskNotFoundError("id"), "Task 'id' not found", (HumanTaskError, NotFound)),
        (
            TaskAlreadyCompletedError("id"),
            "Task 'id' is already completed",
            (HumanTaskError, Conflict),
        ),
        (
            UnauthorizedTaskError("id", "u"),
            "User 'u' is not authorized to complete task 'id'",
            (HumanTaskError,),
        ),
    ],
    ids=lambda given: type(given).__name__,
)
def test_errors_say_what_they_say_on_the_page(
    error: PerdureError, says: str, kinds: tuple[type[Exception], ...]
):
    assert str(error) == says
    assert isinstance(error, (WorkflowsError, *kinds))
    assert all(isinstance(error, kind) for kind in kinds)
    assert WorkflowsError is PerdureError


def test_everything_that_the_package_names_is_there():
    for name in perdure.graph.__all__:
        assert getattr(perdure.graph, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = perdure.graph.Nothing
