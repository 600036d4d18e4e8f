"""Channels, ``select`` and ``after``: fair, closable, and nothing is lost to a cancel."""

import asyncio
import time

import pytest
from tests.unit.drive import NOON, SECOND, Run

from perdure import errors, workflow
from perdure.workflow import Channel, after, call, select


def result_of(body, *facts_by):
    """Run ``body`` as a workflow that needs no facts; return its result."""
    return Run(workflow.define(name="wf")(body)).result


def test_values_pass_in_order():
    async def wf():
        channel: Channel[int] = Channel(3)
        for number in range(3):
            await channel.send(number)
        return [await channel.receive() for _ in range(3)]

    assert result_of(wf) == [0, 1, 2]


@pytest.mark.parametrize("capacity", [0, 1, 2])
def test_a_sender_waits_while_the_channel_is_full(capacity):
    async def wf():
        channel: Channel[int] = Channel(capacity)
        sent: list[int] = []

        async def sender():
            for number in range(5):
                await channel.send(number)
                sent.append(number)

        workflow.spawn(sender())
        await workflow.sleep(0)
        before = len(sent)
        got = [await channel.receive() for _ in range(5)]
        return [before, got]

    assert result_of(wf) == [capacity, [0, 1, 2, 3, 4]]


def test_receivers_are_served_first_come_first_served():
    async def wf():
        channel: Channel[int] = Channel()
        got: list[list[int | str]] = []

        async def receiver(name: str):
            got.append([name, await channel.receive()])

        async with asyncio.TaskGroup() as group:
            for name in "xyz":
                group.create_task(receiver(name))
            await workflow.sleep(0)
            for number in range(3):
                await channel.send(number)
        return got

    assert result_of(wf) == [["x", 0], ["y", 1], ["z", 2]]


@pytest.mark.parametrize("capacity", [0, 1, 2])
def test_senders_are_served_first_come_first_served(capacity):
    async def wf():
        channel: Channel[int] = Channel(capacity)
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(channel.send(number))
            await workflow.sleep(0)
            return [await channel.receive() for _ in range(6)]

    assert result_of(wf) == [0, 1, 2, 3, 4, 5]


def test_thousands_may_wait_and_each_gets_one():
    async def wf():
        channel: Channel[int] = Channel()
        got: list[int] = []

        async def receiver():
            got.append(await channel.receive())

        async with asyncio.TaskGroup() as group:
            for _ in range(3_000):
                group.create_task(receiver())
            await workflow.sleep(0)
            for number in range(3_000):
                await channel.send(number)
        return got == [*range(3_000)]

    began = time.perf_counter()
    assert result_of(wf)
    assert time.perf_counter() - began < 5


def test_a_closed_channel_is_drained_first():
    async def wf():
        channel: Channel[int] = Channel(2)
        await channel.send(1)
        await channel.send(2)
        channel.close()
        got: list[object] = [await channel.receive(), await channel.receive()]
        for _ in range(2):
            try:
                await channel.receive()
            except errors.ChannelClosed as exc:
                got.append(str(exc))
        return got

    assert result_of(wf) == [1, 2, *["The channel is closed and drained."] * 2]


def test_async_for_ends_where_the_channel_is_closed():
    async def wf():
        channel: Channel[int] = Channel(5)
        for number in range(3):
            await channel.send(number)
        channel.close()
        return [number async for number in channel]

    assert result_of(wf) == [0, 1, 2]


def test_closing_wakes_receivers_and_senders():
    async def wf():
        channel: Channel[int] = Channel()
        full: Channel[int] = Channel()
        woken: list[str] = []

        async def receiver():
            try:
                await channel.receive()
            except errors.ChannelClosed:
                woken.append("receiver")

        async def sender():
            try:
                await full.send(1)
            except errors.ChannelClosed as exc:
                woken.append(str(exc))

        async with asyncio.TaskGroup() as group:
            group.create_task(receiver())
            group.create_task(sender())
            await workflow.sleep(0)
            channel.close()
            full.close()
        try:
            await channel.send(1)
        except errors.ChannelClosed as exc:
            woken.append(str(exc))
        return woken

    assert result_of(wf) == [
        "receiver",
        "the channel was closed while sending",
        "send on a closed channel",
    ]


def test_a_receive_gives_up_after_its_timeout_and_leaves_no_waiter():
    @workflow.define
    async def wf():
        channel: Channel[int] = Channel(1)
        try:
            await channel.receive(timeout="5s")
        except TimeoutError as exc:
            told = str(exc)
        await channel.send(7)
        return [told, await channel.receive()]

    run = Run(wf)
    run.fire()
    assert run.result == ["nothing was received within 5s", 7]


def test_a_receive_that_needs_no_waiting_starts_no_timer():
    async def wf():
        channel: Channel[int] = Channel(1)
        await channel.send(7)
        return await channel.receive(timeout="5s")

    run = Run(workflow.define(name="wf")(wf))
    assert run.asked == ["run_completed"]


def test_a_timer_that_was_not_needed_is_cancelled():
    @workflow.define
    async def wf():
        channel: Channel[int] = Channel()
        workflow.spawn(pass_on(channel))
        return await channel.receive(timeout="5s")

    async def pass_on(channel):
        await channel.send(await call("a"))

    run = Run(wf)
    run.complete("a", 3)
    assert run.result == 3
    assert run.asked == ["timer_cancelled #2", "run_completed"]


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("capacity", [0, 1])
def test_a_cancelled_receiver_gives_its_value_to_the_next(capacity, others):
    async def wf():
        channel: Channel[int] = Channel(capacity)
        first = asyncio.create_task(channel.receive())
        waiting = [asyncio.create_task(channel.receive()) for _ in range(others)]
        await workflow.sleep(0)
        await channel.send(1)  # handed to the first receiver, which has not run yet
        first.cancel()
        got = [await one for one in waiting] or [await channel.receive()]
        return [got, first.cancelled()]

    assert result_of(wf) == [[1], True]


def test_a_value_given_back_is_before_those_that_came_after_it():
    async def wf():
        channel: Channel[int] = Channel(5)

        async def receiver():
            return await channel.receive()

        first = asyncio.create_task(receiver())
        await workflow.sleep(0)
        for number in range(3):
            await channel.send(number)
        first.cancel()
        await workflow.sleep(0)
        return [await channel.receive() for _ in range(3)]

    assert result_of(wf) == [0, 1, 2]


def test_a_cancelled_sender_leaves_nothing_behind():
    async def wf():
        channel: Channel[int] = Channel()
        first = asyncio.create_task(channel.send(1))
        second = asyncio.create_task(channel.send(2))
        await workflow.sleep(0)
        first.cancel()
        await workflow.sleep(0)
        left = len(channel.queue._senders)
        return [left, await channel.receive(), second.done()]

    assert result_of(wf) == [1, 2, False]


def test_select_takes_the_first_that_is_ready_in_argument_order():
    async def wf():
        one, two = Channel[str](1), Channel[str](1)
        await two.send("b")
        await one.send("a")
        chosen, value = await select(two, one)
        then, other = await select(two, one)
        return [chosen is two, value, then is one, other]

    assert result_of(wf) == [True, "b", True, "a"]


def test_select_waits_for_whichever_comes():
    @workflow.define
    async def wf():
        one, two = Channel[str](), Channel[str]()

        async def pass_on(name: str, channel: Channel[str]):
            await channel.send(await call(name))

        workflow.spawn(pass_on("a", one))
        workflow.spawn(pass_on("b", two))
        got = []
        for _ in range(2):
            chosen, value = await select(one, two)
            got.append([chosen is two, value])
        return got

    run = Run(wf)
    run.complete("b", "B")
    run.complete("a", "A")
    assert run.result == [[True, "B"], [False, "A"]]


def test_select_of_a_closed_channel_raises():
    @workflow.define
    async def wf():
        one, two = Channel[str](), Channel[str]()
        told = []

        async def close():
            await call("a")
            two.close()

        workflow.spawn(close())
        for _ in range(2):
            try:
                await select(one, two)
            except errors.ChannelClosed:
                told.append("closed")
        return told

    run = Run(wf)
    run.complete("a")
    assert run.result == ["closed", "closed"]


def test_select_takes_a_blocked_senders_value():
    async def wf():
        channel = Channel[int]()
        task = asyncio.create_task(channel.send(5))
        await workflow.sleep(0)
        _, value = await select(channel, after("1h"))
        await task
        return value

    run = Run(workflow.define(name="wf")(wf))
    assert run.result == 5
    assert run.asked == ["run_completed"]


def test_select_of_nothing_is_refused():
    async def wf():
        await select()

    run = Run(workflow.define(name="wf")(wf))
    assert run.failure.message.startswith("select: needs a channel")


def test_after_is_chosen_when_its_time_is_over():
    @workflow.define
    async def wf():
        never, moment = Channel[int](), after("5s")
        chosen, value = await select(never, moment)
        return [chosen is moment, value, (await select(never, moment))[0] is moment]

    run = Run(wf)
    assert run.instance.next_due() == NOON + 5 * SECOND
    run.fire()
    assert run.result == [True, None, True]


def test_after_that_is_not_chosen_leaves_no_timer_and_keeps_its_time():
    @workflow.define
    async def wf():
        channel, moment = Channel[int](), after("10s")

        async def pass_on():
            await channel.send(await call("a"))

        workflow.spawn(pass_on())
        await select(channel, moment)
        await call("b")
        chosen, _ = await select(channel, moment)
        return chosen is moment

    run = Run(wf)
    run.turn(run.completed("a"), after=3)
    assert not run.instance.timers
    run.turn(run.completed("b"), after=3)
    assert run.instance.next_due() == NOON + 10 * SECOND
    run.fire()
    assert run.result is True


def test_of_two_moments_the_earlier_is_chosen():
    @workflow.define
    async def wf():
        late, early = after("10s"), after("5s")
        chosen, _ = await select(late, early)
        return chosen is early

    run = Run(wf)
    run.fire()
    assert run.result is True
    assert run.asked[0].startswith("timer_cancelled")


def test_after_no_time_is_chosen_at_once():
    async def wf():
        moment = after(0)
        return (await select(Channel[int](), moment))[0] is moment

    run = Run(workflow.define(name="wf")(wf))
    assert run.result is True
    assert run.asked == ["run_completed"]


def test_a_cancelled_select_leaves_no_timer_and_gives_its_value_back():
    @workflow.define
    async def wf():
        channel = Channel[int]()

        async def chooser():
            await select(channel, after("1h"))

        task = asyncio.create_task(chooser())
        await call("a")
        await channel.send(5)
        task.cancel()
        await workflow.sleep(0)
        return await channel.receive()

    run = Run(wf)
    run.complete("a")
    assert run.result == 5
    assert run.asked == ["timer_cancelled #3", "run_completed"]


def test_drain_takes_what_is_there_and_lets_waiting_senders_go():
    async def wf():
        channel: Channel[int] = Channel(1)
        for number in range(3):
            workflow.spawn(channel.send(number))
        await workflow.sleep(0)
        return [channel.drain(), channel.drain()]

    assert result_of(wf) == [[0, 1, 2], []]


@pytest.mark.parametrize("bad", ["soon", -1])
def test_a_bad_duration_is_refused(bad):
    async def wf():
        after(bad)

    assert Run(workflow.define(name="wf")(wf)).failure.message.startswith("after: ")


def test_a_negative_capacity_is_refused():
    with pytest.raises(errors.UsageError, match="capacity -1 is negative"):
        Channel(-1)


def test_what_messages_come_out_of_cannot_be_sent_to():
    async def wf():
        await workflow.listen("topic").send(1)

    assert "this channel is for receiving" in Run(workflow.define(name="wf")(wf)).failure.message
