"""Nonsense that callers of lt.workflows send: each is an answer that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import Client, Status, workflow
from perdure.control import Control, Principal
from perdure.errors import Invalid
from perdure.policy import Policies
from perdure.values.retry import Retry

ADMIN = Principal(id="ada", roles=["admin"])


@workflow.define(name="waits")
async def waits(envelope: dict[str, Any]) -> None:
    await workflow.listen("go").receive()


@workflow.define(name="fails")
async def fails(envelope: dict[str, Any]) -> int:
    info = workflow.info()
    if info.attempt < 3:
        raise ValueError("not yet")
    return info.attempt


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({5: 1}, "options: 5 is not text"),
        ({"workflowId": 5}, "id: 5 is not text"),
        ({"workflowId": ""}, "id: 0 characters"),
        ({"originId": 5}, "correlation_id: 5 is not text"),
        ({"namespace": 5}, "namespace: 5 is not text"),
        ({"version": ["1.0.0"]}, "version: ['1.0.0'] is not text"),
        ({"args": [1]}, "options.args: the input is the envelope"),
        ({"workflowName": "x"}, "options.workflowName: that is type="),
        ({"parentWorkflowId": "x"}, "originId"),
        ({"await": True}, "get_result"),
        ({"persistent": True}, "expire"),
        ({"workflowTrace": "t"}, "context"),
        ({"guid": "x"}, "HotMesh has it for itself"),
        ({"config": {"maximumAttempts": "many"}}, "options.config: Expected `int | null`"),
        ({"config": {"attempts": 3}}, "options.config: Object contains unknown field `attempts`"),
        ({"config": {"maximumAttempts": 3}, "retry": Retry()}, "given under two names"),
        ({"config": {"maximumInterval": "soon"}}, "not a duration"),
    ],
)
async def test_an_option_that_cannot_be_is_named(
    tmp_path: Path, options: dict[Any, Any], says: str
):
    async with engine_on(tmp_path, waits) as engine:
        for policies in (None, Policies({})):
            lt = Control(engine.client, ADMIN, policies=policies)
            refused = await lt.workflows.invoke(type="waits", options=options)
            assert (refused.status, refused.code) == (400, "invalid")
            assert refused.error is not None
            assert says in refused.error
        assert await engine.client.count() == 0


async def test_options_that_are_not_set_are_left_out(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        unset = {"await": False, "persistent": False, "guid": None, "config": None}
        lt = Control(engine.client, auth=ADMIN)
        assert (await lt.workflows.invoke(type="waits", options=unset)).status == 202


async def test_config_says_how_often_the_workflow_is_tried(tmp_path: Path):
    async with engine_on(tmp_path, fails) as engine:
        lt = Control(engine.client, auth=ADMIN)
        config = {"maximumAttempts": 3, "initialInterval": "10ms", "backoffCoefficient": 1}
        await lt.workflows.invoke(type="fails", options={"id": "f", "config": config})
        assert await engine.client.get("f").result("20s") == 3


async def test_a_run_of_another_namespace_is_asked_for_by_that(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        lt = Control(engine.client, auth=ADMIN).workflows
        there: dict[str, Any] = {"workflow_id": "w", "namespace": "other"}
        options = {"id": "w", "namespace": "other", "pending": "1h"}
        assert (await lt.invoke(type="waits", options=options)).status == 202
        for call in ("get_status", "get_result", "export", "resume", "terminate"):
            assert (await getattr(lt, call)(workflow_id="w")).status == 404
            assert (await getattr(lt, call)(workflow_id="w", namespace="")).status == 404
            assert (await getattr(lt, call)(workflow_id="w", namespace=5)).status == 400
        for call, status in (
            ("get_status", 200),
            ("get_result", 202),
            ("resume", 200),
            ("export", 200),
            ("terminate", 200),
        ):
            assert (await getattr(lt, call)(**there)).status == status
        ended = engine.client.get("w", namespace="other")
        assert (await ended.describe()).status in (Status.TERMINATED, Status.WAITING)


async def test_a_namespace_is_text(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine, Client(engine.url) as other:
        for client in (engine.client, other):
            with pytest.raises(Invalid, match="namespace: 5 is not text"):
                await client.start("waits", {}, namespace=5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"type": ""}, "type: '' names no workflow"),
        ({"type": []}, "type: [] is not text"),
        ({"type": "t", "invocable": "\ud800"}, "surrogates not allowed"),
        ({"type": "t", "task_queue": ""}, "task_queue: '' names no queue"),
        ({"type": "t", "execute_as": ""}, "execute_as: '' names no account"),
        ({"type": "t", "consumes": [""]}, "consumes: '' names nothing"),
        ({"type": "t", "tool_tags": ["a", ""]}, "tool_tags: '' names nothing"),
    ],
)
async def test_a_configuration_names_what_it_names(
    tmp_path: Path, given: dict[str, Any], says: str
):
    async with engine_on(tmp_path, waits) as engine:
        lt = Control(engine.client, auth=ADMIN).workflows
        refused = await lt.upsert_config(**given)
        assert (refused.status, refused.code) == (400, "invalid")
        assert refused.error is not None
        assert says in refused.error
        assert (await lt.list_configs()).data == {"workflows": []}


async def test_what_a_configuration_names_twice_is_there_once(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        lt = Control(engine.client, auth=ADMIN).workflows
        kept = await lt.upsert_config(type="t", roles=["b", "a", "b"], tool_tags=["x", "x"])
        assert (kept.data.roles, kept.data.tool_tags) == (("b", "a"), ("x",))


async def test_facets_are_a_list(tmp_path: Path):
    async with engine_on(tmp_path, waits) as engine:
        lt = Control(engine.client, auth=ADMIN).workflows
        await lt.invoke(type="waits", options={"id": "w"})
        for wrong in ({"allow": 5}, {"block": 5}, {"allow": [5]}):
            assert (await lt.export(workflow_id="w", **wrong)).code == "invalid"
