"""Children: started in the commit of their turn, awaited or watched."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.unit.drive import NOON, Run

from perdure import ApplicationError, errors, workflow
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.workflow import call


@dataclass
class Order:
    number: int


@workflow.define(version="2.1.0", task_queue="fast")
async def ship(order: Order) -> Order:
    return order


def failed(message="sunk", **options):
    return failures.from_exception(ApplicationError(message, **options))


def test_execute_runs_a_child_and_returns_its_result_decoded():
    @workflow.define
    async def wf():
        got = await workflow.execute(ship, Order(1), id="ship-1")
        assert isinstance(got, Order)
        return got.number

    run = Run(wf)
    (event,) = run.commands
    assert event == ev.ChildScheduled(
        workflow="ship",
        workflow_id="ship-1",
        run_id=event.run_id,
        input=b'{"number":1}',
        version="2.1.0",
        queue="fast",
        conflict="use_existing",
    )
    assert run.instance.waits().children == ["ship-1"]
    run.turn(run.child_closed(result={"number": 2}))
    assert run.result == 2


def test_a_child_without_an_id_is_named_like_its_run():
    @workflow.define
    async def wf():
        child = await workflow.start("other", {"a": 1})
        return [child.id == child.run_id, repr(child) == f"<child '{child.id}'>", child.done()]

    run = Run(wf, queue="slow")
    (event, _closing) = run.commands
    assert (event.workflow, event.queue, event.version) == ("other", "slow", "")
    assert run.result == [True, True, False]


def test_a_started_child_can_be_awaited_later_and_more_than_once():
    @workflow.define
    async def wf():
        child = await workflow.start(ship, Order(1))
        await call("a")
        return [(await child).number, (await child).number, child.done()]

    run = Run(wf)
    run.turn(run.child_closed(result={"number": 2}))
    run.complete("a")
    assert run.result == [2, 2, True]


def test_giving_up_the_await_does_not_end_the_child():
    @workflow.define
    async def wf():
        child = await workflow.start(ship, Order(1))
        try:
            async with asyncio.timeout(5):
                await child
        except TimeoutError:
            return (await child).number

    run = Run(wf)
    assert run.fire() == []
    run.turn(run.child_closed(result={"number": 2}))
    assert run.result == 2


def test_giving_up_execute_asks_the_child_to_end():
    @workflow.define
    async def wf():
        async with asyncio.timeout(5):
            await workflow.execute(ship, Order(1), id="ship-1")

    run = Run(wf)
    run.fire()
    assert run.commands[0] == ev.CancelSent(target="ship-1")


def test_a_child_that_failed_raises_with_its_kind():
    @workflow.define
    async def wf():
        try:
            await workflow.execute(ship, Order(1), id="ship-1")
        except errors.ChildFailed as exc:
            return [str(exc), exc.kind, str(exc.cause)]

    run = Run(wf)
    run.turn(run.child_closed(status="failed", failure=failed(kind="Sunk")))
    assert run.result == ["child 'ship-1' failed: sunk", "Sunk", "sunk"]


def test_a_childs_failure_that_nobody_catches_fails_the_parent_with_the_same_kind():
    @workflow.define
    async def wf():
        await workflow.execute(ship, Order(1))

    run = Run(wf)
    run.turn(run.child_closed(status="failed", failure=failed(kind="Sunk")))
    assert run.failure.root.kind == "Sunk"
    assert run.unexpected is None


def test_a_result_that_does_not_fit_is_a_failure_of_the_child():
    @workflow.define
    async def wf():
        try:
            await workflow.execute(ship, Order(1), id="ship-1")
        except errors.ChildFailed as exc:
            return [exc.kind, str(exc)]

    run = Run(wf)
    run.turn(run.child_closed(result={"number": "x"}))
    assert run.result[0] == "Invalid"
    assert "the result does not fit: ship -> result: Expected `int`" in run.result[1]


def test_each_started_child_gives_one_notice():
    @workflow.define
    async def wf():
        await workflow.start(ship, Order(1), id="ship-1")
        await workflow.start(ship, Order(2), id="ship-2")
        got = []
        for _ in range(2):
            notice = await workflow.events().receive()
            outcome = notice.error.kind if notice.error else notice.result.number
            got.append([notice.kind, notice.sender, notice.at.isoformat(), outcome])
        return got

    run = Run(wf)
    run.turn(
        run.child_closed(1, status="failed", failure=failed(kind="Sunk")),
        run.child_closed(0, result={"number": 7}),
    )
    at = "2025-06-15T15:06:40+00:00"
    assert run.result == [["exit", "ship-2", at, "Sunk"], ["exit", "ship-1", at, 7]]


@pytest.mark.parametrize("ends", ["before it is monitored again", "after"])
def test_a_child_that_is_monitored_again_gives_its_notice(ends):
    @workflow.define
    async def wf():
        child = await workflow.start(ship, Order(1))
        await workflow.unmonitor(child)
        await call("meanwhile")
        await workflow.monitor(child)
        await workflow.monitor(child)
        await call("then")
        return [
            len(workflow.events().queue.items),
            (await workflow.events().receive()).result.number,
        ]

    run = Run(wf)
    closing = run.child_closed(result={"number": 1})
    if ends == "after":
        run.complete("meanwhile")
        run.turn(closing)
    else:
        run.turn(closing)
        run.complete("meanwhile")
    run.complete("then")
    assert run.result == [1, 1]


@pytest.mark.parametrize("by", ["id", "handle", "child"])
def test_an_unmonitored_child_gives_no_notice_whatever_it_is_named_by(by):
    @workflow.define
    async def wf():
        child = await workflow.start(ship, Order(1), id="kid")
        named = {"id": "kid", "handle": workflow.handle("kid"), "child": child}
        await workflow.unmonitor(named[by])
        await child
        return len(workflow.events().queue.items)

    run = Run(wf)
    run.turn(run.child_closed(result={"number": 1}))
    assert run.result == 0


def test_execute_gives_no_notice():
    @workflow.define
    async def wf():
        await workflow.execute(ship, Order(1))
        try:
            await workflow.events().receive(timeout=0)
        except TimeoutError:
            return "none"

    run = Run(wf)
    run.turn(run.child_closed(result={"number": 2}))
    assert run.result == "none"


def test_a_failed_child_that_is_only_watched_disturbs_nobody():
    @workflow.define
    async def wf():
        await workflow.start(ship, Order(1))
        await call("a")
        return str((await workflow.events().receive()).error)

    run = Run(wf)
    run.turn(run.child_closed(status="failed", failure=failed()))
    run.complete("a")
    assert run.result == "sunk"


def test_options_go_into_the_command():
    @workflow.define
    async def wf():
        await workflow.start(
            ship,
            Order(1),
            id="ship-1",
            version="3",
            task_queue="slow",
            parent_close_policy="abandon",
            context={"user": "u"},
            messages=[("go", 1), ("stop", None)],
            search={"city": "Bonn"},
            memo={"note": [1]},
        )

    run = Run(wf, context=b'{"tenant":"t"}')
    event = run.commands[0]
    assert (event.version, event.queue, event.parent_close) == ("3", "slow", "abandon")
    assert payload.decode(event.context) == {"tenant": "t", "user": "u"}
    assert [(m.topic, m.payload, m.sender, m.sent_at) for m in event.messages] == [
        ("go", b"1", "order-7", NOON),
        ("stop", b"null", "order-7", NOON),
    ]
    assert (event.search, event.memo) == (b'{"city":"Bonn"}', b'{"note":[1]}')


def test_the_context_is_inherited():
    @workflow.define
    async def wf():
        await workflow.start(ship, Order(1))

    assert payload.decode(Run(wf, context=b'{"a":1}').commands[0].context) == {"a": 1}
    assert Run(wf).commands[0].context is None


@pytest.mark.parametrize(
    ("child", "value", "options", "why"),
    [
        (ship, {"number": "x"}, {}, r"ship\(order\): Expected `int`"),
        (ship, None, {}, r"ship\(order\): Expected `object`, got `null`"),
        (ship, Order(1), {"colour": "red"}, "start: unknown option 'colour'"),
        (ship, Order(1), {"id": ""}, "id: 0 characters"),
        (ship, Order(1), {"id": 5}, "id: 5 is not text"),
        (ship, Order(1), {"parent_close_policy": "kill"}, "parent_close_policy: 'kill'"),
        (ship, Order(1), {"version": 3}, "version: 3 is not text"),
        (ship, Order(1), {"task_queue": 3}, "task_queue: 3 is not text"),
        (ship, Order(1), {"messages": [("", 1)]}, "topic: ''"),
        (ship, Order(1), {"search": {"a": object()}}, "search attribute 'a': object cannot"),
        (ship, Order(1), {"memo": {"a": object()}}, "memo: cannot be encoded"),
        (ship, Order(1), {"context": {"a": object()}}, "context: cannot be encoded"),
        (7, None, {}, "workflow: 7 is not text"),
        ("other", object(), {}, "input of other: cannot be encoded"),
        ("other", "x" * 3_000_000, {}, "input of other: 3,000,002 bytes are over the limit"),
    ],
)
def test_a_bad_start_is_refused_before_it_is_a_command(child, value, options, why):
    @workflow.define
    async def wf():
        with pytest.raises(errors.Invalid, match=why):
            await workflow.start(child, value, **options)

    assert Run(wf).asked == ["run_completed"]


def test_a_child_can_be_sent_to_cancelled_and_terminated():
    @workflow.define
    async def wf():
        child = await workflow.start(ship, Order(1), id="ship-1")
        await asyncio.gather(child.send("go", 1), child.cancel("late"), child.terminate())

    run = Run(wf)
    assert run.asked[1:] == ["message_sent 'go' to 'ship-1'", "cancel_sent", "cancel_sent"]


def test_children_in_a_gather_are_started_together():
    @workflow.define
    async def wf():
        got = await asyncio.gather(
            *(workflow.execute(ship, Order(n), id=f"s{n}") for n in range(3))
        )
        return [one.number for one in got]

    run = Run(wf)
    assert len(run.commands) == 3
    run.turn(*(run.child_closed(n, result={"number": n * 10}) for n in (2, 0, 1)))
    assert run.result == [0, 10, 20]


def test_handles_can_be_gathered():
    @workflow.define
    async def wf():
        handles = [await workflow.start(ship, Order(n), id=f"s{n}") for n in range(2)]
        return [one.number for one in await asyncio.gather(*handles)]

    run = Run(wf)
    run.turn(*(run.child_closed(n, result={"number": n}) for n in (0, 1)))
    assert run.result == [0, 1]
