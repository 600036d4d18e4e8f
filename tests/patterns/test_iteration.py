"""Cycles, loops and recursion: patterns 10, 21 and 22."""

from __future__ import annotations

from typing import Any

from tests.patterns.world import (
    Pattern,
    Work,
    programs,
    runs_as_it_says,
    survives_crashes,
    times,
    work,
)

from perdure import workflow
from perdure.graph import WorkflowDefinition, flow


@workflow.define
async def arbitrary_cycles() -> None:
    reviews, here = 0, "draft"
    while here != "end":
        await work(here)
        if here == "draft":
            here = "review"
        elif here == "review":
            reviews += 1
            here = "draft" if reviews == 1 else "check"
        else:
            here = "review" if reviews == 2 else "end"


arbitrary_cycles_graph = WorkflowDefinition(
    "arbitrary-cycles-graph",
    steps=[Work("draft"), Work("review"), Work("check"), Work("end")],
    edges=[
        ("draft", "review"),
        ("review", "draft", lambda context: times(context, "review") == 1),
        ("review", "check", lambda context: times(context, "review") > 1),
        ("check", "review", lambda context: times(context, "review") == 2),
        ("check", "end", lambda context: times(context, "review") > 2),
    ],
)


@workflow.define
async def structured_loop() -> None:
    count = 0
    while count < 2:  # asked before: it may not run at all
        await work("before")
        count += 1
    while True:  # asked after: it runs at least once
        await work("after")
        count -= 1
        if count == 0:
            break


structured_loop_graph = (
    flow("structured-loop-graph")
    .choice("enter", [(lambda context: times(context, "before") < 2, "before")], default="after")
    .add(Work("before"), next="enter")
    .add(Work("after"))
    .loop("again", lambda context: times(context, "after") < 2, "after", max_iterations=9)
    .build()
)


@workflow.define
async def recursion(number: int) -> int:
    await work(f"down {number}")
    return number + await workflow.execute(recursion, number - 1) if number else 0


async def down(number: int) -> int:
    await work.fn(f"down {number}")
    return number


recursion_graph = (
    flow("recursion-graph")
    .task("down", down)
    .choice("more", [(lambda context: context.input > 0, "again")], default="zero")
    .subflow("again", "recursion-graph", input=lambda prev, number: number - 1)
    .pass_("sum", transform=lambda context: context.input + context.prev, end=True)
    .pass_("zero", result=0, end=True)
    .build()
)


PATTERNS = [
    Pattern(
        10,
        arbitrary_cycles,
        arbitrary_cycles_graph,
        lambda done: (
            [name for name in done if name != "end"]
            == ["draft", "review", "draft", "review", "check", "review", "check"]
        ),
    ),
    Pattern(
        21,
        structured_loop,
        structured_loop_graph,
        lambda done: done == ["before", "before", "after", "after"],
    ),
    Pattern(
        22,
        recursion,
        recursion_graph,
        lambda done: done == ["down 2", "down 1", "down 0"],
        input=2,
        result=3,
    ),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
