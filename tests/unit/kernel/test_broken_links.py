"""An untrapped link that breaks: what it interrupts, and what it leaves running."""

import asyncio
from typing import Any

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.values import events as ev
from perdure.values import failures
from perdure.workflow import call


def broken(at: int = 0) -> ev.ExecutionEnded:
    """The bad end of an execution that has linked itself to the run."""
    info = failures.from_exception(errors.ApplicationError("it broke", kind="Broken"))
    return ev.ExecutionEnded(
        watch=0, way="linked", workflow_id="w", run_id="r", status="failed", failure=info, at=at
    )


async def member(name: str) -> None:
    try:
        await workflow.sleep("1h")
    finally:
        await call(f"undo-{name}")


@pytest.mark.parametrize("where", ["at the end", "in the body"])
def test_a_broken_link_ends_the_tasks_of_a_group_before_it_comes_out(where: str):
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(member("a"))
                group.create_task(member("b"))
                if where == "in the body":
                    await workflow.sleep("1h")
        except errors.LinkedRunFailed as exc:
            await workflow.sleep("1s")
            return exc.kind

    run = Run(wf)
    run.turn(broken())
    assert [each for each in run.asked if "scheduled" in each] == [
        "activity_scheduled 'undo-a'",
        "activity_scheduled 'undo-b'",
    ]
    run.complete("undo-a")
    assert run.asked == []
    run.complete("undo-b")
    run.fire()
    assert run.result == "Broken"


def test_a_broken_link_comes_out_of_groups_within_groups_as_it_is():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(call("a"))
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(call("b"))
        except errors.LinkedRunFailed as exc:
            return exc.kind

    run = Run(wf)
    run.turn(broken())
    assert run.asked[:2] == ["activity_cancelled #3", "activity_cancelled #2"]
    assert run.result == "Broken"


def test_a_broken_link_that_meets_the_failure_of_a_task_comes_with_it():
    @workflow.define
    async def wf() -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(call("a"))
                group.create_task(member("b"))
        except* errors.PerdureError as both:
            met = [type(each).__name__ for each in both.exceptions]
        await call("c")
        return met

    run = Run(wf)
    run.turn(run.failed("a"))
    run.turn(broken())
    run.complete("undo-b")
    assert run.asked == ["activity_scheduled 'c'"]
    run.complete("c")
    assert run.result == ["ActivityFailed", "LinkedRunFailed"]


def test_a_cancel_that_meets_a_broken_link_in_a_group_is_not_lost():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(member("a"))
        except errors.LinkedRunFailed:
            await call("b")

    run = Run(wf)
    run.turn(broken())
    run.cancel()
    run.complete("undo-a")
    assert run.asked == ["activity_scheduled 'b'", "activity_cancelled #8", "run_cancelled"]


@pytest.mark.parametrize(("later", "end"), [(0, "run_completed"), (1, "run_failed")])
def test_a_link_that_broke_before_it_was_taken_back_breaks_nothing(later: int, end: str):
    @workflow.define
    async def wf():
        await workflow.unlink("w")
        await call("a")

    run = Run(wf)
    run.turn(broken(at=run.time + later))
    if run.closed is None:
        run.complete("a")
    assert run.closed.kind == end
