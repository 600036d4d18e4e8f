"""Guards of users' own, behind the checks that are always made; and what explains a call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on

from perdure import Engine, activity, workflow
from perdure.control import Control, Principal
from perdure.errors import Invalid, NotFound, PolicyDenied
from perdure.host import HostConfig, Policies, WorkflowHost
from perdure.policy import PolicyGuard, Request, Verdict
from perdure.policy.verdict import Limits

W = "policy.workflow."
RUN = "user.onboarding.v1"
hosts: dict[str, WorkflowHost] = {}


@workflow.define(name="user.onboarding", version="1.2.0")
async def onboarding(user: dict[str, str]) -> str:
    return str(await workflow.listen("approved").receive())


@activity.define(retry=None)
async def plan_again() -> str:
    try:
        at = datetime.now(UTC) + timedelta(days=1)
        return await hosts["own"].schedule.trigger_workflow("user.planner", at=at)
    except PolicyDenied as error:
        return error.code


@workflow.define(name="user.planner", version="1.0.0")
async def planner(_: None) -> str:
    return await plan_again()


class Own:
    """A guard that allows all, or raises; ``limits``: of what it allows."""

    def __init__(self, limits: Limits | None = None, error: Exception | None = None) -> None:
        self.limits, self.error = limits or Limits(), error

    async def check(self, operation: str, request: Request) -> Verdict:
        if self.error is not None:
            raise self.error
        return Verdict(True, limits=self.limits)


def engine_at(folder: Path) -> AbstractAsyncContextManager[Engine]:
    return engine_on(folder, onboarding, planner)


def host_of(engine: Engine, guard: Own) -> WorkflowHost:
    return WorkflowHost(engine.client, service="app.billing", guard=guard)


Call = Callable[[WorkflowHost, str], Any]
CHECKED: list[tuple[str, Call]] = [
    ("INVALID_WORKFLOW_ID", lambda host, _: host.run("onboarding")),
    ("INVALID_WORKFLOW_ID", lambda host, _: host.run("user.onboarding")),
    ("SELF_RUN", lambda host, _: host.run(RUN, {}, caller="user.onboarding")),
    ("INPUT_TOO_LARGE", lambda host, _: host.run(RUN, {"mail": "x" * 1_100_000})),
    ("INVALID_INPUT", lambda host, _: host.run(RUN, {"mail": 7})),
    ("INVALID_SIGNAL", lambda host, own: host.signal(own, "no spaces")),
    ("INVALID_INSTANCE_ID", lambda host, _: host.signal("no id!", "approved")),
    ("INVALID_LIMIT", lambda host, _: host.query(limit=0)),
]


@pytest.mark.parametrize(("code", "call"), CHECKED, ids=[code for code, _ in CHECKED])
async def test_no_guard_is_a_way_around_the_checks_of_the_code(
    tmp_path: Path, code: str, call: Call
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, Own())
        id = await host.run(RUN, {"mail": "a"})
        with pytest.raises(PolicyDenied) as refused:
            await call(host, id)
        assert refused.value.code == code
        assert await engine.client.count() == 1


async def test_a_query_under_a_guard_gives_what_was_asked_for_and_no_more(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, Own())
        for _ in range(3):
            await host.run(RUN, {"mail": "a"})
        assert len((await host.query(limit=1)).instances) == 1
        assert (await host.query(status="failed")).instances == []
        narrow = host_of(engine, Own(Limits(max_results=2, statuses=("completed", "waiting"))))
        assert len((await narrow.query()).instances) == 2
        assert (await narrow.query(status=["running", "failed"])).instances == []


async def test_a_guard_that_raises_denies(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        guard = Own(error=RuntimeError("it is away"))
        host = host_of(engine, guard)
        with pytest.raises(PolicyDenied) as refused:
            await host.run(RUN, {"mail": "a"})
        assert (refused.value.code, refused.value.rule) == ("POLICY_ERROR", "guard")
        assert refused.value.reason == "RuntimeError: it is away"
        lt = Control(engine.client, Principal(id="ada", roles=["admin"]), guard=guard)
        answer = await lt.workflows.invoke(type="user.onboarding")
        assert (answer.status, answer.code, answer.data["rule"]) == (403, "POLICY_ERROR", "guard")
        assert await engine.client.count() == 0


@pytest.mark.parametrize("said", [None, True])
async def test_a_guard_that_gives_no_verdict_denies(tmp_path: Path, said: Any):
    class Careless:
        async def check(self, operation: str, request: Request) -> Any:
            return said

    async with engine_at(tmp_path) as engine:
        host = WorkflowHost(engine.client, service="app.billing", guard=Careless())
        for call in (host.run(RUN, {"mail": "a"}), host.query()):
            with pytest.raises(PolicyDenied, match=f"gave {said}") as refused:
                await call
            assert (refused.value.code, refused.value.rule) == ("POLICY_ERROR", "guard")


async def test_a_guard_made_of_the_one_that_asks_policies_is_no_way_around_either(tmp_path: Path):
    class Lenient(PolicyGuard):
        async def check(self, operation: str, request: Request) -> Verdict:
            return Verdict(True)

    async with engine_at(tmp_path) as engine:
        blocks = Policies({W + "run.blocked": ["user.*"]})
        host = WorkflowHost(engine.client, service="app.billing", guard=Lenient(blocks))
        with pytest.raises(PolicyDenied) as refused:
            await host.run(RUN, {}, caller="user.onboarding")
        assert refused.value.code == "SELF_RUN"
        told = {it.rule: it for it in await host.explain("list")}
        assert told["guard"].allowed
        told = {it.rule: it for it in await host.explain("run", workflow_id=RUN, input={})}
        assert not told[W + "run.blocked"].allowed, "its policies are told of"


async def test_a_time_of_a_guard_that_cannot_be_kept_starts_nothing(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, Own(Limits(max_duration=1e20)))
        with pytest.raises(Invalid, match="over 100 years"):
            await host.run(RUN, {"mail": "a"})
        assert await engine.client.count() == 0


async def test_an_activity_does_not_let_its_own_workflow_begin_by_the_clock(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        hosts["own"] = WorkflowHost(engine.client, service="user.signup")
        assert await engine.client.execute(planner, None) == "SELF_RUN"
        assert (await engine.client.schedules.list()).items == []


# -- explain ---------------------------------------------------------------------------------------


async def test_explain_says_what_the_deployment_refuses_and_what_is_counted(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = WorkflowHost(
            engine.client,
            service="app.billing",
            policies=Policies({W + "run.rateLimit": "1/day"}),
            config=HostConfig(
                enable_manual_triggers=False, max_concurrent_instances=3, max_input_size=10
            ),
        )
        found = await host.explain("run", workflow_id=RUN, input={"mail": 7, "more": "x"})
        assert {it.rule: it.code for it in found if not it.allowed} == {
            "input_schema": "INVALID_INPUT",
            "max_input_size": "INPUT_TOO_LARGE",
            "enable_manual_triggers": "MANUAL_TRIGGERS_DISABLED",
        }
        assert {it.rule: it.value for it in found if it.allowed and it.reason} == {
            W + "run.rateLimit": "1/day",
            W + "maxConcurrentInstances": "3",
        }
        assert await engine.client.count() == 0
        free = WorkflowHost(engine.client, service="app.billing")
        for _ in range(2):  # it spends nothing
            assert all(it.allowed for it in await host.explain("query"))
        id = await free.run(RUN, {"mail": "a"})
        assert all(it.allowed for it in await host.explain("cancel", instance_id=id))


async def test_explain_of_what_cannot_be_meant_says_so(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = WorkflowHost(engine.client, service="app.billing")
        with pytest.raises(Invalid, match="'wokflow_id' is not among"):
            await host.explain("run", wokflow_id=RUN)
        with pytest.raises(NotFound):
            await host.explain("cancel", instance_id="nobody")
        [refused] = [
            it for it in await host.explain("cancel", instance_id="no id!") if not it.allowed
        ]
        assert refused.code == "INVALID_INSTANCE_ID"


async def test_a_guard_of_ones_own_is_explained_by_what_it_says(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, Own())
        found = await host.explain("run", workflow_id=RUN, input={"mail": "a"})
        assert [it.allowed for it in found if it.rule == "guard"] == [True]
        away = host_of(engine, Own(error=RuntimeError("it is away")))
        with pytest.raises(PolicyDenied):
            await away.explain("run", workflow_id=RUN)
