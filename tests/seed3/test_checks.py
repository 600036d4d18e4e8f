"""What is wrong with a step machine is found when it is built: all at once, each with its place."""

from __future__ import annotations

from typing import Any, cast

import pytest

from perdure import Engine, Retry
from perdure.errors import DefinitionError
from perdure.graph import (
    BaseMachineStep,
    ConditionalGroup,
    Edge,
    ExclusiveGateway,
    LoopStep,
    ParallelGateway,
    TaskStep,
    TimerStep,
    WorkflowDefinition,
    branch,
    flow,
)
from perdure.graph.deciding import ChoiceStep


def give(value: Any) -> Any:
    return value


def mistakes(made: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        made.build()
    first, *found = caught.value.message.split("\n  - ")
    assert first == "workflow 'f' cannot run:"
    return found


def test_every_mistake_is_told_at_once():
    made = (
        flow("f", input={"type": "thing"})
        .task("a", give, next="bb")
        .task("b", lambda one, two, three: None)
        .task("b", give, input=lambda only: only)
        .choice("c", [("context.prev >", "d")], default="dd")
        .task("d", give, next="e", end=True)
        .parallel("e", [branch("x").task("y", give, next="z")], on_error="never")
        .loop("g", "context.prev", "a")
        .poll("h", give, interval=0)
        .add(TimerStep("i", retry=Retry(2)))
    )
    found = mistakes(made)
    assert [it.partition(": ")[0] for it in found] == [
        "Input",
        "more than one step is named 'b'; call one 'b-2'",
        "Step 'd'",
        "Step 'b'",
        "Step 'c'",
        "Step 'e'",
        "Step 'g'",
        "Step 'h'",
        "Step 'h'",
        "Step 'i'",
        "Step 'i'",
        "Step 'a'",
        "Step 'c'",
        "Step 'b' is unreachable from initial step",
        "Step 'c' is unreachable from initial step",
        "Step 'd' is unreachable from initial step",
        "Step 'e' is unreachable from initial step",
        "Step 'g' is unreachable from initial step",
        "Step 'h' is unreachable from initial step",
        "Step 'i' is unreachable from initial step",
        "Step 'e', branch 'x'",
    ]
    text = "\n".join(found)
    for said in [
        "Step 'a': it leads to 'bb', which is no step; did you mean 'b'?",
        "Step 'c': it leads to 'dd', which is no step; did you mean 'd'?",
        "Step 'e', branch 'x': Step 'y': it leads to 'z', which is no step",
        "Step 'd': next= and end=True exclude each other",
        "on_error='never': use 'fail-fast' or 'wait-all'",
        "Step 'g': a loop needs a bound",
        "Step 'h': a poll needs a bound: max_attempts= or timeout=",
        "Step 'h': the interval of a poll must be above zero",
        "Step 'i': a timer needs a duration",
        "Step 'i': retry= means nothing to a TimerStep",
    ]:
        assert said in text


def test_handlers_that_take_too_much_are_told_of_together():
    made = (
        flow("f")
        .task("a", lambda a, b, c: None)
        .poll("b", lambda a, b, c, d: None, interval=1, timeout=9)
    )
    assert mistakes(made) == [
        "Step 'a': a handler takes (input, ctx), (input) or nothing, not 3 arguments",
        "Step 'b': a handler takes (input, ctx), (input) or nothing, not 4 arguments",
    ]


async def later(ctx: Any) -> Any:
    return ctx


def test_async_functions_where_nobody_awaits_are_mistakes():
    made = (
        flow("f")
        .choice("a", [(later, "b")], default="b")
        .pass_("b", transform=later)
        .task("c", give, input=later)
        .map("d", give, items=later)  # pyright: ignore[reportArgumentType] - the mistake
        .loop("e", later, "c", max_iterations=1)
    )
    plain = "write it with `def`; what awaits belongs in a step before it"
    assert mistakes(made) == [
        f"Step 'a': condition later is async: {plain}",
        "Step 'b': later is async: it is workflow code, and only reads",
        "Step 'c': input=later(ctx: 'Any') -> 'Any' is called by (prev, workflow_input)",
        "Step 'c': later is async: it is workflow code, and only reads",
        "Step 'd': later is async: it is workflow code, and only reads",
        f"Step 'e': condition later is async: {plain}",
    ]


def test_options_that_cannot_be_used_are_mistakes():
    async def generates(value: Any) -> Any:
        yield value

    def lacks(value: Any, *, more: Any) -> Any:
        return more

    made = (
        flow("f")
        .wait("a", "5 parsecs")
        .webhook("b", timeout="soon")
        .task("c", give, timeout=0)
        .loop("d", lambda ctx: False, "c", max_iterations=-1)
        .poll("e", give, interval=1, max_attempts=0)
        .map("g", give, items=5, max_concurrent=-1)  # pyright: ignore[reportArgumentType]
        .subflow("h", None)
        .human("i", due="x")
        .task("", give)
        .task("k", generates)
        .task("l", lacks)
        .task("m", job="", input=int)
        .pass_("n", result=1, transform=lambda ctx: 1)
        .parallel("o", [branch("").task("p", give)])
    )
    assert [it.partition(":")[0] for it in mistakes(made)] == [
        "a step of 'f' has no name",
        *(f"Step '{name}'" for name in "abcdegghiklmmno"),
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: flow("f").task("a", give, retry=3).build(), "retry of step 'a': give a Retry"),  # pyright: ignore[reportArgumentType]
        (lambda: flow("f").default_retry(3), "default_retry of 'f': give a Retry"),  # pyright: ignore[reportArgumentType]
        (lambda: flow("f").task("a", "give").build(), "step 'a': 'give' is no function"),  # pyright: ignore[reportArgumentType]
        (lambda: flow("f").parallel("a", [5]), "5 is no branch"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_of_the_wrong_kind_is_refused_where_it_is_written(made: Any, said: str):
    with pytest.raises(DefinitionError, match=said):
        made()


def test_a_circle_that_nothing_can_leave_is_a_mistake():
    made = (
        flow("f")
        .task("a", give)
        .choice("again", [("context.prev == 1", "b")], default="a")
        .task("b", give, next="a")
        .end()
    )
    assert mistakes(made) == [
        "Step 'end' is unreachable from initial step",
        "Step 'a': no way leads from it to an end of the workflow",
        "Step 'again': no way leads from it to an end of the workflow",
        "Step 'b': no way leads from it to an end of the workflow",
    ]


def test_a_circle_that_a_choice_leaves_is_none():
    flow("f").task("a", give).choice(
        "again", [("context.prev == 1", "a")], default="end"
    ).end().build()


def test_an_unknown_start_is_a_mistake():
    assert mistakes(flow("f").task("begin", give).start_at("beginn")) == [
        "Initial step 'beginn' not found in steps; did you mean 'begin'?"
    ]


async def test_a_definition_that_was_not_built_is_checked_when_an_engine_gets_it():
    made = WorkflowDefinition(
        "w", steps=[TaskStep("a", give), TaskStep("b", give)], edges=[("a", "bb")]
    )
    said = [
        "workflow 'w' cannot run:",
        "Step 'a': it leads to 'bb', which is no step; did you mean 'b'?",
        "Step 'b' is unreachable from initial step",
    ]
    engine = Engine("memory://", [made])
    with pytest.raises(DefinitionError) as caught:
        await engine.start()
    assert caught.value.message.split("\n  - ") == said
    async with Engine("memory://") as engine:
        with pytest.raises(DefinitionError) as caught:
            engine.register(made)
        assert caught.value.message.split("\n  - ") == said


def test_a_retry_that_is_no_policy_is_refused_with_its_step():
    with pytest.raises(DefinitionError, match=r"retry of step 'a': give a Retry, not 3"):
        flow("f").task("a", give, retry=cast("Any", 3)).build()


@pytest.mark.parametrize(("given", "says"), [(-5, "-5 is negative"), ("3 secs", "'3 secs' is not")])
def test_a_wait_that_no_clock_can_do_is_a_mistake(given: Any, says: str):
    with pytest.raises(DefinitionError, match=f"Step 'nap': duration: {says}"):
        flow("f").wait("nap", given).build()


def test_a_flow_that_was_not_built_is_refused_with_what_is_missing():
    with pytest.raises(DefinitionError, match=r"nor a module; call its build\(\)"):
        Engine("memory://", [flow("f").task("a", give)])


def test_a_refused_name_or_version_tells_nothing_of_perdures_own_functions():
    with pytest.raises(
        DefinitionError, match=r"^workflow 'f': version 'one' is not like '1\.2\.0'"
    ):
        flow("f", version="one").task("a", give).build()
    with pytest.raises(DefinitionError, match="the name must be"):
        flow(None).task("a", give).build()  # pyright: ignore[reportArgumentType]


def test_a_handler_without_a_signature_is_given_the_input():
    made = flow("f").task("a", str).build()
    assert made.validate() == []


def test_one_branch_where_a_list_belongs_is_told_with_the_step():
    one: Any = branch("x").task("a", give)
    with pytest.raises(DefinitionError) as caught:
        flow("f").parallel("p", one)
    assert caught.value.message == (
        "step 'p': branches=branch('x') is no list of branches; write "
        "parallel('p', [branch(name).task(…), branch(name).task(…)])"
    )
    nothing: Any = 5
    with pytest.raises(DefinitionError, match="step 'p': branches=5 is no list"):
        flow("f").parallel("p", nothing)
    with pytest.raises(DefinitionError, match="step 'p': 5 is no branch"):
        flow("f").parallel("p", [one, nothing])


def test_isolated_is_true_or_false():
    wrong: Any = "no"
    with pytest.raises(DefinitionError, match="isolated of 'f': 'no' is neither True nor False"):
        flow("f").task("a", give).isolated(wrong).build()


def test_a_poll_needs_a_bound():
    assert mistakes(flow("f").poll("a", give, interval="5s")) == [
        "Step 'a': a poll needs a bound: max_attempts= or timeout="
    ]
    flow("f").poll("a", give, interval="5s", timeout="1h").build()
    flow("f").poll("a", give, interval="5s", max_attempts=3).build()


def test_a_mistake_of_an_edge_names_its_ends():
    steps = [TaskStep("a", give), TaskStep("b", give)]
    edges = [Edge("a", "b", "context.prev >"), Edge("c", "b"), Edge("b", "aa")]
    found = WorkflowDefinition("f", steps=steps, edges=edges).validate()
    assert [it[:60].partition(">':")[0] for it in found] == [
        "Edge from 'a' to 'b': condition 'context.prev ",
        "Edge from 'c' to 'b': it comes from 'c', which is no step (t",
        "Step 'b': it leads to 'aa', which is no step; did you mean '",
    ]


def code_of(step: Any, *edges: tuple[str, str]) -> str:
    steps = [step, TaskStep("a", give), TaskStep("b", give)]
    return WorkflowDefinition("f", steps=steps, edges=edges).code


def some(ctx: Any) -> bool:
    return True


class Empty(BaseMachineStep):
    async def execute(self, context: Any) -> Any:
        return None


DECIDING: list[list[Any]] = [
    [
        ChoiceStep("c", [("context.prev > 1", "a")], default="b"),
        ChoiceStep("c", [("context.prev > 2", "a")], default="b"),
        ChoiceStep("c", [("context.prev > 1", "b")], default="b"),
        ChoiceStep("c", [("context.prev > 1", "a")], default="a"),
        ChoiceStep("c", [(some, "a")], default="b"),
    ],
    [ExclusiveGateway("c"), *(ExclusiveGateway("c", f"context.data.{x}") for x in "xy")],
    [ParallelGateway("c"), ParallelGateway("c", ["a"]), ParallelGateway("c", ["a", "b"])],
    [LoopStep("c", f"context.prev < {n}", "a", max_iterations=5) for n in (1, 2)],
    [ConditionalGroup(f"context.data.{x}", {"a": Empty("x")}, name="c") for x in "xy"],
]


@pytest.mark.parametrize("steps", DECIDING, ids=lambda steps: type(steps[0]).__name__)
def test_a_decision_that_is_changed_is_a_change_of_code(steps: list[Any]):
    """Engines look at waiting runs again when this changes."""
    codes = [code_of(step, ("c", "a"), ("c", "b")) for step in steps]
    assert len(set(codes)) == len(steps)


def test_definitions_that_decide_nothing_have_the_fingerprint_that_histories_have_of_them():
    assert code_of(TaskStep("c", give), ("c", "a"), ("a", "b")) == "56fadc41b2fd9490"
    assert code_of(ExclusiveGateway("c"), ("c", "a"), ("c", "b")) == "025bb701db743448"
