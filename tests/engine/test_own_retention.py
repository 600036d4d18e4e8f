"""An execution that was started with a retention of its own goes by that, through every door."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, until
from tests.engine.test_retention import DAY, MINUTE, OFTEN, ids, told

from perdure import errors, workflow
from perdure.control import ApiResult, Control, Envelope, Principal
from perdure.engine import retention
from perdure.host import HostConfig, WorkflowHost
from perdure.store.port import Filter
from perdure.testing.simulator import SimulatedWorker, Simulation


@workflow.define
async def short(n: int) -> int:
    return n


@workflow.define
async def parent(_: Any) -> str:
    child = await workflow.start(short, 1, id="child", retention="30m")
    await workflow.start(short, 2, id="plain child")
    return f"{await child}"


@workflow.define
async def chain(runs: int) -> None:
    await workflow.sleep("10m")
    if runs > 1:
        await workflow.continue_as_new(runs - 1)


@workflow.define(name="app.mail", version="1.0.0", triggers=("manual",))
async def mail(_: Any) -> str:
    return "sent"


@workflow.define(name="review")
async def review(envelope: Envelope) -> str:
    return str(envelope.data)


ALL = [short, parent, chain, mail, review]


async def started(sim: Simulation, **options: Any) -> SimulatedWorker:
    worker = sim.worker("a", ALL, **{**OFTEN, **options})
    await worker.start()
    return worker


async def begin(worker: SimulatedWorker, name: str, **options: Any) -> None:
    await worker.spawn(worker.client.execute(short, 1, id=name, **options))


async def finish(worker: SimulatedWorker, *names: str) -> None:
    for name in names:
        await begin(worker, name)


async def after(minutes: float) -> None:
    await asyncio.sleep(minutes * MINUTE)  # sleep: virtual time


def test_each_is_kept_as_its_start_says_and_others_as_the_engine_does():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        await begin(worker, "brief", retention="3m")
        await begin(worker, "long", retention=timedelta(hours=1))
        await begin(worker, "ever", retention=0)
        await finish(worker, "other", "newest")
        await after(2.5)
        assert ids(sim) == {"brief", "long", "ever", "other", "newest"}
        await after(2)
        assert ids(sim) == {"long", "ever", "other", "newest"}
        await after(7)
        assert ids(sim) == {"long", "ever", "newest"}
        await after(50)
        assert ids(sim) == {"ever", "newest"}

    told(story)


def test_they_go_also_from_an_engine_that_keeps_everything_else():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention=0)
        await begin(worker, "brief", retention=60)
        await finish(worker, "other", "newest")
        await after(3)
        assert ids(sim) == {"other", "newest"}

    told(story)


def test_time_counts_from_the_end_and_not_from_the_start():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        await worker.spawn(worker.client.start(chain, 1, id="sleeps", retention="5m"))
        await after(14)
        assert ids(sim) == {"sleeps"}
        await finish(worker, "newest")
        await after(3)
        assert "sleeps" not in ids(sim)

    told(story)


def test_the_runs_between_of_an_open_execution_go_by_its_own_retention():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention="1s")
        await worker.spawn(worker.client.start(chain, 6, id="chain", retention="15m"))
        await after(42)
        rows = sim.store.list(Filter(workflow_id="chain"), limit=20).rows
        # Of the four that have ended: the first, and those of the last quarter of an hour.
        assert [row.closed_at is None for row in rows] == [True, False, False, False]
        await after(28)
        await finish(worker, "newest")
        assert ids(sim) == {"chain", "newest"}
        await after(10)
        assert ids(sim) == {"newest"}

    told(story)


def test_a_child_is_kept_as_its_own_start_says_and_not_as_its_parent():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        await worker.spawn(worker.client.execute(parent, 1, id="parent", retention=0))
        await finish(worker, "newest")
        await after(20)
        assert ids(sim) == {"parent", "child", "newest"}
        await after(20)
        assert ids(sim) == {"parent", "newest"}

    told(story)


def test_a_schedule_says_it_of_each_execution_that_it_begins():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention=0)
        schedules = worker.client.schedules
        await worker.spawn(schedules.create("s", short, 1, every="1m", retention="5m"))
        await after(30)
        assert 5 <= len(ids(sim)) <= 8

    told(story)


def test_a_copy_is_kept_as_others_are():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        await begin(worker, "origin", retention=0)
        handle = worker.client.get("origin")
        await worker.spawn(handle.fork(after_event=1, id="fork"))
        document = await worker.spawn(handle.export())
        await worker.spawn(worker.client.import_run(document, id="import"))
        await finish(worker, "newest")
        assert ids(sim) == {"origin", "fork", "import", "newest"}
        await after(12)
        assert ids(sim) == {"origin", "newest"}

    told(story)


async def invoked(worker: SimulatedWorker, options: dict[str, Any]) -> ApiResult:
    lt = Control(worker.client, auth=Principal(id="ada", roles=["admin"]))
    return await lt.workflows.invoke(type="review", options=options)


def test_an_invocation_says_it_by_expire_in_seconds_or_as_a_text():
    async def story(sim: Simulation) -> None:
        worker = await started(sim)
        for name, expire in {"brief": 180, "long": "1h", "ever": 0, "other": None}.items():
            options = {"workflowId": name, "expire": expire}
            made = await worker.spawn(invoked(worker, options))
            assert made.status == 202, made.error
        twice = {"expire": 1, "retention": 2}
        for bad in ({"expire": -1}, {"expire": "soon"}, {"expire": True}, twice):
            made = await worker.spawn(invoked(worker, bad))
            assert (made.status, made.code) == (400, "invalid")
        await finish(worker, "newest")
        await after(5)
        assert ids(sim) == {"long", "ever", "other", "newest"}
        await after(7)
        assert ids(sim) == {"long", "ever", "newest"}
        await after(60)
        assert ids(sim) == {"ever", "newest"}

    told(story)


def service(worker: SimulatedWorker) -> WorkflowHost:
    config = HostConfig(retention_days=2)
    return WorkflowHost(worker.client, service="app.web", config=config)


@pytest.mark.parametrize("keeps", [0, "1m"])
def test_what_a_service_begins_is_kept_for_its_days(keeps: Any):
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention=keeps)
        host = service(worker)
        instance = await worker.spawn(host.run("app.mail.v1"))
        trigger = host.schedule.trigger_workflow("app.mail.v1", cron_expression="0 0 * * *")
        await worker.spawn(trigger)
        await worker.stop()
        left: list[tuple[int, bool]] = []
        for _ in range(3):
            await asyncio.sleep(0.99 * DAY)  # sleep: virtual time
            worker = await started(sim, retention=keeps)
            await after(5)
            await worker.stop()
            left.append((len(ids(sim)), instance in ids(sim)))
        assert left == [(2, True), (3, True), (3, False)]

    told(story)


@pytest.mark.parametrize("keeps", [-1, "soon", True, "101y", 1e12])
async def test_what_is_no_time_is_refused_and_nothing_begins(tmp_path: Path, keeps: Any):
    async with engine_on(tmp_path, short) as engine:
        with pytest.raises(errors.Invalid, match="retention: "):
            await engine.client.start(short, 1, retention=keeps)
        assert await engine.client.count() == 0


def test_days_that_no_duration_can_hold_are_refused():
    for days in (0, -1, 40_000, 10**12):
        with pytest.raises(errors.Invalid, match="retention_days: "):
            HostConfig(retention_days=days)


async def test_what_was_deleted_is_counted_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.INFO, "perdure.engine")
    async with engine_on(tmp_path, short, retention=0) as engine:
        for n in range(3):
            await engine.client.execute(short, n, retention="1us")
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.0)
    async with engine_on(tmp_path, short, retention=0):
        said = "deleted 2 runs whose own retention was over at "
        await until(lambda: said in caplog.text)


def test_an_execution_says_how_long_it_is_kept_and_when_it_goes():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention="10m")
        client = worker.client
        before = await worker.spawn(client.start(short, 1, id="plain"))
        assert (await worker.spawn(before.describe())).retention_seconds is None
        await after(1)  # a worker has said how long it keeps them
        for id, given in (("plain", None), ("brief", "3m"), ("ever", 0)):
            if given is not None:
                await begin(worker, id, retention=given)
            shown = await worker.spawn(client.get(id).describe())
            seconds = {"plain": 600, "brief": 180, "ever": 0}[id]
            assert shown.retention_seconds == seconds
            assert shown.completed_at is not None
            goes = shown.completed_at + timedelta(seconds=seconds) if seconds else None
            assert shown.deleted_at == goes
        waiting = await worker.spawn(client.start(chain, 1, id="open", retention="2m"))
        shown = await worker.spawn(waiting.describe())
        assert (shown.retention_seconds, shown.deleted_at) == (120, None)

    told(story)


def test_a_copy_says_what_is_its_own():
    async def story(sim: Simulation) -> None:
        worker = await started(sim, retention="10m")
        await after(1)
        await begin(worker, "first", retention="3m")
        first = worker.client.get("first")
        fork = await worker.spawn(first.fork(after_event=0, id="fork"))
        await worker.spawn(fork.result())
        document = await worker.spawn(first.export(with_seed=True))
        taken = await worker.spawn(worker.client.import_run(document, id="import"))
        said = [await worker.spawn(one.describe()) for one in (first, fork, taken)]
        assert [one.retention_seconds for one in said] == [180, 600, 600]

    told(story)
