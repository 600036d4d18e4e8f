"""What runs log: kept with them, told to listeners, never twice."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import ApplicationError, Client, Engine, Retry, Status, activity, workflow
from perdure.errors import WorkflowFailed
from perdure.graph import flow
from perdure.handle import Handle
from perdure.values import limits

held: list[asyncio.Future[None]] = []


@pytest.fixture(autouse=True)
def _fresh():
    held.clear()


def told(engine: Engine, pattern: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    engine.events.on(pattern, lambda event: found.append((event.name, event.data)))
    return found


async def messages(handle: Handle[Any], after: int = 0) -> list[str]:
    return [line.message for line in await handle.logs(after=after)]


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def shaky() -> None:
    attempt = activity.info().attempt
    activity.logger.info("attempt %d", attempt)
    if attempt == 1:
        raise ApplicationError("not yet")


@activity.define
def in_thread() -> None:
    activity.logger.warning("from a thread", {"shelf": 3})


@workflow.define
async def talks() -> None:
    workflow.logger.info("begin")
    await shaky()
    workflow.logger.warning("between %s and %s", "one", "two", extra={"at": 2})
    await in_thread()
    workflow.logger.debug("not kept, unless debug is shown")
    workflow.logger.info("end")


async def test_lines_of_workflow_and_attempts_are_kept_in_order(tmp_path: Path):
    async with engine_on(tmp_path, talks) as engine:
        handle = await engine.client.start(talks)
        await handle.result("30s")
        lines = await handle.logs()
    assert [(it.number, it.level, it.message, it.data, it.step, it.attempt) for it in lines] == [
        (1, "info", "begin", None, None, 0),
        (2, "info", "attempt 1", None, "shaky", 1),
        (3, "info", "attempt 2", None, "shaky", 2),
        (4, "warning", "between one and two", {"at": 2}, None, 0),
        (5, "warning", "from a thread", {"shelf": 3}, "in_thread", 1),
        (6, "info", "end", None, None, 0),
    ]
    assert lines[0].time <= lines[-1].time


async def test_lines_are_told_to_listeners_with_the_run(tmp_path: Path):
    async with engine_on(tmp_path, talks) as engine:
        all_, one = told(engine, "log.workflow"), told(engine, "log.workflow.t")
        handle = await engine.client.start(talks, id="t")
        await handle.result("30s")
        await engine.client.start(talks, id="other")
        await until(lambda: len(all_) == 12)
    assert len(one) == 6
    assert [facts["message"] for _, facts in one] == await_order()
    assert one[1][1] == {
        "instance_id": "t",
        "workflow_name": "talks",
        "level": "info",
        "message": "attempt 1",
        "data": None,
        "step": "shaky",
        "attempt": 1,
    }


def await_order() -> list[str]:
    attempts = ["attempt 1", "attempt 2"]
    return ["begin", *attempts, "between one and two", "from a thread", "end"]


async def test_a_replay_logs_nothing_again(tmp_path: Path):
    @workflow.define
    async def waits() -> None:
        workflow.logger.info("before")
        await workflow.listen("go").receive()
        workflow.logger.info("after")

    async with engine_on(tmp_path, waits) as engine:
        handle = await engine.client.start(waits, id="w")
        await until_status(handle, Status.WAITING)
        assert await messages(handle) == ["before"]
    async with engine_on(tmp_path, waits) as engine:
        handle = engine.client.get("w")
        await handle.send("go")
        await handle.result("30s")
        assert await messages(handle) == ["before", "after"]
        assert await messages(handle, after=1) == ["after"]


async def test_lines_are_there_for_clients_in_other_processes_when_the_run_has_ended(
    tmp_path: Path,
):
    async with engine_on(tmp_path, talks) as engine:
        handle = await engine.client.start(talks, id="t")
        await handle.result("30s")
        async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
            assert await messages(client.get("t")) == await_order()


@activity.define
async def goes_on() -> None:
    activity.logger.info("still here")
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    held.append(future)
    await future


@workflow.define
async def long() -> None:
    await goes_on()


async def test_a_line_is_written_within_a_second_when_nothing_else_is(tmp_path: Path):
    async with engine_on(tmp_path, long) as engine:
        handle = await engine.client.start(long)

        async def is_there() -> bool:
            return await messages(handle) == ["still here"]

        await until(is_there)
        assert not held[0].done()
        held[0].set_result(None)
        await handle.result("30s")
        assert await messages(handle) == ["still here"]


async def test_a_stop_writes_the_lines_of_what_it_cuts_off(tmp_path: Path):
    async with engine_on(tmp_path, long) as engine:
        await engine.client.start(long, id="l")
        await until(lambda: bool(held))
        await engine.stop("0s")
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        assert await messages(client.get("l")) == ["still here"]


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@activity.define
async def says(what: str) -> None:
    match what:
        case "object":
            activity.logger.info("thing", {"it": Odd()})
        case "surrogate":
            activity.logger.info("caf\udce9 \0 end")
        case "long":
            activity.logger.info("x" * 20_000, extra={"y": "z" * 100_000})
        case "exception":
            try:
                raise ValueError("bad")
            except ValueError:
                activity.logger.exception("it went wrong")
        case "format":
            activity.logger.warning("%d items", "many")
        case _:
            raise AssertionError(what)


@workflow.define
async def saying(what: str) -> None:
    await says(what)


async def say(folder: Path, what: str) -> Any:
    async with engine_on(folder, saying) as engine:
        handle = await engine.client.start(saying, what)
        await handle.result("30s")
        [line] = await handle.logs()
        return line


async def test_a_line_whose_data_has_no_json_form_is_kept_as_text_and_says_so(tmp_path: Path):
    line = await say(tmp_path, "object")
    assert line.message == "thing (its data has no JSON form and is kept as text)"
    assert line.data == "{'it': <odd>}"


async def test_text_that_no_database_holds_is_kept_escaped(tmp_path: Path):
    assert (await say(tmp_path, "surrogate")).message == "caf\\udce9 \\x00 end"


async def test_what_is_too_long_is_cut_and_says_so(tmp_path: Path):
    line = await say(tmp_path, "long")
    assert line.message.startswith("xxx")
    assert line.message.endswith(" more characters)")
    assert len(line.message) < limits.LOG_TEXT + 50
    assert isinstance(line.data, str)
    assert len(line.data) <= limits.LOG_DATA


async def test_an_exception_is_kept_with_its_traceback(tmp_path: Path):
    message = (await say(tmp_path, "exception")).message
    assert message.startswith("it went wrong\nTraceback")
    assert message.endswith("ValueError: bad")


async def test_a_line_that_cannot_be_formatted_is_kept_as_it_is(tmp_path: Path):
    assert (await say(tmp_path, "format")).message == "%d items ('many',)"


async def test_old_lines_go_and_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LOG_LINES", 3)
    async with engine_on(tmp_path, talks) as engine:
        handle = await engine.client.start(talks)
        await handle.result("30s")
        lines = await handle.logs()
        assert [line.number for line in lines] == [3, 4, 5, 6]
        assert (lines[0].level, lines[0].message) == (
            "warning",
            "3 older lines are gone: a run keeps its last 3",
        )
        assert [line.number for line in await handle.logs(after=4)] == [5, 6]


async def test_conditions_and_mappers_of_a_graph_log_once(tmp_path: Path):
    def decide(ctx: Any) -> bool:
        ctx.log("info", "deciding", {"of": ctx.input})
        return True

    def mapped(prev: Any, _input: Any) -> Any:
        workflow.logger.info("mapping")
        return prev

    async def work(input: Any, ctx: Any) -> Any:
        ctx.log("error", "working")
        return input

    machine = (
        flow("decides")
        .choice("which", [(decide, "work")])
        .task("work", work, input=mapped)
        .webhook("go")
        .task("last", work)
        .build()
    )
    async with engine_on(tmp_path, machine) as engine:
        handle = await engine.client.start(machine, 5, id="d")
        await until_status(handle, Status.WAITING)
    async with engine_on(tmp_path, machine) as engine:
        handle = engine.client.get("d")
        await handle.send("go", 6)
        await handle.result("30s")
        found = [(it.level, it.message, it.step, it.data) for it in await handle.logs()]
    assert found == [
        ("info", "deciding", "which", {"of": 5}),
        ("info", "mapping", None, None),
        ("error", "working", "work", None),
        ("error", "working", "last", None),
    ]


async def test_debug_lines_are_kept_where_logging_shows_them(tmp_path: Path):
    logger = logging.getLogger("perdure.workflow")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        async with engine_on(tmp_path, talks) as engine:
            handle = await engine.client.start(talks)
            await handle.result("30s")
            found = [line for line in await handle.logs() if line.level == "debug"]
    finally:
        logger.setLevel(before)
    assert [line.message for line in found] == ["not kept, unless debug is shown"]


async def test_a_query_logs_and_keeps_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    @workflow.define
    async def asked() -> None:
        @workflow.query("what")
        def what() -> int:
            workflow.logger.warning("asked")
            return 1

        await workflow.listen("go").receive()

    async with engine_on(tmp_path, asked) as engine:
        handle = await engine.client.start(asked)
        await until_status(handle, Status.WAITING)
        assert await handle.query("what") == 1
        assert await handle.logs() == []
        await handle.terminate()
    assert "asked" in caplog.text


async def test_what_is_stored_holds_no_more_than_was_logged(tmp_path: Path):
    async with engine_on(tmp_path, talks) as engine:
        await (await engine.client.start(talks)).result("30s")
    connection = sqlite3.connect(tmp_path / "test.db")
    rows = connection.execute("select message, data from perdure_log order by number").fetchall()
    connection.close()
    assert [json.loads(data) for _, data in rows if data] == [{"at": 2}, {"shelf": 3}]
    assert [message for message, _ in rows] == await_order()


async def test_a_level_that_is_none_is_refused_with_those_there_are(tmp_path: Path):
    def work(input: Any, ctx: Any) -> Any:
        ctx.log("nonsense", "hello")

    machine = flow("logs").task("work", work).build()
    async with engine_on(tmp_path, machine) as engine:
        with pytest.raises(WorkflowFailed, match="log: 'nonsense' is no level; write log"):
            await engine.client.execute(machine)
