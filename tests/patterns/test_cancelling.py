"""Cancelling and ending: of a step, of a region, of the run."""

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
from perdure.graph import EndStep, WebhookStep, WorkflowDefinition, flow
from perdure.values.states import Status


@workflow.define
async def implicit_termination() -> None:
    async def longer() -> None:
        await work("b", 5)
        await work("c")

    await asyncio.gather(work("a", 1), longer())


implicit_termination_graph = WorkflowDefinition(
    "implicit-termination-graph",
    steps=[Work("begin"), Work("a", seconds=1), Work("b", seconds=5), Work("c")],
    edges=[("begin", "a"), ("begin", "b"), ("b", "c")],
)


@workflow.define
async def cancel_task() -> None:
    review = asyncio.ensure_future(work("review", 99))
    withdrawn = asyncio.ensure_future(workflow.listen("withdraw").receive())
    await asyncio.wait([review, withdrawn], return_when=asyncio.FIRST_COMPLETED)
    if withdrawn.done():
        review.cancel()
        await work("withdrawn")
    else:
        await work("reviewed")


cancel_task_graph = WorkflowDefinition(
    "cancel-task-graph",
    steps=[
        Work("begin"),
        Work("review", seconds=99),
        Work("reviewed", cancels=["withdraw"]),
        WebhookStep("withdraw"),
        Work("withdrawn", cancels=["review"]),
    ],
    edges=[
        ("begin", "review"),
        ("review", "reviewed"),
        ("begin", "withdraw"),
        ("withdraw", "withdrawn"),
    ],
)


@workflow.define
async def cancel_case() -> None:
    await work("a")
    await asyncio.gather(work("b", 99), work("c", 99))
    await work("after")


cancel_case_graph = WorkflowDefinition(
    "cancel-case-graph",
    steps=[Work("a"), Work("b", seconds=99), Work("c", seconds=99), Work("after")],
    edges=[("a", "b"), ("a", "c"), ("b", "after"), ("c", "after")],
)


@workflow.define
async def cancel_region() -> None:
    async def region() -> None:
        async def chain(*names: str) -> None:
            for name in names:
                await work(name, 9)

        await asyncio.gather(chain("a1", "a2"), chain("b1", "b2"))

    async def alarm(doomed: asyncio.Task[None]) -> None:
        await workflow.listen("alarm").receive()
        doomed.cancel()
        await work("evacuate")

    doomed = asyncio.ensure_future(region())
    await asyncio.gather(alarm(doomed), work("outside", 20))


cancel_region_graph = WorkflowDefinition(
    "cancel-region-graph",
    steps=[
        Work("begin"),
        *(Work(name, seconds=9) for name in ("a1", "a2", "b1", "b2")),
        Work("outside", seconds=20),
        WebhookStep("alarm"),
        Work("evacuate", cancels=["a1", "a2", "b1", "b2"]),
    ],
    edges=[
        ("begin", "a1"),
        ("a1", "a2"),
        ("begin", "b1"),
        ("b1", "b2"),
        ("begin", "outside"),
        ("begin", "alarm"),
        ("alarm", "evacuate"),
    ],
)


@workflow.define
async def explicit_termination() -> str:
    async def longer() -> None:
        await work("b", 5)
        await work("c")

    workflow.spawn(longer())
    return await work("a", 1)  # the run ends here, whatever else is under way


explicit_termination_graph = WorkflowDefinition(
    "explicit-termination-graph",
    steps=[
        Work("begin"),
        Work("a", seconds=1),
        EndStep("end", cancels_rest=True),
        Work("b", seconds=5),
        Work("c"),
    ],
    edges=[("begin", "a"), ("a", "end"), ("begin", "b"), ("b", "c")],
)


@workflow.define
async def transient_trigger() -> str:
    await work("a", 5)
    rings = workflow.listen("ring")
    rings.drain()  # who rang before is not heard
    return await rings.receive()


transient_trigger_graph = (
    flow("transient-trigger-graph")
    .add(Work("a", seconds=5))
    .webhook("ring", transient=True)
    .build()
)


@workflow.define
async def persistent_trigger() -> str:
    await work("a", 5)
    return await workflow.listen("ring").receive()


persistent_trigger_graph = (
    flow("persistent-trigger-graph").add(Work("a", seconds=5)).webhook("ring").build()
)


async def withdraw(handle: Any) -> None:
    await handle.send("withdraw")


async def cancel(handle: Any) -> None:
    await effects.until("a")
    await asyncio.sleep(5)  # sleep: virtual time; by then its outcome is recorded
    assert await handle.cancel("not wanted any more")


async def raise_alarm(handle: Any) -> None:
    await asyncio.sleep(3)  # sleep: virtual time
    await handle.send("alarm")


async def ring_early(handle: Any) -> None:
    await handle.send("ring", "too early")


async def ring_twice(handle: Any) -> None:
    await handle.send("ring", "too early")
    await effects.until("a")
    await asyncio.sleep(9)  # sleep: virtual time; by then somebody listens
    await handle.send("ring", "in time")


PATTERNS = [
    Pattern(
        11,
        implicit_termination,
        implicit_termination_graph,
        lambda done: done[-3:] == ["a", "b", "c"],
    ),
    Pattern(
        19,
        cancel_task,
        cancel_task_graph,
        lambda done: done[-1] == "withdrawn" and "review" not in done and "reviewed" not in done,
        script=withdraw,
    ),
    Pattern(
        20,
        cancel_case,
        cancel_case_graph,
        lambda done: done == ["a"],
        status=Status.CANCELLED,
        script=cancel,
    ),
    Pattern(
        25,
        cancel_region,
        cancel_region_graph,
        lambda done: [name for name in done if name != "begin"] == ["evacuate", "outside"],
        script=raise_alarm,
    ),
    Pattern(
        43,
        explicit_termination,
        explicit_termination_graph,
        lambda done: [name for name in done if name != "begin"] == ["a"],
        result="a",
    ),
    Pattern(
        23,
        transient_trigger,
        transient_trigger_graph,
        lambda done: done == ["a"],
        result="in time",
        script=ring_twice,
    ),
    Pattern(
        24,
        persistent_trigger,
        persistent_trigger_graph,
        lambda done: done == ["a"],
        result="too early",
        script=ring_early,
    ),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
