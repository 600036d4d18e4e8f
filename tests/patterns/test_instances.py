"""Several instances of one step: how many, when there are enough, what becomes of the others."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.patterns.world import (
    Pattern,
    Work,
    each,
    effects,
    programs,
    runs_as_it_says,
    survives_crashes,
    work,
)

from perdure import workflow
from perdure.graph import MapStep, WebhookStep, WorkflowDefinition, branch, flow


@workflow.define
async def without_synchronization(items: list[list[Any]]) -> None:
    instances = [asyncio.ensure_future(work(*item)) for item in items]
    await work("after")
    await asyncio.gather(*instances)  # the run ends when they have ended


without_synchronization_graph = (
    flow("without-synchronization-graph")
    .map("each", each, enough=0, rest="run")
    .add(Work("after"))
    .build()
)


@workflow.define
async def known_when_written() -> None:
    await asyncio.gather(*(work("item", seconds) for seconds in (1, 2, 3)))
    await work("after")


known_when_written_graph = (
    flow("known-when-written-graph")
    .map("each", each, items=lambda context: [["item", 1], ["item", 2], ["item", 3]])
    .add(Work("after"))
    .build()
)


@workflow.define
async def known_at_run_time(items: list[list[Any]]) -> None:
    await asyncio.gather(*(work(*item) for item in items))
    await work("after")


known_at_run_time_graph = (
    flow("known-at-run-time-graph").map("each", each).add(Work("after")).build()
)


@workflow.define
async def not_known_before(items: list[list[Any]]) -> None:
    instances = {asyncio.ensure_future(work(*item)) for item in items}
    more = workflow.listen("more")
    asked = asyncio.ensure_future(more.receive())
    while instances:
        done, instances = await asyncio.wait(
            {*instances, asked}, return_when=asyncio.FIRST_COMPLETED
        )
        if asked in done:
            instances.add(asyncio.ensure_future(work(*asked.result())))
            asked = asyncio.ensure_future(more.receive())
        instances.discard(asked)
    await work("after")


not_known_before_graph = (
    flow("not-known-before-graph").map("each", each, more="more").add(Work("after")).build()
)


@workflow.define
async def cancel_instances(items: list[list[Any]]) -> None:
    instances = asyncio.gather(*(work(*item) for item in items))
    stop = asyncio.ensure_future(workflow.listen("stop").receive())
    await asyncio.wait([instances, stop], return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        instances.cancel()
        await work("stopped")
    else:
        stop.cancel()
        await work("after")


cancel_instances_graph = WorkflowDefinition(
    "cancel-instances-graph",
    steps=[
        Work("begin"),
        MapStep("each", branch("item").task("item", each).outline(), items=lambda c: c.input),
        WebhookStep("stop"),
        Work("stopped", cancels=["each"]),
        Work("after", cancels=["stop"]),
    ],
    edges=[("begin", "each"), ("begin", "stop"), ("stop", "stopped"), ("each", "after")],
)


@workflow.define
async def complete_instances(items: list[list[Any]]) -> list[str | None]:
    instances = [asyncio.ensure_future(work(*item)) for item in items]
    stop = asyncio.ensure_future(workflow.listen("stop").receive())
    both = [stop, asyncio.gather(*instances)]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    found = [it.result() if it.done() else None for it in instances]
    for waiting in both:
        waiting.cancel()
    await work("after")
    return found


complete_instances_graph = (
    flow("complete-instances-graph")
    .map("each", each, finish="stop")
    .add(Work("after"))
    .pass_("result", transform=lambda context: context.steps["each"])
    .build()
)


@workflow.define
async def enough_instances(items: list[list[Any]]) -> None:
    instances = [asyncio.ensure_future(work(*item)) for item in items]
    came = asyncio.as_completed(instances)
    for _ in range(2):
        await next(came)
    await work("after")
    await asyncio.wait(instances)  # what they still do changes nothing


enough_instances_graph = (
    flow("enough-instances-graph")
    .map("each", each, enough=2, rest="run")
    .add(Work("after"))
    .build()
)


@workflow.define
async def enough_and_cancel(items: list[list[Any]]) -> None:
    instances = [asyncio.ensure_future(work(*item)) for item in items]
    came = asyncio.as_completed(instances)
    for _ in range(2):
        await next(came)
    for instance in instances:
        instance.cancel()
    await work("after", 20)


enough_and_cancel_graph = (
    flow("enough-and-cancel-graph")
    .map("each", each, enough=2)
    .add(Work("after", seconds=20))
    .build()
)


@workflow.define
async def dynamic_join(items: list[list[Any]]) -> None:
    instances = {asyncio.ensure_future(work(*item)) for item in items}
    outputs: list[str] = []
    while instances and outputs[-1:] != ["last"]:
        done, instances = await asyncio.wait(instances, return_when=asyncio.FIRST_COMPLETED)
        for output in [instance.result() for instance in done]:
            outputs.append(output)
            if output == "first":  # one more, which nobody knew of at the beginning
                instances.add(asyncio.ensure_future(work("last", 1)))
    await work("after")
    if instances:
        await asyncio.wait(instances)


dynamic_join_graph = (
    flow("dynamic-join-graph")
    .map(
        "each",
        each,
        more=lambda output: [["last", 1]] if output == "first" else [],
        enough=lambda outputs: outputs[-1:] == ["last"],
        rest="run",
    )
    .add(Work("after"))
    .build()
)


async def one_more(handle: Any) -> None:
    await handle.send("more", ["late", 9])


async def stop_after_the_first(handle: Any) -> None:
    await effects.until("quick")
    await asyncio.sleep(5)  # sleep: virtual time; by then its outcome is recorded
    await handle.send("stop")


THREE = [["x", 1], ["y", 2], ["z", 9]]
TWO = [["quick", 1], ["slow", 30]]
PATTERNS = [
    Pattern(
        12,
        without_synchronization,
        without_synchronization_graph,
        lambda done: done == ["after", "x", "y", "z"],
        input=THREE,
    ),
    Pattern(
        13,
        known_when_written,
        known_when_written_graph,
        lambda done: done == ["item", "item", "item", "after"],
    ),
    Pattern(
        14,
        known_at_run_time,
        known_at_run_time_graph,
        lambda done: done == ["x", "y", "z", "after"],
        input=THREE,
    ),
    Pattern(
        15,
        not_known_before,
        not_known_before_graph,
        lambda done: done == ["quick", "late", "after"],
        input=[["quick", 5]],
        script=one_more,
    ),
    Pattern(
        26,
        cancel_instances,
        cancel_instances_graph,
        lambda done: [name for name in done if name != "begin"] == ["quick", "stopped"],
        input=TWO,
        script=stop_after_the_first,
    ),
    Pattern(
        27,
        complete_instances,
        complete_instances_graph,
        lambda done: done == ["quick", "after"],
        input=TWO,
        result=["quick", None],
        script=stop_after_the_first,
    ),
    Pattern(
        34,
        enough_instances,
        enough_instances_graph,
        lambda done: done == ["x", "y", "after", "z"],
        input=THREE,
    ),
    Pattern(
        35,
        enough_and_cancel,
        enough_and_cancel_graph,
        lambda done: done == ["x", "y", "after"],
        input=THREE,
    ),
    Pattern(
        36,
        dynamic_join,
        dynamic_join_graph,
        lambda done: done == ["first", "last", "after", "slow"],
        input=[["first", 1], ["slow", 9]],
    ),
]


@programs(PATTERNS)
def test_a_run_goes_as_the_pattern_says(pattern: Pattern, program: Any):
    runs_as_it_says(pattern, program)


@programs(PATTERNS)
def test_so_it_does_with_a_crash_at_every_commit(pattern: Pattern, program: Any):
    survives_crashes(pattern, program)
