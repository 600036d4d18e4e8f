"""Starts that are paused: they begin when somebody resumes them, or end if nobody does in time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import Client, Engine, Retry, Status, workflow
from perdure.errors import Conflict, Invalid, WorkflowCancelled, WorkflowTerminated
from perdure.testing.simulator import SimulatedWorker, Simulation

begun: list[str] = []


@workflow.define
async def told(name: str) -> str:
    begun.append(name)
    return name


@workflow.define
async def hearing(name: str) -> list[str]:
    channel = workflow.listen("word", str)
    return [name, await channel.receive(), await channel.receive()]


@workflow.define
async def napping(seconds: float) -> str:
    await workflow.sleep(seconds)
    return "done"


DEFINITIONS = [told, hearing, napping]


def _kinds(events: list[Any]) -> list[str]:
    return [event.kind for event in events]


def test_it_begins_when_somebody_resumes_it():
    begun.clear()

    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(told, "a", id="a", paused=True)
        assert await handle.status() is Status.PAUSED
        assert await handle.why() == (
            "told 'a' is paused since just now (paused): it was started paused. To go on: "
            "`perdure resume`."
        )
        assert [one.id for one in (await worker.client.list(status="paused")).items] == ["a"]
        with pytest.raises(Conflict, match="paused and has not begun"):
            await handle.query("anything")
        assert begun == []
        assert await handle.resume()
        assert await handle.result("20s") == "a"
        assert not await handle.resume()
        assert "run_resumed" in _kinds(await handle.history())

    in_virtual_time(main, told)
    assert begun == ["a"]


async def test_why_says_that_somebody_has_resumed_it(tmp_path: Path):
    async with engine_on(tmp_path, told):
        pass
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        handle = await client.start("told", "a", paused=True, resume_within="1h")
        assert await handle.resume()
        assert "somebody has resumed it: it waits for a worker: no worker is" in await handle.why()
        assert await handle.pause()
        assert "(paused): it was started paused" in await handle.why()


def test_it_ends_if_nobody_resumes_it_in_time():
    begun.clear()

    async def main(worker: SimulatedWorker) -> None:
        client = worker.client
        handle = await client.start(told, "a", id="a", paused=True, resume_within="300ms")
        assert "and ends unless somebody resumes it within 300ms" in await handle.why()
        with pytest.raises(WorkflowTerminated, match="nobody resumed it within 300ms"):
            await handle.result("20s")
        assert await handle.status() is Status.TERMINATED
        assert "ended just now as terminated: nobody resumed it" in await handle.why()
        assert not await handle.resume()
        [ended] = [event for event in await handle.history() if event.kind == "run_terminated"]
        assert ended.data["by"] == "resume_within"
        # Whoever tries it again wants it to run, and the id is free.
        assert await (await handle.retry()).result("20s") == "a"
        assert await client.execute(told, "b", id="a") == "b"

    in_virtual_time(main, told)
    assert begun == ["a", "b"]


async def test_on_a_server_it_is_the_same(postgres_url: str):
    begun.clear()
    async with Engine(postgres_url, [told]), Client(postgres_url) as other:
        lapsing = await other.start("told", "l", paused=True, resume_within="300ms")
        kept = await other.start("told", "k", paused=True, resume_within="1h")
        with pytest.raises(WorkflowTerminated, match="nobody resumed it within 300ms"):
            await lapsing.result("20s")
        assert await kept.status() is Status.PAUSED
        assert await kept.resume()
        assert await kept.result("20s") == "k"
    assert begun == ["k"]


def test_once_resumed_it_is_paused_for_as_long_as_somebody_wants():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(hearing, "a", paused=True, resume_within="500ms")
        await handle.resume()
        await until_status(handle, Status.WAITING)
        await handle.pause()
        await until_status(handle, Status.PAUSED)
        await asyncio.sleep(60)  # sleep: virtual time, the time to resume it in passes
        assert await handle.status() is Status.PAUSED
        await handle.resume()
        for word in ("x", "y"):
            await handle.send("word", word)
        assert await handle.result("20s") == ["a", "x", "y"]

    in_virtual_time(main, hearing)


async def test_messages_wait_for_it_in_their_order(tmp_path: Path):
    async with engine_on(tmp_path, hearing) as engine, Client(engine.url) as other:
        messages = [("word", "first")]
        handle = await other.start("hearing", "a", paused=True, messages=messages)
        await handle.send("word", "second")
        await handle.resume()
        assert await handle.result("20s") == ["a", "first", "second"]


async def test_a_cancel_ends_it_without_its_code(tmp_path: Path):
    begun.clear()
    async with engine_on(tmp_path, told) as engine:
        handle = await engine.client.start(told, "a", paused=True, resume_within="20s")
        await handle.cancel("not wanted")
        with pytest.raises(WorkflowCancelled, match="not wanted"):
            await handle.result("20s")
        kinds = _kinds(await handle.history())
        assert kinds == ["run_started", "cancel_requested", "run_cancelled"]
    assert begun == []


async def test_a_timeout_of_the_run_counts_from_its_start(tmp_path: Path):
    async with engine_on(tmp_path, told) as engine:
        times = {"run_timeout": "200ms", "resume_within": "1h"}
        handle = await engine.client.start(told, "a", paused=True, **times)
        await until_status(handle, Status.TIMED_OUT)


@pytest.mark.parametrize(
    ("options", "told_of"),
    [
        ({"paused": "yes"}, "neither True nor False"),
        ({"resume_within": "1s"}, "only what is started with paused=True"),
        ({"paused": False, "resume_within": "1s"}, "only what is started with paused=True"),
        ({"paused": True, "resume_within": 0}, "leaves no time"),
        ({"paused": True, "resume_within": "soon"}, "not a duration"),
        ({"paused": True, "resume_within": True}, "not a duration"),
    ],
)
async def test_what_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], told_of: str):
    async with engine_on(tmp_path, told) as engine:
        with pytest.raises(Invalid, match=told_of):
            await engine.client.start(told, "a", **options)
        assert await engine.client.count() == 0


async def test_it_takes_a_slot_when_it_is_resumed(tmp_path: Path):
    engine = engine_on(tmp_path)
    engine.register(hearing, max_concurrent=1, on_limit="queue")
    async with engine:
        client = engine.client
        kept = await client.start(hearing, "kept", id="kept", paused=True, resume_within="1h")
        lapsed = await client.start(hearing, "l", paused=True, resume_within="400ms")
        first = await client.start(hearing, "first", id="first")
        await until_status(first, Status.WAITING)
        await until_status(lapsed, Status.TERMINATED)
        assert await kept.status() is Status.PAUSED
        assert await kept.resume()
        await until_status(kept, Status.PENDING)
        assert "1 of 1 slots" in await kept.why()
        await first.terminate()
        await until_status(kept, Status.WAITING)


async def test_a_fork_of_it_begins(tmp_path: Path):
    async with engine_on(tmp_path, told) as engine:
        handle = await engine.client.start(told, "a", paused=True, resume_within="1h")
        assert await (await handle.fork(after_event=0)).result("20s") == "a"
        assert await handle.status() is Status.PAUSED


async def test_an_import_goes_on_waiting_to_be_resumed(tmp_path: Path):
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
    async with engine_on(tmp_path / "there", told) as engine:
        kept = await engine.client.start(told, "k", id="k", paused=True)
        lapsing = await engine.client.start(told, "l", id="l", paused=True, resume_within="1s")
        documents = [await one.export(with_seed=True) for one in (kept, lapsing)]
    async with engine_on(tmp_path / "here", told) as engine:
        kept, lapsing = [await engine.client.import_run(one) for one in documents]
        with pytest.raises(WorkflowTerminated, match="nobody resumed it within 1s"):
            await lapsing.result("20s")
        assert await kept.status() is Status.PAUSED
        assert await kept.resume()
        assert await kept.result("20s") == "k"


def test_a_delayed_start_that_is_resumed_begins_no_earlier():
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            await sim.worker("a", DEFINITIONS).start()
            process, client = sim.foreign_client("c")
            times = {"start_delay": "5m", "resume_within": "1m"}
            handle = await process.spawn(client.start("told", "a", paused=True, **times))
            await asyncio.sleep(50)  # sleep: virtual time
            await process.spawn(handle.resume())
            await asyncio.sleep(30)  # sleep: virtual time
            pending = await process.spawn(handle.status())
            await process.spawn(handle.pause())
            await asyncio.sleep(30)  # sleep: virtual time
            paused = await process.spawn(handle.status())
            await process.spawn(handle.resume())
            await process.spawn(handle.result("9m"))
            events = await process.spawn(handle.history())
            return [pending, paused, events[-1].time - events[0].time]

        pending, paused, took = sim.run(main())
    assert (pending, paused) == (Status.PENDING, Status.PAUSED)
    assert took >= timedelta(minutes=5)


def test_a_word_that_was_given_in_time_counts_though_no_worker_lived_to_hear_it():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("first", DEFINITIONS)
            await first.start()
            first.kill()
            process, client = sim.foreign_client("c")
            within = {"paused": True, "resume_within": "10s"}
            handles = [
                await process.spawn(client.start("told", name, id=name, **within))
                for name in ("resumed", "left")
            ]
            await asyncio.sleep(5)  # sleep: virtual time
            await process.spawn(handles[0].resume())
            await asyncio.sleep(60)  # sleep: virtual time
            late = await process.spawn(handles[1].resume())
            await sim.worker("a", DEFINITIONS).start()
            await asyncio.sleep(10)  # sleep: virtual time
            return [late, *[await process.spawn(handle.status()) for handle in handles]]

        # Also a late word counts, as long as nobody has ended the run.
        assert sim.run(main()) == [True, Status.COMPLETED, Status.COMPLETED]


def test_it_ends_in_time_whoever_was_killed_meanwhile():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            start = first.client.start(told, "a", id="a", paused=True, resume_within="20s")
            await first.spawn(start)
            first.kill()
            await asyncio.sleep(5)  # sleep: virtual time
            # It need not know the workflow: no code runs.
            await sim.worker("b", [napping]).start()
            process, client = sim.foreign_client("c")
            handle = client.get("a")
            seen = [await process.spawn(handle.status())]
            await asyncio.sleep(20)  # sleep: virtual time
            return [*seen, await process.spawn(handle.status())]

        assert sim.run(main()) == [Status.PAUSED, Status.TERMINATED]


@pytest.mark.parametrize("again", [{"retry": Retry(max_attempts=3)}, {"cron": "* * * * *"}])
async def test_nothing_follows_one_that_nobody_resumed(tmp_path: Path, again: dict[str, Any]):
    async with engine_on(tmp_path, told) as engine:
        handle = await engine.client.start(
            told, "a", id="a", paused=True, resume_within="200ms", **again
        )
        with pytest.raises(WorkflowTerminated):
            await handle.result("20s")
        assert await engine.client.count() == 1


@pytest.mark.parametrize("again", [{"retry": Retry(max_attempts=3)}, {"cron": "* * * * *"}])
def test_nothing_follows_a_timeout_of_one_that_nobody_resumed(again: dict[str, Any]):
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            await sim.worker("a", DEFINITIONS).start()
            process, client = sim.foreign_client("c")
            times = {"run_timeout": "10s", **again}
            await process.spawn(client.start("told", "a", id="a", paused=True, **times))
            await asyncio.sleep(300)  # sleep: virtual time
            found = await process.spawn(client.list())
            return [one.status for one in found.items]

        assert sim.run(main()) == [Status.TIMED_OUT]
    assert begun == []


async def test_one_that_is_imported_paused_under_a_full_limit_begins_when_it_is_resumed(
    tmp_path: Path,
):
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
    async with engine_on(tmp_path / "there", hearing) as engine:
        new = await engine.client.start(hearing, "new", id="new", paused=True)
        old = await engine.client.start(hearing, "old", id="old")
        await until_status(old, Status.WAITING)
        await old.pause()
        await until_status(old, Status.PAUSED)
        documents = [await one.export(with_seed=True) for one in (new, old)]
    engine = engine_on(tmp_path / "here")
    engine.register(hearing, max_concurrent=1, on_limit="queue")
    async with engine:
        first = await engine.client.start(hearing, "first")
        await until_status(first, Status.WAITING)
        imported = [await engine.client.import_run(one) for one in documents]
        for word in ("x", "y"):
            await first.send("word", word)
        await first.result("20s")
        for run in imported:
            assert await run.status() is Status.PAUSED
            assert await run.resume()
            for word in ("x", "y"):
                await run.send("word", word)
            assert (await run.result("20s"))[1:] == ["x", "y"]


def test_it_may_be_moved_to_another_version_meanwhile():
    versions = [workflow.define(name="told", version=f"{number}.0.0")(told.fn) for number in (1, 2)]

    async def main(worker: SimulatedWorker) -> None:
        within = {"paused": True, "resume_within": "600ms"}
        handle = await worker.client.start("told", "a", version="1.0.0", **within)
        assert await handle.move("2.0.0")
        assert await handle.status() is Status.PAUSED
        with pytest.raises(WorkflowTerminated, match="nobody resumed it within 600ms"):
            await handle.result("20s")

    in_virtual_time(main, *versions)


async def test_of_many_who_resume_in_the_last_moment_each_is_told_what_became_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_on(tmp_path, told) as engine, Client(engine.url) as other:
        ids = [f"x{number}" for number in range(30)]
        await asyncio.gather(
            *(
                other.start("told", id, id=id, paused=True, resume_within=0.4 + number / 100)
                for number, id in enumerate(ids)
            )
        )
        await asyncio.sleep(0.5)  # sleep: until some of them are over
        clients = (engine.client, other)
        calls = [clients[n % 2].get(id).resume() for n, id in enumerate(ids)]
        resumed = dict(zip(ids, await asyncio.gather(*calls), strict=True))
        ended: dict[str, bool] = {}
        for id in ids:
            try:
                ended[id] = await engine.client.get(id).result("20s") == id
            except WorkflowTerminated:
                ended[id] = False
        assert ended == resumed
    assert "internal error" not in caplog.text
