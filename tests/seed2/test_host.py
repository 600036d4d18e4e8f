"""The host API: what a service may do, and what its instances look like."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until

from perdure import Engine, activity, workflow
from perdure.errors import Closed, Conflict, Invalid, NotFound, RateLimited
from perdure.host import HostConfig, Policies, PolicyDenied, WorkflowHost


@dataclass
class User:
    email: str
    plan: str = "free"


@workflow.define(name="user.onboarding", version="1.0.0", triggers=("manual",))
async def onboarding_1_0(user: User) -> str:
    return "1.0"


@workflow.define(name="user.onboarding", version="1.2.0", triggers=("manual", "event:user.new"))
async def onboarding_1_2(user: User) -> str:
    await workflow.attrs(memo={"plan": user.plan})
    said = await workflow.listen("approved").receive()
    return f"{user.email} {said}"


@workflow.define(name="user.onboarding", version="2.0.0")
async def onboarding_2(user: User) -> str:
    return "2"


@workflow.define(name="admin.dangerous", version="1.0.0")
async def dangerous(input: Any) -> None: ...


@workflow.define(name="app.versions", version="1.0.0")
async def versions(input: Any) -> str:
    return str(workflow.context["policy"])


hosts: list[WorkflowHost] = []


@activity.define
async def run_again() -> str:
    try:
        return await hosts[0].run("app.selfish.v1")
    except PolicyDenied as denied:
        return denied.code


@workflow.define(name="app.selfish", version="1.0.0")
async def selfish(input: Any) -> str:
    return await run_again()


@activity.define
async def slow() -> None:
    await asyncio.Event().wait()


@workflow.define(name="app.slow", version="1.0.0")
async def slowly(input: Any) -> None:
    await slow()


NEW = "user.onboarding.v1"
ADA = {"email": "ada@example.com"}


def engine_at(folder: Path) -> AbstractAsyncContextManager[Engine]:
    known = (onboarding_1_0, onboarding_1_2, onboarding_2, dangerous, versions, selfish, slowly)
    return engine_on(folder, *known)


def host_of(engine: Engine, policies: Any = None, **config: Any) -> WorkflowHost:
    judged = Policies(policies) if policies is not None else None
    made = HostConfig(**config)
    return WorkflowHost(engine.client, service="app.billing", policies=judged, config=made)


async def _result(engine: Engine, instance_id: str) -> Any:
    return await engine.client.get(instance_id).result("20s")


async def test_an_instance_is_run_signalled_and_shown(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        id = await host.run(NEW, ADA, correlation_id="c-1", tags={"region": "eu"})
        await until(lambda: _is(host, id, "waiting"))
        waiting = await host.get_status(id)
        assert (waiting.workflow_id, waiting.version) == ("user.onboarding", "1.2.0")
        assert (waiting.correlation_id, waiting.tags) == ("c-1", {"region": "eu"})
        assert (waiting.variables, waiting.input) == ({"plan": "free"}, ADA)
        assert waiting.current_step is not None
        await host.signal(id, "approved", "yes")
        assert await _result(engine, id) == "ada@example.com yes"
        done = await host.get_status(id)
        assert (done.status, done.output, done.error) == ("completed", "ada@example.com yes", None)
        assert done.end_time is not None
        assert done.start_time <= done.end_time
        with pytest.raises(Closed):
            await host.signal(id, "approved", "too late")
        with pytest.raises(Conflict, match="has ended"):
            await host.cancel(id, "too late")


async def _is(host: WorkflowHost, id: str, status: str) -> bool:
    return (await host.get_status(id)).status == status


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ("user.onboarding.v1", "1.2.0"),
        ("user.onboarding.v1.0", "1.0.0"),
        ("user.onboarding.v1.0.0", "1.0.0"),
        ("user.onboarding@2.0.0", "2.0.0"),
        ("user.onboarding.v2", "2.0.0"),
    ],
)
async def test_a_version_is_the_highest_that_begins_so(tmp_path: Path, asked: str, runs: str):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        id = await host.run(asked, ADA)
        assert (await host.get_status(id)).version == runs


async def test_a_definition_is_run_as_it_is(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        id = await host.run(onboarding_1_0, ADA)
        assert await _result(engine, id) == "1.0"


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "call", "code"),
    [
        # What is always checked.
        (None, {"workflow_id": "onboarding"}, "INVALID_WORKFLOW_ID"),
        (None, {"workflow_id": "user.onboarding"}, "INVALID_WORKFLOW_ID"),
        (None, {"workflow_id": NEW, "input": {"mail": 1}}, "INVALID_INPUT"),
        (None, {"workflow_id": NEW, "input": {"email": "x" * 1_100_000}}, "INPUT_TOO_LARGE"),
        (None, {"workflow_id": NEW, "input": ADA, "caller": "user.onboarding"}, "SELF_RUN"),
        # What policies say.
        ({"policy.workflow.run.blocked": ["user.*"]}, {}, "POLICY_DENIED"),
        ({"policy.workflow.run.allowed": ["report.*"]}, {}, "POLICY_DENIED"),
        ({"policy.workflow.run.allowed": []}, {}, "POLICY_DENIED"),
        ({"policy.workflow.run.crossNamespace": False}, {}, "POLICY_DENIED"),
        (
            {
                "policy.workflow.run.crossNamespace": False,
                "policy.workflow.run.allowedNamespaces": ["user"],
            },
            {},
            None,
        ),
        (
            {"policy.workflow.run.condition": "request.auth.claims.role == 'admin'"},
            {},
            "POLICY_ERROR",
        ),
        (
            {"policy.workflow.run.condition": "request.auth.claims.role == 'admin'"},
            {"claims": {"role": "admin"}},
            None,
        ),
        (
            {"policy.workflow.run.condition": "request.auth.claims.role == 'admin'"},
            {"claims": {"role": "clerk"}},
            "POLICY_DENIED",
        ),
        (
            {"policy.workflow.run.requiredInputFields": {"user.onboarding": ["plan"]}},
            {},
            "POLICY_DENIED",
        ),
    ],
)
async def test_who_may_run_what(
    tmp_path: Path, policies: dict[str, Any] | None, call: dict[str, Any], code: str | None
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies)
        asked = {"workflow_id": NEW, "input": ADA, **call}
        if code is None:
            assert await host.run(**asked)
            return
        with pytest.raises(PolicyDenied) as denied:
            await host.run(**asked)
        assert denied.value.code == code, denied.value.message
        assert await engine.client.count() == 0, "a refusal leaves no instance"


async def test_a_workflow_that_is_not_there_is_not_found(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        for missing in ("user.offboarding.v1", "user.onboarding.v3"):
            with pytest.raises(NotFound, match="there is no workflow"):
                await host.run(missing, ADA)
        for call in (host.get_status, host.cancel):
            with pytest.raises(NotFound, match="there is no instance"):
                await call("nobody")
        with pytest.raises(NotFound, match="there is no instance"):
            await host.signal("nobody", "approved")


async def test_a_workflow_does_not_run_itself_from_its_activity(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        hosts[:] = [host_of(engine)]
        id = await hosts[0].run("app.selfish.v1")
        assert await _result(engine, id) == "SELF_RUN"


async def test_by_hand_only_what_has_the_trigger_is_run_if_manual_triggers_are_off(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, enable_manual_triggers=False)
        assert await host.run(NEW, ADA)
        with pytest.raises(PolicyDenied) as denied:
            await host.run("admin.dangerous.v1")
        assert denied.value.code == "MANUAL_TRIGGERS_DISABLED"


async def test_the_policies_version_stands_on_the_run(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        policies = Policies({"policy.workflow.run.blocked": ["admin.*"]})
        host = WorkflowHost(engine.client, service="app.billing", policies=policies)
        assert await _result(engine, await host.run("app.versions.v1")) == policies.version
        with pytest.raises(Invalid, match="policy"):
            await engine.client.start(versions, None, context={"policy": "mine"})


@pytest.mark.parametrize("where", ["config", "policy", "workflow"])
async def test_so_many_instances_are_open_and_no_more(tmp_path: Path, where: str):
    config = {"max_concurrent_instances": 2} if where == "config" else {}
    policies = {
        "config": {},
        "policy": {"policy.workflow.maxConcurrentInstances": 2},
        "workflow": {"policy.workflow.maxInstancesPerWorkflow": {"user.onboarding": 2}},
    }[where]
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies, **config)
        first, _ = [await host.run(NEW, ADA) for _ in range(2)]
        with pytest.raises(PolicyDenied) as denied:
            await host.run(NEW, ADA)
        assert denied.value.code == "CONCURRENCY_LIMIT"
        await host.signal(first, "approved")
        await _result(engine, first)
        assert await host.run(NEW, ADA), "an end makes room"


async def test_so_many_are_run_in_a_time_and_no_more(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {"policy.workflow.run.rateLimit": "2/hour"})
        for _ in range(2):
            await host.run("app.versions.v1")
        with pytest.raises(RateLimited) as limited:
            await host.run("app.versions.v1")
        assert 0 < limited.value.details["retry_after"] <= 3_600
        assert await engine.client.count() == 2


async def test_a_rate_that_takes_the_place_of_a_slower_one_holds_at_once(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        policies = Policies({"policy.workflow.run.rateLimit": "1/day"})
        host = WorkflowHost(engine.client, service="app.billing", policies=policies)
        await host.run("app.versions.v1")
        with pytest.raises(RateLimited):
            await host.run("app.versions.v1")
        policies.update({"policy.workflow.run.rateLimit": "2/minute"})
        for _ in range(2):
            await host.run("app.versions.v1")
        with pytest.raises(RateLimited):
            await host.run("app.versions.v1")


async def test_a_step_that_says_nothing_has_the_hosts_time(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, default_timeout="10ms", max_instance_duration="20s")
        id = await host.run("app.slow.v1")
        [timed_out, *_] = await _failures(engine, id)
        assert timed_out["failure"]["kind"] == "Timeout"


async def _failures(engine: Engine, id: str) -> list[dict[str, Any]]:
    handle = engine.client.get(id)
    found: list[dict[str, Any]] = []

    async def has_failed() -> bool:
        found[:] = [it.data for it in await handle.history() if it.kind == "attempt_failed"]
        return bool(found)

    await until(has_failed)
    return found


# -- signals, queries, cancels ---------------------------------------------------------------------


async def test_signals_are_judged_by_name_and_by_the_instance(tmp_path: Path):
    policies = {
        "policy.workflow.signal.allowedSignals": ["approved", "rejected"],
        "policy.workflow.signal.condition": "instance.status == 'waiting'",
    }
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies)
        id = await host.run(NEW, ADA)
        await until(lambda: _is(host, id, "waiting"))
        for wrong, code in (("no spaces", "INVALID_SIGNAL"), ("paid", "POLICY_DENIED")):
            with pytest.raises(PolicyDenied) as denied:
                await host.signal(id, wrong)
            assert denied.value.code == code
        await host.signal(id, "approved", "so")
        assert (await _result(engine, id)).endswith("so")


async def test_a_query_finds_by_workflow_version_status_tags_and_correlation(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        open_ = await host.run(NEW, ADA, tags={"region": "eu"}, correlation_id="c")
        old = await host.run("user.onboarding.v1.0.0", ADA, tags={"region": "us"})
        await _result(engine, old)
        await until(lambda: _is(host, open_, "waiting"))

        async def ids(**asked: Any) -> list[str]:
            return [found.instance_id for found in (await host.query(**asked)).instances]

        assert await ids(workflow_id="user.onboarding") == [old, open_]
        assert await ids(workflow_id="user.onboarding.v1.2") == [open_]
        assert await ids(status="completed") == [old]
        assert await ids(status=["waiting", "running"]) == [open_]
        assert await ids(tags={"region": "eu"}) == [open_]
        assert await ids(correlation_id="c") == [open_]
        first = await host.query(limit=1)
        assert [it.instance_id for it in first.instances] == [old]
        assert first.cursor is not None
        assert await ids(limit=1, cursor=first.cursor) == [open_]
        with pytest.raises(Invalid, match="'nonsense'"):
            await host.query(status="nonsense")


async def test_a_query_gives_what_the_policy_allows_to_be_asked(tmp_path: Path):
    policies = {
        "policy.workflow.query.allowedStatuses": ["completed", "failed"],
        "policy.workflow.query.maxResults": 1,
    }
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies)
        await host.run(NEW, ADA)
        ended = [await host.run("user.onboarding.v1.0.0", ADA) for _ in range(2)]
        for id in ended:
            await _result(engine, id)
        found = await host.query()
        assert [it.instance_id for it in found.instances] == [ended[1]]
        with pytest.raises(PolicyDenied):
            await host.query(status="waiting")


async def test_a_cancel_is_judged_and_needs_a_reason_where_the_policy_says_so(tmp_path: Path):
    policies = {
        "policy.workflow.cancel.requireReason": True,
        "policy.workflow.cancel.condition": (
            "instance.status in ['pending', 'running', 'waiting'] "
            "&& request.auth.claims.role == 'admin'"
        ),
    }
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, policies)
        admin = host.as_({"role": "admin"})
        id = await host.run(NEW, ADA)
        for who, reason in ((host, "because"), (admin, "")):
            with pytest.raises(PolicyDenied):
                await who.cancel(id, reason)
        await admin.cancel(id, "because")
        await until(lambda: _is(host, id, "cancelled"))


async def test_workflows_are_listed_and_decisions_explained(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {"policy.workflow.run.blocked": ["admin.*"]})
        listed = await host.list_workflows()
        assert [(it.workflow_id, it.version) for it in listed][:2] == [
            ("admin.dangerous", "1.0.0"),
            ("app.selfish", "1.0.0"),
        ]
        assert {
            it.version: it.triggers for it in listed if it.workflow_id == "user.onboarding"
        } == {
            "1.0.0": ("manual",),
            "1.2.0": ("manual", "event:user.new"),
            "2.0.0": (),
        }
        findings = await host.explain("run", workflow_id="admin.dangerous.v1")
        [blocked] = [it for it in findings if not it.allowed]
        assert blocked.rule == "policy.workflow.run.blocked"
        assert await engine.client.count() == 0


# -- by the clock ----------------------------------------------------------------------------------


async def test_a_workflow_is_let_begin_by_the_clock_if_the_policy_allows_it(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {"policy.workflow.run.blocked": ["admin.*"]})
        id = await host.schedule.trigger_workflow(
            "user.onboarding.v1.0.0", ADA, cron_expression="0 0 1 * *", timezone="Europe/Berlin"
        )
        made = await engine.client.schedules.get(id)
        assert made.workflow == "user.onboarding"
        assert [str(one.local.date().day) for one in made.next] == ["1"] * 5
        with pytest.raises(PolicyDenied):
            await host.schedule.trigger_workflow(NEW, {"mail": 1}, cron_expression="@monthly")
        with pytest.raises(Invalid):
            await host.schedule.trigger_workflow(NEW, ADA)
        assert len((await engine.client.schedules.list()).items) == 1
