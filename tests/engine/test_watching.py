"""Monitors, links and mailboxes: who hears of the end of an execution, and what it does to them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Client, Status, workflow
from perdure.errors import ChannelClosed, ChildFailed, LinkedRunFailed, NotFound, WorkflowFailed


@workflow.define
async def worker(how: str) -> str:
    await workflow.listen("go").receive()
    if how == "badly":
        raise ApplicationError("it broke", kind="Broken", details={"n": 1})
    return f"ended {how}"


@workflow.define
async def watcher(target: str) -> list[Any]:
    await workflow.monitor(target)
    await workflow.send("note", "watching", workflow.info().workflow_id)
    notice = await workflow.events().receive()
    error = notice.error.kind if notice.error is not None else None
    return [str(notice.kind), notice.sender, notice.result, error]


@workflow.define
async def note() -> None:
    await workflow.listen("never").receive()


ALL = (worker, watcher, note)


async def watching(engine: Any, target: str, **more: Any) -> Any:
    handle = await engine.client.start(watcher, target, **more)

    async def is_set() -> bool:
        return any(event.kind == "send_resolved" for event in await handle.history())

    await until(is_set)
    return handle


@pytest.mark.parametrize(
    ("how", "told"),
    [("well", ["exit", "w", "ended well", None]), ("badly", ["exit", "w", None, "Broken"])],
)
async def test_a_monitor_tells_once_how_an_execution_ended(
    tmp_path: Path, how: str, told: list[Any]
):
    async with engine_on(tmp_path, *ALL) as engine:
        await engine.client.start(note, id="note")
        target = await engine.client.start(worker, how, id="w")
        handle = await watching(engine, "w")
        await target.send("go")
        assert await handle.result("20s") == told


async def test_a_monitor_on_an_ended_execution_answers_at_once(tmp_path: Path):
    async with engine_on(tmp_path, *ALL) as engine:
        await engine.client.start(note, id="note")
        target = await engine.client.start(worker, "well", id="w", messages=[("go", None)])
        await target
        assert await engine.client.execute(watcher, "w") == ["exit", "w", "ended well", None]


async def test_a_terminated_execution_ends_with_an_error(tmp_path: Path):
    async with engine_on(tmp_path, *ALL) as engine:
        await engine.client.start(note, id="note")
        target = await engine.client.start(worker, "well", id="w")
        handle = await watching(engine, "w")
        await target.terminate()
        assert await handle.result("20s") == ["exit", "w", None, "Canceled"]


async def test_to_watch_what_is_not_there_is_an_error(tmp_path: Path):
    @workflow.define
    async def lost() -> str:
        try:
            await workflow.monitor("nobody")
        except NotFound as exc:
            assert not exc.retryable
            return exc.kind
        return "found"

    async with engine_on(tmp_path, lost) as engine:
        assert await engine.client.execute(lost) == "NotFound"


async def test_an_unmonitored_execution_gives_no_notice(tmp_path: Path):
    @workflow.define
    async def fickle(target: str) -> str:
        await workflow.monitor(target)
        await workflow.unmonitor(target)
        await workflow.send(target, "go")
        await workflow.handle(target)
        try:
            await workflow.events().receive("10ms")
        except TimeoutError:
            return "nothing"
        return "a notice"

    async with engine_on(tmp_path, worker, fickle) as engine:
        await engine.client.start(worker, "well", id="w")
        assert await engine.client.execute(fickle, "w") == "nothing"


async def test_a_handle_can_be_awaited_in_a_workflow(tmp_path: Path):
    @workflow.define
    async def waiter(target: str) -> Any:
        try:
            return await workflow.handle(target)
        except WorkflowFailed as exc:
            return [exc.kind, exc.details]

    async with engine_on(tmp_path, worker, waiter) as engine:
        for how, told in (("well", "ended well"), ("badly", ["Broken", {"n": 1}])):
            target = await engine.client.start(worker, how, id=how)
            handle = await engine.client.start(waiter, how)
            await target.send("go")
            assert await handle.result("20s") == told


@workflow.define
async def linked(target: str) -> list[Any]:
    try:
        await workflow.link(target)
        await workflow.send(target, "go")
        notice = await workflow.events().receive()
        return ["notice", str(notice.kind), notice.result]
    except LinkedRunFailed as exc:
        await workflow.sleep("1ms")
        return ["raised", exc.kind, exc.details]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("well", ["notice", "exit", "ended well"]),
        ("badly", ["raised", "Broken", {"n": 1}]),
    ],
)
async def test_a_link_tells_of_a_good_end_and_raises_at_a_bad_one(
    tmp_path: Path, how: str, told: list[Any]
):
    async with engine_on(tmp_path, worker, linked) as engine:
        await engine.client.start(worker, how, id="w")
        assert await engine.client.execute(linked, "w") == told


async def test_a_trapped_link_is_a_notice(tmp_path: Path):
    @workflow.define
    async def trapping(target: str) -> list[Any]:
        workflow.trap_links(True)
        await workflow.link(target)
        await workflow.handle(target).terminate()
        notice = await workflow.events().receive()
        assert notice.error is not None
        return [str(notice.kind), notice.sender, notice.error.kind]

    async with engine_on(tmp_path, worker, trapping) as engine:
        await engine.client.start(worker, "well", id="w")
        assert await engine.client.execute(trapping, "w") == ["link_down", "w", "Canceled"]


async def test_an_untrapped_link_fails_the_run_that_does_not_catch_it(tmp_path: Path):
    @workflow.define
    async def naive(target: str) -> None:
        await workflow.link(target)
        await workflow.send(target, "go")
        async with asyncio.TaskGroup() as group:
            group.create_task(workflow.sleep("1h"))

    async with engine_on(tmp_path, worker, naive) as engine:
        await engine.client.start(worker, "badly", id="w")
        with pytest.raises(WorkflowFailed, match="it broke"):
            await engine.client.execute(naive, "w")


async def test_a_link_reaches_the_other_way_too_and_not_once_it_is_taken_back(tmp_path: Path):
    @workflow.define
    async def failing(target: str) -> None:
        await workflow.link(target)
        if target == "spared":
            await workflow.unlink(target)
        raise ApplicationError("I fall")

    async with engine_on(tmp_path, worker, failing) as engine:
        pulled = await engine.client.start(worker, "well", id="pulled")
        spared = await engine.client.start(worker, "well", id="spared")
        for target in ("pulled", "spared"):
            with pytest.raises(WorkflowFailed):
                await engine.client.execute(failing, target)
        with pytest.raises(WorkflowFailed, match="I fall"):
            await pulled.result("20s")
        await spared.send("go")
        assert await spared.result("20s") == "ended well"


async def test_a_link_can_be_taken_back_by_the_one_it_was_set_on(tmp_path: Path):
    @workflow.define
    async def setting(target: str) -> None:
        await workflow.link(target)
        await workflow.send(target, "linked")
        await workflow.listen("go").receive()
        raise ApplicationError("I fall")

    @workflow.define
    async def taking_back() -> str:
        await workflow.listen("linked").receive()
        await workflow.unlink("setting")
        await workflow.send("setting", "go")
        await workflow.monitor("setting")
        notice = await workflow.events().receive()
        return str(notice.kind)

    async with engine_on(tmp_path, setting, taking_back) as engine:
        handle = await engine.client.start(taking_back, id="taking")
        await engine.client.start(setting, "taking", id="setting")
        assert await handle.result("20s") == "exit"


async def test_a_child_with_the_id_of_an_open_execution_is_a_handle_on_that(tmp_path: Path):
    @workflow.define
    async def parent(_: None) -> Any:
        child = await workflow.start(worker, "ignored", id="w", messages=[("go", 1)])
        return [await child, (await workflow.events().receive()).result]

    async with engine_on(tmp_path, worker, parent) as engine:
        first = await engine.client.start(worker, "well", id="w")
        assert await engine.client.execute(parent, None) == ["ended well", "ended well"]
        assert len((await engine.client.list(workflow=worker)).items) == 1
        assert await first == "ended well"


async def test_a_start_that_is_refused_is_a_child_that_ended_badly(tmp_path: Path):
    @workflow.define
    async def parent(_: None) -> Any:
        child = await workflow.start(worker, "well", id="w", id_conflict_policy="fail")
        with pytest.raises(ChildFailed) as caught:
            await child
        notice = await workflow.events().receive()
        return [type(exc).__name__ for exc in (caught.value.cause, notice.error)]

    async with engine_on(tmp_path, worker, parent) as engine:
        await engine.client.start(worker, "well", id="w")
        assert await engine.client.execute(parent, None) == ["AlreadyExists", "AlreadyExists"]


# -- mailboxes ---------------------------------------------------------------------------------


@workflow.define
async def counter(initial: dict[str, int]) -> int:
    value = initial["initial"]
    async for message in workflow.inbox():
        if message.topic == "increment":
            if not isinstance(message.payload, dict):
                await message.reply("nak", "amount must be a number")
                continue
            value += message.payload["amount"]
            await message.reply("ok", {"value": value})
        else:
            await message.reply("ok", "finishing")
            break
    return value


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_mailbox_gets_replies_and_the_exit(tmp_path: Path, through: str):
    async with engine_on(tmp_path, counter) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        async with client.mailbox() as box:
            handle = await box.start(
                counter if through == "engine" else "counter", {"initial": 2}, monitor=True
            )
            answer = await box.ask(handle, "increment", {"amount": 3}, reply="ok", timeout="20s")
            assert answer == {"value": 5}
            with pytest.raises(ApplicationError, match="amount must"):
                await box.ask(handle, "increment", "x", reply="ok", error="nak", timeout="20s")
            await box.send(handle, "finish")
            reply = await box.inbox().receive(timeout="20s")
            assert (reply.topic, reply.payload, reply.sender) == ("ok", "finishing", handle.id)
            notice = await box.events().receive(timeout="20s")
            assert (notice.kind, notice.sender, notice.result) == ("exit", handle.id, 5)
        with pytest.raises(ChannelClosed):
            await box.inbox().receive()


async def test_startup_messages_come_from_the_mailbox_and_before_any_other(tmp_path: Path):
    async with engine_on(tmp_path, counter) as engine, engine.client.mailbox() as box:
        first = [("increment", {"amount": 3})]
        handle = await box.start(counter, {"initial": 0}, id="c", messages=first)
        again = await box.start(
            counter, {"initial": 999}, id="c", messages=[("increment", {"amount": 2})]
        )
        assert again.run_id == handle.run_id
        replies = box.listen("ok")
        assert [await replies.receive("20s"), await replies.receive("20s")] == [
            {"value": 3},
            {"value": 5},
        ]


async def test_what_is_sent_to_a_closed_mailbox_is_dropped(tmp_path: Path):
    @workflow.define
    async def late() -> str:
        message = await workflow.inbox().receive()
        await workflow.listen("closed").receive()
        await message.reply("too", "late")
        return "sent"

    async with engine_on(tmp_path, late) as engine:
        async with engine.client.mailbox() as box:
            handle = await box.start(late)
            await box.send(handle, "hello")
        await handle.send("closed")
        assert await handle.result("20s") == "sent"
        core = engine._core
        assert core is not None
        assert await core.desk.read(lambda store: store.mail([box.id], limit=9)) == []


async def test_a_broken_link_cancels_the_body_and_is_raised_out_of_it(tmp_path: Path):
    async with engine_on(tmp_path, worker) as engine:
        with pytest.raises(LinkedRunFailed, match="it broke") as caught:
            async with engine.client.mailbox() as box:
                await box.start(worker, "badly", id="w", link=True, messages=[("go", None)])
                await asyncio.Event().wait()
        assert caught.value.kind == "Broken"


async def test_a_mailbox_that_traps_links_gets_link_down(tmp_path: Path):
    async with engine_on(tmp_path, worker) as engine, engine.client.mailbox(trap_links=True) as box:
        handle = await box.start(worker, "well", id="w")
        await box.link(handle)
        await handle.terminate("enough")
        notice = await box.events().receive("20s")
        assert (notice.kind, notice.sender) == ("link_down", "w")
        with pytest.raises(NotFound):
            await box.monitor("nobody")
        await box.monitor(handle)
        assert (await box.events().receive("20s")).kind == "exit"


async def test_an_unlinked_mailbox_hears_nothing(tmp_path: Path):
    async with engine_on(tmp_path, worker) as engine, engine.client.mailbox() as box:
        handle = await box.start(worker, "badly", id="w", link=True, monitor=True)
        await box.unlink(handle)
        await box.unmonitor(handle)
        await handle.send("go")
        await until_status(handle, Status.FAILED)
        with pytest.raises(TimeoutError):
            await box.events().receive("100ms")
