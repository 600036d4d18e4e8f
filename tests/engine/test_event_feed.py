"""Subscribers of named events: nothing missed and nothing twice, whoever records and whenever."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status
from tests.seed3.test_events import fragile, function, waiter

from perdure import Client, Engine, Retry, activity, feed, workflow
from perdure.errors import Invalid, NotFound, Unavailable
from perdure.graph import flow
from perdure.named import NamedEvent
from perdure.values.states import Status


class Gate:
    opened: asyncio.Event


@pytest.fixture(autouse=True)
def _shut():
    Gate.opened = asyncio.Event()


@activity.define(name="pass-gate")
async def pass_gate() -> str:
    await Gate.opened.wait()
    return "through"


@workflow.define
async def gated() -> str:
    return await pass_gate()


async def first_step() -> int:
    return 1


async def second_step(input: Any, ctx: Any) -> int:
    await Gate.opened.wait()
    await ctx.emit("late", {"n": input})
    return 2


def machine() -> Any:
    return flow("machine").task("first", first_step).task("second", second_step).build()


@workflow.define
async def asks() -> str:
    value = await workflow.listen("value").receive()
    await workflow.emit("asked", value)
    return value


async def everything(client: Client, **options: Any) -> list[NamedEvent]:
    return [event async for event in client.events(follow=False, **options)]


def names(events: list[NamedEvent]) -> list[str]:
    return [event.name.removeprefix("workflow.") for event in events]


async def test_from_every_id_a_subscriber_gets_exactly_the_rest(tmp_path: Path):
    Gate.opened.set()
    definition = machine()
    async with engine_on(tmp_path, definition, function, fragile) as engine:
        handles = await asyncio.gather(
            *(engine.client.start(definition, id=f"m{n}") for n in range(3)),
            *(engine.client.start(function, True, id=f"f{n}") for n in range(3)),
        )
        await asyncio.gather(*(handle.result("20s") for handle in handles))
        whole = await everything(engine.client)
        assert len(whole) > 40
        for number, event in enumerate(whole, start=1):
            assert await everything(engine.client, after=event.id) == whole[number:]
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        assert await everything(client) == whole, "another process tells the same"


async def test_one_execution_and_a_pattern_are_picked_out(tmp_path: Path):
    Gate.opened.set()
    definition = machine()
    async with engine_on(tmp_path, definition) as engine:
        for id in ("one", "two"):
            await engine.client.execute(definition, id=id)
        whole = await everything(engine.client)
        one = [event for event in whole if event.data["instance_id"] == "one"]
        assert await everything(engine.client, workflow_id="one") == one
        picked = [event for event in whole if event.name.startswith("workflow.step.")]
        assert await everything(engine.client, pattern="workflow.step.*") == picked
        assert await everything(engine.client, pattern="nothing.*") == []
        rest = await everything(engine.client, workflow_id="two", after=one[-1].id)
        assert rest == [event for event in whole if event.data["instance_id"] == "two"]


async def test_a_follower_hears_of_commits_of_its_own_process_and_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("perdure.feed._SAFETY_SECONDS", 3_600)
    heard: list[NamedEvent] = []
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with engine_on(tmp_path, asks) as engine, Client(url) as client:

        async def follow(of: Client) -> None:
            async for event in of.events():
                heard.append(event)
                if event.name == "workflow.completed":
                    return

        both = asyncio.gather(follow(engine.client), follow(client))
        handle = await client.start("asks", id="a")
        await handle.send("value", "it")
        async with asyncio.timeout(20):
            await both
    wanted = ["started", "event", "completed"]
    assert sorted(names(heard)) == sorted(wanted * 2)
    assert len({event.id for event in heard}) == 3


async def test_now_is_behind_everything_there_is(tmp_path: Path):
    async with engine_on(tmp_path, asks) as engine:
        await (await engine.client.start(asks, id="before")).send("value", "it")
        await engine.client.get("before").result("20s")
        assert await everything(engine.client, after="now") == []

        async def first_of() -> NamedEvent:
            async for event in engine.client.events(after="now"):
                return event
            raise AssertionError

        task = asyncio.create_task(first_of())
        await asyncio.sleep(0)  # sleep: none, it lets the subscriber look first
        await everything(engine.client)
        await engine.client.start(asks, id="after")
        async with asyncio.timeout(20):
            assert (await task).data["instance_id"] == "after"


async def test_a_closed_client_ends_its_followers_with_an_error(tmp_path: Path):
    async with engine_on(tmp_path, asks) as engine:
        await engine.client.start(asks, id="a")
        events = engine.client.events()
        assert (await anext(events)).name == "workflow.started"
        waiting = asyncio.ensure_future(anext(events))
        await everything(engine.client)
    with pytest.raises(Unavailable):
        await waiting


@pytest.mark.parametrize("bad", ["5", "x.y.z", "0.0.0", "1.2", ""])
async def test_what_is_no_id_of_an_event_is_refused(tmp_path: Path, bad: str):
    async with engine_on(tmp_path, asks) as engine:
        with pytest.raises(Invalid, match="is not the id of an event"):
            await everything(engine.client, after=bad)


async def test_an_id_of_another_database_is_refused(tmp_path: Path):
    async with engine_on(tmp_path, asks) as engine:
        await engine.client.start(asks, id="a")
        with pytest.raises(Invalid, match=r"77\.0\.0 is not the id of an event of this database"):
            await everything(engine.client, after="77.0.0")


async def test_an_id_from_before_what_is_kept_is_refused(tmp_path: Path):
    async with engine_on(tmp_path, waiter) as engine:
        for id in "abc":
            await (await engine.client.start(waiter, id=id)).send("any")
            await engine.client.get(id).result("20s")
        whole = await everything(engine.client)
    row = int(whole[2].id.split(".")[0])
    with sqlite3.connect(tmp_path / "test.db") as database:
        database.execute("DELETE FROM perdure_history WHERE id <= ?", (row,))
        database.execute("UPDATE perdure_journal SET deleted_to = ?", (row,))
    database.close()
    async with engine_on(tmp_path, waiter) as engine:
        with pytest.raises(NotFound, match=f"histories up to row {row} were deleted"):
            await everything(engine.client, after=whole[0].id)
        kept = [event for event in whole if int(event.id.split(".")[0]) > row]
        assert await everything(engine.client) == kept
        assert await everything(engine.client, after=whole[2].id) == kept


async def test_a_reader_whom_the_deletion_overtakes_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed, "_PAGE", 2)
    async with engine_on(tmp_path, waiter, retention=0) as engine:
        for id in "abcd":
            await (await engine.client.start(waiter, id=id)).send("any")
            await engine.client.get(id).result("20s")
        whole = await everything(engine.client)
        rows = [int(event.id.split(".")[0]) for event in whole]

        async def overtaken(by: int) -> list[NamedEvent]:
            """Read all, and let rows up to one be deleted when the first event has come."""
            events = engine.client.events(follow=False)
            read = [await anext(events)]
            with sqlite3.connect(tmp_path / "test.db") as database:
                database.execute("DELETE FROM perdure_history WHERE id <= ?", (by,))
                database.execute("UPDATE perdure_journal SET deleted_to = ?", (by,))
            database.close()
            return [*read, *[event async for event in events]]

        # What the reader has behind it may go, and what had gone before it began.
        assert await overtaken(rows[1]) == whole
        kept = whole[2:]
        assert await everything(engine.client) == kept
        with pytest.raises(NotFound, match=rf"after row \d+ is older .* up to row {rows[5]} were"):
            await overtaken(rows[5])
        assert await everything(engine.client) == whole[6:]


async def test_a_damaged_row_says_so_and_is_in_nobodys_way(tmp_path: Path):
    async with engine_on(tmp_path, waiter) as engine:
        for id in "ab":
            await (await engine.client.start(waiter, id=id)).send("any")
            await engine.client.get(id).result("20s")
    with sqlite3.connect(tmp_path / "test.db") as database:
        database.execute("UPDATE perdure_history SET payload = x'00' WHERE id = 1")
    database.close()
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        events = await everything(client)
    assert names(events) == ["unreadable", "completed", "started", "completed"]
    assert events[0].data["instance_id"] == "a"
    assert "checksum" in events[0].data["error"]


# -- copies ----------------------------------------------------------------------------------------


async def test_a_fork_and_an_import_tell_only_what_is_their_own(tmp_path: Path):
    definition = machine()
    async with engine_on(tmp_path, definition) as engine:
        heard: list[NamedEvent] = []
        handle = await engine.client.start(definition, id="original")
        await until_status(handle, Status.RUNNING)
        await until(lambda: _has_begun(handle, "machine.second"))
        before = await everything(engine.client)
        engine.events.on("*", heard.append)
        forked = await handle.fork(before_step="machine.second", id="copy")
        Gate.opened.set()
        await forked.result("20s")
        await handle.result("20s")
        rest = await everything(engine.client, after=before[-1].id)
        own = [event for event in rest if event.data["instance_id"] == "copy"]
        document = await handle.export()
        end = (await everything(engine.client))[-1].id
        await engine.client.import_run(document, id="imported")
        assert await everything(engine.client, after=end) == []
        assert await everything(engine.client, workflow_id="imported") == []
    assert names(own) == [
        "forked",
        # The fork answers the facts before the point anew: that is a turn of its own.
        "step.completed",
        "progress",
        "step.started",
        "event",
        "step.completed",
        "progress",
        "completed",
    ]
    assert own[0].data["origin"] == "original"
    assert (own[1].data["step_name"], own[1].data["output"]) == ("first", 1)
    assert (own[3].data["step_name"], own[5].data["output"]) == ("second", 2)
    live = [event for event in heard if event.data["instance_id"] == "copy"]
    assert [(it.name, it.data) for it in live] == [(it.name, it.data) for it in own]
    original = [event for event in rest if event.data["instance_id"] == "original"]
    assert names(original) == ["event", "step.completed", "progress", "completed"]


async def _has_begun(handle: Any, name: str) -> bool:
    return any(event.data.get("name") == name for event in await handle.history())


# -- several workers -------------------------------------------------------------------------------


@workflow.define
async def many(count: int) -> int:
    for number in range(count):
        await workflow.emit("round", number)
        await quick(number)
    return count


@activity.define(retry=Retry(interval="1ms"))
async def quick(number: int) -> int:
    return number


async def test_commits_of_two_workers_come_to_a_third_once_and_in_each_runs_order(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    count, runs = 5, 12
    heard: list[NamedEvent] = []
    first, second = (Engine(url, [many, quick]) for _ in range(2))
    async with first as one, second as two, Client(url) as client:

        async def follow() -> None:
            async for event in client.events():
                heard.append(event)
                if names(heard).count("completed") == runs:
                    return

        following = asyncio.create_task(follow())
        starts = [(one, two)[n % 2].client.start(many, count, id=f"r{n}") for n in range(runs)]
        await asyncio.gather(*starts)
        async with asyncio.timeout(60):
            await following
    assert len({event.id for event in heard}) == len(heard)
    for number in range(runs):
        of = [event for event in heard if event.data["instance_id"] == f"r{number}"]
        each = ["event", "step.started", "step.completed"]
        assert names(of) == ["started", *each * count, "completed"]
        assert [it.data["data"] for it in of if it.name == "workflow.event"] == [*range(count)]


async def test_a_listener_that_comes_late_hears_how_runs_under_way_go_on(tmp_path: Path):
    async with engine_on(tmp_path, gated) as engine:
        await engine.client.start(gated, id="g")
        await until(lambda: engine.under_way == 1)
        heard: list[NamedEvent] = []
        engine.events.on("*", heard.append)
        Gate.opened.set()
        assert await engine.client.get("g").result("20s") == "through"
        await until(lambda: len(heard) == 2)
    assert [(it.name, it.data.get("step_name")) for it in heard] == [
        ("workflow.step.completed", "pass-gate"),
        ("workflow.completed", None),
    ]


async def test_the_start_by_another_process_is_told_when_the_run_is_taken_up(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with engine_on(tmp_path, asks) as engine:
        heard: list[NamedEvent] = []
        engine.events.on("*", heard.append)
        async with Client(url) as client:
            handle = await client.start("asks", id="a")
            await handle.send("value", "it")
            await handle.result("20s")
        stored = await everything(engine.client)
    assert names(heard) == ["started", "event", "completed"]
    assert [(it.data, it.at) for it in heard] == [(it.data, it.at) for it in stored]


async def test_a_listener_that_fails_or_left_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    heard: list[str] = []

    def fails(event: NamedEvent) -> None:
        raise ValueError("a listener's own")

    async def fails_later(event: NamedEvent) -> None:
        raise ValueError("later")

    async with engine_on(tmp_path, asks) as engine:
        engine.events.on("workflow.started", fails)
        engine.events.on("workflow.started", fails_later)
        leave = engine.events.on("*", lambda event: heard.append(event.name))
        handle = await engine.client.start(asks, id="a")
        leave()
        await handle.send("value", "it")
        assert await handle.result("20s") == "it"
    assert heard == ["workflow.started"]
    assert "a listener's own" in caplog.text
    assert "later" in caplog.text
