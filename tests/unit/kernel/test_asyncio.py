"""Stock asyncio inside a workflow: the primitives work, in one order."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.unit.drive import NOON, SECOND, Run

from perdure import workflow
from perdure.workflow import call

as_completed: Any = asyncio.as_completed  # typeshed knows no ``async for`` over it before 3.13
A, B, C = ("activity_scheduled 'a'", "activity_scheduled 'b'", "activity_scheduled 'c'")


def test_gather_asks_in_argument_order_and_keeps_it_in_the_result():
    @workflow.define
    async def both():
        return await asyncio.gather(call("a"), call("b"), call("a"))

    run = Run(both)
    assert run.asked == [A, B, A]
    run.complete("b", 2)
    run.turn(run.completed("a", 3, nth=1))
    run.complete("a", 1)
    assert run.result == [1, 2, 3]


def test_gather_returns_exceptions_when_asked():
    @workflow.define
    async def both():
        got = await asyncio.gather(call("a"), call("b"), return_exceptions=True)
        return [str(one) for one in got]

    run = Run(both)
    run.fail("a", "no luck")
    run.complete("b", 2)
    assert run.result == ["activity 'a' failed: no luck", "2"]


def test_gather_raises_the_first_failure_while_the_others_go_on():
    @workflow.define
    async def both():
        others = asyncio.gather(call("a"), call("b"))
        try:
            await others
        except Exception as exc:
            return [str(exc), await call("c")]

    run = Run(both)
    assert run.fail("a") and run.asked == [C]
    run.complete("b")
    run.complete("c", 3)
    assert run.result == ["activity 'a' failed: no luck", 3]


def test_gather_of_what_is_done_goes_on_at_once():
    @workflow.define
    async def wf():
        done = asyncio.ensure_future(call("a"))
        await done

        async def other():
            await call("c")

        beside = asyncio.create_task(other())
        await asyncio.gather(done)
        await call("b")
        await beside

    run = Run(wf)
    run.complete("a")
    assert run.asked == [B, C]


def test_gather_of_nothing_and_of_the_same_thing_twice():
    @workflow.define
    async def wf():
        task = asyncio.ensure_future(call("a"))
        return [await asyncio.gather(), await asyncio.gather(task, task)]

    run = Run(wf)
    run.complete("a", 1)
    assert run.result == [[], [1, 1]]


def test_a_gather_can_be_waited_for_among_others():
    @workflow.define
    async def wf():
        both = asyncio.gather(call("a"), call("b"))
        alone = asyncio.ensure_future(call("c"))
        done, _ = await asyncio.wait([both, alone], return_when=asyncio.FIRST_COMPLETED)
        return [both in done, alone in done]

    run = Run(wf)
    run.complete("a")
    run.complete("b")
    assert run.result == [True, False]


def test_a_task_group_waits_for_all():
    @workflow.define
    async def wf():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(name)) for name in "abc"]
        return [task.result() for task in tasks]

    run = Run(wf)
    assert run.asked == [A, B, C]
    run.turn(run.completed("c", 3), run.completed("a", 1), run.completed("b", 2))
    assert run.result == [1, 2, 3]


def test_a_task_group_cancels_the_others_when_one_fails():
    @workflow.define
    async def wf():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(call("a"))
                group.create_task(call("b"))
                await call("c")
        except* Exception as caught:
            failures = [str(exc) for exc in caught.exceptions]
        return failures

    run = Run(wf)
    run.fail("b")
    assert run.asked == ["activity_cancelled #3", "activity_cancelled #2", "run_completed"]
    assert run.result == ["activity 'b' failed: no luck"]


def test_a_failed_task_group_that_nobody_catches_fails_the_run_with_its_kind():
    @workflow.define
    async def wf():
        async with asyncio.TaskGroup() as group:
            group.create_task(call("a"))

    run = Run(wf)
    run.fail("a", "declined", kind="Declined")
    assert run.failure.kind == "Declined"
    assert run.unexpected is None


@workflow.define
async def crowd(size: int) -> None:
    async def member(number: int) -> None:
        try:
            await workflow.sleep("1h")
        finally:
            await call(f"undo-{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(size):
            group.create_task(member(number))
        await call("fail")


def test_three_hundred_aborts_of_a_task_group_give_one_order():
    def abort() -> tuple[str, ...]:
        run = Run(crowd, 20)
        run.is_checked = False
        run.fail("fail")
        return tuple(run.asked)

    clutter, orders = [], Counter()
    for number in range(300):
        clutter.append([object()] * (number % 7))  # addresses differ from one to the next
        orders[abort()] += 1
    assert len(orders) == 1
    (order,) = orders
    assert len(order) == 40


def test_timeout_raises_when_its_time_is_over_and_cancels_what_was_awaited():
    @workflow.define
    async def wf():
        try:
            async with asyncio.timeout(5):
                await call("a")
        except TimeoutError:
            return "late"

    run = Run(wf)
    assert run.asked == ["timer_started", A]
    assert run.fire() and run.asked[0] == "activity_cancelled #3"
    assert run.time == NOON + 5 * SECOND
    assert run.result == "late"


def test_timeout_leaves_no_timer_when_it_is_not_needed():
    @workflow.define
    async def wf():
        async with asyncio.timeout(5):
            await call("a")
        async with asyncio.timeout(None):
            await call("b")

    run = Run(wf)
    run.complete("a")
    assert run.asked == ["timer_cancelled #2", B]
    assert not run.instance.timers


def test_a_timeout_can_be_rescheduled():
    @workflow.define
    async def wf():
        async with asyncio.timeout(5) as limit:
            await call("a")
            limit.reschedule(asyncio.get_running_loop().time() + 60)
            await workflow.sleep("1h")

    run = Run(wf)
    run.complete("a")
    assert [timer[0] for timer in run.instance.timers.values()] == [
        NOON + 60 * SECOND,
        NOON + 3600 * SECOND,
    ]
    run.fire()
    assert run.failure.kind == "Timeout"


@pytest.mark.parametrize("is_late", [False, True])
def test_wait_for_awaits_within_a_time(is_late):
    @workflow.define
    async def wf():
        try:
            return await asyncio.wait_for(call("a"), 5)
        except TimeoutError:
            return "late"

    run = Run(wf)
    if is_late:
        run.fire()
    else:
        run.complete("a", 1)
    assert run.result == ("late" if is_late else 1)


def test_wait_for_within_no_time_does_not_begin():
    @workflow.define
    async def wf():
        try:
            await asyncio.wait_for(call("a"), 0)
        except TimeoutError:
            return "late"

    run = Run(wf)
    assert run.result == "late"
    assert run.asked == ["run_completed"]


def test_wait_for_in_a_gather_asks_in_argument_order():
    @workflow.define
    async def wf():
        await asyncio.gather(asyncio.wait_for(call("a"), 5), call("b"))

    assert Run(wf).asked == ["timer_started", A, B]


def test_create_task_runs_beside_and_can_be_awaited():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"), name="beside")
        await call("b")
        return [await task, task.get_name()]

    run = Run(wf)
    assert run.asked == [B, A]
    run.turn(run.completed("a", 1), run.completed("b", 2))
    assert run.result == [1, "beside"]


def test_a_task_that_is_cancelled_gives_up_its_activity():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"))
        await call("b")
        task.cancel("not needed")
        try:
            await task
        except asyncio.CancelledError as exc:
            return [str(exc), task.cancelled()]

    run = Run(wf)
    run.complete("b")
    assert run.asked == ["activity_cancelled #3", "run_completed"]
    assert run.result == ["not needed", True]


def test_a_queue_passes_items_between_tasks():
    @workflow.define
    async def wf():
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        got: list[int] = []

        async def worker():
            while True:
                got.append(await queue.get())
                await call("a")
                queue.task_done()

        workers = [asyncio.create_task(worker()) for _ in range(2)]
        for number in range(5):
            await queue.put(number)
        await queue.join()
        for one in workers:
            one.cancel()
        return got

    run = Run(wf)
    for _ in range(5):
        run.complete("a")
    assert run.result == [0, 1, 2, 3, 4]


def test_an_event_wakes_all_who_wait_in_order():
    @workflow.define
    async def wf():
        event, woken = asyncio.Event(), []

        async def waiter(name: str):
            await event.wait()
            woken.append(name)

        tasks = [asyncio.create_task(waiter(name)) for name in "xyz"]
        await call("a")
        event.set()
        await asyncio.gather(*tasks)
        return woken

    run = Run(wf)
    run.complete("a")
    assert run.result == ["x", "y", "z"]


def test_a_lock_is_passed_on_first_come_first_served():
    @workflow.define
    async def wf():
        lock, order = asyncio.Lock(), []

        async def member(name: str):
            async with lock:
                order.append(name)
                await call(name)

        await asyncio.gather(*(member(name) for name in "abc"))
        return order

    run = Run(wf)
    assert run.asked == [A]
    assert run.complete("a") and run.asked == [B]
    run.complete("b")
    run.complete("c")
    assert run.result == ["a", "b", "c"]


def test_a_semaphore_lets_so_many_in():
    @workflow.define
    async def wf():
        gate = asyncio.Semaphore(2)

        async def member(name: str):
            async with gate:
                await call(name)

        await asyncio.gather(*(member(name) for name in "abc"))

    run = Run(wf)
    assert run.asked == [A, B]
    assert run.complete("b") and run.asked == [C]


def test_a_condition_notifies_who_waits():
    @workflow.define
    async def wf():
        condition, stock = asyncio.Condition(), []

        async def taker():
            async with condition:
                await condition.wait_for(lambda: len(stock) == 2)
                return stock

        task = asyncio.create_task(taker())
        for name in "ab":
            await call(name)
            async with condition:
                stock.append(name)
                condition.notify_all()
        return await task

    run = Run(wf)
    run.complete("a")
    run.complete("b")
    assert run.result == ["a", "b"]


def test_a_barrier_lets_all_go_together():
    @workflow.define
    async def wf():
        barrier = asyncio.Barrier(2)

        async def member(name: str):
            await call(name)
            await barrier.wait()
            await call("c")

        await asyncio.gather(member("a"), member("b"))

    run = Run(wf)
    assert run.complete("a") == []
    assert run.complete("b") and run.asked == [C, C]


def test_wait_returns_sets_that_iterate_in_one_order():
    @workflow.define
    async def wf():
        tasks = {asyncio.create_task(call(name), name=name) for name in "abcdefghij"}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [[t.get_name() for t in done], [t.get_name() for t in pending]]

    results = []
    for number in range(20):
        clutter = [object()] * number  # addresses differ from one to the next
        run = Run(wf)
        run.turn(run.completed("h"), run.completed("c"))
        results.append((*run.result, len(clutter))[:2])
    assert sorted(results[0][0]) == ["c", "h"]
    assert sorted(results[0][1]) == list("abdefgij")
    assert all(result == results[0] for result in results)


def test_wait_gives_up_after_its_timeout():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"))
        done, pending = await asyncio.wait([task], timeout=5)
        return [len(done), len(pending)]

    run = Run(wf)
    run.fire()
    assert run.result == [0, 1]


def test_as_completed_starts_in_argument_order_and_yields_as_they_end():
    @workflow.define
    async def wf():
        return [await one for one in asyncio.as_completed([call("a"), call("b"), call("c")])]

    run = Run(wf)
    assert run.asked == [A, B, C]
    run.turn(run.completed("c", 3), run.completed("a", 1))
    run.complete("b", 2)
    assert run.result == [3, 1, 2]


def test_as_completed_starts_at_once_and_once_for_each():
    @workflow.define
    async def wf():
        first = call("a")
        ended = asyncio.as_completed([first, first, call("b")])
        await call("c")
        return [await one for one in ended]

    run = Run(wf)
    assert run.asked == [C, A, B]
    run.turn(run.completed("c"), run.completed("a", 1), run.completed("b", 2))
    assert run.result == [1, 2]


def test_as_completed_can_be_iterated_over_with_async_for():
    @workflow.define
    async def wf():
        tasks = [asyncio.create_task(call(name)) for name in "ab"]
        return [tasks.index(task) async for task in as_completed(tasks)]

    run = Run(wf)
    run.complete("b")
    run.complete("a")
    assert run.result == [1, 0]


def test_as_completed_raises_after_its_timeout_for_each_that_is_left():
    @workflow.define
    async def wf():
        got = []
        for one in asyncio.as_completed([call("a"), call("b"), call("c")], timeout=5):
            try:
                got.append(await one)
            except TimeoutError:
                got.append("late")
        return got

    run = Run(wf)
    run.complete("b", 2)
    run.fire()
    assert run.result == [2, "late", "late"]


def test_as_completed_leaves_no_timer_when_all_are_done():
    @workflow.define
    async def wf():
        for one in asyncio.as_completed([call("a")], timeout=5):
            await one
        await call("b")

    run = Run(wf)
    run.complete("a")
    assert run.asked == ["timer_cancelled #2", B]
    assert not run.instance.timers


@pytest.mark.parametrize("given", ["coroutine", "future"])
def test_as_completed_refuses_a_single_awaitable(given):
    @workflow.define
    async def wf():
        one: Any = asyncio.ensure_future(call("a")) if given == "future" else call("a")
        try:
            asyncio.as_completed(one)
        except TypeError as exc:
            if given == "coroutine":
                one.close()
            return str(exc)

    assert "expects an iterable" in Run(wf).result
