"""What cannot work is refused where it is written, with the name of the field."""

from __future__ import annotations

import asyncio
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import Client, Engine, activity, workflow
from perdure.errors import DefinitionError, Invalid, UsageError, WorkflowFailed


@activity.define
async def act() -> None:
    """Do nothing."""


@workflow.define
async def flow() -> None:
    """Do nothing."""


async def plain() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"retry": 3}, DefinitionError, r"retry: 3 is not a policy; write Retry\("),
        ({"bogus": 1}, DefinitionError, "unknown option bogus; there are name, retry"),
        ({"timeout": 0}, Invalid, "timeout: 0 leaves no time"),
        ({"heartbeat_timeout": "0s"}, Invalid, "heartbeat_timeout: '0s' leaves no time"),
        ({"name": ""}, DefinitionError, "the name must be 1 to 200 characters"),
        ({"name": "a\nb"}, DefinitionError, "the name must be 1 to 200 characters"),
        ({"name": 5}, DefinitionError, "the name must be 1 to 200 characters"),
    ],
)
def test_an_activity_is_defined_with_what_there_is(options: Any, error: Any, why: str):
    with pytest.raises(error, match=why):
        activity.define(**options)(plain)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bogus": 1}, "workflow.define: unknown option bogus; there are name, version"),
        ({"name": ""}, "the name must be 1 to 200 visible characters"),
        ({"name": 5}, "the name must be 1 to 200 visible characters"),
        ({"version": 2}, "version 2 is not like '1.2.0'"),
    ],
)
def test_a_workflow_is_defined_with_what_there_is(options: Any, why: str):
    with pytest.raises(DefinitionError, match=why):
        workflow.define(**options)(plain)


@pytest.mark.parametrize("define", [activity.define, workflow.define])
def test_what_is_defined_is_a_function(define: Any):
    with pytest.raises(DefinitionError, match=r"'x' is no function; .* define\(name='x'\)"):
        define("x")


def test_options_of_a_call_are_checked_alike():
    with pytest.raises(Invalid, match="timeout: 0 leaves no time"):
        act.options(timeout=0)
    with pytest.raises(DefinitionError, match="retry: 3 is not a policy"):
        act.options(retry=3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"memo": 5}, "memo: 5 is not a mapping"),
        ({"context": 5}, "context: 5 is not a mapping"),
        ({"search": 5}, "search: 5 is not a mapping"),
        ({"messages": [("x",)]}, r"messages: \('x',\) is not a pair of topic and payload"),
        ({"messages": 5}, "messages: 5 is not a list"),
        ({"tags": "abc"}, "tags: 'abc' is not a list of text"),
        ({"tags": [1]}, "tags: 1 is not text"),
    ],
)
async def test_the_options_of_a_start_are_checked(tmp_path: Path, options: Any, why: str):
    async with engine_on(tmp_path, flow) as engine:
        with pytest.raises(Invalid, match=why):
            await engine.client.start(flow, **options)


async def test_a_limit_is_a_number(tmp_path: Path):
    async with engine_on(tmp_path, flow) as engine:
        limit: Any = "x"
        with pytest.raises(Invalid, match="limit: 'x' is not a number from 1 to 1000"):
            await engine.client.list(limit=limit)


async def test_a_single_definition_may_stand_alone(tmp_path: Path):
    async with Engine(f"sqlite:///{tmp_path}/one.db", definitions=flow) as engine:
        await engine.client.execute(flow)
    with pytest.raises(DefinitionError, match="definitions: 5 is no list"):
        Engine(definitions=5)  # pyright: ignore[reportArgumentType]


async def test_a_sleep_that_is_no_number_says_so(tmp_path: Path):
    @workflow.define
    async def sleepless() -> None:
        await asyncio.sleep(float("inf"))  # sleep: refused at once

    async with engine_on(tmp_path, sleepless) as engine:
        with pytest.raises(WorkflowFailed, match="a timer of inf seconds: it must be a finite"):
            await engine.client.execute(sleepless)


async def test_two_handlers_of_one_name_are_refused(tmp_path: Path):
    @workflow.define
    async def twice() -> None:
        @workflow.query("state")
        def first() -> None: ...

        @workflow.query("state")
        def second() -> None: ...

    async with engine_on(tmp_path, twice) as engine:
        with pytest.raises(WorkflowFailed, match="query 'state' is defined twice in this run"):
            await engine.client.execute(twice)


def test_a_client_in_memory_is_refused_since_nothing_could_ever_run_there():
    with pytest.raises(UsageError, match="take `engine.client`"):
        Client("memory://")


MODULE = """
from perdure import activity, workflow

@workflow.define
async def one(x: int = 1) -> int:
    return x

@workflow.define
async def {second}(x: {hint} = 2) -> int:
    return x
"""


def warnings_of(folder: Path, **parts: str) -> list[str]:
    file = folder / "defines.py"
    file.write_text(MODULE.format(**parts))
    spec = importlib.util.spec_from_file_location("defines", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec.loader.exec_module(module)
        spec.loader.exec_module(module)
    return [str(one.message) for one in caught]


def test_a_definition_that_takes_the_place_of_another_is_warned_of(tmp_path: Path):
    said = warnings_of(tmp_path, second="one", hint="int")
    assert "workflow 'one' takes the place of the one defined at line 4: rename" in said[0]
    assert warnings_of(tmp_path, second="other", hint="int") == []


def test_an_annotation_that_cannot_be_resolved_is_warned_of(tmp_path: Path):
    said = warnings_of(tmp_path, second="other", hint="'Nope'")
    assert said[0].startswith("workflow 'other': the annotation 'Nope' of 'x' cannot be resolved")
