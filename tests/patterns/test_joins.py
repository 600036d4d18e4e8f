"""Discriminators, partial joins, merges of branches that may not come, threads."""

from __future__ import annotations

import asyncio
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
from perdure.graph import (
    ExclusiveGateway,
    InclusiveGateway,
    LoopStep,
    ThreadMerge,
    ThreadSplit,
    WorkflowDefinition,
)


@workflow.define
async def discriminator() -> None:
    for _ in range(2):
        branches = [asyncio.ensure_future(work("a", 1)), asyncio.ensure_future(work("b", 5))]
        await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        await work("after")
        await asyncio.wait(branches)  # the reset: b is waited for, and begins nothing


discriminator_graph = WorkflowDefinition(
    "discriminator-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1),
        Work("b", seconds=5),
        Work("after", join="first"),
        LoopStep("again", lambda c: times(c, "after") < 2, "begin", max_iterations=9),
    ],
    edges=[
        ("begin", "a"),
        ("begin", "b"),
        ("a", "after"),
        ("b", "after"),
        ("after", "again"),
    ],
)


@workflow.define
async def blocking_discriminator() -> None:
    blocked = asyncio.Lock()

    async def thread() -> None:
        branches = [asyncio.ensure_future(work("a", 1)), asyncio.ensure_future(work("b", 5))]
        await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        async with blocked:  # until the round of the thread before is over
            await work("after")
            await asyncio.wait(branches)

    await asyncio.gather(thread(), thread())


blocking_discriminator_graph = WorkflowDefinition(
    "blocking-discriminator-graph",
    steps=[
        ThreadSplit("twice", 2),
        Work("a", seconds=1),
        Work("b", seconds=5),
        Work("after", join="first"),
    ],
    edges=[("twice", "a"), ("twice", "b"), ("a", "after"), ("b", "after")],
)


@workflow.define
async def cancelling_discriminator() -> None:
    async def other() -> None:
        await work("b1")
        await work("b2", 5)

    branches = [asyncio.ensure_future(work("a", 1)), asyncio.ensure_future(other())]
    _, rest = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for branch in rest:
        branch.cancel()
    await work("after")


cancelling_discriminator_graph = WorkflowDefinition(
    "cancelling-discriminator-graph",
    steps=[
        ThreadSplit("begin", 1),
        Work("a", seconds=1),
        Work("b1"),
        Work("b2", seconds=5),
        Work("after", join="first", cancels="incoming"),
    ],
    edges=[("begin", "a"), ("begin", "b1"), ("b1", "b2"), ("a", "after"), ("b2", "after")],
)


@workflow.define
async def partial_join() -> None:
    branches = [asyncio.ensure_future(work(name, n)) for name, n in [("a", 1), ("b", 2), ("c", 5)]]
    came = asyncio.as_completed(branches)
    for _ in range(2):
        await next(came)
    await work("after")
    await asyncio.wait(branches)  # the reset


partial_join_graph = WorkflowDefinition(
    "partial-join-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1),
        Work("b", seconds=2),
        Work("c", seconds=5),
        Work("after", join=2),
    ],
    edges=[
        ("begin", "a"),
        ("begin", "b"),
        ("begin", "c"),
        ("a", "after"),
        ("b", "after"),
        ("c", "after"),
    ],
)


@workflow.define
async def blocking_partial_join() -> None:
    blocked = asyncio.Lock()

    async def thread() -> None:
        names = [("a", 1), ("b", 2), ("c", 5)]
        branches = [asyncio.ensure_future(work(name, seconds)) for name, seconds in names]
        came = asyncio.as_completed(branches)
        for _ in range(2):
            await next(came)
        async with blocked:
            await work("after")
            await asyncio.wait(branches)

    await asyncio.gather(thread(), thread())


blocking_partial_join_graph = WorkflowDefinition(
    "blocking-partial-join-graph",
    steps=[
        ThreadSplit("twice", 2),
        Work("a", seconds=1),
        Work("b", seconds=2),
        Work("c", seconds=5),
        Work("after", join=2),
    ],
    edges=[
        ("twice", "a"),
        ("twice", "b"),
        ("twice", "c"),
        ("a", "after"),
        ("b", "after"),
        ("c", "after"),
    ],
)


@workflow.define
async def cancelling_partial_join() -> None:
    branches = [asyncio.ensure_future(work(name, n)) for name, n in [("a", 1), ("b", 2), ("c", 5)]]
    came = asyncio.as_completed(branches)
    for _ in range(2):
        await next(came)
    for branch in branches:
        branch.cancel()
    await work("after")


cancelling_partial_join_graph = WorkflowDefinition(
    "cancelling-partial-join-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1),
        Work("b", seconds=2),
        Work("c", seconds=5),
        Work("after", join=2, cancels="incoming"),
    ],
    edges=[
        ("begin", "a"),
        ("begin", "b"),
        ("begin", "c"),
        ("a", "after"),
        ("b", "after"),
        ("c", "after"),
    ],
)


@workflow.define
async def generalised_and_join() -> None:
    left: asyncio.Queue[str] = asyncio.Queue()
    right: asyncio.Queue[str] = asyncio.Queue()

    async def bring(queue: asyncio.Queue[str], name: str, seconds: float) -> None:
        for _ in range(2):
            queue.put_nowait(await work(name, seconds))

    async def join() -> None:
        for _ in range(2):
            await left.get()
            await right.get()
            await work("after")

    await asyncio.gather(bring(left, "a", 1), bring(right, "b", 5), join())


generalised_and_join_graph = WorkflowDefinition(
    "generalised-and-join-graph",
    steps=[
        ThreadSplit("twice", 2),
        Work("a", seconds=1),
        Work("b", seconds=5),
        Work("after", join="all"),
    ],
    edges=[("twice", "a"), ("twice", "b"), ("a", "after"), ("b", "after")],
)


@workflow.define
async def local_merge(wanted: list[str]) -> None:
    async def longer() -> None:
        await work("b")
        await asyncio.gather(work("b2", 3), work("aside", 9))

    ways = {"a": work("a", 1), "b": longer(), "c": work("c", 1)}
    under_way = [asyncio.ensure_future(ways.pop(name)) for name in wanted]
    for way in ways.values():
        way.close()
    await asyncio.wait(under_way)
    await work("after")


local_merge_graph = WorkflowDefinition(
    "local-merge-graph",
    steps=[
        InclusiveGateway("which"),
        Work("a", seconds=1),
        Work("b"),
        Work("b2", seconds=3),
        Work("c", seconds=1),
        Work("aside", seconds=9),
        Work("after"),
    ],
    edges=[
        ("which", "a", lambda context: "a" in context.input),
        ("which", "b", lambda context: "b" in context.input),
        ("which", "c", lambda context: "c" in context.input),
        ("b", "b2"),
        ("b", "aside"),
        ("a", "after"),
        ("b2", "after"),
        ("c", "after"),
    ],
)


@workflow.define
async def general_merge(where: str) -> None:
    async def rounds() -> None:
        for _ in range(2):
            await work("b", 2)
        if where == "elsewhere":
            await work("elsewhere")  # this branch never comes to the merge

    await asyncio.gather(work("a", 1), rounds())
    await work("after")


general_merge_graph = WorkflowDefinition(
    "general-merge-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1),
        Work("b", seconds=2),
        ExclusiveGateway("which"),
        Work("elsewhere"),
        Work("after"),
    ],
    edges=[
        ("begin", "a"),
        ("begin", "b"),
        ("b", "which"),
        ("which", "b", lambda context: times(context, "b") < 2),
        ("which", "elsewhere", lambda context: context.input == "elsewhere"),
        ("which", "after"),
        ("a", "after"),
    ],
)


@workflow.define
async def thread_split() -> None:
    await asyncio.gather(*(work("a") for _ in range(3)))


thread_split_graph = WorkflowDefinition(
    "thread-split-graph", steps=[ThreadSplit("split", 3), Work("a")], edges=[("split", "a")]
)


@workflow.define
async def thread_merge() -> None:
    threads = [asyncio.ensure_future(work("a")) for _ in range(3)]
    await asyncio.wait(threads)
    await work("after")


thread_merge_graph = WorkflowDefinition(
    "thread-merge-graph",
    steps=[ThreadSplit("split", 3), Work("a"), ThreadMerge("merge", 3), Work("after")],
    edges=[("split", "a"), ("a", "merge"), ("merge", "after")],
)


def first_and_second(done: list[str], name: str) -> tuple[int, int]:
    """Return the two places of a step that is done twice."""
    assert done.count(name) == 2
    first = done.index(name)
    return first, done.index(name, first + 1)


def resets(done: list[str]) -> bool:
    """Begun by the quick branch, twice: the second time after the slow one of the first round."""
    one, two = first_and_second(done, "after")
    return one < done.index("b") < two and done.count("b") == 2


def blocks(done: list[str]) -> bool:
    """Both threads are at the join before its first round is over, and it begins twice."""
    slowest = "c" if "c" in done else "b"
    one, two = first_and_second(done, "after")
    return first_and_second(done, "a")[1] < done.index(slowest) < two and one < done.index(slowest)


PATTERNS = [
    Pattern(9, discriminator, discriminator_graph, resets),
    Pattern(28, blocking_discriminator, blocking_discriminator_graph, blocks),
    Pattern(
        29,
        cancelling_discriminator,
        cancelling_discriminator_graph,
        lambda done: done == ["b1", "a", "after"],
    ),
    Pattern(
        30,
        partial_join,
        partial_join_graph,
        lambda done: done[-4:] == ["a", "b", "after", "c"] and done.count("after") == 1,
    ),
    Pattern(31, blocking_partial_join, blocking_partial_join_graph, blocks),
    Pattern(
        32,
        cancelling_partial_join,
        cancelling_partial_join_graph,
        lambda done: done[-3:] == ["a", "b", "after"] and "c" not in done,
    ),
    Pattern(
        33,
        generalised_and_join,
        generalised_and_join_graph,
        lambda done: done.index("b") < done.index("after") and done.count("after") == 2,
    ),
    # It waits for b2, which was on its way, and neither for c nor for the way aside.
    Pattern(
        37,
        local_merge,
        local_merge_graph,
        lambda done: done[-1] in ("aside", "after") and done.index("after") > done.index("b2"),
        input=["a", "b"],
    ),
    Pattern(
        38,
        general_merge,
        general_merge_graph,
        lambda done: done.index("after") > first_and_second(done, "b")[1] and "elsewhere" in done,
        input="elsewhere",
    ),
    Pattern(41, thread_merge, thread_merge_graph, lambda done: done == ["a", "a", "a", "after"]),
    Pattern(42, thread_split, thread_split_graph, lambda done: done == ["a", "a", "a"]),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
