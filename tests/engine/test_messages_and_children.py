"""Messages, children, queries, updates, cancel: what passes between executions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import ApplicationError, Client, Status, activity, workflow
from perdure.errors import (
    ChildFailed,
    Closed,
    Invalid,
    NotFound,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTerminated,
)


@workflow.define
async def gather_numbers(count: int) -> list[int]:
    numbers = workflow.listen("number", int)
    return [await numbers.receive() for _ in range(count)]


async def test_messages_of_one_sender_arrive_once_in_order_even_if_nobody_listened(tmp_path: Path):
    async with engine_on(tmp_path, gather_numbers) as engine:
        handle = await engine.client.start(gather_numbers, 100, id="g")
        for number in range(100):
            await handle.send("number", number)
        assert await handle == list(range(100))
        with pytest.raises(Closed):
            await handle.send("number", 1)


async def test_a_message_to_an_unknown_or_ended_execution_finds_nobody(tmp_path: Path):
    async with engine_on(tmp_path, gather_numbers) as engine, engine.client.mailbox() as box:
        ended = await engine.client.start(gather_numbers, 0, id="ended")
        assert await ended == []
        for target in (ended, engine.client.get("nobody")):
            for send in (target.send, lambda *given, to=target.id: box.send(to, *given)):
                with pytest.raises(NotFound) as caught:
                    await send("number", 1)
                assert (caught.value.kind, caught.value.retryable) == ("NotFound", False)


async def test_a_client_of_another_connection_can_start_send_query_update_and_wait(tmp_path: Path):
    async with (
        engine_on(tmp_path, gather_numbers, counter) as engine,
        Client(engine.url) as client,
    ):
        handle = await client.start("gather_numbers", 2)
        await handle.send("number", 1)
        await handle.send("number", 2)
        assert await handle.result("10s") == [1, 2]
        counting = await client.start("counter", 5, id="c")
        assert await counting.update("add", 2, id="once") == 7
        assert await counting.update("add", 2, id="once") == 7
        assert await counting.query("value") == 7
        with pytest.raises(NotFound):
            await counting.query("nothing")
        await counting.send("finish")
        assert await counting.result("10s") == 7
        assert await counting.query("value") == 7, "ended runs answer too"


@workflow.define
async def counter(value: int) -> int:
    @workflow.query("value")
    def get() -> int:
        return value

    def check(amount: int) -> None:
        if amount < 0:
            raise ApplicationError("not below zero", kind="Invalid")

    @workflow.update("add", validator=check)
    async def add(amount: int) -> int:
        nonlocal value
        await workflow.sleep("1ms")
        value += amount
        return value

    await workflow.listen("finish").receive()
    return value


async def test_a_refused_update_leaves_no_trace_and_one_that_comes_too_late_is_closed(
    tmp_path: Path,
):
    async with engine_on(tmp_path, counter) as engine:
        handle = await engine.client.start(counter, 1)
        with pytest.raises(ApplicationError, match="not below zero"):
            await handle.update("add", -1)
        with pytest.raises(Invalid, match="amount"):
            await handle.update("add", "many")
        assert await events_of(handle, "update_accepted") == []
        assert await handle.update("add", 1) == 2
        await handle.send("finish")
        assert await handle == 2
        with pytest.raises(Closed):
            await handle.update("add", 1)


@workflow.define
async def pong() -> str:
    message = await workflow.inbox().receive()
    await message.reply("pong", message.payload)
    return message.topic


@workflow.define
async def ping(target: str) -> str:
    await workflow.send(target, "ping", "ball")
    try:
        await workflow.send("no-such-workflow", "ping")
    except NotFound as exc:
        assert not exc.retryable
    return await workflow.listen("pong").receive(timeout="10s")


async def test_workflows_send_to_each_other_and_learn_of_unknown_targets(tmp_path: Path):
    async with engine_on(tmp_path, ping, pong) as engine:
        other = await engine.client.start(pong, id="pong-1")
        assert await engine.client.execute(ping, "pong-1") == "ball"
        assert await other == "ping"


@workflow.define
async def child(fate: str) -> str:
    if fate == "fail":
        raise ApplicationError("child is sad", kind="Sadness", retryable=False)
    if fate == "wait":
        await workflow.listen("go").receive()
    return f"child {fate}"


@workflow.define
async def parent() -> list[str]:
    seen = [await workflow.execute(child, "well")]
    started = await workflow.start(child, "fine")
    notice = await workflow.events().receive()
    seen += [str(notice.result), str(notice.sender == started.id), await started]
    try:
        await workflow.execute(child, "fail")
    except ChildFailed as exc:
        seen.append(exc.kind)
    await workflow.start(child, "wait", id="taken")
    try:
        await workflow.execute(child, "wait", id="taken", id_conflict_policy="fail")
    except ChildFailed as exc:
        seen.append(exc.kind)
    return seen


async def test_children_return_notify_fail_and_are_refused(tmp_path: Path):
    async with engine_on(tmp_path, parent, child) as engine:
        seen = await engine.client.execute(parent)
        assert seen == [
            "child well",
            "child fine",
            "True",
            "child fine",
            "Sadness",
            "AlreadyExists",
        ]
        taken = engine.client.get("taken")
        with pytest.raises(WorkflowTerminated):
            await taken.result("10s")


@workflow.define
async def leaver() -> None:
    for policy in ("terminate", "abandon", "request_cancel"):
        await workflow.start(child, "wait", id=policy, parent_close_policy=policy)
    await workflow.listen("leave").receive()


async def test_open_children_meet_their_parent_close_policy(tmp_path: Path):
    async with engine_on(tmp_path, leaver, child) as engine:
        handle = await engine.client.start(leaver)
        await handle.send("leave")
        await handle
        await until_status(engine.client.get("terminate"), Status.TERMINATED)
        await until_status(engine.client.get("request_cancel"), Status.CANCELLED)
        left = engine.client.get("abandon")
        await left.send("go")
        assert await left.result("10s") == "child wait"


@activity.define
async def clean(what: str) -> str:
    return what


@workflow.define
async def careful() -> str:
    try:
        await workflow.listen("never").receive()
    finally:
        await clean("up")
    return "?"


@workflow.define
async def stubborn() -> None:
    while True:
        try:
            await workflow.sleep("1h")
        except asyncio.CancelledError:
            continue


async def test_cancel_lets_code_clean_up_and_a_deadline_ends_what_will_not(tmp_path: Path):
    async with engine_on(tmp_path, careful, stubborn) as engine:
        handle = await engine.client.start(careful)
        assert await handle.cancel("enough")
        with pytest.raises(WorkflowCancelled, match="enough"):
            await handle
        assert [e.data["name"] for e in await events_of(handle, "activity_scheduled")] == ["clean"]
        assert await handle.cancel() is False
        deaf = await engine.client.start(stubborn)
        await deaf.cancel("please", deadline="50ms")
        with pytest.raises(WorkflowTerminated, match="deadline"):
            await deaf
        assert await deaf.terminate() is False


@workflow.define
async def generations(left: int) -> int:
    if left:
        await workflow.continue_as_new(left - 1)
    return await workflow.listen("answer", int).receive()


async def test_continue_as_new_keeps_id_and_messages_and_result_follows(tmp_path: Path):
    async with engine_on(tmp_path, generations) as engine:
        handle = await engine.client.start(generations, 3, id="g")
        await handle.send("answer", 42)
        assert await handle == 42
        page = await engine.client.list(workflow_id="g")
        assert [str(item.status) for item in page.items] == [
            "completed",
            "continued_as_new",
            "continued_as_new",
            "continued_as_new",
        ]


@workflow.define
async def parent_of_generations(left: int) -> Any:
    if left == 2:
        await workflow.start(generations, 0, id="late")
        await workflow.execute(generations, 0, id="early", messages=[("answer", 1)])
        await workflow.monitor("early")
        await workflow.handle("early")
    if left:
        await workflow.continue_as_new(left - 1)
    notices = workflow.events()
    return [[event.sender, event.result] for event in [await notices.receive() for _ in range(2)]]


async def test_a_run_that_continues_is_told_of_ends_before_and_of_its_children(tmp_path: Path):
    async with engine_on(tmp_path, generations, parent_of_generations) as engine:
        handle = await engine.client.start(parent_of_generations, 2, id="p")

        async def is_last() -> bool:
            return len((await engine.client.list(workflow_id="p")).items) == 3

        await until(is_last)
        await engine.client.get("late").send("answer", 2)
        assert await handle.result("20s") == [["early", 1], ["late", 2]]


@workflow.define
async def raises() -> None:
    raise KeyError("unexpected")


async def test_an_uncaught_exception_fails_the_run_with_its_class_and_place(tmp_path: Path):
    async with engine_on(tmp_path, raises) as engine:
        handle = await engine.client.start(raises)
        with pytest.raises(WorkflowFailed) as caught:
            await handle
        assert caught.value.kind == "Internal"
        described = await handle.describe()
        assert described.error["type"] == "KeyError"
        assert "test_messages_and_children.py" in described.error["trace"]


@workflow.define
async def brief(_: None) -> str:
    return "over"


@workflow.define
async def asks_too_late(_: None) -> list[Any]:
    child = await workflow.start(brief, None, id="brief")
    await child
    found: list[Any] = [await child.cancel("late"), await child.terminate()]
    found.append(await workflow.handle("brief").cancel(deadline="1s"))
    try:
        await workflow.handle("nobody").cancel()
    except NotFound as exc:
        found.append(exc.kind)
    return found


async def test_a_workflow_that_ends_an_ended_execution_is_told_so_as_a_client_is(tmp_path: Path):
    async with engine_on(tmp_path, brief, asks_too_late) as engine:
        handle = await engine.client.start(asks_too_late)
        assert await handle.result("20s") == [False, False, False, "NotFound"]


async def test_each_startup_message_has_an_id_of_its_own(tmp_path: Path):
    @workflow.define
    async def gather_ids(count: int) -> list[str]:
        messages = workflow.listen("number", message=True)
        return [(await messages.receive()).id for _ in range(count)]

    async with engine_on(tmp_path, gather_ids) as engine:
        client, two = engine.client, [("number", 1), ("number", 2)]
        handle = await client.start(gather_ids, 5, id="g", messages=two)
        await client.start(gather_ids, 5, id="g", messages=two)
        await handle.send("number", 3)
        found = await handle
        assert all(found) and len(set(found)) == 5
