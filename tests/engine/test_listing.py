"""Lists, counts, details, histories, exports, `why` and `follow` tell of one and the same run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engine.support import engine_on, until_status

from perdure import ApplicationError, Client, Engine, Status, activity, workflow
from perdure.errors import Failure
from perdure.handle import Handle
from perdure.views import Execution

FATES = (
    "completed",
    "failed",
    "cancelled",
    "terminated",
    "continued_as_new",
    "waiting",
    "running",
    "parked",
)
PER_FATE = 3
WITHOUT_ERROR = (Status.COMPLETED, Status.CONTINUED_AS_NEW)


@activity.define
async def forever() -> None:
    await asyncio.Event().wait()


@workflow.define
async def fated(fate: str) -> str:
    if fate == "failed":
        raise ApplicationError("as it was asked", kind="Asked", details={"fate": fate})
    if fate == "parked":
        raise MemoryError("parks under any code")
    if fate == "running":
        await forever()
    if fate == "continued_as_new":
        await workflow.continue_as_new("completed")
    if fate != "completed":
        await workflow.listen("go").receive()
    return f"{fate} it is"


@workflow.define
async def other() -> None:
    await workflow.listen("go").receive()


@asynccontextmanager
async def _zoo(folder: Path) -> AsyncIterator[tuple[Engine, dict[str, list[Handle[Any]]]]]:
    """Yield an engine with runs of every fate, and their handles by the status they came to."""
    async with engine_on(folder, fated, other) as engine:
        client = engine.client
        zoo: dict[str, list[Handle[Any]]] = {fate: [] for fate in FATES}
        for number in range(PER_FATE):
            for fate in FATES:
                options = {"tags": ["odd" if number % 2 else "even"], "tenant": f"t{number}"}
                handle = await client.start(fated, fate, id=f"{fate}-{number}", **options)
                if fate == "cancelled":
                    await handle.cancel("enough")
                if fate == "terminated":
                    await handle.terminate("enough")
                zoo[fate].append(client.get(handle.id, handle.run_id))
        for fate, handles in zoo.items():
            for handle in handles:
                await until_status(handle, Status(fate))
        for handle in zoo["continued_as_new"]:
            last = client.get(handle.id)
            await last.result("20s")
            zoo["completed"].append(last)
        try:
            yield engine, zoo
        finally:
            await engine.stop(grace="0s")


async def _pages(client: Client, size: int, **filters: Any) -> list[Execution]:
    found: list[Execution] = []
    cursor = None
    while len(found) < 1_000:
        page = await client.list(limit=size, cursor=cursor, **filters)
        assert len(page.items) == size if page.cursor else len(page.items) <= size
        found += page.items
        cursor = page.cursor
        if cursor is None:
            break
    return found


async def test_lists_counts_and_pages_agree_for_every_status_and_filter(tmp_path: Path):
    async with _zoo(tmp_path) as (engine, zoo), Client(engine.url) as outside:
        await engine.client.start(other, id="other")
        filters: list[dict[str, Any]] = [
            {},
            *({"status": fate} for fate in FATES),
            {"status": ["failed", "parked", "waiting"]},
            {"status": ["completed", "running"], "workflow": fated, "tags": ["even"]},
            {"workflow": "other"},
            {"tenant": "t1"},
            {"tenant": "t1", "tags": "odd", "status": "failed"},
            {"tags": ["even", "odd"]},
            {"workflow_id": "continued_as_new-1"},
        ]
        everything = await engine.client.list(limit=1_000)
        assert len(everything.items) == (len(FATES) + 1) * PER_FATE + 1
        for where in filters:
            expected = [item.run_id for item in everything.items if _fits(item, where)]
            for client in (engine.client, outside):
                assert await client.count(**where) == len(expected), where
                for size in (1, 2, 7, 1_000):
                    pages = await _pages(client, size, **where)
                    assert [item.run_id for item in pages] == expected, (where, size)
        for fate, handles in zoo.items():
            ids = {item.id for item in await _pages(engine.client, 2, status=fate)}
            assert {handle.id for handle in handles} == ids - {"other"}


def _fits(item: Execution, where: dict[str, Any]) -> bool:
    """Tell by what is shown of a run whether it fits a filter."""
    status, tags = where.get("status", item.status), where.get("tags", ())
    name = getattr(where.get("workflow"), "name", where.get("workflow"))
    wanted: set[str] = {tags} if isinstance(tags, str) else set(tags)
    return (
        item.status in ([status] if isinstance(status, str) else status)
        and name in (None, item.workflow)
        and where.get("tenant") in (None, item.tenant)
        and where.get("workflow_id") in (None, item.id)
        and wanted <= set(item.tags)
    )


async def test_a_list_shows_of_each_run_what_its_details_show(tmp_path: Path):
    async with _zoo(tmp_path) as (engine, zoo):
        listed = {item.run_id: item for item in await _pages(engine.client, 5)}
        for handles in zoo.values():
            for handle in handles:
                described = await handle.describe()
                short = msgspec.structs.replace(
                    described, input=None, output=None, error=None, search=None
                )
                assert short == listed[described.run_id]


async def test_details_export_and_follow_agree_with_the_history(tmp_path: Path):
    async with _zoo(tmp_path) as (_, zoo):
        for handles in zoo.values():
            for handle in handles:
                described, history = await handle.describe(), await handle.history()
                assert [event.id for event in history] == list(range(1, len(history) + 1))
                assert described.history_length == len(history)
                first, last = history[0], history[-1]
                assert first.kind == "run_started"
                assert described.workflow == first.data["workflow"]
                assert described.run_id == first.data["run_id"]
                assert described.input == first.data["input"]
                if described.status.is_terminal:
                    assert described.completed_at == last.time
                    assert described.output == last.data.get("result")
                    assert (described.error is None) == (described.status in WITHOUT_ERROR)
                    if failure := last.data.get("failure"):
                        assert described.error == failure
                else:
                    assert described.completed_at is described.output is described.error is None
                exported = await handle.export()
                assert exported["status"] == described.status
                events = [e for turn in exported["turns"] for e in turn["events"]]
                assert events == [{"kind": event.kind, **event.data} for event in history]
                firsts = [turn["first"] for turn in exported["turns"]]
                counts = [len(turn["events"]) for turn in exported["turns"]]
                assert firsts == [1 + sum(counts[:n]) for n in range(len(counts))]


async def test_follow_yields_the_history_from_any_event_and_ends_with_the_run(tmp_path: Path):
    async with engine_on(tmp_path, fated) as engine, Client(engine.url) as client:
        handle = await engine.client.start(fated, "waiting", id="w")
        await until_status(handle, Status.WAITING)
        async with asyncio.timeout(20):
            begun = asyncio.Event()

            async def follow() -> list[Any]:
                events: list[Any] = []
                async for event in client.get("w").follow():
                    events.append(event)
                    begun.set()
                return events

            following = asyncio.create_task(follow())
            await begun.wait()
            await handle.send("go")
            followed = await following
            history = await handle.history()
            assert followed == history
            starts = [turn["first"] for turn in (await handle.export())["turns"]]
            for after in (start - 1 for start in starts):
                assert [event async for event in handle.follow(after)] == history[after:]


@workflow.define
async def gossip() -> None:
    for number in range(3):
        await workflow.progress(number)


async def test_follow_goes_on_from_the_middle_of_a_turn(tmp_path: Path):
    async with engine_on(tmp_path, gossip) as engine:
        handle = await engine.client.start(gossip)
        await handle
        history = await handle.history()
        assert len((await handle.export())["turns"]) == 1 and len(history) == 5
        async with asyncio.timeout(20):
            for after in range(len(history) + 1):
                assert [event async for event in handle.follow(after)] == history[after:]


LATE_CREATED = "a run is dated by its commit, its first turn (and end) by the turn before that"


async def test_a_run_is_created_when_its_history_begins_and_ends_no_earlier(tmp_path: Path):
    async with engine_on(tmp_path, gossip) as engine:
        for _ in range(5):
            handle = await engine.client.start(gossip)
            await handle
            described, (first, *_) = await handle.describe(), await handle.history()
            assert described.completed_at is not None
            assert described.created_at <= described.completed_at
            assert described.created_at == first.time


WHY = {
    "completed": "as completed",
    "failed": "as failed: as it was asked",
    "cancelled": "as cancelled: enough",
    "terminated": "as terminated: enough",
    "continued_as_new": "as continued_as_new",
    "waiting": "for message 'go'",
    "running": "for activity 'forever'",
    "parked": "parked since .*parks under any code.*To go on: ",
}


async def test_why_says_what_the_status_says_and_results_end_as_it_does(tmp_path: Path):
    async with _zoo(tmp_path) as (engine, zoo):
        for fate, handles in zoo.items():
            for handle in handles:
                assert msgspec.json.encode(await handle.status()) == f'"{fate}"'.encode()
                with pytest.raises(AssertionError, match=WHY[fate]):
                    raise AssertionError(await handle.why())
                if fate in ("failed", "cancelled", "terminated"):
                    with pytest.raises(Failure) as caught:
                        await engine.client.get(handle.id).result("20s")
                    assert type(caught.value).__name__.removeprefix("Workflow").lower() == fate


async def test_pages_are_stable_while_runs_are_started_and_end_between_them(tmp_path: Path):
    async with engine_on(tmp_path, other) as engine:
        client = engine.client
        for number in range(20):
            await client.start(other, id=f"old-{number:02}")
        for status in (None, "waiting"):
            seen: list[str] = []
            cursor, round_ = None, 0
            before = {item.id for item in (await client.list(limit=1_000, status=status)).items}
            while round_ < 100:
                page = await client.list(limit=3, cursor=cursor, status=status)
                seen += [item.id for item in page.items]
                await client.start(other, id=f"new-{status}-{round_}")
                if status is None:
                    # One that was shown and ends moves nothing either.
                    await client.get(seen[-1]).send("go")
                    await client.get(seen[-1]).result("20s")
                round_ += 1
                cursor = page.cursor
                if cursor is None:
                    break
            assert len(seen) == len(set(seen)), "nothing is shown twice"
            assert set(seen) == before, "nothing is left out, and nothing new comes in"
