"""A call of Perdure that is refused in workflow code is told with the line that made it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import ApplicationError, Engine, activity, workflow
from perdure.errors import Invalid, NotFound, WorkflowFailed


@activity.define
async def one() -> int:
    return 1


CALLED: Any = one


async def naps() -> None:
    await workflow.sleep("soon")


async def listens() -> None:
    await workflow.listen("go").receive(timeout="banana")


async def overdoes() -> None:
    await CALLED(1, 2, 3)


@workflow.define
async def declines() -> None:
    raise ApplicationError("declined")


@workflow.define
async def answering() -> None:
    @workflow.query("state")
    def state() -> int:
        return 1

    await workflow.listen("go").receive()


@pytest.mark.parametrize("body", [naps, listens, overdoes])
async def test_a_refused_call_fails_the_run_with_the_line_of_the_call(
    tmp_path: Path, body: Callable[[], Coroutine[Any, Any, None]]
):
    lines, first = inspect.getsourcelines(body)
    wrong = workflow.define(name="wrong")(body)
    async with engine_on(tmp_path, wrong) as engine:
        with pytest.raises(WorkflowFailed) as failed:
            await engine.client.execute(wrong)
    place = f"(test_wrong_calls.py:{first + len(lines) - 1})"
    assert failed.value.message.endswith(place)


async def test_what_users_raise_as_data_says_what_they_wrote_and_no_more(tmp_path: Path):
    async with engine_on(tmp_path, declines) as engine:
        with pytest.raises(WorkflowFailed) as failed:
            await engine.client.execute(declines, id="d")
    assert failed.value.message == "workflow 'd' failed: declined"


async def test_what_a_caller_asked_wrongly_shows_no_line_of_perdure(tmp_path: Path):
    async with engine_on(tmp_path, answering) as engine:
        handle = await engine.client.start(answering)
        with pytest.raises(NotFound) as refused:
            await handle.query("nothing")
    assert getattr(refused.value, "__notes__", []) == []


@pytest.mark.parametrize("given", [5, ["mail"], {1: "mail"}])
def test_services_that_are_no_mapping_are_refused_with_what_to_write(given: Any):
    with pytest.raises(Invalid, match=r"services: .* is no mapping of names to services; write"):
        Engine("memory://", services=given)


@pytest.mark.parametrize("name", ["isolated", "allow_data_loss"])
def test_a_switch_of_the_engine_is_true_or_false(name: str):
    with pytest.raises(Invalid, match=f"{name}: 'no' is neither True nor False"):
        Engine("memory://", **{name: "no"})  # pyright: ignore[reportArgumentType] - that is the mistake
