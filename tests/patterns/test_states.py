"""Patterns about the state of a run: choices left to the world, one at a time, milestones."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.patterns.world import (
    Pattern,
    Work,
    effects,
    programs,
    runs_as_it_says,
    survives_crashes,
    work,
)

from perdure import workflow
from perdure.graph import MilestoneStep, WorkflowDefinition, branch, flow


@workflow.define
async def deferred_choice() -> None:
    approved, rejected = workflow.listen("approve"), workflow.listen("reject")
    came, _ = await workflow.select(approved, rejected, workflow.after("1d"))
    if came is approved:
        await work("ship")
    elif came is rejected:
        await work("refund")
    else:
        await work("escalate")


deferred_choice_graph = (
    flow("deferred-choice-graph")
    .deferred_choice("wait", {"approve": "ship", "reject": "refund"}, timeout="1d", late="escalate")
    .add(Work("ship"), end=True)
    .add(Work("refund"), end=True)
    .add(Work("escalate"), end=True)
    .build()
)


@workflow.define
async def interleaved_parallel_routing() -> None:
    desk = asyncio.Lock()

    async def one_by_one(*names: str) -> None:
        for name in names:
            async with desk:
                await work(name, 1)

    await asyncio.gather(one_by_one("a", "b"), one_by_one("c", "d"))
    await work("after")


interleaved_parallel_routing_graph = WorkflowDefinition(
    "interleaved-parallel-routing-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1, section="desk"),
        Work("b", seconds=1, section="desk"),
        Work("c", seconds=1, section="desk"),
        Work("d", seconds=1, section="desk"),
        Work("after"),
    ],
    edges=[
        ("begin", "a"),
        ("a", "b"),
        ("b", "after"),
        ("begin", "c"),
        ("c", "d"),
        ("d", "after"),
    ],
)


@workflow.define
async def milestone() -> None:
    is_open = is_closed = False

    async def counter() -> None:
        nonlocal is_open, is_closed
        await work("open", 1)
        is_open = True
        await work("keep", 5)
        is_closed = True
        await work("close")

    async def customer(name: str, seconds: float) -> None:
        await work(name, seconds)
        await workflow.wait_condition(lambda: is_open)
        await work("refused" if is_closed else "served")

    await asyncio.gather(counter(), customer("early", 0), customer("late", 9))


milestone_graph = WorkflowDefinition(
    "milestone-graph",
    steps=[
        Work("begin"),
        Work("open", seconds=1),
        Work("keep", seconds=5),
        Work("close"),
        Work("early"),
        MilestoneStep("served early?", "open", "close", late="refused"),
        Work("late", seconds=9),
        MilestoneStep("served late?", "open", "close", late="refused"),
        Work("served", join="each"),
        Work("refused", join="each"),
    ],
    edges=[
        ("begin", "open"),
        ("open", "keep"),
        ("keep", "close"),
        ("begin", "early"),
        ("early", "served early?"),
        ("served early?", "served"),
        ("begin", "late"),
        ("late", "served late?"),
        ("served late?", "served"),
    ],
)


@workflow.define
async def critical_section() -> None:
    till = asyncio.Lock()

    async def both(first: str, second: str) -> None:
        async with till:
            await work(first, 1)
            await work(second, 1)

    await asyncio.gather(both("a1", "a2"), both("b1", "b2"))


critical_section_graph = (
    flow("critical-section-graph")
    .parallel(
        "both",
        [
            branch("left").block(
                "pay",
                branch("steps").add(Work("a1", seconds=1)).add(Work("a2", seconds=1)),
                section="till",
            ),
            branch("right").block(
                "refund",
                branch("steps").add(Work("b1", seconds=1)).add(Work("b2", seconds=1)),
                section="till",
            ),
        ],
    )
    .build()
)


@workflow.define
async def interleaved_routing() -> None:
    desk = asyncio.Lock()

    async def alone(name: str) -> None:
        async with desk:
            await work(name, 1)

    await asyncio.gather(alone("a"), alone("b"), alone("c"))
    await work("after")


interleaved_routing_graph = WorkflowDefinition(
    "interleaved-routing-graph",
    steps=[
        Work("begin"),
        *(Work(name, seconds=1, section="desk") for name in ("a", "b", "c")),
        Work("after"),
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


def in_part_order(done: list[str]) -> bool:
    """Each once, a before b, c before d, and no two at a time."""
    place = done.index
    is_in_order = place("a") < place("b") < place("after") and place("c") < place("d")
    return is_in_order and not effects.overlap and sorted(done[-5:-1]) == ["a", "b", "c", "d"]


def while_it_is_open(done: list[str]) -> bool:
    served, refused = done.index("served"), done.index("refused")
    return done.index("open") < served < done.index("close") < refused and len(done) == 7


async def approve_and_reject(handle: Any) -> None:
    await handle.send("approve")
    await handle.send("reject")


PATTERNS = [
    Pattern(
        16,
        deferred_choice,
        deferred_choice_graph,
        lambda done: done == ["ship"],
        script=approve_and_reject,
    ),
    Pattern(17, interleaved_parallel_routing, interleaved_parallel_routing_graph, in_part_order),
    Pattern(
        18,
        milestone,
        milestone_graph,
        lambda done: while_it_is_open([name for name in done if name != "begin"]),
    ),
    Pattern(
        39, critical_section, critical_section_graph, lambda done: done == ["a1", "a2", "b1", "b2"]
    ),
    Pattern(
        40,
        interleaved_routing,
        interleaved_routing_graph,
        lambda done: (
            sorted(done[-4:-1]) == ["a", "b", "c"] and done[-1] == "after" and not effects.overlap
        ),
    ),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
