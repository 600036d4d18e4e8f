"""What a service gets for what it asks: also for what cannot be meant, and for itself."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until_status

from perdure import Client, Engine, activity, workflow
from perdure.errors import Invalid, PolicyDenied, UsageError, WorkflowFailed
from perdure.host import HostConfig, Policies, WorkflowHost
from perdure.values.states import Status

W = "policy.workflow."
ORDER = "app.order.v1"


@workflow.define(name="app.order", version="1.0.0", triggers=("manual",))
async def order(input: dict[str, int]) -> str:
    if input.get("fails"):
        raise ValueError("it broke")
    return str(await workflow.listen("paid").receive())


@workflow.define(name="app.quiet", version="1.0.0")
async def quiet(input: Any) -> None: ...


hosts: list[WorkflowHost] = []


@activity.define
async def let_begin(way: str) -> str:
    """Run the workflow whose activity this is, or let it begin by the clock."""
    later = datetime.now(UTC) + timedelta(days=1)
    try:
        if way == "run":
            return await hosts[0].run("app.selfish.v1", way, caller="app.other")
        return await hosts[0].schedule.trigger_workflow(
            "app.selfish.v1", way, at=later, caller="app.other"
        )
    except PolicyDenied as denied:
        return denied.code


@workflow.define(name="app.selfish", version="1.0.0")
async def selfish(way: str) -> str:
    return await let_begin(way)


def engine_at(folder: Path) -> AbstractAsyncContextManager[Engine]:
    return engine_on(folder, order, quiet, selfish)


def host_of(engine: Engine, policies: Any = None, **config: Any) -> WorkflowHost:
    made = Policies(policies) if policies is not None else None
    return WorkflowHost(
        engine.client, service="app.billing", policies=made, config=HostConfig(**config)
    )


# -- who asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["run", "schedule"])
async def test_an_activity_lets_not_its_own_workflow_begin_whatever_it_says_of_itself(
    tmp_path: Path, way: str
):
    async with engine_at(tmp_path) as engine:
        hosts[:] = [host_of(engine)]
        id = await hosts[0].run("app.selfish.v1", way)
        assert await engine.client.get(id).result("20s") == "SELF_RUN"
        assert (await engine.client.schedules.list()).items == []


async def test_who_is_no_activity_says_for_whom_it_lets_something_begin(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        trigger = host_of(engine).schedule.trigger_workflow
        with pytest.raises(PolicyDenied) as denied:
            await trigger(ORDER, {}, cron_expression="@daily", caller="app.order")
        assert denied.value.code == "SELF_RUN"
        assert await trigger(ORDER, {}, cron_expression="@daily", caller="app.other")


# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["get_status", "signal", "cancel"])
@pytest.mark.parametrize("id", ["", "a b", "../x", "x" * 256, "a\x00b"])
async def test_what_is_no_id_is_refused_and_told(tmp_path: Path, call: str, id: str):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {W + "auditLevel": "full"})
        given = ("paid",) if call == "signal" else ()
        with pytest.raises(PolicyDenied) as denied:
            await getattr(host, call)(id, *given)
        assert (denied.value.code, denied.value.details["rule"]) == (
            "INVALID_INSTANCE_ID",
            "instance_id",
        )
        [line] = (await engine.client.audit.list()).items
        assert (line.decision, line.rule) == ("denied", "instance_id")


async def test_a_nonsense_name_and_nonsense_claims_are_told(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {W + "auditLevel": "full"})
        for given in ("app.order\x00.v1", "x" * 5_000):
            with pytest.raises(PolicyDenied) as denied:
                await host.run(given, {"a\x00": 1}, claims={"role": "a\x00"})
            assert denied.value.code == "INVALID_WORKFLOW_ID"
        long, odd = (await engine.client.audit.list()).items
        assert (odd.target, long.target) == ("app.order\ufffd.v1", "x" * 1_000)


# -- inputs ----------------------------------------------------------------------------------------


async def test_a_process_without_an_engine_checks_inputs_of_definitions_that_it_has(tmp_path: Path):
    async with engine_at(tmp_path) as engine, Client(engine.url) as client:
        bare = WorkflowHost(client, service="app.billing")
        host = WorkflowHost(client, service="app.billing", definitions=[order])
        trigger = bare.schedule.trigger_workflow
        bad = {"a": "b"}
        for call in (
            bare.run(order, bad),
            host.run(ORDER, bad),
            host.as_({"role": "clerk"}).run(ORDER, bad),
            trigger(order, bad, cron_expression="@daily"),
        ):
            with pytest.raises(PolicyDenied) as denied:
                await call
            assert denied.value.code == "INVALID_INPUT"
        assert await client.count() == 0
        assert (await client.schedules.list()).items == []
        ended = client.get(await bare.run(ORDER, bad))  # nobody here knows what it takes
        with pytest.raises(WorkflowFailed):
            await ended.result("20s")


# -- explaining ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "rule", "code"),
    [
        ({"workflow_id": ORDER, "input": {"a": "b"}}, "input_schema", "INVALID_INPUT"),
        ({"workflow_id": ORDER, "input": {"a" * 200: 1}}, "max_input_size", "INPUT_TOO_LARGE"),
        ({"workflow_id": ORDER, "input": {}, "caller": "app.order"}, "self_run", "SELF_RUN"),
        ({"workflow_id": quiet}, "enable_manual_triggers", "MANUAL_TRIGGERS_DISABLED"),
    ],
)
async def test_what_is_explained_is_what_a_run_meets(
    tmp_path: Path, asked: dict[str, Any], rule: str, code: str
):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine, {}, max_input_size=100, enable_manual_triggers=False)
        refused = [one for one in await host.explain("run", **asked) if not one.allowed]
        assert [(one.rule, one.code) for one in refused] == [(rule, code)]
        with pytest.raises(PolicyDenied) as denied:
            await host.run(**asked)
        assert (denied.value.code, denied.value.message) == (code, refused[0].reason)
        said = await host.explain("run", workflow_id=ORDER, input={"a": 1})
        assert all(one.allowed for one in said)
        assert {"enable_manual_triggers", "max_input_size"} <= {one.rule for one in said}
        larger = await host.explain("run", workflow_id=ORDER, input={"a": 1}, input_size=101)
        assert [one.rule for one in larger if not one.allowed] == ["max_input_size"]


async def test_an_id_that_is_none_is_explained(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        [refused] = [
            one
            for one in await host_of(engine, {}).explain("signal", instance_id="a b", signal="paid")
            if not one.allowed
        ]
        assert (refused.rule, refused.code) == ("instance_id", "INVALID_INSTANCE_ID")


# -- nonsense --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "asked", "message"),
    [
        ("run", {"workflow_id": 7}, "workflow_id: 7 is not text"),
        ("run", {"workflow_id": ORDER, "tags": {"a=b": "c"}}, "'a=b' is no key"),
        ("run", {"workflow_id": ORDER, "tags": {"": "c"}}, "'' is no key"),
        ("run", {"workflow_id": ORDER, "tags": {"a": None}}, "None is not text"),
        ("run", {"workflow_id": ORDER, "tags": ["a=b"]}, "is no mapping"),
        ("run", {"workflow_id": ORDER, "claims": 7}, "claims: 7 is no mapping"),
        ("run", {"workflow_id": ORDER, "caller": 7}, "caller: 7 is not text"),
        ("signal", {"instance_id": None, "signal": "x"}, "instance_id: None is not text"),
        ("signal", {"instance_id": "x", "signal": None}, "signal: None is not text"),
        ("cancel", {"instance_id": "x", "reason": 7}, "reason: 7 is not text"),
        ("query", {"status": 7}, "status: 7 is neither"),
        ("query", {"status": ["done"]}, "use pending, running"),
        ("query", {"cursor": 7}, "cursor: 7 is not text"),
        ("query", {"workflow_id": 7}, "workflow_id: 7 is not text"),
        ("query", {"tags": ["a=b"]}, "is no mapping"),
        ("query", {"started_after": 7}, "started_after: 7 is not a datetime"),
        ("query", {"started_before": "now"}, "started_before: 'now' is not like '2026-"),
        ("query", {"started_before": "2026-11-22"}, "has no time zone"),
        ("explain", {"operation": "run", "workflow": ORDER}, "'workflow' is not among"),
        ("explain", {"operation": "run", "input_size": None}, "input_size: None is no whole"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, call: str, asked: dict[str, Any], message: str
):
    async with engine_at(tmp_path) as engine:
        with pytest.raises(Invalid, match=message):
            await getattr(host_of(engine), call)(**asked)
        assert await engine.client.count() == 0


@pytest.mark.parametrize(
    "config",
    [
        {"max_concurrent_instances": "2"},
        {"max_concurrent_instances": 1.5},
        {"max_concurrent_instances": -1},
        {"max_concurrent_instances": 10**30},
        {"max_instance_duration": "soon"},
        {"enable_manual_triggers": "no"},
        {"retention_days": 0},
        {"retention_days": True},
        {"retention_days": "7"},
        {"default_timeout": -1},
        {"max_input_size": "much"},
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, Any]):
    with pytest.raises(Invalid):
        HostConfig(**config)


async def test_a_host_is_made_of_what_it_needs(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        cases: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"service": " "}, Invalid),
            ({"claims": ["admin"]}, Invalid),
            ({"policies": {}}, UsageError),
            ({"config": {}}, UsageError),
        ]
        for more, error in cases:
            with pytest.raises(error):
                WorkflowHost(engine.client, **{"service": "app.billing", **more})


# -- looking ---------------------------------------------------------------------------------------


async def test_a_query_says_why_instances_ended(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        failed = await host.run(order, {"fails": 1})
        cancelled = await host.run(ORDER, {})
        await host.cancel(cancelled, "no need")
        await until_status(engine.client.get(cancelled), Status.CANCELLED)
        await until_status(engine.client.get(failed), Status.FAILED)
        late = await host_of(engine, max_instance_duration="20ms").run(ORDER, {})
        await until_status(engine.client.get(late), Status.TIMED_OUT)
        found = {one.instance_id: one.error for one in (await host.query()).instances}
        assert found[cancelled] == "no need"
        assert "it broke" in str(found[failed])
        assert found[late] == "timed out"


async def test_a_query_takes_times_as_text_and_a_definition(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        id = await host.run(ORDER, {})
        began = (await host.get_status(id)).start_time
        text = began.isoformat().replace("+00:00", "Z")
        cases: list[tuple[dict[str, Any], int]] = [
            ({"started_after": text}, 1),
            ({"started_before": text}, 0),
            ({"started_after": began + timedelta(seconds=1)}, 0),
            ({"workflow_id": order}, 1),
            ({"workflow_id": quiet}, 0),
        ]
        for asked, number in cases:
            assert len((await host.query(**asked)).instances) == number, asked


# -- by the clock ----------------------------------------------------------------------------------


async def test_a_schedule_without_a_version_takes_the_highest_of_each_time(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        trigger = host_of(engine).schedule.trigger_workflow
        any_version = await trigger("app.quiet", None, cron_expression="@yearly")
        first = await trigger("app.quiet.v1", None, cron_expression="@yearly")
        own = await trigger(quiet, None, at="2099-01-01T00:00:00Z")
        shown = [await engine.client.schedules.get(id) for id in (any_version, first, own)]
        assert [one.version for one in shown] == ["", "1.0.0", "1.0.0"]
        assert str(shown[2].at) == "2099-01-01 00:00:00+00:00"
        engine.register(workflow.define(name="app.quiet", version="1.1.0")(quiet.fn))
        for id, version in ((any_version, "1.1.0"), (first, "1.0.0")):
            begun = await engine.client.schedules.trigger(id)
            described = await engine.client.get(begun.workflow_id).describe()
            assert described.version == version


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "one of cron_expression= and at="),
        ({"cron_expression": "@daily", "at": "2099-01-01T00:00:00Z"}, "one of cron_expression="),
        ({"at": "2099-01-01T00:00:00Z", "timezone": "Europe/Berlin"}, "timezone: only a cron text"),
        ({"at": "2020-01-01T00:00:00Z"}, "at: is over"),
        ({"at": "tomorrow"}, "at: 'tomorrow' is not like"),
        ({"cron_expression": "0 0 1 1 * 2030"}, "6 fields"),
        ({"cron_expression": "@daily", "end": "2020-01-01T00:00:00Z"}, "end: no tick"),
        ({"cron_expression": "@daily", "max_executions": "3"}, "max_executions: '3'"),
    ],
)
async def test_a_time_that_cannot_be_is_refused(
    tmp_path: Path, asked: dict[str, Any], message: str
):
    async with engine_at(tmp_path) as engine:
        with pytest.raises(Invalid, match=message):
            await host_of(engine).schedule.trigger_workflow(ORDER, {}, **asked)
        assert (await engine.client.schedules.list()).items == []
