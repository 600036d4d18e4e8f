"""Mailboxes: whose answer an ask gets, and what else comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Status, mailbox, workflow
from perdure.errors import Invalid, NotFound


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
            await until_status(handle, Status.WAITING)
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


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_a_mailbox_may_send_to_a_mailbox_and_be_answered(tmp_path: Path, through: str):
    async with (
        engine_on(tmp_path, echo) as engine,
        Client(engine.url) as other,
        engine.client.mailbox() as asking,
        (engine.client if through == "engine" else other).mailbox() as answering,
    ):

        async def answer() -> None:
            async for message in answering.inbox():
                await message.reply("said", message.payload + 1)

        task = asyncio.create_task(answer())
        for number in range(3):
            asked = asking.ask(answering.id, "say", number, reply="said", timeout="20s")
            assert await asked == number + 1
        await engine.client.get(answering.id).send("say", 5)  # whose reply nobody gets
        assert await asking.ask(answering.id, "say", 6, reply="said", timeout="20s") == 7
        task.cancel()


async def test_a_mailbox_hears_at_once_of_what_its_own_client_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mailbox, "_SAFETY_SECONDS", 1_000.0)
    async with engine_on(tmp_path) as engine, engine.client.mailbox() as box:
        for number in range(3):
            await engine.client.get(box.id).send("number", number)
            assert await box.listen("number").receive("20s") == number


async def test_a_closed_mailbox_takes_a_message_and_drops_it(tmp_path: Path):
    async with engine_on(tmp_path) as engine, engine.client.mailbox() as box:
        async with engine.client.mailbox() as closed:
            pass
        await box.send(closed.id, "say", 1)
        await engine.client.get(closed.id).send("say", 1)
        with pytest.raises(NotFound):
            await engine.client.get(closed.id).status()
        with pytest.raises(Invalid, match="topic"):
            await box.send(closed.id, "@say", 1)
