"""Every refusal at the doors: who asks what of the host or the operations, and what is answered.

Each leaves nothing behind but a line of the audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Engine, workflow
from perdure.control import ApiResult, Control, Principal
from perdure.errors import PolicyDenied, RateLimited
from perdure.host import HostConfig, WorkflowHost
from perdure.policy import Policies
from perdure.values.states import Status

W, S = "policy.workflow.", "policy.schedule."
DENIED, ERROR = "POLICY_DENIED", "POLICY_ERROR"
CLERK, ADMIN = {"role": "clerk"}, {"role": "admin"}
NEEDS_ADMIN = "request.auth.claims.role == 'admin'"
Keys = Mapping[str, Any]


@workflow.define(name="user.onboarding", version="1.2.0")
async def onboarding(user: dict[str, str]) -> str:
    return str(await workflow.listen("approved").receive())


@workflow.define(name="user.review", version="1.0.0")
async def review(envelope: dict[str, Any]) -> str:
    return str(await workflow.listen("approved").receive())


def engine_at(folder: Path) -> AbstractAsyncContextManager[Engine]:
    return engine_on(folder, onboarding, review)


HOST: list[tuple[Keys, Keys, str, dict[str, Any], str, str]] = [
    # policies, claims, call, what it is given, code, rule
    ({}, CLERK, "run", {"workflow": "onboarding"}, "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, CLERK, "run", {"workflow": "user.onboarding"}, "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, CLERK, "run", {"caller": "user.onboarding"}, "SELF_RUN", "self_run"),
    ({}, CLERK, "run", {"input": "x" * 1_100_000}, "INPUT_TOO_LARGE", "input_size"),
    ({}, CLERK, "run", {"input": {"mail": 7}}, "INVALID_INPUT", "input_schema"),
    ({W + "run.blocked": ["user.*"]}, ADMIN, "run", {}, DENIED, W + "run.blocked"),
    ({W + "run.allowed": []}, ADMIN, "run", {}, DENIED, W + "run.allowed"),
    ({W + "run.condition": NEEDS_ADMIN}, CLERK, "run", {}, DENIED, W + "run.condition"),
    ({W + "run.condition": NEEDS_ADMIN}, {}, "run", {}, ERROR, W + "run.condition"),
    ({W + "condition": NEEDS_ADMIN}, CLERK, "run", {}, DENIED, W + "condition"),
    ({W + "run.crossNamespace": False}, ADMIN, "run", {}, DENIED, W + "run.crossNamespace"),
    ({W + "run.allowedNamespaces": ["b"]}, ADMIN, "run", {}, DENIED, W + "run.allowedNamespaces"),
    (
        {W + "run.maxInputSizeKb": 1},
        ADMIN,
        "run",
        {"input": {"mail": "x" * 2_000}},
        DENIED,
        W + "run.maxInputSizeKb",
    ),
    (
        {W + "run.requiredInputFields": {"user.*": ["plan"]}},
        ADMIN,
        "run",
        {},
        DENIED,
        W + "run.requiredInputFields",
    ),
    (
        {W + "maxConcurrentInstances": 1},
        ADMIN,
        "run",
        {},
        "CONCURRENCY_LIMIT",
        W + "maxConcurrentInstances",
    ),
    (
        {W + "maxInstancesPerWorkflow": {"user.onboarding": 1}},
        ADMIN,
        "run",
        {},
        "CONCURRENCY_LIMIT",
        W + "maxInstancesPerWorkflow",
    ),
    ({W + "run.rateLimit": "1/day"}, ADMIN, "run", {}, "RATE_LIMITED", W + "run.rateLimit"),
    ({}, ADMIN, "signal", {"signal": "no spaces"}, "INVALID_SIGNAL", "signal_name"),
    ({}, ADMIN, "signal", {"payload": "x" * 1_100_000}, "INPUT_TOO_LARGE", "input_size"),
    ({}, ADMIN, "signal", {"id": "no id!"}, "INVALID_INSTANCE_ID", "instance_id"),
    ({}, ADMIN, "get_status", {"id": "no id!"}, "INVALID_INSTANCE_ID", "instance_id"),
    ({}, ADMIN, "cancel", {"id": "x" * 300}, "INVALID_INSTANCE_ID", "instance_id"),
    ({W + "signal.allowed": False}, ADMIN, "signal", {}, DENIED, W + "signal.allowed"),
    (
        {W + "signal.allowedSignals": ["paid"]},
        ADMIN,
        "signal",
        {},
        DENIED,
        W + "signal.allowedSignals",
    ),
    (
        {W + "signal.condition": "instance.status == 'completed'"},
        ADMIN,
        "signal",
        {},
        DENIED,
        W + "signal.condition",
    ),
    ({W + "condition": NEEDS_ADMIN}, CLERK, "get_status", {}, DENIED, W + "condition"),
    ({W + "query.condition": NEEDS_ADMIN}, CLERK, "query", {}, DENIED, W + "query.condition"),
    ({W + "query.condition": NEEDS_ADMIN}, {}, "query", {}, ERROR, W + "query.condition"),
    (
        {W + "query.allowedStatuses": ["failed"]},
        ADMIN,
        "query",
        {"status": "waiting"},
        DENIED,
        W + "query.allowedStatuses",
    ),
    ({}, ADMIN, "query", {"limit": 0}, "INVALID_LIMIT", "query_limit"),
    ({}, ADMIN, "query", {"workflow_id": "onboarding"}, "INVALID_WORKFLOW_ID", "workflow_id"),
    ({W + "cancel.allowed": False}, ADMIN, "cancel", {}, DENIED, W + "cancel.allowed"),
    ({W + "cancel.condition": NEEDS_ADMIN}, CLERK, "cancel", {}, DENIED, W + "cancel.condition"),
    ({W + "cancel.requireReason": True}, ADMIN, "cancel", {}, DENIED, W + "cancel.requireReason"),
    ({W + "condition": NEEDS_ADMIN}, CLERK, "list_workflows", {}, DENIED, W + "condition"),
    ({W + "condition": NEEDS_ADMIN}, CLERK, "explain", {}, DENIED, W + "condition"),
    ({S + "allowed": False}, ADMIN, "schedule", {}, DENIED, S + "allowed"),
    ({S + "workflow.allowed": False}, ADMIN, "schedule", {}, DENIED, S + "workflow.allowed"),
    (
        {S + "workflow.allowedWorkflows": ["report.*"]},
        ADMIN,
        "schedule",
        {},
        DENIED,
        S + "workflow.allowedWorkflows",
    ),
    (
        {S + "allowedCronPatterns": ["@daily", "0 ** 1 *"]},
        ADMIN,
        "schedule",
        {},
        DENIED,
        S + "allowedCronPatterns",
    ),
    ({S + "condition": NEEDS_ADMIN}, CLERK, "schedule", {}, DENIED, S + "condition"),
    (
        {S + "maxFrequencySeconds": 7_200},
        ADMIN,
        "schedule",
        {},
        DENIED,
        S + "maxFrequencySeconds",
    ),
    ({S + "maxExecutions": 10}, ADMIN, "schedule", {}, DENIED, S + "maxExecutions"),
    ({S + "maxDurationDays": 10}, ADMIN, "schedule", {}, DENIED, S + "maxDurationDays"),
    ({S + "requiredEndTime": True}, ADMIN, "schedule", {}, DENIED, S + "requiredEndTime"),
    ({S + "maxInputSizeKb": 0}, ADMIN, "schedule", {}, DENIED, S + "maxInputSizeKb"),
    (
        {S + "create.rateLimit": "1/day"},
        ADMIN,
        "schedule",
        {},
        "RATE_LIMITED",
        S + "create.rateLimit",
    ),
    ({W + "run.blocked": ["user.*"]}, ADMIN, "schedule", {}, DENIED, W + "run.blocked"),
]


@pytest.mark.parametrize("case", HOST, ids=lambda case: f"{case[2]} {case[4]} {case[5]}")
async def test_the_host_refuses(
    tmp_path: Path, case: tuple[Keys, Keys, str, dict[str, Any], str, str]
):
    policies, claims, call, given, code, rule = case
    async with engine_at(tmp_path) as engine:
        free = WorkflowHost(engine.client, service="app.billing")
        judged = Policies({W + "auditLevel": "full", **policies})
        host = WorkflowHost(engine.client, service="app.billing", policies=judged, claims=claims)
        if code in ("CONCURRENCY_LIMIT", "RATE_LIMITED"):
            await _asked(host, call, given, "")  # the first one is no refusal
            id = ""
        else:
            id = await free.run("user.onboarding.v1", {"mail": "a"})
        open_before = int(await engine.client.count(exact=True))
        schedules = len((await engine.client.schedules.list()).items)
        with pytest.raises((PolicyDenied, RateLimited)) as refused:
            await _asked(host, call, given, id)
        error = refused.value
        if code == "RATE_LIMITED":
            assert isinstance(error, RateLimited)
            assert 0 < error.details["retry_after"] <= 86_400
            assert error.details["rule"] == rule
        else:
            assert (error.code, error.details["rule"]) == (code, rule), error.message
        assert error.details["version"] in (judged.version, "")
        assert int(await engine.client.count(exact=True)) == open_before
        assert len((await engine.client.schedules.list()).items) == schedules
        line = (await engine.client.audit.list()).items[0]
        assert (line.principal, line.decision, line.rule) == ("app.billing", "denied", rule)
        run_id = (await engine.client.get(id).describe()).run_id if line.target == id else ""
        assert line.run_id == run_id  # it is erased with the run
        assert line.detail is not None
        assert (line.detail["code"], line.detail["claims"]) == (code, claims)


async def _asked(host: WorkflowHost, call: str, given: dict[str, Any], id: str) -> Any:
    if call == "run":
        asked = {"input": {"mail": "a"}, **given}
        return await host.run(asked.pop("workflow", "user.onboarding.v1"), **asked)
    if call == "schedule":
        asked = {"cron_expression": "0 * * * *", **given}
        return await host.schedule.trigger_workflow("user.onboarding", {"mail": "a"}, **asked)
    id = given.get("id", id)
    if call == "signal":
        return await host.signal(id, given.get("signal", "approved"), given.get("payload"))
    if call in ("get_status", "cancel"):
        return await getattr(host, call)(id)
    if call == "explain":
        return await host.explain("list", **given)
    return await getattr(host, call)(**given)


async def test_manual_triggers_that_are_off_are_told_like_other_refusals(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = WorkflowHost(
            engine.client,
            service="app.billing",
            policies=Policies({W + "run.rateLimit": "1/day"}),
            config=HostConfig(enable_manual_triggers=False),
        )
        for _ in range(2):  # and spend nothing of a rate
            with pytest.raises(PolicyDenied) as refused:
                await host.run("user.onboarding.v1", {"mail": "a"})
            assert refused.value.code == "MANUAL_TRIGGERS_DISABLED"
        [line, _] = (await engine.client.audit.list()).items
        assert (line.action, line.decision, line.rule) == (
            "start",
            "denied",
            "enable_manual_triggers",
        )


# -- operations ------------------------------------------------------------------------------------

MEMBER = Principal(id="max", roles=["writer"], tenant="acme", scopes=["workflow:invoke"])
BOSS = Principal(id="ada", roles=["admin"], claims={"role": "admin"})
CRON = {"invocable": True, "task_queue": "default", "cron_schedule": "0 * * * *"}
CONTROL: list[tuple[Keys, Principal | None, str, dict[str, Any], int, str, str]] = [
    # policies, who, call, what it is given, status, code, rule
    ({W + "run.blocked": ["user.*"]}, BOSS, "invoke", {}, 403, DENIED, W + "run.blocked"),
    ({W + "run.allowed": ["report.*"]}, BOSS, "invoke", {}, 403, DENIED, W + "run.allowed"),
    (
        {W + "run.condition": "'editor' in request.auth.claims.roles"},
        MEMBER,
        "invoke",
        {},
        403,
        DENIED,
        W + "run.condition",
    ),
    ({W + "run.condition": NEEDS_ADMIN}, MEMBER, "invoke", {}, 403, ERROR, W + "run.condition"),
    (
        {W + "run.condition": "request.auth.claims.kind == 'service'"},
        MEMBER,
        "invoke",
        {},
        403,
        DENIED,
        W + "run.condition",
    ),
    (
        {W + "run.requiredInputFields": {"user.review": ["plan"]}},
        BOSS,
        "invoke",
        {},
        403,
        DENIED,
        W + "run.requiredInputFields",
    ),
    (
        {W + "run.crossNamespace": False},
        BOSS,
        "invoke",
        {},
        403,
        DENIED,
        W + "run.crossNamespace",
    ),
    (
        {W + "maxConcurrentInstances": 1},
        BOSS,
        "invoke",
        {},
        403,
        "CONCURRENCY_LIMIT",
        W + "maxConcurrentInstances",
    ),
    ({W + "run.rateLimit": "1/day"}, BOSS, "invoke", {}, 429, "rate_limited", W + "run.rateLimit"),
    ({W + "cancel.allowed": False}, BOSS, "terminate", {}, 403, DENIED, W + "cancel.allowed"),
    (
        {W + "cancel.requireReason": True},
        BOSS,
        "terminate",
        {},
        403,
        DENIED,
        W + "cancel.requireReason",
    ),
    (
        {W + "cancel.condition": "request.auth.claims.tenant == instance.tenant"},
        Principal(id="b"),
        "terminate",
        {},
        403,
        ERROR,
        W + "cancel.condition",
    ),
    ({W + "condition": NEEDS_ADMIN}, None, "get_status", {}, 403, ERROR, W + "condition"),
    ({W + "condition": NEEDS_ADMIN}, MEMBER, "list_configs", {}, 403, ERROR, W + "condition"),
    ({W + "condition": "false"}, BOSS, "get_result", {}, 403, DENIED, W + "condition"),
    ({W + "condition": "false"}, BOSS, "export", {}, 403, DENIED, W + "condition"),
    ({W + "condition": "false"}, BOSS, "list_workers", {}, 403, DENIED, W + "condition"),
    ({W + "condition": "false"}, BOSS, "list_discovered", {}, 403, DENIED, W + "condition"),
    ({W + "condition": "false"}, BOSS, "get_cron_status", {}, 403, DENIED, W + "condition"),
    ({W + "condition": "false"}, BOSS, "get_config", {}, 403, DENIED, W + "condition"),
    ({S + "allowed": False}, BOSS, "upsert_config", CRON, 403, DENIED, S + "allowed"),
    (
        {S + "maxFrequencySeconds": 7_200},
        BOSS,
        "upsert_config",
        CRON,
        403,
        DENIED,
        S + "maxFrequencySeconds",
    ),
]


@pytest.mark.parametrize("case", CONTROL, ids=lambda case: f"{case[2]} {case[5]} {case[6]}")
async def test_operations_refuse(
    tmp_path: Path, case: tuple[Keys, Principal | None, str, dict[str, Any], int, str, str]
):
    policies, who, call, given, status, code, rule = case
    async with engine_at(tmp_path) as engine:
        free = Control(engine.client, BOSS)
        judged = Policies(policies)
        lt = Control(engine.client, who, policies=judged)
        if code in ("CONCURRENCY_LIMIT", "rate_limited"):
            assert (await _called(lt, call, given)).status == 202
        else:
            assert (await _called(free, "invoke", {"options": {"id": "w"}})).status == 202
        before = int(await engine.client.count(exact=True))
        refused = await _called(lt, call, given)
        assert (refused.status, refused.code) == (status, code), refused.error
        assert (refused.data["rule"], refused.data["version"]) == (rule, judged.version)
        if status == 429:
            assert 0 < refused.data["retry_after"] <= 86_400
        assert int(await engine.client.count(exact=True)) == before
        assert (await engine.client.schedules.list()).items == []
        if call != "invoke":
            assert not (await engine.client.get("w").status()).is_terminal
        lines = (await engine.client.audit.list()).items
        denied = [it for it in lines if it.decision == "denied"]
        if status == 429:
            assert denied == [], "as many as come: they are told at level full"
            return
        [line] = denied
        assert (line.rule, line.principal) == (rule, who.id if who else "perdure.control")


async def _called(lt: Control, call: str, given: dict[str, Any]) -> ApiResult:
    asked: dict[str, Any] = {}
    if call in ("invoke", "upsert_config", "get_config"):
        asked = {"type": "user.review"}
    elif call in ("terminate", "get_status", "get_result", "export"):
        asked = {"workflow_id": "w"}
    return await getattr(lt.workflows, call)(**asked, **given)


async def test_a_type_without_a_namespace_can_be_judged(tmp_path: Path):
    @workflow.define(name="reviewContent")
    async def content(_: dict[str, Any]) -> str:
        return str(workflow.context["policy"])

    async with engine_on(tmp_path, content) as engine:
        policies = Policies(
            {W + "run.allowed": ["review*"], W + "run.condition": "workflow.version == '1.0.0'"}
        )
        lt = Control(engine.client, MEMBER, policies=policies)
        invoked = await lt.workflows.invoke(type="reviewContent")
        assert invoked.status == 202, invoked.error
        handle = engine.client.get(invoked.data["workflow_id"])
        assert await handle.result("20s") == policies.version
        [line] = (await engine.client.audit.list()).items
        assert (line.action, line.principal, line.decision) == ("start", "max", "allowed")
        assert line.detail is not None
        assert line.detail["policy"] == policies.version
        assert line.detail["service"] == "perdure.control"


async def test_what_policies_allow_is_done(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        policies = Policies({W + "condition": NEEDS_ADMIN, W + "cancel.requireReason": True})
        lt = Control(engine.client, BOSS, policies=policies, service="app.console")
        assert (await lt.workflows.upsert_config(type="user.review", **CRON)).status == 200
        [made] = (await engine.client.schedules.list()).items
        assert made.workflow == "user.review"
        invoked = await lt.workflows.invoke(type="user.review", options={"id": "w"})
        assert invoked.status == 202
        for call in ("get_status", "get_result", "export"):
            assert (await getattr(lt.workflows, call)(workflow_id="w")).ok
        ended = await lt.workflows.terminate(workflow_id="w", reason="enough")
        assert ended.status == 200
        await until_status(engine.client.get("w"), Status.TERMINATED)
        acts = [(it.action, it.decision) for it in (await engine.client.audit.list()).items]
        assert ("terminate", "allowed") in acts
        assert ("start", "allowed") in acts


async def test_without_policies_nothing_is_asked(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, BOSS)
        assert (await lt.workflows.invoke(type="user.review")).status == 202
        assert (await engine.client.audit.list()).items == []


@pytest.mark.parametrize(
    ("policies", "options", "rule"),
    [
        (
            {W + "cancel.allowed": False},
            {"id_conflict_policy": "terminate_existing"},
            W + "cancel.allowed",
        ),
        (
            {W + "signal.allowedSignals": ["paid"]},
            {"id_conflict_policy": "use_existing", "messages": [("approved", "so")]},
            W + "signal.allowedSignals",
        ),
        (
            {},
            {"id_conflict_policy": "use_existing", "messages": [("approved", "x" * 1_100_000)]},
            "input_size",
        ),
    ],
)
async def test_a_start_is_no_way_around_what_policies_say_of_a_run_that_is_there(
    tmp_path: Path, policies: Keys, options: dict[str, Any], rule: str
):
    async with engine_at(tmp_path) as engine:
        free = Control(engine.client, BOSS)
        await _called(free, "invoke", {"options": {"id": "w"}})
        lt = Control(engine.client, BOSS, policies=Policies(policies))
        refused = await _called(lt, "invoke", {"options": {"id": "w", **options}})
        assert (refused.status, refused.data["rule"]) == (403, rule)
        assert not (await engine.client.get("w").status()).is_terminal
        other = await _called(lt, "invoke", {"options": {"id": "other", **options}})
        assert other.status == 202, "nothing is there that it would touch"


@pytest.mark.parametrize("messages", [7, "ab", [7], [("approved",)], [(7, "so")]])
async def test_messages_that_cannot_be_meant_are_a_400_also_under_policies(
    tmp_path: Path, messages: Any
):
    async with engine_at(tmp_path) as engine:
        lt = Control(engine.client, BOSS, policies=Policies())
        options = {"id": "w", "id_conflict_policy": "use_existing"}
        await _called(lt, "invoke", {"options": options})
        refused = await _called(lt, "invoke", {"options": {**options, "messages": messages}})
        assert (refused.status, refused.code) == (400, "invalid")
