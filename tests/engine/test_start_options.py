"""Options of a start that are about neither time nor watching."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Status, workflow
from perdure.engine.settings import Settings
from perdure.errors import AlreadyExists, Invalid, WorkflowTerminated, WorkflowTimedOut
from perdure.store.sql import posting
from perdure.values.granted import Granted


@workflow.define
async def spinning(_: None) -> None:
    await workflow.sleep("1ms")
    while True:
        pass


@workflow.define
async def spinning_at_once(_: None) -> None:
    while True:
        pass


@workflow.define
async def patient(name: str) -> str:
    await workflow.listen("go").receive()
    return name


@pytest.mark.parametrize("definition", [spinning, spinning_at_once])
async def test_a_task_timeout_ends_a_run_whose_turn_takes_longer(tmp_path: Path, definition: Any):
    async with engine_on(tmp_path, definition) as engine:
        assert Settings().turn_limit_seconds == 10
        with pytest.raises(WorkflowTimedOut, match="task timeout"):
            await engine.client.execute(definition, None, task_timeout="200ms")


async def test_search_attributes_may_be_times(tmp_path: Path):
    async with engine_on(tmp_path, patient) as engine:
        due = datetime(2030, 5, 1, 12, tzinfo=UTC)
        await engine.client.start(patient, "a", id="a", search={"due": due})
        await engine.client.start(patient, "b", id="b", search={"due": due + timedelta(hours=1)})
        elsewhere = due.astimezone(timezone(timedelta(hours=2)))
        page = await engine.client.list(search={"due": elsewhere})
        assert [one.id for one in page.items] == ["a"]
        with pytest.raises(Invalid, match="no time zone"):
            await engine.client.list(search={"due": datetime(2030, 5, 1)})  # noqa: DTZ001 - the mistake under test


@pytest.mark.parametrize("eager", [True, False])
async def test_a_start_that_is_not_eager_leaves_the_first_turn_to_any_worker(
    tmp_path: Path, *, eager: bool
):
    async with engine_on(tmp_path, patient) as engine:
        handle = await engine.client.start(patient, "x", eager=eager)
        kinds = [event.kind for event in await handle.history()]
        await until_status(handle, Status.WAITING)
        later = [event.kind for event in await handle.history()]
        assert ("run_taken" in later) is not eager
        assert kinds == later[: len(kinds)]
        assert len(kinds) == len(later) or not eager


async def test_terminate_existing_ends_the_open_execution_and_starts_another(tmp_path: Path):
    async with engine_on(tmp_path, patient) as engine, Client(engine.url) as other:
        old = await engine.client.start(patient, "old", id="p")
        new = await other.start("patient", "new", id="p", id_conflict_policy="terminate_existing")
        with pytest.raises(WorkflowTerminated):
            await old.result("20s")
        assert new.run_id != old.run_id
        await new.send("go")
        assert await new.result("20s") == "new"


@pytest.mark.parametrize(
    ("policy", "created"), [("use_existing", 1), ("fail", 1), ("terminate_existing", 50)]
)
async def test_fifty_starts_of_one_id_at_once_leave_one_open_execution(
    tmp_path: Path, policy: str, created: int
):
    async with engine_on(tmp_path, patient) as engine, Client(engine.url) as other:
        clients = [engine.client, other]
        starts = [
            clients[n % 2].start("patient", str(n), id="p", id_conflict_policy=policy)
            for n in range(50)
        ]
        async with asyncio.timeout(60):
            found = await asyncio.gather(*starts, return_exceptions=True)
        refused = [one for one in found if isinstance(one, BaseException)]
        assert all(isinstance(one, AlreadyExists) for one in refused), refused
        assert len(refused) == (49 if policy == "fail" else 0)
        page = await engine.client.list(workflow_id="p")
        assert len(page.items) == created
        open_ones = [one for one in page.items if not one.status.is_terminal]
        assert [one.run_id for one in open_ones] == [page.items[0].run_id]


async def test_a_workflow_that_sends_to_a_full_inbox_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(posting, "INBOX_PER_EXECUTION", 3)

    @workflow.define
    async def eager_sender(target: str) -> str:
        try:
            for number in range(10):
                await workflow.send(target, "number", number)
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        return "all sent"

    async with engine_on(tmp_path, patient, eager_sender) as engine:
        target = await engine.client.start(patient, "x", id="t")
        await target.pause()
        said = await engine.client.execute(eager_sender, "t")
        assert said == "Unavailable: the inbox of workflow 't' is full"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("parent_close_policy", "bogus", "use one of terminate, abandon, request_cancel"),
        ("wait_for_cancellation", "yes", "neither True nor False"),
        ("eager", "maybe", "neither True nor False"),
        ("enable_eager_start", 1, "neither True nor False"),
        ("error_when_already_started", "no", "neither True nor False"),
        ("monitor", "yes", "neither True nor False"),
        ("task_queue", "", "names no queue"),
        ("task_queue", 5, "not text"),
    ],
)
async def test_an_option_that_cannot_be_is_refused_by_name_before_anything_is_stored(
    tmp_path: Path, option: str, value: Any, told: str
):
    @workflow.define
    async def parent() -> str:
        try:
            await workflow.start(patient, "x", **{option: value})
        except Invalid as error:
            return str(error)
        return "started"

    async with engine_on(tmp_path, patient, parent) as engine:
        client = engine.client
        with pytest.raises(Invalid, match=told) as caught:
            await client.start(patient, "x", **{option: value})
        assert {"enable_eager_start": "eager"}.get(option, option) in str(caught.value)
        assert await client.count() == 0
        if option not in ("eager", "enable_eager_start", "monitor"):  # a client's alone
            assert await client.execute(parent) == str(caught.value)


async def test_a_start_that_cannot_be_written_touches_no_other(tmp_path: Path):
    @workflow.define(name="plain")
    async def plain() -> str:
        return "done"

    async with engine_on(tmp_path, plain) as engine:
        beyond = engine.client.under(Granted(places=(("key", 10**30),)))
        bad, good = await asyncio.gather(
            beyond.execute(plain), engine.client.execute(plain), return_exceptions=True
        )
        assert isinstance(bad, OverflowError)
        assert good == "done"
        assert await engine.client.count() == 1
