"""What `build()` says of steps of one name in different places, and of loops that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on
from tests.seed3.test_checks import give, mistakes
from tests.seed4.steps import Note

from perdure.errors import WorkflowFailed
from perdure.graph import ConditionalGroup, Flow, ParallelGroup, SequentialGroup, branch, flow

# -- names -----------------------------------------------------------------------------------------


def test_two_branches_do_not_have_steps_of_one_name():
    both = [branch("here").task("call", give), branch("there").task("call", give)]
    said = (
        "Step 'both', branch 'there', step 'call': there is another step of this name (step "
        "'both', branch 'here', step 'call'); call it 'there-call'"
    )
    assert mistakes(flow("f").parallel("both", both)) == [said]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (
            lambda made: made.block("b", branch("x").task("a", give)),
            "Step 'b', branch 'x', step 'a': there is another step of this name; call it 'x-a'",
        ),
        (
            lambda made: made.block("b", branch("x").block("c", branch("y").task("b", give))),
            (
                "Step 'b', branch 'x', step 'c', branch 'y', step 'b': there is another step of "
                "this name; call it 'y-b'"
            ),
        ),
        (
            lambda made: made.map("b", branch("x").task("a", give)),
            "Step 'b', branch 'x', step 'a': there is another step of this name; call it 'x-a'",
        ),
        (
            lambda made: made.add(SequentialGroup(Note("c"), Note("c"), name="b")),
            (
                "Step 'b', part 'c': there is another step of this name (step 'b', part 'c'); call "
                "it 'b-c'"
            ),
        ),
        (
            lambda made: made.add(ParallelGroup(Note("c"), callback=Note("a"), name="b")),
            "Step 'b', part 'a': there is another step of this name; call it 'b-a'",
        ),
    ],
    ids=["block", "deep", "map", "sequence", "callback"],
)
def test_a_step_inside_another_has_a_name_of_its_own(step: Callable[[Flow], Flow], says: str):
    assert mistakes(step(flow("f").task("a", give))) == [says]


def test_the_name_that_is_proposed_is_free():
    made = flow("f").task("a", give).task("x-a", give).block("b", branch("x").task("a", give))
    assert mistakes(made)[0].endswith("call it 'x-a-2'")


def test_of_a_conditional_group_two_parts_may_have_one_name():
    group = ConditionalGroup(lambda _: "a", {"a": Note("c"), "b": Note("c")}, name="group")
    flow("f").add(group).build()


async def test_a_handler_alone_gets_a_name_of_its_own_in_a_map(tmp_path: Path):
    made = flow("f").map("give", give).map("again", give).map("more", give).build()
    inner = [[*graph.steps] for step in made.steps.values() for graph in step.inner()]
    assert inner == [["give-item"], ["again-item"], ["more-item"]]
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made, [1, 2])
        assert await handle == [1, 2]
        assert {"give", "give-item"} <= (await handle.describe()).step_results.keys()


# -- loops -----------------------------------------------------------------------------------------


def test_a_loop_that_nothing_leads_back_to_repeats_nothing():
    made = (
        flow("f")
        .task("a", give)
        .loop("again", "context.prev", "later", max_iterations=3)
        .task("later", give)
    )
    said = (
        "Step 'again': no way leads from its target 'later' back to it, so it repeats nothing; "
        "loop to a step before it (a), or write .choice() for a way that is taken once"
    )
    assert mistakes(made) == [said]


async def test_a_loop_may_lead_ahead_to_what_leads_back_to_it(tmp_path: Path):
    made = (
        flow("f")
        .loop("while", "context.prev < 3", "body", max_iterations=9, next="done")
        .task("body", lambda n: n + 1, next="while")
        .pass_("done", end=True)
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        assert await engine.client.execute(made, 0) == 3


def test_a_loop_to_itself_needs_an_interval():
    made = flow("f").task("a", give).loop("b", "context.prev", "b", max_iterations=3)
    said = (
        "Step 'b': it loops to itself at once, when nothing can have changed; loop to the step "
        "that is to be done again, or give interval= to ask again after a while"
    )
    assert mistakes(made) == [said]


async def test_a_loop_to_itself_asks_again_after_a_while(tmp_path: Path):
    made = (
        flow("f")
        .loop(
            "until-ready",
            "!has(context.metadata.ready)",
            "until-ready",
            interval="5ms",
            timeout="1h",
        )
        .pass_("done")
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        handle = await engine.client.start(made, "x")
        await handle.set_metadata({"ready": True})
        assert await handle == "x"


@pytest.mark.parametrize("bound", [{"interval": "1s"}, {"max_iterations": 5}])
def test_a_loop_that_takes_no_time_cannot_time_out(bound: dict[str, Any]):
    def looping(**more: Any) -> Flow:
        made = flow("f").pass_("a", transform=lambda ctx: 1)
        return made.loop("b", "context.prev == 1", "a", timeout="1m", **more)

    said = (
        "Step 'b': it goes round from 'a' without a step that takes time, so its timeout= cannot "
        "pass; give interval= or max_iterations="
    )
    assert mistakes(looping()) == [said]
    looping(**bound).build()
    flow("f").task("a", give).loop("b", "context.prev", "a", timeout="1m").build()


def test_a_choice_does_not_lead_to_itself():
    made = flow("f").task("a", give).choice("b", [("context.prev", "b")], default="c").pass_("c")
    said = (
        "Step 'b': it leads to itself at once, when nothing can have changed; lead to the step "
        "that is to be done again"
    )
    assert mistakes(made) == [said]


@pytest.mark.parametrize(
    ("name", "says"), [("", "has no name"), (None, "has no name"), (3, "is named 3")]
)
def test_a_name_is_a_text(name: Any, says: str):
    assert says in mistakes(flow("f").task(name, give))[0]


def test_a_name_that_is_given_twice_is_told_of_with_one_that_is_free():
    made = flow("f").task("a", give).task("a-2", give).task("a", give)
    assert mistakes(made)[0] == "more than one step is named 'a'; call one 'a-3'"
    made = flow("f").task("a", give).task("a", give)
    assert mistakes(made) == ["more than one step is named 'a'; call one 'a-2'"]


async def test_a_loop_that_was_left_by_another_way_counts_anew_in_the_next_round_of_the_outer(
    tmp_path: Path,
):
    made = (
        flow("rounds")
        .task("work", lambda number: number + 1)
        .choice("enough", [(lambda c: c.prev % 3 == 0, "outer")], default="inner")
        .loop("inner", lambda c: True, "work", max_iterations=2)
        .loop("outer", lambda c: c.prev < 12, "work", max_iterations=3)
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        assert await engine.client.execute(made, 0) == 12


async def test_loops_that_share_a_target_keep_each_other_in_bounds(tmp_path: Path):
    made = (
        flow("both")
        .task("work", lambda number: number + 1)
        .choice("which", [(lambda c: c.prev % 2 == 0, "a")], default="b")
        .loop("a", lambda c: True, "work", max_iterations=2)
        .loop("b", lambda c: True, "work", max_iterations=2)
        .build()
    )
    async with engine_on(tmp_path, made) as engine:
        with pytest.raises(WorkflowFailed, match="exceeded maxIterations"):
            await engine.client.execute(made, 0)
