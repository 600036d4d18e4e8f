"""What policies and a deployment bind instances by: times, places, rates; what they show."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status

from perdure import ApplicationError, Engine, activity, workflow
from perdure.engine.alerts import Alert
from perdure.errors import NotFound
from perdure.host import HostConfig, Policies, PolicyDenied, WorkflowHost
from perdure.policy import Limits, Request, Verdict
from perdure.schedules import Schedule
from perdure.values.states import Status
from perdure.views import to_datetime

W, S = "policy.workflow.", "policy.schedule."


@activity.define
async def hang() -> None:
    await asyncio.Event().wait()


@workflow.define(name="app.order", version="1.0.0")
async def order(_: Any) -> str:
    return str(await workflow.listen("approved").receive())


@workflow.define(name="hr.payroll", version="1.0.0")
async def payroll(_: Any) -> str:
    return str(await workflow.listen("approved").receive())


@workflow.define(name="common.mail", version="1.0.0")
async def mail(_: Any) -> str:
    return "sent"


@workflow.define(name="app.slow", version="1.0.0")
async def slow(_: Any) -> None:
    await hang()


@workflow.define(name="payment.charge", version="1.0.0")
async def charge(_: Any) -> None:
    raise ApplicationError("declined", retryable=False)


def engine_at(folder: Path, **options: Any) -> AbstractAsyncContextManager[Engine]:
    return engine_on(folder, order, payroll, mail, slow, charge, **options)


def host_of(engine: Engine, policies: Any = None, **config: Any) -> WorkflowHost:
    judged = Policies(policies) if policies is not None else None
    made = HostConfig(**config)
    return WorkflowHost(engine.client, service="app.billing", policies=judged, config=made)


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "status"), [("fail", "failed"), ("cancel", "cancelled")])
async def test_a_step_whose_time_is_over_ends_its_instance_as_the_policy_says(
    tmp_path: Path, action: str, status: str
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {W + "timeoutAction": action, W + "defaultTimeoutMs": 10})
        id = await host.run("app.slow.v1")

        async def has_ended() -> bool:
            return (await host.get_status(id)).status == status

        await until(has_ended)


@pytest.mark.parametrize(
    ("action", "status"),
    [(None, Status.TIMED_OUT), ("fail", Status.TIMED_OUT), ("cancel", Status.CANCELLED)],
)
async def test_an_instance_whose_time_is_over_ends_as_the_policy_says(
    tmp_path: Path, action: str | None, status: Status
):
    async with engine_at(tmp_path) as engine:
        policies = {W + "timeoutAction": action} if action else {}
        host = host_of(engine, policies, max_instance_duration="20ms")
        await until_status(engine.client.get(await host.run("app.order.v1")), status)


async def test_an_instance_keeps_its_time_when_it_goes_on_in_another_run(tmp_path: Path):
    @workflow.define(name="app.again", version="1.0.0")
    async def again(_: Any) -> None:
        await workflow.sleep("5ms")
        await workflow.continue_as_new(None)

    async with engine_on(tmp_path, again) as engine:
        host = host_of(engine, max_instance_duration="100ms")
        id = await host.run("app.again.v1")
        await until_status(engine.client.get(id), Status.TIMED_OUT)
        [ended] = await events_of(engine.client.get(id), "run_timed_out")
        assert ended.data["timeout"] == "execution"


# -- alerts ----------------------------------------------------------------------------------------


async def test_a_failure_that_a_policy_wants_an_alert_of_reaches_the_engines_alerts(
    tmp_path: Path,
):
    alerts = [
        Alert("", "http://127.0.0.1:9/", "s", "for policies", on_policy=True),
        Alert("other.*", "http://127.0.0.1:9/", "s", "for others"),
    ]
    async with engine_at(tmp_path, alerts=alerts) as engine:
        quiet = host_of(engine, {W + "alertOnFailure": ["compliance.*"]})
        loud = host_of(engine, {W + "alertOnFailure": ["payment.*"]})
        for host in (quiet, loud):
            id = await host.run("payment.charge.v1")
            await until_status(engine.client.get(id), Status.FAILED)
        [raised] = (await engine.client.list(workflow="perdure.alert")).items
        assert raised.id.endswith("for policies")


async def test_an_alert_that_nobody_would_get_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {W + "alertOnFailure": ["payment.*"]})
        with caplog.at_level(logging.ERROR, "perdure.runs"):
            id = await host.run("payment.charge.v1")
            await until_status(engine.client.get(id), Status.FAILED)
            await until(lambda: "alertOnFailure" in caplog.text)
        assert id in caplog.text


# -- the audit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        (None, []),
        ({W + "audit": False}, []),
        ({W + "auditLevel": "none"}, []),
        ({}, ["start", "send", "cancel"]),
        ({W + "auditLevel": "summary"}, ["start", "send", "cancel"]),
        (
            {W + "auditLevel": "full"},
            ["list", "explain", "start", "get_status", "query", "send", "cancel"],
        ),
    ],
)
async def test_operations_are_told_to_the_audit_as_the_policy_says(
    tmp_path: Path, policies: dict[str, Any] | None, told: list[str]
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies).as_({"role": "clerk"})
        await host.list_workflows()
        await host.explain("list")
        id = await host.run("app.order.v1", {"n": 7})
        await host.get_status(id)
        await host.query()
        await host.signal(id, "seen", "yes")
        await host.cancel(id, "enough")
        lines = (await engine.client.audit.list()).items[::-1]
        assert [line.action for line in lines] == told
        for line in lines:
            assert (line.principal, line.decision, line.rule) == ("app.billing", "allowed", "")
            assert line.detail is not None
            version = host.judge.guard.policies.version  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - of policies
            assert (line.detail["policy"], line.detail["service"]) == (version, "app.billing")
            assert ("claims" in line.detail) == (told[0] == "list")
        assert (await engine.client.audit.verify()).holds


async def test_one_line_tells_of_a_start_whose_client_is_audited_too(tmp_path: Path):
    async with engine_at(tmp_path, audit="full", identity="ada") as engine:
        host = host_of(engine, {W + "auditLevel": "summary"})
        await host.run("app.order.v1", {"n": 7})
        [line] = (await engine.client.audit.list()).items
        assert (line.principal, line.action, line.decision) == ("ada", "start", "allowed")
        assert line.detail is not None
        assert line.detail["after"]["input"] == {"n": 7}


async def test_signals_of_a_host_come_from_one_sender(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {})
        id = await host.run("app.order.v1")
        for _ in range(3):
            await host.signal(id, "seen")
        received = await events_of(engine.client.get(id), "message_received")
        assert len({event.data["message"]["sender"] for event in received}) == 1


# -- what is seen ----------------------------------------------------------------------------------


async def _ids(host: WorkflowHost, **asked: Any) -> list[str]:
    """All pages of a query."""
    found: list[str] = []
    cursor = None
    while True:
        page = await host.query(cursor=cursor, **asked)
        found += [it.instance_id for it in page.instances]
        if (cursor := page.cursor) is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("policies", "sees"),
    [
        ({W + "run.crossNamespace": False}, ["app.order"]),
        (
            {W + "run.crossNamespace": False, W + "run.allowedNamespaces": ["common"]},
            ["app.order", "common.mail"],
        ),
        ({W + "condition": "workflow.namespace == service.namespace"}, ["app.order"]),
        ({W + "query.condition": "!glob(workflow.id, 'hr.*')"}, ["app.order", "common.mail"]),
        ({W + "query.condition": "instance.status == 'completed'"}, ["common.mail"]),
        ({W + "query.condition": "instance.tags.region == 'eu'"}, ["app.order"]),
        ({}, ["app.order", "common.mail", "hr.payroll"]),
    ],
)
async def test_a_query_leaves_out_what_the_service_may_not_see(
    tmp_path: Path, policies: dict[str, Any], sees: list[str], limit: int
):
    async with engine_at(tmp_path) as engine:
        free = host_of(engine)
        of: dict[str, str] = {}
        for _ in range(3):
            for name in ("hr.payroll", "app.order", "common.mail", "hr.payroll"):
                tags = {"region": "eu"} if name == "app.order" else {"region": "us"}
                of[await free.run(f"{name}.v1", tags=tags)] = name
        for id, name in of.items():
            if name == "common.mail":
                await engine.client.get(id).result("20s")
        found = await _ids(host_of(engine, policies), limit=limit)
        assert found == [id for id in reversed(of) if of[id] in sees]


async def test_a_service_that_keeps_to_its_namespace_sees_and_touches_no_other(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        other = await host_of(engine).run("hr.payroll.v1")
        host = host_of(engine, {W + "run.crossNamespace": False})
        for call in (
            host.get_status(other),
            host.signal(other, "approved"),
            host.cancel(other, "no"),
            host.query(workflow_id="hr.payroll"),
        ):
            with pytest.raises(PolicyDenied) as refused:
                await call
            assert refused.value.rule == W + "run.crossNamespace"
        assert await engine.client.get(other).status() is Status.WAITING


async def test_a_query_of_which_nothing_can_be_judged_says_so(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        condition = {W + "query.condition": "workflow.namespace == request.auth.claims.of"}
        host = host_of(engine, condition)
        await host.run("app.order.v1")
        with pytest.raises(PolicyDenied) as refused:
            await host.query()
        assert refused.value.code == "POLICY_ERROR"
        assert len(await _ids(host.as_({"of": "app"}))) == 1


async def test_a_guard_of_ones_own_can_want_rows_judged(tmp_path: Path):
    class Own:
        async def check(self, operation: str, request: Request) -> Verdict:
            is_row = operation == "query" and request.instance_id
            allowed = not is_row or request.name == "common.mail"
            return Verdict(allowed, "" if allowed else "NO", limits=Limits(by_row=True))

    async with engine_at(tmp_path) as engine:
        host = WorkflowHost(engine.client, service="a", guard=Own())
        await host.run("app.order.v1")
        mail_id = await host.run("common.mail.v1")
        assert await _ids(host) == [mail_id]


async def test_instances_that_ended_long_ago_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, retention_days=7)
        open_, ended = await host.run("app.order.v1"), await host.run("common.mail.v1")
        await engine.client.get(ended).result("20s")
        assert set(await _ids(host)) == {open_, ended}
        door = type(engine.client.door)
        now = engine.client.door.now()
        week = timedelta(days=7, seconds=1) // timedelta(microseconds=1)
        monkeypatch.setattr(door, "now", lambda _: now + week)
        assert await _ids(host) == [open_]
        with pytest.raises(NotFound, match="there is no instance"):
            await host.get_status(ended)
        assert (await host.get_status(open_)).instance_id == open_
        assert await engine.client.get(ended).status() is Status.COMPLETED, "it is kept"


# -- by the clock ----------------------------------------------------------------------------------


async def _fired(engine: Engine, id: str, times: int) -> Schedule:
    for _ in range(times):
        await engine.client.schedules.trigger(id, overlap="allow")
    return await engine.client.schedules.get(id)


async def _open(engine: Engine) -> int:
    return int(await engine.client.count(status=["running", "waiting"], exact=True))


async def test_what_a_schedule_begins_takes_places_of_the_service(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {}, max_concurrent_instances=2)
        id = await host.schedule.trigger_workflow("app.order.v1", cron_expression="@yearly")
        first = await host.run("app.order.v1")
        shown = await _fired(engine, id, 3)
        assert (shown.fired, shown.skipped) == (1, 2)
        assert await _open(engine) == 2
        with pytest.raises(PolicyDenied) as refused:
            await host.run("app.order.v1")
        assert refused.value.code == "CONCURRENCY_LIMIT"
        await host.signal(first, "approved")
        await engine.client.get(first).result("20s")
        assert (await _fired(engine, id, 1)).fired == 2, "an end makes room"


async def test_what_a_schedule_begins_counts_for_the_rate_of_starts(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {W + "run.rateLimit": "3/day"})
        id = await host.schedule.trigger_workflow("app.order.v1", cron_expression="@yearly")
        shown = await _fired(engine, id, 4)
        assert (shown.fired, shown.skipped) == (3, 1)
        assert await _open(engine) == 3


async def test_what_a_schedule_begins_is_bound_like_what_the_host_runs(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        policies = {W + "timeoutAction": "cancel", W + "alertOnFailure": ["app.*"]}
        host = host_of(engine, policies, max_instance_duration="20ms")
        id = await host.schedule.trigger_workflow("app.order.v1", cron_expression="@yearly")
        begun = await engine.client.schedules.trigger(id)
        handle = engine.client.get(begun.workflow_id)
        await until_status(handle, Status.CANCELLED)
        [started] = await events_of(handle, "run_started")
        version = host.judge.guard.policies.version  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - of policies
        assert started.data["context"]["policy"] == version
        assert started.data["terms"]["alerts"]


async def test_a_schedule_may_have_an_end_where_policies_want_one(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        limits = {S + "requiredEndTime": True, S + "maxDurationDays": 10, S + "maxExecutions": 5}
        host = host_of(engine, limits)
        end = to_datetime(engine.client.door.now()) + timedelta(days=9)
        trigger = host.schedule.trigger_workflow
        hourly: dict[str, Any] = {"cron_expression": "@hourly", "max_executions": 5}
        assert await trigger("app.order", end=end, **hourly)
        assert await trigger("app.order", at=end)
        for more in ({}, {"end": end + timedelta(days=2)}, {"end": end, "max_executions": 6}):
            with pytest.raises(PolicyDenied):
                await trigger("app.order", **{**hourly, **more})
