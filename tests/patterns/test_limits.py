"""Where the constructs of the patterns end: mistakes that are found, runs that cannot go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.patterns.world import Work, each, effects, times

from perdure.errors import DefinitionError
from perdure.graph import (
    BlockStep,
    Edge,
    InclusiveGateway,
    MilestoneStep,
    ParallelGroup,
    PassStep,
    SequentialGroup,
    ThreadMerge,
    ThreadSplit,
    WebhookStep,
    WorkflowDefinition,
    branch,
    flow,
)
from perdure.testing import Explored, explore_crashes
from perdure.values.states import Status


@pytest.fixture(autouse=True)
def _clean():
    effects.clear()


def graph(steps: list[Any], edges: list[Any], **options: Any) -> WorkflowDefinition:
    return WorkflowDefinition("graph", steps=steps, edges=edges, **options)


def run(definition: Any, input: Any = None, **options: Any) -> Explored:
    """Run it once, in virtual time."""
    return explore_crashes(definition, input, faults=(), **options).first


def split(*names: str, join: Any, seconds: float = 1) -> WorkflowDefinition:
    """Branches of which the input names those that are taken, and a join."""
    steps = [InclusiveGateway("which"), *(Work(name, seconds=seconds) for name in names)]
    chosen = [Edge("which", name, lambda c, name=name: name in c.input) for name in names]
    return graph([*steps, Work("j", join=join)], [*chosen, *((name, "j") for name in names)])


# -- joins -----------------------------------------------------------------------------------------


def test_the_late_branch_of_a_discriminator_begins_nothing_though_it_is_alone_by_then():
    steps = [Work("x"), Work("a"), Work("b", seconds=9), Work("j", join="first")]
    run(graph(steps, [("x", "a"), ("x", "b"), ("a", "j"), ("b", "j")]))
    assert effects.names == ["x", "a", "j", "b"]


def test_a_join_that_can_never_be_complete_fails_the_run_and_says_who_came():
    found = run(split("a", "b", "c", join=2), ["b"])
    assert found.status is Status.FAILED
    assert found.end.endswith(
        'Step "j" waits for 2 branches: tokens came from "b", and no other can come'
    )
    assert found.error is not None and found.error.kind == "Deadlock"


def test_a_token_that_an_and_join_has_no_partner_for_fails_the_run():
    steps = [Work("x"), ThreadSplit("twice", 2), Work("a"), Work("b"), Work("j", join="all")]
    edges = [("x", "twice"), ("twice", "a"), ("a", "j"), ("x", "b"), ("b", "j")]
    found = run(graph(steps, edges))
    assert effects.names.count("j") == 1
    assert found.end.endswith(
        'Step "j" waits for 2 branches: tokens came from "a", and no other can come'
    )


def test_of_merges_that_wait_for_each_other_the_first_that_was_reached_goes_on():
    def is_new(context: Any) -> bool:
        return len(context.step_history) < 5

    steps = [Work("x"), Work("a"), Work("b", seconds=1), Work("j1"), Work("j2")]
    edges = [("x", "a"), ("x", "b"), ("a", "j1"), ("b", "j2")]
    edges += [Edge("j1", "j2", is_new), Edge("j2", "j1", is_new)]
    assert run(graph(steps, edges)).status is Status.COMPLETED
    assert effects.names == ["x", "a", "b", "j1", "j2"]


def test_a_token_for_the_next_round_goes_on_when_nothing_else_moves():
    steps = [Work("x"), Work("a", join="each"), Work("slow", seconds=9), Work("k")]
    steps.append(Work("j", join="first"))
    edges = [("x", "a"), ("a", "j"), ("x", "slow"), ("slow", "k"), ("k", "j")]
    edges += [Edge("j", "a", lambda c: times(c, "j") < 2), Edge("j", "k", lambda c: False)]
    # The second a waits at j for k, which waits for j: j was reached first.
    assert run(graph(steps, edges)).status is Status.COMPLETED
    assert effects.names == ["x", "a", "j", "a", "slow", "j", "k"]


def test_a_cancelling_discriminator_begins_a_new_round_at_once():
    steps = [
        Work("x"),
        Work("a", seconds=1),
        Work("b", seconds=9),
        Work("j", join="first", cancels="incoming"),
    ]
    again = Edge("j", "x", lambda context: times(context, "j") < 2)
    run(graph(steps, [("x", "a"), ("x", "b"), ("a", "j"), ("b", "j"), again]))
    assert effects.names == ["x", "a", "j", "x", "a", "j"]


def test_a_partial_join_needs_no_branch_that_was_not_taken():
    assert run(split("a", "b", "c", join=2), ["a", "c"]).result == "j"
    assert sorted(effects.names) == ["a", "c", "j"]


def test_fewer_threads_than_a_merge_wants_fail_the_run():
    steps = [ThreadSplit("split", 2), Work("a"), ThreadMerge("merge", lambda context: 3)]
    found = run(graph(steps, [("split", "a"), ("a", "merge")]))
    assert found.end.endswith(
        'Step "merge" waits for more threads: tokens came from "a", and no other can come'
    )


def test_a_thread_merge_gives_the_outputs_of_its_threads():
    steps = [ThreadSplit("split", lambda context: context.input), Work("a"), ThreadMerge("m", 2)]
    assert run(graph(steps, [("split", "a"), ("a", "m")]), 4).result == ["a", "a"]


# -- cancels, sections, milestones -----------------------------------------------------------------


def test_a_step_that_is_cancelled_is_canceled_in_the_step_history():
    def statuses(context: Any) -> dict[str, str]:
        return {it.step_name: str(it.status) for it in context.step_history if it.completed_at}

    steps = [
        Work("x"),
        Work("slow", seconds=99),
        Work("stop", seconds=1, cancels=["slow"]),
        PassStep("last", transform=statuses),
    ]
    found = run(graph(steps, [("x", "slow"), ("x", "stop"), ("stop", "last")]))
    assert found.result == {"x": "succeeded", "slow": "canceled", "stop": "succeeded"}


def test_what_waits_at_a_join_in_a_cancelled_region_is_gone():
    steps = [Work("x"), Work("a"), Work("b", seconds=9), Work("j")]
    steps += [Work("later", seconds=1), Work("stop", cancels=["b", "j"])]
    run(graph(steps, [*TWO, ("x", "later"), ("later", "stop")]))
    assert effects.names == ["x", "a", "later", "stop"]


def test_a_section_is_free_again_when_its_step_was_cancelled():
    steps = [
        Work("x"),
        Work("holder", seconds=99, section="s"),
        Work("stop", seconds=1, cancels=["holder"]),
        Work("next", section="s", seconds=1),
    ]
    run(graph(steps, [("x", "holder"), ("x", "stop"), ("stop", "next")]))
    assert effects.names == ["x", "stop", "next"]


def test_a_milestone_that_cannot_come_any_more_lets_the_branch_go_on():
    steps = [
        InclusiveGateway("which"),
        Work("open"),
        Work("x", seconds=1),
        MilestoneStep("ask", "open", late="refused"),
        Work("served"),
        Work("refused"),
    ]
    edges = [("which", "open", lambda c: False), ("which", "x"), ("x", "ask"), ("ask", "served")]
    run(graph(steps, edges))
    assert effects.names == ["x", "refused"]


def test_a_deferred_choice_goes_on_where_it_says_when_nobody_decides():
    choice = (
        flow("choice")
        .deferred_choice("wait", {"yes": "go"}, timeout="5s", late="remind")
        .add(Work("go"), end=True)
        .add(Work("remind"))
        .build()
    )
    assert run(choice).result == "remind"


# -- instances -------------------------------------------------------------------------------------


async def fails(item: str) -> str:
    if item == "bad":
        raise ValueError("no luck")
    return item


def test_a_map_hears_of_any_number_of_items_and_of_none_once_it_is_left():
    definition = flow("f").map("each", each, more="t").webhook("t").build()

    async def send(handle: Any) -> None:
        for name in ("b", "c"):
            await handle.send("t", [name, 1])
        await effects.until("a")
        await asyncio.sleep(9)  # sleep: virtual time; the map is left by then
        await handle.send("t", "not an item")

    assert run(definition, [["a", 5]], script=send).result == "not an item"
    assert sorted(effects.names) == ["a", "b", "c"]


def test_an_instance_that_fails_behind_its_step_fails_the_run():
    found = run(flow("f").map("each", fails, enough=0, rest="run").build(), ["bad"])
    assert found.end.endswith('Items failed: 0: Step "fails" failed: no luck')


def test_with_wait_all_the_error_comes_when_all_have_ended_and_names_the_items():
    items = ["good", "bad", "bad"]
    found = run(flow("f").map("each", fails, on_error="wait-all").build(), items)
    assert 'Items failed: 1: Step "fails" failed: no luck, 2: ' in found.end


def test_outputs_stand_in_the_places_of_their_items():
    definition = flow("f").map("each", each, enough=2).build()
    assert run(definition, [["a", 2], ["b", 9], ["c", 1]]).result == ["a", None, "c"]


def test_instances_at_a_time_are_limited_also_those_that_are_added():
    definition = (
        flow("f")
        .map("each", each, max_concurrent=1, more=lambda name: [["c", 1]] if name == "a" else [])
        .build()
    )
    assert run(definition, [["a", 1], ["b", 1]]).result == ["a", "b", "c"]
    assert not effects.overlap


# -- what the checker finds ------------------------------------------------------------------------


def block(name: str, *steps: Any, **options: Any) -> BlockStep:
    chain = branch(f"{name}-steps")
    for step in steps:
        chain.add(step)
    return BlockStep(name, chain.outline(), **options)


TWO = [("x", "a"), ("x", "b"), ("a", "j"), ("b", "j")]


@pytest.mark.parametrize(
    ("steps", "mistakes"),
    [
        ([Work("j", join=3)], ["Step 'j': join=3, and 2 steps lead to it"]),
        ([Work("j", join=0)], ["Step 'j': join=0, and 2 steps lead to it"]),
        ([Work("j", join="firt")], ["Step 'j': join='firt' is no join; did you mean 'first'?"]),
        (
            [Work("j", cancels=["aa"])],
            ["Step 'j': cancels: 'aa' is no step; did you mean 'a'?"],
        ),
        ([Work("j", cancels=["j"])], ["Step 'j': cancels: that is the step itself"]),
        (
            [Work("j", cancels="a")],
            ["Step 'j': cancels='a': give a list of steps, or 'incoming'"],
        ),
        (
            [MilestoneStep("j", "a", "bb")],
            ["Step 'j': until it begins: 'bb' is no step; did you mean 'b'?"],
        ),
        ([ThreadMerge("j", 0)], ["Step 'j': count=0: threads are counted from 1"]),
        (
            [block("j", Work("k", section="s"), section="s")],
            ["Step 'k': it waits for section 's', which it is in"],
        ),
        (
            [SequentialGroup(Work("k", section="s"), name="j", section="s")],
            ["Step 'k': it waits for section 's', which it is in"],
        ),
        (
            [SequentialGroup(Work("k", cancels=["a"]), Work("l", join="each"), name="j")],
            [
                "Step 'j', part 'k': cancels= means nothing within a group",
                "Step 'j', part 'l': join= means nothing within a group",
            ],
        ),
        (
            [
                block("a", Work("k", section="t"), section="s"),
                block("j", Work("l", section="s"), section="t"),
            ],
            [
                (
                    "Step 'k': section 't' within 's', and in step 'l' the other way round: "
                    "they wait for each other"
                )
            ],
        ),
    ],
)
def test_mistakes_are_found_with_their_places(steps: list[Any], mistakes: list[str]):
    given = {step.name: step for step in steps}
    all_steps = [given.get(name) or Work(name) for name in ("x", "a", "b", "j")]
    assert graph(all_steps, TWO).validate() == mistakes


def test_build_refuses_what_a_deferred_choice_or_a_map_cannot_do():
    choice = flow("f").deferred_choice("wait", {"yes": "goo"}, timeout="1s").add(Work("go"))
    with pytest.raises(DefinitionError) as found:
        choice.build()
    assert "Step 'wait': timeout= and late= belong together" in str(found.value)
    assert "Step 'wait': it leads to 'goo', which is no step; did you mean 'go'?" in str(
        found.value
    )
    with pytest.raises(DefinitionError, match="enough=0: with rest='cancel' nothing would run"):
        flow("f").map("each", each, enough=0).build()
    with pytest.raises(DefinitionError, match="rest='go': use 'cancel' or 'run'"):
        flow("f").map("each", each, enough=1, rest="go").build()


def test_the_diagram_shows_joins_regions_sections_and_milestones():
    steps = [
        Work("x", section="till"),
        Work("a"),
        WebhookStep("b"),
        Work("j", join="first", cancels="incoming"),
        MilestoneStep("m", "a", "b"),
        Work("k", join=2, cancels=["a"]),
    ]
    edges = [*TWO, ("x", "m"), ("m", "k"), ("j", "k")]
    lines = graph(steps, edges).to_mermaid().splitlines()
    assert "    x[START: X / section till]" in lines
    assert "    j[J / join first, cancels what is before it]" in lines
    assert "    k[END: K / join of 2]" in lines
    assert "    m -.->|once it has ended| a" in lines
    assert "    m -.->|until it begins| b" in lines
    assert "    k -.->|cancels| a" in lines


def test_what_decides_the_commands_changes_the_fingerprint():
    def code(step: Any) -> str:
        return graph([Work("x"), Work("a"), Work("b"), step], TWO).code

    plain = code(Work("j"))
    for other in (
        Work("j", join=2),
        Work("j", cancels=["a"]),
        Work("j", section="s"),
        ThreadMerge("j", 2),
        ThreadMerge("j", 3),
        MilestoneStep("j", "a"),
        ParallelGroup(name="j"),
    ):
        assert code(other) != plain
    assert code(ThreadMerge("j", lambda c: 2)) == code(ThreadMerge("j", lambda c: 2))
