"""What differs between Pythons, evened out: each of these was different on one of them."""

import asyncio
import inspect

import pytest
from tests.unit.drive import Run

from perdure import workflow
from perdure.kernel import compat
from perdure.workflow import call


def test_installing_twice_changes_nothing():
    before = [asyncio.wait_for.__code__, asyncio.gather.__code__, asyncio.TaskGroup.__aexit__]
    compat.install()
    assert before == [
        asyncio.wait_for.__code__,
        asyncio.gather.__code__,
        asyncio.TaskGroup.__aexit__,
    ]


def test_signatures_are_those_of_stock_asyncio():
    assert list(inspect.signature(asyncio.gather).parameters) == [
        "coros_or_futures",
        "return_exceptions",
    ]
    assert str(inspect.signature(asyncio.wait_for)) == "(fut, timeout)"
    assert list(inspect.signature(asyncio.as_completed).parameters) == ["fs", "timeout"]
    assert inspect.iscoroutinefunction(asyncio.wait_for)


def test_a_notification_that_meets_a_cancel_goes_to_the_next_waiter():
    @workflow.define
    async def wf():
        condition, woken = asyncio.Condition(), []

        async def waiter(name: str):
            async with condition:
                await condition.wait()
                woken.append(name)

        first, second = (asyncio.create_task(waiter(name)) for name in ("first", "second"))
        await call("a")
        async with condition:
            condition.notify()
        first.cancel()
        await second
        return [woken, first.cancelled()]

    run = Run(wf)
    run.complete("a")
    assert run.result == [["second"], True]


def test_waiting_on_a_condition_needs_its_lock():
    @workflow.define
    async def wf():
        try:
            await asyncio.Condition().wait()
        except RuntimeError as exc:
            return str(exc)

    assert Run(wf).result.startswith("cannot wait on un-acquired lock")


def test_a_condition_takes_its_lock_again_also_when_cancelled_twice():
    @workflow.define
    async def wf():
        condition = asyncio.Condition()

        async def waiter():
            async with condition:
                try:
                    await condition.wait()
                finally:
                    held.append(condition.locked())

        held: list[bool] = []
        task = asyncio.create_task(waiter())
        await call("a")
        async with condition:
            task.cancel("once")
            await call("b")
            task.cancel("twice")
            await call("c")
        try:
            await task
        except asyncio.CancelledError as exc:
            return [held, str(exc)]

    run = Run(wf)
    for name in "abc":
        run.complete(name)
    assert run.result == [[True], "twice"]


def test_a_release_that_meets_a_cancel_wakes_all_who_may_enter():
    @workflow.define
    async def wf():
        gate, entered = asyncio.Semaphore(2), []

        async def member(name: str):
            async with gate:
                entered.append(name)
                await call(name)

        tasks = [asyncio.create_task(member(name)) for name in "vwxyz"]
        await call("a")
        gate.release()
        gate.release()
        tasks[2].cancel()
        await call("b")
        return entered

    run = Run(wf)
    run.complete("a")
    run.complete("b")
    assert run.result == ["v", "w", "y", "z"]


def test_a_cancelled_waiter_does_not_keep_a_semaphore_from_the_others():
    @workflow.define
    async def wf():
        gate = asyncio.Semaphore(1)
        await gate.acquire()
        tasks = [asyncio.create_task(gate.acquire()) for _ in range(3)]
        await call("a")
        tasks[0].cancel()
        gate.release()
        await tasks[1]
        gate.release()
        return await tasks[2]

    run = Run(wf)
    run.complete("a")
    assert run.result is True


def test_a_timeout_names_itself_in_the_error_that_met_it():
    @workflow.define
    async def wf():
        try:
            async with asyncio.timeout(5):
                try:
                    await call("a")
                except asyncio.CancelledError:
                    raise ValueError("while leaving")  # noqa: B904 - the context is what is tested
        except ValueError as exc:
            return type(exc.__context__).__name__

    run = Run(wf)
    run.fire()
    assert run.result == "TimeoutError"


def test_nested_timeouts_that_expire_together_raise_the_outer_one():
    @workflow.define
    async def wf():
        got = []
        try:
            async with asyncio.timeout(5):
                try:
                    async with asyncio.timeout(5):
                        await call("a")
                except TimeoutError:
                    got.append("inner")
                    await call("b")
        except TimeoutError:
            got.append("outer")
        await call("c")
        return got

    run = Run(wf)
    run.turn(*run.instance.due_timers(run.time + 5_000_000), after=5)
    run.complete("c")
    assert run.result == ["outer"]


def test_a_cancel_that_meets_a_timeout_is_the_cancel():
    @workflow.define
    async def wf():
        try:
            async with asyncio.timeout(5):
                await call("a")
        except TimeoutError:
            await call("b")

    from perdure.values import events as ev

    run = Run(wf)
    due = run.instance.due_timers(run.time + 5_000_000)
    run.turn(*due, ev.CancelRequested(reason="now"), after=5)
    assert run.closed == ev.RunCancelled(reason="now")


def test_a_group_inside_a_group_that_fails_with_it_ends_once():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(call("a"))
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(call("b"))
        except* Exception as group:
            names = [str(exc) for exc in leaves(group)]
        await call("c")
        return names

    def leaves(exc):
        if isinstance(exc, BaseExceptionGroup):
            return [leaf for one in exc.exceptions for leaf in leaves(one)]
        return [exc]

    run = Run(wf)
    run.turn(run.failed("a", "first"), run.failed("b", "second"))
    assert run.asked == ["activity_scheduled 'c'"]
    run.complete("c")
    assert run.result == ["activity 'a' failed: first", "activity 'b' failed: second"]


@pytest.mark.parametrize("kind", ["wait_for", "timeout"])
def test_a_result_that_meets_its_timeout(kind):
    @workflow.define
    async def wf():
        try:
            if kind == "wait_for":
                return await asyncio.wait_for(call("a"), 5)
            async with asyncio.timeout(5):
                return await call("a")
        except TimeoutError:
            return "late"

    run = Run(wf)
    due = run.instance.due_timers(run.time + 5_000_000)
    run.turn(run.completed("a", 1), *due, after=5)
    first = run.result
    run = Run(wf)
    run.turn(*due, run.completed("a", 1), after=5)
    assert [first, run.result] == [1, "late"]


def test_wait_for_a_cancelled_future_within_no_time_is_its_cancel():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"))
        await workflow.sleep(0)
        task.cancel()
        await workflow.sleep(0)
        try:
            await asyncio.wait_for(task, 0)
        except asyncio.CancelledError:
            return "cancelled"

    assert Run(wf).result == "cancelled"
