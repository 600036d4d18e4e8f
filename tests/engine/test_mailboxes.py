"""Mailboxes: whose answer an ask gets, and what else comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.engine.support import engine_on

from perdure import Status, workflow
from perdure.errors import NotFound


@workflow.define
async def echo(name: str) -> None:
    """Answer each ``say``, once told to ``speak`` if the name begins with ``late``."""
    if name.startswith("late"):
        await workflow.listen("speak").receive()
    async for message in workflow.listen("say", message=True):
        await message.reply("said", [name, message.payload])


async def test_asks_that_overlap_each_get_the_answer_of_whom_they_asked(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        late = await engine.client.start(echo, "late")
        prompt = await engine.client.start(echo, "prompt", id="prompt")
        first = asyncio.create_task(box.ask(late, "say", 1, reply="said", timeout="20s"))
        assert await box.ask("prompt", "say", 2, reply="said", timeout="20s") == ["prompt", 2]
        by_run_id = engine.client.get(prompt.run_id)
        assert await box.ask(by_run_id, "say", 3, reply="said", timeout="20s") == ["prompt", 3]
        await late.send("speak")
        assert await first == ["late", 1]


async def test_asks_of_one_execution_are_answered_in_their_order(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        handle = await engine.client.start(echo, "a")
        asked = [box.ask(handle, "say", n, reply="said", timeout="20s") for n in range(5)]
        assert await asyncio.gather(*asked) == [["a", n] for n in range(5)]


async def test_a_reply_that_comes_too_late_answers_no_ask_of_another_execution(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        late = await engine.client.start(echo, "late")
        later = await engine.client.start(echo, "later")
        with pytest.raises(TimeoutError):
            await box.ask(late, "say", 1, reply="said", timeout="10ms")
        waiting = asyncio.create_task(box.ask(later, "say", 2, reply="said", timeout="20s"))
        await late.send("speak")
        message = await box.inbox().receive("20s")
        assert (message.sender, message.payload) == (late.id, ["late", 1])
        await later.send("speak")
        assert await waiting == ["later", 2]


async def test_an_ask_leaves_a_listener_of_its_reply_topic_what_others_send(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        a, b = [await engine.client.start(echo, name) for name in ("a", "b")]
        said = box.listen("said")
        waiting = asyncio.create_task(box.ask(a, "say", 1, reply="said", timeout="20s"))
        await box.send(b, "say", 2)
        assert await said.receive("20s") == ["b", 2]
        assert await waiting == ["a", 1]


async def test_a_handle_is_of_the_namespace_of_its_start(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        client = engine.client
        started = await client.start(echo, "there", id="e", namespace="other")
        await client.start(echo, "here", id="e")
        for handle in (started, client.get("e", namespace="other")):
            assert (handle.namespace, handle.id) == ("other", "e")
            assert await handle.status() is not Status.COMPLETED
            assert (await handle.describe()).input == "there"
            assert "say" in await handle.why()
            assert await box.ask(handle, "say", 1, reply="said", timeout="20s") == ["there", 1]
        answer = await box.ask("e", "say", 2, reply="said", timeout="20s", namespace="other")
        assert answer == ["there", 2]
        assert await box.ask("e", "say", 3, reply="said", timeout="20s") == ["here", 3]
        fork = await started.fork(after_event=0, id="fork")
        assert (fork.namespace, (await fork.describe()).input) == ("other", "there")


async def test_a_mailbox_watches_executions_of_any_namespace(tmp_path: Path):
    async with engine_on(tmp_path, echo) as engine, engine.client.mailbox() as box:
        here = await box.start(echo, "here", id="e", monitor=True)
        there = await box.start(echo, "there", id="e", monitor=True, namespace="other")
        await engine.client.start(echo, "later", id="later", namespace="other")
        await box.monitor("later", namespace="other")
        with pytest.raises(NotFound):
            await box.monitor("later")
        await box.unmonitor("e", namespace="other")
        for handle in (there, here, engine.client.get("later", namespace="other")):
            assert await handle.terminate()
        notices = [await box.events().receive("20s") for _ in range(2)]
        assert [notice.sender for notice in notices] == ["e", "later"]
