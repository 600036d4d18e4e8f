"""Plain asyncio in workflows: shields, timers and the order of one turn."""

import asyncio

from tests.unit.drive import NOON, SECOND, Run, message

from perdure import workflow
from perdure.workflow import call

A, B, C = ("activity_scheduled 'a'", "activity_scheduled 'b'", "activity_scheduled 'c'")


def test_shield_keeps_what_it_guards_from_a_cancel():
    @workflow.define
    async def wf():
        inner = asyncio.create_task(call("a"))
        try:
            async with asyncio.timeout(5):
                await asyncio.shield(inner)
        except TimeoutError:
            return await inner

    run = Run(wf)
    assert run.fire() == []
    run.complete("a", 1)
    assert run.result == 1


def test_asyncio_sleep_is_a_durable_timer():
    @workflow.define
    async def wf():
        await asyncio.sleep(90)  # sleep: durable inside a workflow
        return asyncio.get_running_loop().time()

    run = Run(wf)
    assert run.instance.next_due() == NOON + 90 * SECOND
    run.fire()
    assert run.result == 90.0


def test_sleeping_no_time_lets_others_go_first_and_starts_no_timer():
    @workflow.define
    async def wf():
        order = []

        async def other():
            order.append("other")

        beside = asyncio.create_task(other())
        await asyncio.sleep(0)  # sleep: durable inside a workflow
        order.append("main")
        await workflow.sleep(0)
        await beside
        return order

    run = Run(wf)
    assert run.result == ["other", "main"]
    assert run.asked == ["run_completed"]


def test_call_later_calls_after_the_time_and_can_be_cancelled():
    @workflow.define
    async def wf():
        loop, rung = asyncio.get_running_loop(), []
        first = loop.call_later(5, rung.append, "first")
        second = loop.call_at(loop.time() + 7, rung.append, "second")
        loop.call_soon(rung.append, "soon")
        first.cancel()
        assert first.cancelled() and not second.cancelled()
        await workflow.sleep(10)
        return [*rung, second.when()]

    run = Run(wf)
    assert run.asked == ["timer_started", "timer_started", "timer_cancelled #2", "timer_started"]
    run.fire()
    run.fire()
    assert run.result == ["soon", "second", 7.0]


def test_timers_that_are_due_together_fire_in_the_order_of_their_times():
    @workflow.define
    async def wf():
        order = []

        async def one(seconds: int):
            await workflow.sleep(seconds)
            order.append(seconds)

        await asyncio.gather(*(one(seconds) for seconds in (30, 10, 20, 10)))
        return order

    run = Run(wf)
    run.time += 60 * SECOND
    run.turn(*run.instance.due_timers(run.time))
    assert run.result == [10, 10, 20, 30]


def test_time_is_that_of_the_turn_also_for_a_run_that_began_at_zero():
    @workflow.define
    async def wf():
        await workflow.sleep(5)
        await asyncio.sleep(5)  # sleep: durable inside a workflow
        return [asyncio.get_running_loop().time(), workflow.now().isoformat()]

    run = Run(wf, time=0)
    run.fire()
    run.fire()
    assert run.result == [10.0, "1970-01-01T00:00:10+00:00"]


def test_the_current_task_and_all_tasks_are_those_of_the_run():
    @workflow.define
    async def wf():
        beside = asyncio.create_task(call("a"), name="beside")
        names = sorted(task.get_name() for task in asyncio.all_tasks())
        current = asyncio.current_task()
        assert current is not None
        assert current.get_name() == "main"
        beside.cancel()
        return names

    other = Run(wf)
    assert Run(wf).result == other.result == ["beside", "main"]


def test_two_outcomes_in_one_turn_are_seen_in_the_order_of_their_events():
    @workflow.define
    async def wf():
        order = []

        async def one(name: str):
            await call(name)
            order.append(name)

        await asyncio.gather(*(one(name) for name in "abc"))
        return order

    run = Run(wf)
    run.turn(run.completed("b"), run.completed("c"), run.completed("a"))
    assert run.result == ["b", "c", "a"]


def test_outcomes_come_before_messages_in_one_turn():
    @workflow.define
    async def wf():
        order = []

        async def listen():
            await workflow.listen("go").receive()
            order.append("message")

        async def work():
            await call("a")
            order.append("outcome")

        await asyncio.gather(listen(), work())
        return order

    run = Run(wf)
    run.turn(message("go"), run.completed("a"))
    assert run.result == ["outcome", "message"]
