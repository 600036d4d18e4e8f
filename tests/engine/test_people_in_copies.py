"""Copies of runs that wait for people: each asks for itself, and is decided apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.engine.support import engine_on, events_of, until

from perdure import ApplicationError, Engine, activity, human, workflow
from perdure.errors import ActivityFailed
from perdure.people import HumanTask
from perdure.values.people import HumanTaskStatus

broken: list[bool] = []


@activity.define
async def step(name: str) -> str:
    if name == "pay" and broken:
        raise ApplicationError("no money", retryable=False)
    return name


@workflow.define
async def approval() -> list[str]:
    await step("check")
    decided = await human.request("Approve?", role="boss", due="9d")
    if decided.outcome == "rejected":
        raise ApplicationError("they said no", kind="Rejected")
    return [decided.by, await step("pay")]


def engine(folder: Path) -> Engine:
    return engine_on(folder, approval, step, identity="ada")


async def open_ones(e: Engine, count: int) -> list[HumanTask]:
    found: list[HumanTask] = []

    async def are_there() -> bool:
        found[:] = (await e.client.human_tasks.list()).items
        return len(found) == count

    await until(are_there)
    return found


async def test_a_fork_asks_under_an_id_of_its_own_and_is_decided_apart(tmp_path: Path):
    async with engine(tmp_path) as e:
        first = await e.client.start(approval, id="first")
        [original] = await open_ones(e, 1)
        length = (await first.describe()).history_length
        second = await first.fork(after_event=length, id="second")
        both = {task.workflow_id: task for task in await open_ones(e, 2)}
        copy = both["second"]
        assert (copy.title, copy.role, copy.due_at) == ("Approve?", "boss", original.due_at)
        assert copy.id != original.id
        await e.client.human_tasks.complete(copy.id, by="grace")
        assert await second == ["grace", "pay"]
        await e.client.human_tasks.complete(original.id)
        assert await first == ["ada", "pay"]


async def test_a_fork_from_before_the_question_asks_it_once(tmp_path: Path):
    async with engine(tmp_path) as e:
        first = await e.client.start(approval, id="first")
        await open_ones(e, 1)
        await first.fork(before_step="Approve?", id="second")
        await open_ones(e, 2)


async def test_what_ends_before_its_first_own_turn_asks_nobody(tmp_path: Path):
    async with engine(tmp_path) as e:
        first = await e.client.start(approval, id="first")
        await open_ones(e, 1)
        length = (await first.describe()).history_length
        second = await first.fork(after_event=length, id="second")
        await open_ones(e, 2)
        await second.terminate()
        [left] = await open_ones(e, 1)
        assert left.workflow_id == "first"


async def test_a_retry_keeps_what_a_person_has_completed(tmp_path: Path):
    broken.append(True)
    try:
        async with engine(tmp_path) as e:
            handle = await e.client.start(approval, id="first")
            [task] = await open_ones(e, 1)
            await e.client.human_tasks.complete(task.id)
            await until(lambda: _ended(handle))
            broken.clear()
            again = await handle.retry()
            assert await again == ["ada", "pay"]
            every = await e.client.human_tasks.list(status=list(HumanTaskStatus))
            assert [it.id for it in every.items] == [task.id]
    finally:
        broken.clear()


async def test_a_retry_keeps_a_decision_that_came_after_what_failed(tmp_path: Path):
    @workflow.define
    async def eager() -> list[str]:
        asked = asyncio.ensure_future(human.request("Approve?"))
        await asyncio.sleep(0)  # sleep: lets it ask
        try:
            paid = await step("pay")
        except ActivityFailed:
            await asked
            raise
        return [(await asked).by, paid]

    broken.append(True)
    try:
        async with engine(tmp_path) as e:
            e.register(eager)
            handle = await e.client.start(eager, id="first")
            await until(lambda: _has(handle, "activity_failed"))
            [task] = await open_ones(e, 1)
            await e.client.human_tasks.complete(task.id)
            await until(lambda: _ended(handle))
            broken.clear()
            again = await handle.retry()
            assert await again == ["ada", "pay"]
            every = await e.client.human_tasks.list(status=list(HumanTaskStatus))
            assert [it.id for it in every.items] == [task.id]
    finally:
        broken.clear()


async def test_a_retry_asks_again_what_was_rejected(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approval, id="first")
        [task] = await open_ones(e, 1)
        await e.client.human_tasks.reject(task.id, "no")
        await until(lambda: _ended(handle))
        again = await handle.retry()
        [anew] = await open_ones(e, 1)
        assert anew.id != task.id
        await e.client.human_tasks.complete(anew.id)
        assert await again == ["ada", "pay"]
        assert (await e.client.human_tasks.get(task.id)).status is HumanTaskStatus.REJECTED


async def test_a_retry_from_the_question_asks_it_again(tmp_path: Path):
    async with engine(tmp_path) as e:
        handle = await e.client.start(approval, id="first")
        [task] = await open_ones(e, 1)
        await e.client.human_tasks.complete(task.id, by="grace")
        assert await handle == ["grace", "pay"]
        again = await handle.retry(from_step="Approve?")
        await e.client.human_tasks.complete((await open_ones(e, 1))[0].id)
        assert await again == ["ada", "pay"]


async def test_an_imported_run_asks_where_it_goes_on(tmp_path: Path):
    (tmp_path / "there").mkdir()
    async with engine(tmp_path) as e, engine(tmp_path / "there") as there:
        handle = await e.client.start(approval, id="first")
        [task] = await open_ones(e, 1)
        document = await handle.export(with_seed=True)
        imported = await there.client.import_run(document)
        [anew] = await open_ones(there, 1)
        assert anew.id != task.id
        await there.client.human_tasks.complete(anew.id)
        assert await imported == ["ada", "pay"]


async def test_what_is_overdue_when_it_is_copied_expires_in_the_copy(tmp_path: Path):
    @workflow.define
    async def hasty() -> str:
        first = (await human.request("Quick?", due="20ms")).outcome
        await workflow.listen("go").receive()
        return first

    async with engine(tmp_path) as e:
        e.register(hasty)
        handle = await e.client.start(hasty, id="first")
        await until(lambda: _has_expired(e))
        [expired] = await events_of(handle, "timer_fired")
        copy = await handle.fork(after_event=expired.id - 1, id="second")
        await copy.send("go")
        assert await copy == "expired"
        page = await e.client.human_tasks.list(status="expired")
        assert {task.workflow_id for task in page.items} == {"first", "second"}


async def _has_expired(e: Engine) -> bool:
    return len((await e.client.human_tasks.list(status="expired")).items) == 1


async def _has(handle: Any, kind: str) -> bool:
    return bool(await events_of(handle, kind))


async def _ended(handle: Any) -> bool:
    return (await handle.status()).is_terminal
