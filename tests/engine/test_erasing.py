"""Erased runs: every reader shows that they are, and nobody goes on from them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from tests.engine.support import engine_on, until, until_status
from tests.support.seals import Raw

from perdure import Alert, Client, Engine, Retry, Status, activity, human, workflow
from perdure.control import Control
from perdure.erasing import PersonalData
from perdure.errors import (
    ActivityFailed,
    ApplicationError,
    Conflict,
    Erased,
    Invalid,
    NotFound,
    Unavailable,
    WorkflowFailed,
)
from perdure.graph import flow
from perdure.handle import Handle
from perdure.store.port import Prune

NAME = "Ada Lovelace"
MARK = {"$erased": True}


@activity.define
async def greet(name: str) -> str:
    activity.logger.info("greeting %s", name, extra={"data": {"name": name}})
    return f"Hello, {name}"


@workflow.define
async def welcome(name: str) -> str:
    @workflow.query("who")
    def who() -> str:
        return name

    await workflow.attrs(memo={"name": name}, search={"name": name})
    await workflow.emit("seen", {"name": name})
    said = await greet(name)
    more: Any = await workflow.listen("more").receive()
    if more == "fail":
        raise ApplicationError(f"{name} is not welcome", kind="Rude", details=name)
    return f"{said} {more}"


@workflow.define
async def asks(name: str) -> Any:
    decision: Any = await human.request(f"Is {name} welcome?", description=name, name="welcome")
    return decision.value


@workflow.define
async def waits(id: str) -> str:
    try:
        return f"it gave {await workflow.handle(id)}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def double(value: dict[str, Any]) -> dict[str, Any]:
    return {"name": value["name"] * 2}


graph = (
    flow("doubling", version="1.0.0")
    .task("first", double)
    .choice("which", [(lambda c: c.steps["first"]["name"] == "x", "never")], default="second")
    .task("never", double)
    .task("second", double, end=True)
    .build()
)


def engine(folder: Path, **options: Any) -> Engine:
    return engine_on(folder, welcome, asks, waits, graph, greet, **options)


async def ended(running: Engine, id: str = "w", more: str = NAME, **options: Any) -> Any:
    handle = await running.client.start(welcome, NAME, id=id, **options)
    await handle.send("more", more)
    await until_status(handle, Status.FAILED if more == "fail" else Status.COMPLETED)
    return handle


async def test_every_reader_says_that_it_was_erased(tmp_path: Path):
    async with engine(tmp_path, audit="full") as running:
        client = running.client
        handle = await ended(running, tags=["t"], memo={"m": NAME})
        kinds = [event.kind for event in await handle.history()]
        rows = await client.personal.erase_payloads("w")
        assert rows > 0
        assert Raw(f"sqlite:///{tmp_path / 'test.db'}").holding(NAME.encode()) == set()

        assert [event.kind for event in await handle.history()] == kinds
        assert (await handle.history())[0].data["input"] == MARK
        shown = await handle.describe()
        assert (shown.status, shown.reason) == (Status.COMPLETED, "erased")
        assert (shown.input, shown.output, shown.error) == (MARK, MARK, None)
        assert (shown.memo, shown.search, shown.tags) == (None, {}, ("t",))
        assert (await client.list(tags=["t"])).items[0].reason == "erased"
        assert "erased" in await handle.why()
        assert [line.message for line in await handle.logs()] == ["(erased)"]
        with pytest.raises(Erased, match="'w': its result was erased"):
            await handle.result("20s")
        with pytest.raises(Erased, match="'w': its result was erased"):
            await client.get("w").result("20s")
        told = [event async for event in client.events(workflow_id="w", follow=False)]
        assert {"workflow.started", "workflow.event", "workflow.completed"} <= {
            event.name for event in told
        }
        assert NAME not in str(told)
        assert await client.personal.erase_payloads("w") == 0


async def test_nobody_goes_on_from_it(tmp_path: Path):
    async with engine(tmp_path) as running:
        handle = await ended(running, more="fail")
        await running.client.personal.erase_payloads("w")
        for act in (
            handle.retry(),
            handle.retry(id="other"),
            handle.fork(after_event=0),
            handle.query("who"),
            handle.update("who"),
        ):
            with pytest.raises(Erased, match="of 'w' cannot be"):
                await act
        with pytest.raises(WorkflowFailed, match=r"\(erased\)") as failed:
            await handle.result("20s")
        assert failed.value.kind == "Rude"
        again = await ended(running)  # its id is free, as that of any that has ended
        assert await again.result() == f"Hello, {NAME} {NAME}"


async def test_what_is_open_is_refused_with_what_to_do(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        await client.start(welcome, NAME, id="w")
        with pytest.raises(Conflict, match="is open, and needs what it was given: end it first"):
            await client.personal.erase_payloads("w")
        with pytest.raises(NotFound):
            await client.personal.erase_payloads("nobody")
        assert (await client.get("w").describe()).input == NAME


async def test_whoever_waits_for_one_hears_that_it_was_erased(tmp_path: Path):
    async with engine(tmp_path) as running:
        await ended(running)
        await running.client.personal.erase_payloads("w")
        told = await running.client.execute(waits, "w")
        assert "its result was erased" in told


async def test_an_export_of_it_can_be_imported_and_is_erased_there(tmp_path: Path):
    (tmp_path / "there").mkdir()
    async with engine(tmp_path) as running:
        handle = await ended(running)
        await running.client.personal.erase_payloads("w")
        document = await handle.export()
    assert NAME not in str(document)
    async with engine(tmp_path / "there") as running:
        taken = await running.client.import_run(document)
        assert (await taken.describe()).reason == "erased"
        with pytest.raises(Erased):
            await taken.result("20s")
        with pytest.raises(Erased):
            await taken.fork(after_event=0)


async def test_the_steps_of_a_graph_are_still_shown(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        handle = await client.start(graph, {"name": NAME}, id="g")
        await handle.result()
        steps = (await handle.describe()).step_results
        before = [e.name async for e in client.events(workflow_id="g", follow=False)]
        await client.personal.erase_payloads("g")
        shown = (await handle.describe()).step_results
        assert list(shown) == list(steps) == ["first", "which", "never", "second"]
        assert shown["never"]["status"] == "skipped"
        assert {name: step["status"] for name, step in shown.items()} == {
            name: step["status"] for name, step in steps.items()
        }
        assert NAME not in str(shown)
        told = [e async for e in client.events(workflow_id="g", follow=False)]
        assert [event.name for event in told] == before
        assert NAME not in str(told)


async def test_human_tasks_keep_who_did_what(tmp_path: Path):
    async with engine(tmp_path, audit="full") as running:
        client = running.client
        handle = await client.start(asks, NAME, id="a")
        await until_status(handle, Status.WAITING)
        [task] = (await client.human_tasks.list()).items
        await client.human_tasks.complete(task.id, NAME, by="grace", comment=NAME)
        assert await handle.result() == NAME
        await client.personal.erase_payloads("a")
        task = await client.human_tasks.get(task.id)
        assert (task.title, task.value, task.closed_by) == ("(erased)", MARK, "grace")
        details = [(line.action, line.detail) for line in (await client.audit.list()).items]
        assert all(detail is None for _, detail in details)
        assert (await client.audit.verify()).holds


@workflow.define
async def leaves(name: str) -> Any:
    if name.startswith("Bad"):
        raise ApplicationError(f"{name} is not welcome", kind="Rude", retryable=False)
    return human.Escalation(data=name, message=f"Is {name} welcome?", role="porter")


async def until_closed(handle: Handle[Any]) -> None:
    async def is_closed() -> bool:
        return (await handle.status()).is_terminal

    await until(is_closed)


@pytest.mark.parametrize("by_filter", [True, False])
async def test_what_began_with_its_end_is_erased_with_it(tmp_path: Path, *, by_filter: bool):
    nobody = Alert("leaves", url="http://127.0.0.1:9/", secret="s", name="nobody")
    async with engine_on(tmp_path, leaves, alerts=[nobody], identity="ada", audit="full") as engine:
        client, personal = engine.client, engine.client.personal
        await client.execute(leaves, NAME, id="asks", tags=["t"])
        with pytest.raises(WorkflowFailed):
            await client.execute(leaves, f"Bad {NAME}", id="fails", tags=["t"])
        if by_filter:
            with pytest.raises(Conflict, match="erased 0, and left 2") as caught:
                await personal.erase_payloads_of(tags=["t"])
            assert len(caught.value.details["workflow_ids"]) == 2
        for id in ("asks", "fails"):
            with pytest.raises(Conflict, match="began with the end of") as caught:
                await personal.erase_payloads(id)
            assert (await client.get(id).describe()).input != MARK
            assert caught.value.details["workflow_id"].startswith("perdure.")
        beside = [it for it in (await client.list()).items if it.workflow.startswith("perdure.")]
        assert {it.workflow for it in beside} == {"perdure.alert", "perdure.escalation"}
        [asked] = (await client.human_tasks.list()).items
        await client.human_tasks.reject(asked.id, NAME)
        for it in beside:
            await client.get(it.id).terminate()
            await until_closed(client.get(it.id))
        if by_filter:  # what asks people has the tags of the run that ended
            assert await personal.erase_payloads_of(tags=["t"]) == 3
        else:
            await personal.erase_payloads("asks")
            await personal.erase_payloads("fails")
        for it in beside:
            found = await client.get(it.id).describe()
            assert (found.input, found.reason) == (MARK, "erased")
        told = [it for it in (await client.audit.list(target=asked.id)).items if it.detail]
        assert told == []


async def test_those_that_a_filter_finds_are_erased_but_for_open_ones(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        for n in range(3):
            await ended(running, f"w{n}", tags=["eu"])
        await client.start(welcome, NAME, id="open", tags=["eu"])
        await ended(running, "us", tags=["us"])
        assert await client.personal.erase_payloads_of(tags=["eu"]) == 3
        assert await client.personal.erase_payloads_of(tags=["eu"]) == 0
        shown = {it.id: it.reason for it in (await client.list()).items}
        assert shown == {"w0": "erased", "w1": "erased", "w2": "erased", "open": None, "us": None}
        assert (await client.audit.list(action="erase", workflow_id="w1")).items
        for wrong in ({}, {"status": "failed"}):
            with pytest.raises(Invalid, match="give filters"):
                await client.personal.erase_payloads_of(**wrong)


async def test_a_damaged_one_keeps_no_other_from_being_erased(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        for n in range(3):
            await ended(running, f"w{n}", tags=["t"])
        connection = sqlite3.connect(tmp_path / "test.db")
        connection.execute(
            "UPDATE perdure_history SET crc = crc + 1 WHERE run = "
            "(SELECT run FROM perdure_run WHERE workflow_id = 'w1')"
        )
        connection.commit()
        connection.close()
        for done in (2, 0):
            with pytest.raises(Conflict, match=f"erased {done}, and left 1.*'w1': .* is damaged"):
                await client.personal.erase_payloads_of(tags=["t"])
        shown = {it.id: it.reason for it in (await client.list()).items}
        assert shown == {"w0": "erased", "w1": "erasing", "w2": "erased"}


async def test_one_that_is_deleted_meanwhile_keeps_no_other_from_being_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with engine(tmp_path) as running:
        personal = running.client.personal
        for n in range(3):
            await ended(running, f"w{n}", tags=["t"])
        real = PersonalData._beside  # pyright: ignore[reportPrivateUsage] - between list and erasing

        async def beside(self: PersonalData, row: Any, run_id: str = "") -> Any:
            found = await real(self, row, run_id)
            if row.workflow_id == "w1":
                wish = Prune(running.client.door.now())
                await running.client.door.write(lambda store: store.prune(wish))
            return found

        monkeypatch.setattr(PersonalData, "_beside", beside)
        assert await personal.erase_payloads_of(tags=["t"]) == 1
        assert [it.id for it in (await running.client.list()).items] == ["w2"]


async def test_what_an_attempt_logs_when_its_run_is_erased_already_is_not_kept(tmp_path: Path):
    go, told = threading.Event(), threading.Event()

    @activity.define(timeout="50ms", retry=Retry(max_attempts=1))
    def lingers(name: str) -> None:
        go.wait()
        activity.logger.info("late: %s", name)
        told.set()

    @workflow.define
    async def gives_up(name: str) -> None:
        try:
            await lingers(name)
        except ActivityFailed:
            pass

    async with engine_on(tmp_path, gives_up, lingers) as running:
        client = running.client
        handle = await client.start(gives_up, NAME, id="w")
        await handle.result()
        await client.personal.erase_payloads("w")
        go.set()
        await asyncio.to_thread(told.wait)
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        assert await client.get("w").logs() == []


async def test_personal_values_and_payloads_are_erased_one_without_the_other(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        value = await client.personal.seal("u1", NAME)
        await ended(running, "w")
        await client.personal.erase_payloads("w")
        assert await client.personal.open(value) == NAME


async def test_the_files_of_sqlite_hold_nothing_of_it_when_they_are_closed(tmp_path: Path):
    async with engine(tmp_path) as running:
        client = running.client
        await ended(running)
        await client.personal.seal("u1", NAME)
        key = list(Raw(f"sqlite:///{tmp_path / 'test.db'}").values("perdure_record", "data"))
        await client.personal.erase_payloads("w")
        await client.personal.erase("u1")
    files = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]  # noqa: ASYNC240 - a test's own
    assert files
    for secret in (NAME.encode(), *key):
        assert not any(secret in file for file in files)


class LosesAnswers:
    """A door that does what it is asked to write, and at its ``n``-th time does not say so."""

    def __init__(self, door: Any, n: int) -> None:
        self._door, self.left = door, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    async def write(self, verb: Any) -> Any:
        answer = await self._door.write(verb)
        self.left -= 1
        if self.left == 0:
            raise Unavailable("the answer was lost")
        return answer


@pytest.mark.parametrize("n", [1, 2])
async def test_a_lost_answer_costs_asking_again(tmp_path: Path, n: int):
    async with engine(tmp_path) as running:
        await ended(running)
        client = Client(door=cast("Any", LosesAnswers(running.client.door, n)))
        with pytest.raises(Unavailable, match="lost"):
            await client.personal.erase_payloads("w")
        await client.personal.erase_payloads("w")
        assert (await client.get("w").describe()).reason == "erased"
        assert Raw(f"sqlite:///{tmp_path / 'test.db'}").holding(NAME.encode()) == set()


async def test_the_operations_api_says_that_it_is_gone(tmp_path: Path):
    async with engine(tmp_path) as running:
        await ended(running)
        await running.client.personal.erase_payloads("w")
        answer = await Control(running.client).workflows.get_result(workflow_id="w")
        assert (answer.status, answer.code, answer.data) == (410, "erased", None)
