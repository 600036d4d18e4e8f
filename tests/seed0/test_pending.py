"""Invocations that are pending: they begin when somebody resumes them, or end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Status, workflow
from perdure.control import Control, Principal
from perdure.policy import Policies

ADMIN = Principal(id="ada", roles=["admin"])


@workflow.define(name="plain")
async def plain(envelope: dict[str, Any]) -> list[str]:
    return sorted(envelope)


@asynccontextmanager
async def operations(folder: Path, **options: Any) -> AsyncIterator[Control]:
    """An engine, and what an admin calls."""
    async with engine_on(folder, plain, audit="summary") as engine:
        yield Control(engine.client, auth=ADMIN, **options)


async def test_what_is_invoked_pending_begins_when_somebody_resumes_it(tmp_path: Path):
    async with operations(tmp_path) as lt:
        asked = {"id": "w", "pending": 30}
        assert (await lt.workflows.invoke(type="plain", options=asked)).status == 202
        assert (await lt.workflows.get_status(workflow_id="w")).data["status"] == 1
        assert (await lt.workflows.get_result(workflow_id="w")).status == 202
        again = await lt.workflows.invoke(type="plain", options=asked)
        assert (again.status, again.code) == (409, "already_exists")
        resumed = await lt.workflows.resume(workflow_id="w")
        assert (resumed.status, resumed.data) == (200, {"resumed": True, "workflow_id": "w"})
        assert await lt.client.get("w").result("20s") == ["data", "lt", "metadata", "resolver"]
        late = await lt.workflows.resume(workflow_id="w")
        assert (late.status, late.code) == (409, "workflow.completed")
        assert (await lt.workflows.resume(workflow_id="missing")).status == 404


async def test_what_is_invoked_pending_ends_if_nobody_resumes_it(tmp_path: Path):
    async with operations(tmp_path) as lt:
        given = {"id": "w", "pending": "200ms"}
        await lt.workflows.invoke(type="plain", options=given)
        await until_status(lt.client.get("w"), Status.TERMINATED)
        found = await lt.workflows.get_result(workflow_id="w")
        assert (found.status, found.code) == (409, "workflow.terminated")
        assert found.error is not None
        assert "nobody resumed it within 200ms" in found.error
        assert (await lt.workflows.resume(workflow_id="w")).code == "workflow.terminated"
        assert (await lt.workflows.invoke(type="plain", options={"id": "w"})).status == 202


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"pending": None}, 202),
        ({"pending": False}, 202),
        ({"pending": 30, "paused": True}, 202),
        ({"paused": True, "resumeWithin": "1h"}, 202),
        ({"pending": True}, 400),
        ({"pending": 0}, 400),
        ({"pending": 30, "paused": False}, 400),
        ({"pending": 30, "resume_within": 30}, 400),
        ({"resumeWithin": 30}, 400),
    ],
)
async def test_how_long_it_is_pending_is_checked(
    tmp_path: Path, options: dict[str, Any], status: int
):
    async with operations(tmp_path) as lt:
        assert (await lt.workflows.invoke(type="plain", options=options)).status == status


async def test_whoever_resumes_is_in_the_audit_and_an_end_without_anybody_is_not(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.invoke(type="plain", options={"id": "w", "pending": 30})
        await lt.as_(Principal(id="max")).workflows.resume(workflow_id="w")
        await lt.workflows.invoke(type="plain", options={"id": "l", "pending": "100ms"})
        await until_status(lt.client.get("l"), Status.TERMINATED)
        told = (await lt.client.audit.list()).items
        assert [(it.principal, it.action, it.target) for it in reversed(told)] == [
            ("ada", "start", "w"),
            ("max", "resume", "w"),
            ("ada", "start", "l"),
        ]


async def test_nobody_resumes_what_is_another_tenants(tmp_path: Path):
    async with operations(tmp_path) as lt:
        own = lt.as_(Principal(id="a", tenant="acme")).workflows
        await own.invoke(type="plain", options={"id": "w", "pending": 30})
        other = lt.as_(Principal(id="b", tenant="other")).workflows
        refused = await other.resume(workflow_id="w")
        assert (refused.status, refused.code) == (404, "not_found")
        assert await lt.client.get("w").status() is Status.PAUSED
        assert (await own.resume(workflow_id="w")).status == 200


async def test_a_resume_is_judged_as_a_signal(tmp_path: Path):
    async with operations(tmp_path) as lt:
        await lt.workflows.invoke(type="plain", options={"id": "w", "pending": 30})
        rule = "policy.workflow.signal.allowedSignals"
        strict = Control(lt.client, ADMIN, policies=Policies({rule: ["approve"]})).workflows
        refused = await strict.resume(workflow_id="w")
        assert (refused.status, refused.data["rule"]) == (403, rule)
        assert await lt.client.get("w").status() is Status.PAUSED
        mild = Control(lt.client, ADMIN, policies=Policies({rule: ["resume"]})).workflows
        assert (await mild.resume(workflow_id="w")).status == 200
