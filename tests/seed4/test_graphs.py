"""Graphs of step classes as the page of seed 4 means them: gateways decide, joins wait."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of

from perdure.errors import WorkflowFailed
from perdure.graph import (
    BaseGateway,
    BaseHumanStep,
    BaseMachineStep,
    ConditionalGroup,
    Edge,
    ExclusiveGateway,
    InclusiveGateway,
    LoopStep,
    ParallelGateway,
    ParallelGroup,
    SequentialGroup,
    StepStatus,
    TimerStep,
    WebhookStep,
    WorkflowDefinition,
    flow,
)

ran: list[str] = []


@pytest.fixture(autouse=True)
def _clean():
    ran.clear()


class Note(BaseMachineStep):
    """A step that leaves its name, in ``ran`` and in the data."""

    async def execute(self, context: Any) -> str:
        await asyncio.sleep(0)  # sleep: lets its neighbours in
        ran.append(self.name)
        context.set(self.name, True)
        return self.name


def notes(*names: str, **attributes: Any) -> list[Note]:
    return [Note(name, **attributes) for name in names]


def graph(steps: list[Any], edges: list[Any], **options: Any) -> WorkflowDefinition:
    ways = [edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges]
    return WorkflowDefinition("graph", steps=steps, edges=ways, **options)


async def play(folder: Path, definition: WorkflowDefinition, data: Any = None) -> Any:
    async with engine_on(folder, definition) as engine:
        return await engine.client.execute(definition, data)


async def test_a_join_waits_for_every_branch_and_runs_once(tmp_path: Path):
    steps = [*notes("x", "left", "right", "right2", "join", "after")]
    edges = [
        ("x", "left"),
        ("x", "right"),
        ("right", "right2"),
        ("left", "join"),
        ("right2", "join"),
        ("join", "after"),
    ]
    assert await play(tmp_path, graph(steps, edges)) == "after"
    assert ran[0] == "x"
    assert ran[-2:] == ["join", "after"]
    assert sorted(ran[1:4]) == ["left", "right", "right2"]


async def test_a_join_waits_for_no_branch_that_was_not_taken(tmp_path: Path):
    def small(context: Any) -> bool:
        return context.get("amount") < 10

    def large(context: Any) -> bool:
        return not small(context)

    edges = [("x", "a", small), ("x", "b", large), ("x", "c"), ("a", "j"), ("b", "j"), ("c", "j")]
    await play(tmp_path, graph(notes("x", "a", "b", "c", "j"), edges), {"amount": 5})
    assert ran[-1] == "j"
    assert sorted(ran) == ["a", "c", "j", "x"]


async def test_an_exclusive_gateway_takes_one_way_and_a_parallel_one_all(tmp_path: Path):
    steps = [
        ExclusiveGateway("which", lambda context: "b" if context.get("pick_b") else "a"),
        *notes("a", "b"),
        ParallelGateway("all"),
        *notes("c", "d", "end"),
    ]
    edges = [
        ("which", "a"),
        ("which", "b"),
        ("a", "all"),
        ("b", "all"),
        ("all", "c"),
        ("all", "d"),
        ("c", "end"),
        ("d", "end"),
    ]
    await play(tmp_path, graph(steps, edges), {"pick_b": True})
    assert (ran[0], sorted(ran[1:3]), ran[3:]) == ("b", ["c", "d"], ["end"])


async def test_an_inclusive_gateway_takes_each_way_that_holds_and_fails_if_none_does(
    tmp_path: Path,
):
    def when(name: str) -> Any:
        return lambda context: name in context.get("wanted")

    steps = [InclusiveGateway("some"), *notes("a", "b", "c", "j")]
    edges = [("some", name, when(name)) for name in "abc"] + [(name, "j") for name in "abc"]
    definition = graph(steps, edges)
    async with engine_on(tmp_path, definition) as engine:
        await engine.client.execute(definition, {"wanted": ["a", "c"]})
        assert (sorted(ran[:2]), ran[2:]) == (["a", "c"], ["j"])
        with pytest.raises(WorkflowFailed, match="No condition matched"):
            await engine.client.execute(definition, {"wanted": []})


async def test_a_gateway_class_may_name_several_steps(tmp_path: Path):
    class Both(BaseGateway):
        name = "both"

        async def evaluate(self, context: Any) -> list[str]:
            return ["a", "b"]

    edges = [("both", "a"), ("both", "b"), ("both", "c")]
    await play(tmp_path, graph([Both(), *notes("a", "b", "c")], edges))
    assert sorted(ran) == ["a", "b"]


async def test_a_gateway_may_name_steps_by_their_classes_and_is_told_by_their_names(tmp_path: Path):
    class Left(Note):
        name = "left"

    class Right(Note):
        name = "right"

    def one_or_both(context: Any) -> Any:
        return Left if context.get("n") == 1 else [Left, Right]

    ways = [("which", "left"), ("which", "right")]
    definition = graph([ExclusiveGateway("which", one_or_both), Left(), Right()], ways)
    async with engine_on(tmp_path, definition) as engine:
        for n, chosen in ((1, "left"), (2, ["left", "right"])):
            handle = await engine.client.start(definition, {"n": n})
            await handle.result()
            assert (await handle.query("graph"))["step_history"][0]["output_data"] == {
                "chosen": chosen
            }
            assert (await handle.describe()).step_results["which"]["output"] == {"chosen": chosen}


async def test_what_a_mapper_gives_may_have_no_form_and_the_run_is_still_shown(tmp_path: Path):
    definition = (
        flow("odd")
        .pass_("first", transform=lambda _: {"code": test_validation_tells_everything_at_once})
        .pass_("last", result=7)
        .build()
    )
    async with engine_on(tmp_path, definition) as engine:
        handle = await engine.client.start(definition)
        assert await handle.result() == 7
        said = await handle.query("graph")
        assert said["steps"] == {"first": "<dict>", "last": 7}
        assert [it["output_data"] for it in said["step_history"]] == ["<dict>", 7]


@pytest.mark.parametrize(
    ("join", "times"), [("active", 1), ("each", 3), ("first", 1), (2, 1), (3, 1)]
)
async def test_how_often_a_step_begins_that_three_branches_lead_to(
    tmp_path: Path, join: Any, times: int
):
    steps = [*notes("x", "a", "b", "c"), Note("j", join=join)]
    edges = [("x", "a"), ("x", "b"), ("x", "c"), ("a", "j"), ("b", "j"), ("c", "j")]
    await play(tmp_path, graph(steps, edges))
    assert ran.count("j") == times


async def test_data_of_parallel_steps_is_merged_and_of_a_skipped_one_not(tmp_path: Path):
    class Never(Note):
        async def can_execute(self, context: Any) -> bool:
            return False

    class Last(BaseMachineStep):
        name = "last"

        async def execute(self, context: Any) -> Any:
            statuses = {it.step_name: it.status for it in context.step_history}
            return [sorted(context.data), statuses["never"], context.has_step_executed("a")]

    steps = [*notes("x", "a"), Never("never"), Last()]
    edges = [("x", "a"), ("x", "never"), ("a", "last"), ("never", "last")]
    found = await play(tmp_path, graph(steps, edges), {"given": 1})
    assert found == [["a", "given", "x"], StepStatus.SKIPPED, True]


async def test_hooks_hear_of_success_and_of_each_failed_attempt(tmp_path: Path):
    class Hooked(Note):
        async def execute(self, context: Any) -> str:
            if self.name == "bad":
                raise ValueError("no")
            return "fine"

        async def on_success(self, context: Any, result: Any) -> None:
            ran.append(f"success {result}")

        async def on_failure(self, context: Any, error: Exception) -> None:
            ran.append(f"failure {error}")

    definition = graph([Hooked("good"), Hooked("bad")], [("good", "bad")])
    with pytest.raises(WorkflowFailed, match='Step "bad" failed: no'):
        await play(tmp_path, definition)
    assert ran == ["success fine", "failure no"]


async def test_groups_are_steps_of_the_graph(tmp_path: Path):
    class Add(BaseMachineStep):
        by = 1

        async def execute(self, context: Any) -> Any:
            before = context.prev
            return (sum(before) if isinstance(before, list) else before or 0) + self.by

    steps = [
        SequentialGroup(Add("one"), Add("two", by=2), name="then"),
        ParallelGroup(Add("a"), Add("b", by=10), callback=Add("sum", by=100), name="both"),
        ConditionalGroup(lambda context: "yes", {"yes": Add("y", by=1000)}, name="if"),
    ]
    assert await play(tmp_path, graph(steps, [("then", "both"), ("both", "if")])) == 1117


async def test_timers_are_durable_and_a_webhook_waits_for_its_message(tmp_path: Path):
    steps = [TimerStep("nap", timedelta(milliseconds=1)), WebhookStep("paid", timeout="20s")]
    definition = graph([*steps, *notes("end")], [("nap", "paid"), ("paid", "end")])
    async with engine_on(tmp_path, definition) as engine:
        handle = await engine.client.start(definition)
        await handle.send("paid", {"amount": 7})
        await handle.result("20s")
        assert len(await events_of(handle, "timer_fired")) == 1
        assert len(await events_of(handle, "message_received")) == 1


def review() -> WorkflowDefinition:
    return graph(
        [*notes("submit"), ExclusiveGateway("review"), *notes("approve", "reject")],
        [
            Edge("submit", "review"),
            Edge("review", "approve", lambda context: True),
            Edge("review", "reject", "not (ok)"),
        ],
        terminal_steps={"approve", "reject"},
    )


def test_the_diagram_shows_kinds_conditions_and_the_state_of_a_run():
    assert review().to_mermaid().splitlines() == [
        "graph TD",
        "    submit[START: Submit]",
        "    review{Review}",
        "    approve[END: Approve]",
        "    reject[END: Reject]",
        "    submit --> review",
        "    review -->|conditional| approve",
        "    review -->|not #40;ok#41;| reject",
    ]
    styled = review().to_mermaid_with_state("review", ["submit"], ["reject"]).splitlines()[-3:]
    assert [line.split()[:2] for line in styled] == [
        ["style", "submit"],
        ["style", "reject"],
        ["style", "review"],
    ]


@pytest.mark.parametrize(
    "name", ["x-->y", "--", "a--", ";", "_", "end-step", "Style-check", "graph", "%%{init}", "a-b"]
)
def test_whatever_a_step_is_called_its_node_is_one_that_mermaid_reads(name: str):
    steps = {it: Note(it) for it in ("first", name, "last")}
    edges = [Edge("first", name), Edge(name, "last")]
    drawn = WorkflowDefinition("g", steps=steps, edges=edges).to_mermaid().splitlines()
    id, _, label = drawn[2].strip().removesuffix("]").partition("[")
    assert label
    # What Mermaid takes for a node's name: no link within, and no word of its own at its beginning.
    assert re.fullmatch(r"([A-Za-z0-9_]|-(?=[^>.-]))+", id)
    words = "call|class|classdef|click|default|direction|end|flowchart|graph|href|style|subgraph"
    assert not re.match(rf"({words})\b", id, re.IGNORECASE)
    assert drawn[4:] == [f"    first --> {id}", f"    {id} --> last"]


def test_a_graph_knows_its_neighbours_paths_and_depths():
    found = review().get_graph()
    assert found.get_next_steps("review") == ["approve", "reject"]
    assert found.get_previous_steps("review") == ["submit"]
    assert found.get_all_paths("submit", "reject") == [["submit", "review", "reject"]]
    assert [found.get_step_depth(step) for step in ("submit", "reject", "nowhere")] == [0, 2, -1]
    assert found.is_terminal("approve")
    assert not found.is_terminal("submit")


def test_validation_tells_everything_at_once():
    wrong = graph(
        notes("a", "b", "c"),
        [("a", "bb"), ("x", "c")],
        initial_step="aa",
        terminal_steps={"cc"},
    )
    assert wrong.validate() == [
        "Initial step 'aa' not found in steps; did you mean 'a'?",
        "Terminal step 'cc' not found in steps; did you mean 'c'?",
        "Step 'a': it leads to 'bb', which is no step; did you mean 'b'?",
        "Edge from 'x' to 'c': it comes from 'x', which is no step (there are: a, b, c)",
    ]


@pytest.mark.parametrize(
    ("parts", "problems"),
    [
        ([ExclusiveGateway("x", condition=lambda _: "no"), Note("b")], ["'x': it decides where"]),
        ([LoopStep("x", lambda _: True, "b", max_iterations=3), Note("b")], ["'x': it decides"]),
        ([BaseHumanStep("x", on_reject="no"), Note("b")], ["'x': it decides where"]),
        ([Note("b"), Note("b")], ["'b': there is another step of this name"]),
        ([Note("no")], ["'no': there is another step of this name"]),
        ([SequentialGroup(Note("no"), name="inner")], ["part 'inner', part 'no': there is"]),
    ],
)
def test_what_a_group_cannot_mean_is_told_when_it_is_built(parts: list[Any], problems: list[str]):
    steps = [SequentialGroup(*parts, name="g"), Note("yes"), Note("no")]
    made = graph(steps, [("g", "yes"), ("g", "no")])
    found = made.validate()
    assert len(found) == len(problems)
    for said, problem in zip(found, problems, strict=True):
        assert said.startswith("Step 'g', part ")
        assert problem in said
