"""What begins with an answer is judged and counted as what a service starts."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until, until_status

from perdure import Engine, human, workflow
from perdure.control import Control, Principal
from perdure.errors import ConcurrencyLimit, PolicyDenied
from perdure.host import HostConfig, WorkflowHost
from perdure.policy import Policies
from perdure.values.states import Status

W = "policy.workflow."
BOSS = Principal(id="ada", roles=["admin"])
PLACE = [["service:app.desk", 1]]


@workflow.define(name="app.review", version="1.0.0")
async def review(envelope: dict[str, Any]) -> Any:
    """Ask by ending; with the answer wait, so that it is open."""
    if "resolver" not in envelope:
        return human.Escalation(message="Is it?", role="reviewer")
    if envelope["resolver"] == "fail":
        raise ZeroDivisionError
    await workflow.listen("go").receive()
    return str(workflow.context["policy"])


@workflow.define(name="app.waits", version="1.0.0")
async def waits(envelope: dict[str, Any]) -> None:
    await workflow.listen("go").receive()


def engine_at(folder: Path) -> AbstractAsyncContextManager[Engine]:
    return engine_on(folder, review, waits)


async def asked(engine: Engine, many: int = 1) -> list[str]:
    found: list[str] = []

    async def are_there() -> bool:
        found[:] = [task.id for task in (await engine.client.human_tasks.list()).items]
        return len(found) == many

    await until(are_there)
    return found


async def begun(engine: Engine, task: str) -> dict[str, Any]:
    """Return event 1 of what begins with the answer, once it waits."""
    handle = engine.client.get(f"rerun-{task}")

    async def is_there() -> bool:
        return bool(await engine.client.find(f"rerun-{task}"))

    await until(is_there)
    await until_status(handle, Status.WAITING)
    return (await handle.history())[0].data


def host_of(engine: Engine, **keys: Any) -> WorkflowHost:
    config = HostConfig(max_concurrent_instances=1, max_instance_duration="2h", retention_days=7)
    policies = Policies({W + "timeoutAction": "cancel", **keys})
    return WorkflowHost(engine.client, service="app.desk", policies=policies, config=config)


async def test_an_answer_that_nobody_judges_begins_what_is_bound_like_what_ended(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        await engine.client.get(await host.run("app.review.v1", {}))
        [task] = await asked(engine)
        await engine.client.human_tasks.complete(task, "yes", by="rita")
        first = await begun(engine, task)
        terms = first["terms"]
        assert first["places"] == PLACE
        assert terms["execution_timeout"] == 7_200_000_000
        assert (terms["timeout_action"], terms["retention"]) == ("cancel", 604_800_000_000)
        with pytest.raises(PolicyDenied) as full:
            await host.run("app.waits.v1", {})
        assert full.value.code == "CONCURRENCY_LIMIT"
        again = engine.client.get(f"rerun-{task}")
        await again.send("go")
        assert await again == host.judge.guard.policies.version  # type: ignore[attr-defined]
        await host.run("app.waits.v1", {})  # its place is free again


async def test_an_answer_waits_for_a_place(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        await engine.client.get(await host.run("app.review.v1", {}))
        [task] = await asked(engine)
        other = engine.client.get(await host.run("app.waits.v1", {}))
        await engine.client.human_tasks.complete(task, "yes", by="rita")
        [companion] = (await engine.client.list(workflow="perdure.escalation")).items

        async def is_told() -> bool:
            lines = await engine.client.get(companion.id).logs()
            return any("was not started again, will try" in line.message for line in lines)

        await until(is_told)
        assert await engine.client.find(f"rerun-{task}") == []
        await other.send("go")
        assert (await begun(engine, task))["places"] == PLACE


async def test_an_answer_at_a_door_is_bound_by_what_its_policies_say_then(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        await engine.client.get(await host_of(engine).run("app.review.v1", {}))
        [task] = await asked(engine)
        policies = Policies(
            {
                W + "maxConcurrentInstances": 3,
                W + "maxInstancesPerWorkflow": {"app.review": 5},
                W + "maxDurationMinutes": 60,
                W + "timeoutAction": "continue",
                W + "alertOnFailure": ["app.*"],
            }
        )
        lt = Control(engine.client, BOSS, policies=policies)
        assert (await lt.escalations.resolve(id=task, payload="yes")).ok
        first = await begun(engine, task)
        assert first["places"] == [["service:perdure.control", 3], ["workflow:app.review", 5]]
        terms = first["terms"]
        assert terms["execution_timeout"] == 3_600_000_000
        assert (terms["timeout_action"], terms["alerts"]) == ("continue", True)
        again = engine.client.get(f"rerun-{task}")
        await again.send("go")
        assert await again == policies.version


async def test_answers_to_many_at_once_begin_each_what_was_judged_for_it(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        for _ in range(2):
            await engine.client.execute(review, {})
        tasks = await asked(engine, 2)
        policies = Policies(
            {W + "maxInstancesPerWorkflow": {"app.review": 5}, W + "run.rateLimit": "3/day"}
        )
        lt = Control(engine.client, BOSS, policies=policies)
        assert (await lt.escalations.resolve_all_or_none(ids=tasks, payload="yes")).ok
        for task in tasks:
            assert (await begun(engine, task))["places"] == [["workflow:app.review", 5]]
        start = lt.workflows.invoke
        assert (await start(type="app.waits")).status == 202
        assert (await start(type="app.waits")).status == 429  # each answer has cost a start


async def test_a_retry_takes_a_place_as_what_it_retries_did(tmp_path: Path):
    async with engine_at(tmp_path) as engine:
        host = host_of(engine)
        failed = engine.client.get(await host.run("app.review.v1", {"resolver": "fail"}))
        await until_status(failed, Status.FAILED)
        other = engine.client.get(await host.run("app.waits.v1", {}))
        for way in (failed.retry, lambda: failed.fork(after_event=0)):
            with pytest.raises(ConcurrencyLimit):
                await way()
        await other.send("go")
        await other
        copy = await failed.fork(after_event=0, input={"resolver": "yes"})
        with pytest.raises(PolicyDenied):
            await host.run("app.waits.v1", {})  # the copy has its place
        await copy.terminate()
        await host.run("app.waits.v1", {})
