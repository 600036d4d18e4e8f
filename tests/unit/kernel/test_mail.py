"""Messages: to their listener, else to the opened inbox, else kept in order."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.unit.drive import NOON, Run, message

from perdure import errors, workflow
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.workflow import call


@dataclass
class Paid:
    amount: int


def test_a_listener_gets_the_payloads_of_its_topic_decoded():
    @workflow.define
    async def wf():
        got = await workflow.listen("paid", Paid).receive()
        assert isinstance(got, Paid)
        return got.amount

    run = Run(wf)
    assert run.instance.waits().topics == ["paid"]
    assert run.message("other", 1) == []
    run.message("paid", {"amount": 5})
    assert run.result == 5


def test_a_listener_may_ask_for_whole_messages():
    @workflow.define
    async def wf():
        got = await workflow.listen("paid", Paid, message=True).receive()
        return [
            got.topic,
            got.payload.amount,
            got.sender,
            got.id,
            got.sent_at.isoformat(),
            repr(got),
        ]

    run = Run(wf)
    run.message("paid", {"amount": 5}, sender="order-1", id="m1", sent_at=NOON)
    assert run.result == [
        "paid",
        5,
        "order-1",
        "m1",
        "2025-06-15T15:06:40+00:00",
        "<Message 'paid' from 'order-1'>",
    ]


def test_what_came_before_the_listener_is_in_its_channel_in_order():
    @workflow.define
    async def wf():
        await call("a")
        channel = workflow.listen("n")
        return [await channel.receive() for _ in range(3)]

    run = Run(wf)
    run.message("n", 1)
    run.turn(message("n", 2), message("x"), message("n", 3))
    run.complete("a")
    assert run.result == [1, 2, 3]


def test_messages_of_the_start_come_before_all_others():
    @workflow.define
    async def wf():
        channel = workflow.listen("n")
        return [await channel.receive() for _ in range(2)]

    run = Run(wf, start=False, messages=(ev.Message("n", b"1"),))
    run.turn(run.started, message("n", 2))
    assert run.result == [1, 2]


def test_the_inbox_gets_what_has_no_listener():
    @workflow.define
    async def wf():
        await call("a")
        paid, inbox = workflow.listen("paid"), workflow.inbox()
        got = [(await inbox.receive()).topic for _ in range(3)]
        return [got, await paid.receive()]

    run = Run(wf)
    run.turn(message("x"), message("paid", 5), message("y"))
    run.complete("a")
    assert run.instance.waits().topics == ["*"]
    run.turn(message("paid", 6), message("z"))
    assert run.result == [["x", "y", "z"], 5]


def test_a_message_that_went_to_the_inbox_stays_there():
    @workflow.define
    async def wf():
        inbox = workflow.inbox()
        await call("a")
        listener = workflow.listen("n")
        await call("b")
        return [(await inbox.receive()).payload, await listener.receive()]

    run = Run(wf)
    run.message("n", 1)
    run.complete("a")
    run.message("n", 2)
    run.complete("b")
    assert run.result == [1, 2]


def test_listening_twice_is_listening_to_the_same():
    @workflow.define
    async def wf():
        one, two = workflow.listen("n"), workflow.listen("n")
        return [await one.receive(), await two.receive()]

    run = Run(wf)
    run.turn(message("n", 1), message("n", 2))
    assert run.result == [1, 2]


def test_topics_are_matched_exactly():
    @workflow.define
    async def wf():
        return await workflow.listen("order.*").receive()

    run = Run(wf)
    run.message("order.paid", 1)
    run.message("order.*", 2)
    assert run.result == 2


def test_a_message_that_does_not_fit_raises_where_it_is_received():
    @workflow.define
    async def wf():
        channel = workflow.listen("paid", Paid)
        try:
            await channel.receive()
        except errors.Invalid as exc:
            return [str(exc), (await channel.receive()).amount]

    run = Run(wf)
    run.message("paid", {"amount": "many"})
    run.message("paid", {"amount": 2})
    assert run.result == ["message 'paid': Expected `int`, got `str` - at `value.amount`", 2]


def test_async_for_over_messages_goes_on_for_ever():
    @workflow.define
    async def wf():
        total = 0
        async for number in workflow.listen("n"):
            if number == 0:
                return total
            total += number

    run = Run(wf)
    for number in (1, 2, 3, 0):
        run.message("n", number)
    assert run.result == 6


def test_a_message_handed_to_a_cancelled_receiver_is_not_lost():
    @workflow.define
    async def wf():
        channel = workflow.listen("n")
        try:
            async with asyncio.timeout(5):
                await channel.receive()
        except TimeoutError:
            return await channel.receive()

    run = Run(wf)
    due = run.instance.due_timers(run.time + 5_000_000)
    run.turn(message("n", 7), *due, after=5)
    assert run.result == 7


# -- sending -------------------------------------------------------------------------------------


def test_a_send_is_a_command_and_waits_for_its_commit():
    @workflow.define
    async def wf():
        await workflow.send("order-1", "paid", Paid(5))
        await call("a")

    run = Run(wf)
    assert run.commands == [ev.MessageSent(target="order-1", topic="paid", payload=b'{"amount":5}')]
    assert run.turn(ev.SendResolved(send=2)) == [ev.ActivityScheduled(name="a")]


def test_a_send_to_nobody_raises_not_found():
    @workflow.define
    async def wf():
        try:
            await workflow.handle("order-1").send("paid")
        except errors.NotFound as exc:
            return str(exc)

    run = Run(wf)
    info = failures.from_exception(errors.NotFound("no execution 'order-1'"))
    run.turn(ev.SendResolved(send=2, failure=info))
    assert run.result == "no execution 'order-1'"


def test_a_reply_goes_to_the_sender():
    @workflow.define
    async def wf():
        got = await workflow.inbox().receive()
        await got.reply("done", 1)

    run = Run(wf)
    assert run.message("do", sender="@box-1") == [
        ev.MessageSent(target="@box-1", topic="done", payload=b"1")
    ]


def test_a_reply_to_an_anonymous_sender_is_dropped():
    @workflow.define
    async def wf():
        await (await workflow.inbox().receive()).reply("done", 1)

    run = Run(wf)
    assert run.message("do", sender="") == [ev.RunCompleted()]


@pytest.mark.parametrize(
    ("target", "topic", "value", "why"),
    [
        ("o", "", 1, "topic: '' must be text of 1 to 255 characters"),
        ("o", "x" * 256, 1, "must be text"),
        ("o", 5, 1, "topic: 5 must be text"),
        ("o", "@exit", 1, "kept for Perdure"),
        ("o", "\udce9", 1, "cannot be encoded as UTF-8"),
        ("o\udce9", "t", 1, "target: .* cannot be encoded"),
        ("o", "t", object(), "message 't': cannot be encoded as JSON"),
        ("o", "t", "x" * (2 * 1024 * 1024), "over the limit of 2,097,152"),
    ],
)
def test_a_bad_message_is_refused_before_it_is_a_command(target, topic, value, why):
    @workflow.define
    async def wf():
        with pytest.raises(errors.Invalid, match=why):
            await workflow.send(target, topic, value)

    assert Run(wf).asked == ["run_completed"]


def test_cancelling_and_terminating_others_are_commands():
    @workflow.define
    async def wf():
        other = workflow.handle("order-1")
        await asyncio.gather(other.cancel("late", deadline="5s"), other.terminate("now"))

    run = Run(wf)
    assert run.commands == [
        ev.CancelSent(target="order-1", reason="late", deadline=NOON + 5_000_000),
        ev.CancelSent(target="order-1", reason="now", terminate=True),
    ]
    run.turn(ev.SendResolved(send=3), ev.SendResolved(send=2))
    assert run.closed == ev.RunCompleted()


def test_a_handle_needs_an_id_that_can_be_one():
    with pytest.raises(errors.Invalid, match="kept for mailboxes"):
        workflow.handle("@box")


# -- continue as new -----------------------------------------------------------------------------


def texts(messages):
    return [[m.topic, payload.decode(m.payload)] for m in messages]


def test_unread_messages_go_along_in_the_order_of_their_arrival():
    @workflow.define
    async def wf():
        workflow.listen("b")
        await call("first")
        workflow.inbox()
        await call("second")
        await workflow.continue_as_new("again")

    run = Run(wf)
    run.message("a", 1)
    run.message("b", 2)
    run.complete("first")
    run.turn(message("c", 3), message("b", 4), message("a", 5))
    run.complete("second")
    assert isinstance(run.closed, ev.RunContinued)
    assert texts(run.closed.messages) == [["a", 1], ["b", 2], ["c", 3], ["b", 4], ["a", 5]]


def test_what_was_received_does_not_go_along():
    @workflow.define
    async def wf():
        channel = workflow.listen("n")
        await channel.receive()
        await workflow.continue_as_new()

    run = Run(wf)
    run.turn(message("n", 1), message("n", 2))
    assert texts(run.closed.messages) == [["n", 2]]


def test_a_message_whose_receiver_did_not_get_to_run_goes_along():
    @workflow.define
    async def wf():
        async def reader():
            await workflow.listen("n").receive()

        one, _two = asyncio.create_task(reader()), asyncio.create_task(reader())
        await call("a")
        one.cancel()  # the message it was handed goes to the other, which will not run any more
        await workflow.continue_as_new()

    run = Run(wf)
    run.turn(run.completed("a"), message("n", 1))
    assert texts(run.closed.messages) == [["n", 1]]
