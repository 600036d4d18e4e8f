"""Basic control flow, and choices of several branches: patterns 1 to 8."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.patterns.world import Pattern, Work, programs, runs_as_it_says, survives_crashes, work

from perdure import workflow
from perdure.graph import ExclusiveGateway, InclusiveGateway, WorkflowDefinition, flow


@workflow.define
async def sequence() -> None:
    await work("a")
    await work("b")
    await work("c")


sequence_graph = flow("sequence-graph").add(Work("a")).add(Work("b")).add(Work("c")).build()


@workflow.define
async def parallel_split() -> None:
    await work("a")
    await asyncio.gather(work("b", 2), work("c", 1))


parallel_split_graph = WorkflowDefinition(
    "parallel-split-graph",
    steps=[Work("a"), Work("b", seconds=2), Work("c", seconds=1)],
    edges=[("a", "b"), ("a", "c")],
)


@workflow.define
async def synchronization() -> None:
    await asyncio.gather(work("a", 2), work("b", 1))
    await work("after")


synchronization_graph = WorkflowDefinition(
    "synchronization-graph",
    steps=[Work("begin"), Work("a", seconds=2), Work("b", seconds=1), Work("after")],
    edges=[("begin", "a"), ("begin", "b"), ("a", "after"), ("b", "after")],
)


@workflow.define
async def exclusive_choice(amount: int) -> None:
    if amount < 10:
        await work("small")
    elif amount < 100:
        await work("middle")
    else:
        await work("large")


exclusive_choice_graph = WorkflowDefinition(
    "exclusive-choice-graph",
    steps=[ExclusiveGateway("which"), Work("small"), Work("middle"), Work("large")],
    edges=[
        ("which", "small", lambda context: context.input < 10),
        ("which", "middle", lambda context: context.input < 100),
        ("which", "large"),
    ],
)


@workflow.define
async def simple_merge(amount: int) -> None:
    await work("small" if amount < 10 else "large")
    await work("after")


simple_merge_graph = WorkflowDefinition(
    "simple-merge-graph",
    steps=[ExclusiveGateway("which"), Work("small"), Work("large"), Work("after")],
    edges=[
        ("which", "small", lambda context: context.input < 10),
        ("which", "large"),
        ("small", "after"),
        ("large", "after"),
    ],
)


@workflow.define
async def multi_choice(wanted: list[str]) -> None:
    await asyncio.gather(*(work(name) for name in ("a", "b", "c") if name in wanted))


multi_choice_graph = WorkflowDefinition(
    "multi-choice-graph",
    steps=[InclusiveGateway("which"), Work("a"), Work("b"), Work("c")],
    edges=[
        ("which", "a", lambda context: "a" in context.input),
        ("which", "b", lambda context: "b" in context.input),
        ("which", "c", lambda context: "c" in context.input),
    ],
)


@workflow.define
async def synchronizing_merge(wanted: list[str]) -> None:
    await asyncio.gather(*(work(name) for name in ("a", "b", "c") if name in wanted))
    await work("after")


synchronizing_merge_graph = WorkflowDefinition(
    "synchronizing-merge-graph",
    steps=[InclusiveGateway("which"), Work("a"), Work("b"), Work("c"), Work("after")],
    edges=[
        ("which", "a", lambda context: "a" in context.input),
        ("which", "b", lambda context: "b" in context.input),
        ("which", "c", lambda context: "c" in context.input),
        ("a", "after"),
        ("b", "after"),
        ("c", "after"),
    ],
)


@workflow.define
async def multi_merge() -> None:
    async def branch(name: str, seconds: float) -> None:
        await work(name, seconds)
        await work("after")

    await asyncio.gather(branch("a", 1), branch("b", 2))


multi_merge_graph = WorkflowDefinition(
    "multi-merge-graph",
    steps=[Work("begin"), Work("a", seconds=1), Work("b", seconds=2), Work("after", join="each")],
    edges=[("begin", "a"), ("begin", "b"), ("a", "after"), ("b", "after")],
)


def without_begin(done: list[str]) -> list[str]:
    return [name for name in done if name != "begin"]


PATTERNS = [
    Pattern(1, sequence, sequence_graph, lambda done: done == ["a", "b", "c"]),
    # c is the quicker one and ends first, so b and c were under way together.
    Pattern(2, parallel_split, parallel_split_graph, lambda done: done == ["a", "c", "b"]),
    Pattern(
        3,
        synchronization,
        synchronization_graph,
        lambda done: without_begin(done) == ["b", "a", "after"],
    ),
    Pattern(4, exclusive_choice, exclusive_choice_graph, lambda done: done == ["middle"], input=50),
    Pattern(5, simple_merge, simple_merge_graph, lambda done: done == ["small", "after"], input=5),
    Pattern(
        6,
        multi_choice,
        multi_choice_graph,
        lambda done: sorted(done) == ["a", "c"],
        input=["a", "c"],
    ),
    Pattern(
        7,
        synchronizing_merge,
        synchronizing_merge_graph,
        lambda done: [sorted(done[:2]), done[2:]] == [["a", "c"], ["after"]],
        input=["a", "c"],
    ),
    Pattern(
        8,
        multi_merge,
        multi_merge_graph,
        lambda done: without_begin(done) == ["a", "after", "b", "after"],
    ),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
