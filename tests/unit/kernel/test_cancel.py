"""A cancel request reaches the main coroutine and every task that nobody awaits, once."""

import asyncio

import pytest
from tests.unit.drive import Run

from perdure import ApplicationError, workflow
from perdure.values import events as ev
from perdure.workflow import call


def test_a_cancelled_run_gives_up_what_it_awaits_and_ends_as_cancelled():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf)
    assert run.cancel("enough") == [
        ev.ActivityCancelled(activity=2),
        ev.RunCancelled(reason="enough"),
    ]


def test_the_reason_is_the_message_of_the_exception():
    @workflow.define
    async def wf():
        try:
            await workflow.sleep(5)
        except asyncio.CancelledError as exc:
            return str(exc)

    run = Run(wf)
    run.cancel("customer left")
    assert run.result == "customer left"


def test_cleanup_in_finally_can_await_activities():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            await call("undo")

    run = Run(wf)
    run.cancel()
    assert run.asked == ["activity_cancelled #2", "activity_scheduled 'undo'"]
    run.complete("undo")
    assert isinstance(run.closed, ev.RunCancelled)


def test_a_run_may_swallow_the_cancel_and_complete():
    @workflow.define
    async def wf():
        try:
            await call("a")
        except asyncio.CancelledError:
            return await call("b")

    run = Run(wf)
    run.cancel()
    run.complete("b", 5)
    assert run.result == 5


def test_a_failure_while_cleaning_up_fails_the_run():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            raise ApplicationError("cannot undo", kind="Stuck")

    run = Run(wf)
    run.cancel()
    assert run.failure.kind == "Stuck"


def test_gathered_children_are_cancelled_once_each():
    @workflow.define
    async def wf():
        cancelled = []

        async def member(name: str):
            try:
                await call(name)
            except asyncio.CancelledError:
                cancelled.append(name)
                await call(f"undo-{name}")
                raise

        try:
            await asyncio.gather(member("a"), member("b"))
        finally:
            await call("report", cancelled)

    run = Run(wf)
    run.cancel()
    assert run.asked == [
        "activity_cancelled #2",
        "activity_scheduled 'undo-a'",
        "activity_cancelled #3",
        "activity_scheduled 'undo-b'",
    ]
    run.turn(run.completed("undo-a"), run.completed("undo-b"))
    assert run.commands == [ev.ActivityScheduled(name="report", args=b'[["a","b"]]')]
    run.complete("report")
    assert isinstance(run.closed, ev.RunCancelled)


def test_tasks_of_a_group_clean_up_before_the_run_ends():
    @workflow.define
    async def wf():
        async def member(name: str):
            try:
                await workflow.sleep("1h")
            finally:
                await call(f"undo-{name}")

        async with asyncio.TaskGroup() as group:
            group.create_task(member("a"))
            group.create_task(member("b"))

    run = Run(wf)
    run.cancel()
    assert sorted(run.asked)[:2] == ["activity_scheduled 'undo-a'", "activity_scheduled 'undo-b'"]
    run.complete("undo-a")
    assert run.closed is None
    run.complete("undo-b")
    assert isinstance(run.closed, ev.RunCancelled)


def test_spawned_tasks_and_tasks_nobody_awaits_are_cancelled():
    @workflow.define
    async def wf():
        reached = []

        async def member(name: str):
            try:
                await workflow.sleep("1h")
            finally:
                reached.append(name)

        workflow.spawn(member("spawned"))
        forgotten = asyncio.create_task(member("forgotten"))
        try:
            await call("a")
        except asyncio.CancelledError:
            await workflow.wait_condition(lambda: len(reached) == 2)
            return [*reached, forgotten.cancelled()]

    run = Run(wf)
    run.cancel()
    assert run.result == ["spawned", "forgotten", True]


def test_a_task_that_is_awaited_is_cancelled_through_who_awaits_it():
    @workflow.define
    async def wf():
        async def inner():
            await call("a")

        async def outer():
            try:
                await task
            except asyncio.CancelledError:
                await call("undo")
                raise

        task = asyncio.create_task(inner())
        workflow.spawn(outer())
        await workflow.sleep("1h")

    run = Run(wf)
    assert run.cancel()
    assert run.asked.count("activity_cancelled #3") == 1


def test_what_is_shielded_goes_on():
    @workflow.define
    async def wf():
        paying = asyncio.create_task(call("pay"))
        try:
            await asyncio.shield(paying)
        except asyncio.CancelledError:
            return await paying

    run = Run(wf)
    assert run.cancel() == []
    run.complete("pay", "paid")
    assert run.result == "paid"


def test_a_second_request_changes_nothing():
    @workflow.define
    async def wf():
        try:
            await call("a")
        finally:
            await call("undo")

    run = Run(wf)
    run.cancel("first")
    assert run.cancel("second") == []
    run.complete("undo")
    assert run.closed == ev.RunCancelled(reason="first")


def test_a_run_that_is_cancelled_before_it_began_never_begins():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf, start=False)
    run.turn(run.started, ev.CancelRequested(reason="too late"))
    assert run.asked == ["run_cancelled"]


def test_an_outcome_that_came_in_the_same_turn_is_not_given_up_again():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf)
    run.turn(run.completed("a"), ev.CancelRequested())
    assert run.asked == ["run_cancelled"]


def test_a_cancel_that_meets_a_failing_task_group_is_not_lost():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(call("a"))
        except* Exception:
            pass
        await call("b")

    run = Run(wf)
    run.turn(run.failed("a"), ev.CancelRequested(reason="both"))
    assert run.asked == ["activity_scheduled 'b'", "activity_cancelled #5", "run_cancelled"]


def test_a_run_that_returns_right_after_such_a_group_is_cancelled():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(call("a"))
        except* Exception:
            pass
        return "handled"

    run = Run(wf)
    run.turn(run.failed("a"), ev.CancelRequested(reason="both"))
    assert run.closed == ev.RunCancelled(reason="both")


def test_a_timeout_that_meets_a_failing_group_cancels_nothing_after_it():
    @workflow.define
    async def wf():
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                group.create_task(call("a"))
        except* Exception:
            pass
        return await call("b")

    run = Run(wf)
    due = run.instance.due_timers(run.time + 5_000_000)
    run.turn(run.failed("a"), *due, after=5)
    assert run.asked == ["activity_scheduled 'b'"]
    run.complete("b", "went on")
    assert run.result == "went on"


def test_a_run_that_cancels_itself_has_failed():
    @workflow.define
    async def wf():
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await workflow.sleep(5)

    run = Run(wf)
    assert (run.failure.kind, run.failure.message) == ("Canceled", "the workflow cancelled itself")


def test_awaiting_a_task_that_was_cancelled_fails_the_run():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"))
        await asyncio.sleep(0)  # sleep: durable inside a workflow
        task.cancel()
        await task

    assert Run(wf).failure.kind == "Canceled"


def test_a_cancel_reaches_a_saga_which_compensates():
    @workflow.define
    async def wf():
        async with workflow.saga() as saga:
            await call("book")
            saga.add(workflow.call, "unbook")
            await call("pay")

    run = Run(wf)
    run.complete("book")
    run.cancel()
    assert run.asked == ["activity_cancelled #4", "activity_scheduled 'unbook'"]
    run.complete("unbook")
    assert isinstance(run.closed, ev.RunCancelled)


@pytest.mark.parametrize("where", ["body", "task"])
def test_a_condition_is_given_up(where):
    @workflow.define
    async def wf():
        if where == "body":
            await workflow.wait_condition(lambda: False)
        else:
            await asyncio.gather(workflow.wait_condition(lambda: False))

    run = Run(wf)
    assert run.instance.waits().conditions == 1
    run.cancel()
    assert run.asked == ["run_cancelled"]
    assert run.instance.conditions == []
