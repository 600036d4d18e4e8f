"""Messages: the inbox, topics, handlers side by side, answers, and workflows that talk."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Client, Status, activity, workflow
from perdure.errors import Invalid, NotFound, WorkflowFailed


@workflow.define
async def approval_workflow(order: dict[str, Any]) -> dict[str, Any]:
    async for message in workflow.inbox():
        if message.topic == "approve":
            break
        if message.topic == "cancel":
            return {"status": "cancelled", "reason": message.payload["reason"]}
    return {"status": "processed", "order": order["id"]}


@pytest.mark.parametrize(
    ("topic", "payload", "result"),
    [
        ("approve", None, {"status": "processed", "order": 7}),
        ("cancel", {"reason": "too late"}, {"status": "cancelled", "reason": "too late"}),
    ],
)
async def test_inbox_pattern(tmp_path: Path, topic: str, payload: Any, result: Any):
    """One loop receives every message and looks at its topic; unknown ones pass by."""
    async with engine_on(tmp_path, approval_workflow) as engine:
        handle = await engine.client.start(approval_workflow, {"id": 7})
        await handle.send("hello", "who are you?")
        await handle.send(topic, payload)
        assert await handle.result("10s") == result


@activity.define
async def echo_activity(job_id: int, data: Any) -> dict[str, Any]:
    return {"job_id": job_id, "echo": data}


@workflow.define
async def job_workflow(_: None) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    jobs = workflow.listen("add_job")
    exits = workflow.listen("exit")
    while True:
        chosen, job = await workflow.select(jobs, exits)
        if chosen is exits:
            break
        results.append(await echo_activity(job["id"], job))
    return {"total_jobs": len(results), "results": results}


async def test_topic_based_subscription(tmp_path: Path):
    """``select`` takes from whichever topic has something; what came first is served first."""
    async with engine_on(tmp_path, job_workflow, echo_activity) as engine:
        handle = await engine.client.start(job_workflow)
        for number in (1, 2, 3):
            await handle.send("add_job", {"id": number})

        async def has_three() -> bool:
            events = await handle.history()
            return sum(event.kind == "activity_completed" for event in events) == 3

        await until(has_three)
        await handle.send("exit")
        result = await handle.result("10s")
        assert result["total_jobs"] == 3
        assert [one["job_id"] for one in result["results"]] == [1, 2, 3]


async def test_topic_based_subscription_with_whole_messages(tmp_path: Path):
    """``message=True`` gives topic, sender and time beside the payload."""

    @workflow.define
    async def request_workflow() -> dict[str, Any]:
        message = await workflow.listen("request", message=True).receive()
        return {"topic": message.topic, "sender": message.sender, "data": message.payload}

    async with engine_on(tmp_path, request_workflow) as engine, engine.client.mailbox() as box:
        handle = await engine.client.start(request_workflow)
        await box.send(handle, "request", {"n": 1})
        assert await handle.result("10s") == {
            "topic": "request",
            "sender": box.id,
            "data": {"n": 1},
        }


@workflow.define
async def counter_workflow(start: dict[str, int] | None) -> dict[str, int]:
    counter = (start or {}).get("initial", 0)

    async def increment() -> None:
        nonlocal counter
        async for message in workflow.listen("increment", message=True):
            data = message.payload
            if not isinstance(data, dict) or not isinstance(data.get("amount"), int):
                await message.reply("nak", "amount must be a number")
                continue
            await message.reply("ack")
            counter += data["amount"]
            await message.reply("ok", {"value": counter})

    async def decrement() -> None:
        nonlocal counter
        async for message in workflow.listen("decrement", message=True):
            if counter - message.payload["amount"] < 0:
                await message.reply("nak", "would result in negative value")
                continue
            await message.reply("ack")
            counter -= message.payload["amount"]
            await message.reply("ok", {"value": counter})

    workflow.spawn(increment())
    workflow.spawn(decrement())
    finish = await workflow.listen("finish", message=True).receive()
    await finish.reply("ack")
    await finish.reply("ok", {"message": "finishing"})
    return {"final_counter": counter}


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_multiple_signal_handlers(tmp_path: Path, through: str):
    """Handlers run side by side in one workflow and answer with ack, nak and ok."""
    async with engine_on(tmp_path, counter_workflow) as engine, Client(engine.url) as other:
        client = engine.client if through == "engine" else other
        async with client.mailbox() as box:
            handle = await box.start("counter_workflow", {"initial": 1})
            answers = box.inbox()

            async def say(topic: str, payload: Any = None, *, count: int) -> list[Any]:
                await box.send(handle, topic, payload)
                got = [await answers.receive("10s") for _ in range(count)]
                return [one.topic if one.payload is None else one.payload for one in got]

            assert await say("increment", {"amount": 3}, count=2) == ["ack", {"value": 4}]
            assert await say("increment", "three", count=1) == ["amount must be a number"]
            assert await say("decrement", {"amount": 9}, count=1) == [
                "would result in negative value"
            ]
            assert await say("decrement", {"amount": 4}, count=2) == ["ack", {"value": 0}]
            assert await say("finish", count=2) == ["ack", {"message": "finishing"}]
        assert await handle.result("10s") == {"final_counter": 0}


async def test_signal_acknowledgment(tmp_path: Path):
    """Request and answer from outside, with a time limit; ``ask`` is the short way to write it."""

    @workflow.define
    async def status_workflow() -> None:
        async for message in workflow.listen("get_status", message=True):
            if message.payload == "stop":
                return
            if message.payload != "say nothing":
                await message.reply("status_response", {"status": "processing", "progress": 75})

    async with engine_on(tmp_path, status_workflow) as engine, engine.client.mailbox() as box:
        handle = await engine.client.start(status_workflow)
        answers = box.listen("status_response")
        await box.send(handle, "get_status", {})
        assert await answers.receive(timeout="20s") == {"status": "processing", "progress": 75}
        asked = await box.ask(handle, "get_status", {}, reply="status_response", timeout="20s")
        assert asked["progress"] == 75
        with pytest.raises(TimeoutError):
            await box.ask(
                handle, "get_status", "say nothing", reply="status_response", timeout="50ms"
            )
        await box.send(handle, "get_status", "stop")
        await handle.result("10s")


async def test_signal_acknowledgment_that_is_an_error(tmp_path: Path):
    """``ask`` with ``error=`` raises what comes with that topic instead of the answer."""
    async with engine_on(tmp_path, counter_workflow) as engine, engine.client.mailbox() as box:
        handle = await box.start(counter_workflow)
        with pytest.raises(ApplicationError, match="negative"):
            await box.ask(
                handle, "decrement", {"amount": 1}, reply="ok", error="nak", timeout="10s"
            )


@workflow.define
async def pong_workflow(_: None) -> str:
    message = await workflow.listen("cross_host_ping", message=True).receive()
    await message.reply("cross_host_pong", {"data": message.payload["data"] + " back"})
    return message.sender


@workflow.define
async def ping_workflow(target: str) -> dict[str, Any]:
    try:
        await workflow.send(target, "cross_host_ping", {"data": "hello"})
    except NotFound as exc:
        return {"ok": False, "error": str(exc)}
    response = await workflow.listen("cross_host_pong").receive(timeout="10s")
    return {"ok": True, "received": response}


@pytest.mark.parametrize("where", ["in one process's engine", "in two engines"])
async def test_cross_workflow_signaling(tmp_path: Path, where: str):
    """Workflows send to each other by id, wherever they run, and answer the sender."""
    queues = ("default",) if where == "in one process's engine" else ("other",)
    async with (
        engine_on(tmp_path, ping_workflow, pong_workflow) as engine,
        engine_on(tmp_path, pong_workflow, task_queues=queues),
    ):
        target = await engine.client.start(pong_workflow, id="pong", task_queue=queues[0])
        source = await engine.client.start(ping_workflow, "pong", id="ping")
        assert await source.result("20s") == {"ok": True, "received": {"data": "hello back"}}
        assert await target.result("20s") == "ping"
        lost = await engine.client.execute(ping_workflow, "nobody")
        assert lost["ok"] is False and "'nobody'" in lost["error"]


# -- what the pages leave open -----------------------------------------------------------------


async def test_a_message_to_a_missing_workflow_is_not_found_and_not_retryable(tmp_path: Path):
    @workflow.define
    async def lost(target: str) -> list[Any]:
        try:
            await workflow.send(target, "hello")
        except NotFound as exc:
            return [exc.kind, exc.retryable, "workflow" in str(exc)]
        return []

    async with engine_on(tmp_path, lost, pong_workflow) as engine:
        ended = await engine.client.start(pong_workflow, id="ended")
        await ended.terminate()
        for target in ("nobody", "ended"):
            assert await engine.client.execute(lost, target) == ["NotFound", False, True]


async def test_a_message_to_oneself_is_delivered(tmp_path: Path):
    """Upstream accepts such a message and loses it; here what was accepted is received."""

    @workflow.define
    async def monologue() -> list[Any]:
        await workflow.send(workflow.info().workflow_id, "note", "to self")
        message = await workflow.listen("note", str, message=True).receive(timeout="10s")
        return [message.sender == workflow.info().workflow_id, message.payload]

    async with engine_on(tmp_path, monologue) as engine:
        assert await engine.client.execute(monologue) == [True, "to self"]


async def test_messages_of_one_sender_keep_their_order_among_those_of_many(tmp_path: Path):
    @workflow.define
    async def collector(count: int) -> list[tuple[str, int]]:
        inbox = workflow.inbox()
        got = [await inbox.receive() for _ in range(count)]
        return [(message.sender, message.payload) for message in got]

    async with engine_on(tmp_path, collector) as engine:
        handle = await engine.client.start(collector, 100)

        async def send_all(client: Client) -> str:
            async with client.mailbox() as box:
                for number in range(25):
                    await box.send(handle, "n", number)
                return box.id

        async with Client(engine.url) as one, Client(engine.url) as two:
            clients = [engine.client, one, two, engine.client]
            senders = await asyncio.gather(*(send_all(client) for client in clients))
        got = await handle.result("20s")
        for sender in senders:
            assert [number for name, number in got if name == sender] == list(range(25))


async def test_nothing_is_lost_before_somebody_listens(tmp_path: Path):
    """Messages wait, in order, for the listener or the inbox that is opened later."""

    @workflow.define
    async def late() -> dict[str, Any]:
        await workflow.listen("begin").receive()
        seen: dict[str, Any] = {}

        async def handler() -> None:
            channel = workflow.listen("a")
            seen["a"] = [await channel.receive() for _ in range(3)]

        await workflow.spawn(handler())
        inbox = workflow.inbox()
        seen["inbox"] = [(await inbox.receive()).topic for _ in range(2)]
        return seen

    async with engine_on(tmp_path, late) as engine:
        handle = await engine.client.start(late)
        for topic, value in (("a", 1), ("b", None), ("a", 2), ("c", None), ("a", 3)):
            await handle.send(topic, value)
        await handle.send("begin")
        assert await handle.result("10s") == {"a": [1, 2, 3], "inbox": ["b", "c"]}


async def test_a_topic_with_a_listener_never_goes_to_the_inbox(tmp_path: Path):
    """Topics are matched as they are written: no patterns."""

    @workflow.define
    async def two_doors() -> dict[str, list[str]]:
        inbox, jobs = workflow.inbox(), workflow.listen("job")
        await workflow.listen("enough").receive()
        got: dict[str, list[str]] = {"inbox": [], "jobs": []}
        while True:
            chosen, value = await workflow.select(inbox, jobs, workflow.after(0))
            if chosen is inbox:
                got["inbox"].append(value.topic)
            elif chosen is jobs:
                got["jobs"].append(value)
            else:
                return got

    async with engine_on(tmp_path, two_doors) as engine:
        handle = await engine.client.start(two_doors)
        for topic in ("job", "jobs", "job.new", "*", "JOB"):
            await handle.send(topic, topic)
        await handle.send("enough")
        assert await handle.result("10s") == {
            "inbox": ["jobs", "job.new", "*", "JOB"],
            "jobs": ["job"],
        }


async def test_to_listen_twice_is_to_have_one_channel(tmp_path: Path):
    """Both hold the same messages: each is received once, by whichever asks first."""

    @workflow.define
    async def twice() -> list[int]:
        first, second = workflow.listen("n", int), workflow.listen("n", int)
        return [await first.receive(), await second.receive(), await first.receive()]

    async with engine_on(tmp_path, twice) as engine:
        handle = await engine.client.start(twice)
        for number in (1, 2, 3):
            await handle.send("n", number)
        assert await handle.result("10s") == [1, 2, 3]


@workflow.define(task_queue="other")
async def gated_child(_: None) -> None:
    await workflow.listen("go").receive()


@workflow.define
async def observer(_: None) -> list[str]:
    seen: list[str] = []

    async def note(what: Any, text: str) -> None:
        await what
        seen.append(text)

    @workflow.update("touch")
    async def touch() -> None:
        seen.append("update")

    await workflow.start(gated_child, id="child")
    waits = [
        note(workflow.events().receive(), "exit of the child"),
        note(workflow.listen("m").receive(), "message"),
    ]
    for task in [workflow.spawn(wait) for wait in waits]:
        await task
    await workflow.wait_condition(lambda: "update" in seen)
    return seen


async def test_order_within_a_turn(tmp_path: Path):
    """The child ended first; still a turn meets messages, then children's ends, then updates."""
    async with engine_on(tmp_path, gated_child, task_queues=("other",)) as other:
        async with engine_on(tmp_path, observer) as engine:
            await engine.client.start(observer, id="o")
            await until_status(engine.client.get("child"), Status.WAITING)
        async with Client(other.url) as client:
            child = client.get("child")
            await child.send("go")
            await child.result("20s")
            await until(lambda: kept_for_later(tmp_path) == 1)
            await client.get("o").send("m")
            async with engine_on(tmp_path, observer) as engine:
                await client.get("o").update("touch")
                assert await engine.client.get("o").result("20s") == [
                    "message",
                    "exit of the child",
                    "update",
                ]


def kept_for_later(folder: Path) -> int:
    """Count what lies in the database for runs that nobody has in memory."""
    with closing(sqlite3.connect(folder / "test.db")) as database:
        return database.execute("SELECT count(*) FROM perdure_inbox").fetchone()[0]


@pytest.mark.parametrize("topic", ["", "@system", "x" * 256, 7])
async def test_a_bad_topic_is_refused_where_it_is_written(tmp_path: Path, topic: Any):
    @workflow.define
    async def careless(_: None) -> int:
        refused = 0
        for attempt in (lambda: workflow.listen(topic), lambda: workflow.send("x", topic)):
            try:
                result = attempt()
                if result is not None and hasattr(result, "__await__"):
                    await result
            except Invalid as exc:
                assert "topic" in str(exc)
                refused += 1
        return refused

    async with engine_on(tmp_path, careless) as engine, engine.client.mailbox() as box:
        handle = await engine.client.start(careless)
        assert await handle == 2
        for send in (handle.send, lambda name: box.send(handle, name), box.listen):
            with pytest.raises(Invalid, match="topic"):
                await send(topic)


async def test_a_payload_that_does_not_fit_is_the_receivers_business(tmp_path: Path):
    """It raises where it is received: caught, the next one is there; uncaught, the run fails."""

    @workflow.define
    async def typed(catches: bool) -> int:
        numbers = workflow.listen("n", int)
        while True:
            try:
                return await numbers.receive()
            except Invalid:
                if not catches:
                    raise

    async with engine_on(tmp_path, typed) as engine:
        for catches in (True, False):
            handle = await engine.client.start(typed, catches)
            await handle.send("n", "seven")
            if catches:
                await handle.send("n", 7)
                assert await handle.result("10s") == 7
            else:
                with pytest.raises(WorkflowFailed) as caught:
                    await handle.result("10s")
                assert caught.value.kind == "Invalid"


async def test_messages_survive_a_restart(tmp_path: Path):
    """What was sent while no worker ran is received when one comes; nothing comes twice."""

    @workflow.define
    async def gatherer(count: int) -> list[int]:
        numbers = workflow.listen("n", int)
        return [await numbers.receive() for _ in range(count)]

    async with engine_on(tmp_path, gatherer) as engine:
        handle = await engine.client.start(gatherer, 4, id="g")
        await handle.send("n", 1)
        await until_status(handle, Status.WAITING)
        url = engine.url
    async with Client(url) as client:
        for number in (2, 3):
            await client.get("g").send("n", number)
    async with engine_on(tmp_path, gatherer) as engine:
        await engine.client.get("g").send("n", 4)
        assert await engine.client.get("g").result("20s") == [1, 2, 3, 4]
