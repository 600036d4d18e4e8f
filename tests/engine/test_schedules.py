"""``client.schedules`` with workers, in virtual time: what begins when, and what it is told."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.seed1.virtual import in_virtual_time

from perdure import ApplicationError, Retry, Status, errors, workflow
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.timetable import Schedule
from perdure.values.principals import Principal


@workflow.define(version="1.2.0", task_queue="default")
async def job(seconds: float = 0) -> list[str | None]:
    info = workflow.info()
    await workflow.sleep(seconds)
    at = info.scheduled_at
    return [info.schedule, None if at is None else at.isoformat()]


@workflow.define
async def who() -> str:
    return str(workflow.context["principal"]["id"])


@workflow.define
async def again(left: int) -> list[Any]:
    if left:
        await workflow.continue_as_new(left - 1)
    info = workflow.info()
    return [info.schedule, info.scheduled_at is not None, info.first_run_id != info.run_id]


@workflow.define
async def shaky() -> str:
    if workflow.info().attempt == 1:
        raise ApplicationError("not yet")
    return str(workflow.info().schedule)


@workflow.define
async def stubborn() -> str:
    """Take five seconds to end when it is cancelled."""
    try:
        await workflow.sleep("1h")
    except asyncio.CancelledError:
        await workflow.sleep("5s")
        raise
    return "done"


@workflow.define(triggers=("event:order.paid", "manual"))
async def ship(order: str) -> str:
    return f"shipped {order}"


@workflow.define(triggers=("event:order.*",))
async def count(order: str) -> str:
    return f"counted {order}"


Worker = SimulatedWorker


def ids(schedule: Schedule) -> list[str]:
    return [run.workflow_id for run in reversed(schedule.runs)]


def spaced(schedule: Schedule) -> list[float]:
    times = [run.scheduled_at for run in reversed(schedule.runs)]
    return [(b - a).total_seconds() for a, b in pairwise(times)]


def test_executions_begin_at_their_ticks_and_know_them():
    async def main(worker: Worker) -> None:
        client = worker.client
        made = await client.schedules.create("s", job, every="1h", offset="15m")
        await asyncio.sleep(3 * 3_600)  # sleep: virtual time
        shown = await client.schedules.get("s")
        assert (shown.fired, shown.running, len(shown.runs)) == (3, 0, 3)
        assert [run.scheduled_at for run in reversed(shown.runs)] == [
            one.at for one in made.next[:3]
        ]
        assert spaced(shown) == [3600, 3600]
        for run in shown.runs:
            assert run.started_at - run.scheduled_at < timedelta(seconds=1)
            assert await client.get(run.workflow_id).result() == [
                "s",
                run.scheduled_at.isoformat(),
            ]
        found = await client.list(search={"schedule_id": "s"})
        assert [one.id for one in found.items] == [run.workflow_id for run in shown.runs]

    in_virtual_time(main, job)


def test_a_run_that_nobody_scheduled_knows_of_no_schedule():
    async def main(worker: Worker) -> None:
        assert await worker.client.execute(job) == [None, None]

    in_virtual_time(main, job)


def test_what_begins_carries_who_created_the_schedule():
    async def main(worker: Worker) -> None:
        client = worker.client.as_(Principal("ada", roles=("ops",)))
        await client.schedules.create("s", who, every="1h")
        with pytest.raises(errors.Invalid, match="kept for who acts"):
            await client.schedules.create("t", who, every="1h", context={"principal": "grace"})
        await asyncio.sleep(3_601)  # sleep: virtual time
        [run] = (await client.schedules.get("s")).runs
        assert await client.get(run.workflow_id).result() == "ada"
        assert (await client.get(run.workflow_id).describe()).created_by == "ada"

    in_virtual_time(main, who)


def test_later_runs_of_an_execution_know_the_schedule_too():
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", again, 2, every="1h")
        await client.schedules.create("t", shaky, every="1h", retry=Retry(max_attempts=2))
        await asyncio.sleep(2 * 3_600)  # sleep: virtual time
        for id, result in (("s", ["s", True, True]), ("t", "t")):
            shown = await client.schedules.get(id)
            assert await client.get(shown.runs[0].workflow_id).result() == result

    in_virtual_time(main, again, shaky)


def test_what_waits_begins_within_a_second_of_the_end():
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", job, 15, every="10s", overlap="buffer_one")
        await asyncio.sleep(65)  # sleep: virtual time
        shown = await client.schedules.get("s")
        runs = list(reversed(shown.runs))
        ends = [(await client.get(run.workflow_id).describe()).completed_at for run in runs[:-1]]
        waits = [
            (after.started_at - end).total_seconds()
            for after, end in zip(runs[1:], ends, strict=True)
            if end is not None
        ]
        assert len(waits) >= 3
        assert all(0 <= seconds < 1 for seconds in waits)
        assert shown.skipped > 0

    in_virtual_time(main, job)


def test_a_tick_is_skipped_while_the_one_before_is_open():
    async def main(worker: Worker) -> None:
        client, told = worker.client, []
        worker.engine.events.on("schedule.skipped", told.append)
        await client.schedules.create("s", job, 25, every="10s")
        await asyncio.sleep(59)  # sleep: virtual time
        shown = await client.schedules.get("s")
        assert spaced(shown) == [30]
        assert (shown.fired, shown.skipped, shown.running) == (2, 3, 1)
        assert sum(event.data["count"] for event in told) == 3
        assert told[0].data["reason"] == "the one before is still open"

    in_virtual_time(main, job)


@pytest.mark.parametrize(
    ("overlap", "status"),
    [("cancel_other", Status.CANCELLED), ("terminate_other", Status.TERMINATED)],
)
def test_the_other_ends_before_the_next_begins(overlap: str, status: Status):
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", stubborn, every="30s", overlap=overlap)
        await asyncio.sleep(110)  # sleep: virtual time
        runs = list(reversed((await client.schedules.get("s")).runs))
        assert len(runs) >= 3
        for one, following in pairwise(runs):
            ended = await client.get(one.workflow_id).describe()
            assert ended.status is status
            assert ended.completed_at is not None
            late = (following.started_at - ended.completed_at).total_seconds()
            assert 0 <= late < 1

    in_virtual_time(main, stubborn)


def test_after_downtime_what_is_in_the_window_is_made_up_for_and_the_rest_is_told(
    caplog: pytest.LogCaptureFixture,
):
    async def story(sim: Simulation) -> None:
        first = sim.worker("a", [job])
        await first.start()
        spec: dict[str, Any] = {"every": "60s", "overlap": "allow", "catch_up": "150s"}
        await first.spawn(_create(first, "s", **spec))
        await asyncio.sleep(100)  # sleep: virtual time
        first.kill()
        await asyncio.sleep(600)  # sleep: virtual time
        second = sim.worker("b", [job])
        await second.start()
        shown = await second.spawn(_settled(second, "s"))
        assert (shown.fired, shown.missed, shown.skipped) == (3, 8, 0)
        assert spaced(shown) == [540, 60]
        late = [run.started_at - run.scheduled_at for run in shown.runs]
        assert max(late) <= timedelta(seconds=150)

    logger = logging.getLogger("perdure.engine")
    with Simulation(seed=3, limit_seconds=5_000) as sim:
        logger.addHandler(caplog.handler)  # a simulation keeps its log to itself
        try:
            sim.run(story(sim))
        finally:
            logger.removeHandler(caplog.handler)
    assert "schedule 's'" in caplog.text
    assert "did not begin: more than 150 s late" in caplog.text


async def _create(worker: Worker, id: str, **spec: Any) -> Schedule:
    return await worker.client.schedules.create(id, job, **spec)


async def _settled(worker: Worker, id: str) -> Schedule:
    await asyncio.sleep(5)  # sleep: virtual time
    return await worker.client.schedules.get(id)


def test_a_one_shot_begins_once_and_is_finished():
    async def main(worker: Worker) -> None:
        client = worker.client
        at = _now(worker) + timedelta(minutes=3)
        made = await client.schedules.create("s", job, at=at)
        assert [one.at for one in made.next] == [at]
        assert made.spec.startswith("at ")
        await asyncio.sleep(240)  # sleep: virtual time
        shown = await client.schedules.get("s")
        assert (shown.fired, shown.finished, shown.next) == (1, "at", ())
        assert await client.schedules.create("s", job, at=at) == shown

    in_virtual_time(main, job)


def _now(worker: Worker) -> datetime:
    now = worker.client.door.now()
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)


def test_limits_end_it():
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", job, every="10s", max_executions=2)
        end = _now(worker) + timedelta(seconds=25)
        await client.schedules.create("t", job, every="10s", end=end)
        begin = _now(worker) + timedelta(seconds=30)
        late = await client.schedules.create("u", job, every="10s", start=begin)
        assert late.next[0].at >= begin
        await asyncio.sleep(100)  # sleep: virtual time
        one, two = await client.schedules.get("s"), await client.schedules.get("t")
        assert (one.fired, one.finished) == (2, "max_executions")
        assert (two.finished, two.fired in (2, 3)) == ("end", True)

    in_virtual_time(main, job)


def test_a_pause_is_shown_told_and_not_made_up_for():
    async def main(worker: Worker) -> None:
        client, told = worker.client, []
        worker.engine.events.on("schedule.*", told.append)
        await client.schedules.create("s", job, every="10s", note="first")
        shown = await client.schedules.pause("s", "holidays")
        assert (shown.paused, shown.note, shown.next) == (True, "holidays", ())
        assert (told[-1].name, told[-1].data["note"]) == ("schedule.paused", "holidays")
        await asyncio.sleep(100)  # sleep: virtual time
        assert (await client.schedules.list(paused=True)).items[0].fired == 0
        shown = await client.schedules.resume("s")
        assert (shown.paused, shown.note, len(shown.next)) == (False, "holidays", 5)
        await asyncio.sleep(20.5)  # sleep: virtual time
        assert (await client.schedules.get("s")).fired == 2

    in_virtual_time(main, job)


def test_a_trigger_says_what_came_of_it():
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", job, 60, cron="@yearly")
        fired = await client.schedules.trigger("s")
        assert fired.outcome == "fired"
        assert (await client.get(fired.workflow_id).describe()).run_id == fired.run_id
        assert (await client.schedules.trigger("s")).outcome == "skipped"
        waiting = await client.schedules.trigger("s", overlap="buffer_one")
        assert waiting.outcome == "buffered"
        await asyncio.sleep(62)  # sleep: virtual time
        assert await client.get(waiting.workflow_id).status() is Status.WAITING
        assert (await client.schedules.get("s")).fired == 2

    in_virtual_time(main, job)


def test_a_backfill_runs_one_after_the_other():
    async def main(worker: Worker) -> None:
        client = worker.client
        await client.schedules.create("s", job, 5, every="1h")
        now = _now(worker)
        number = await client.schedules.backfill("s", now - timedelta(hours=4), now)
        assert number == 4
        assert (await client.schedules.get("s")).backfilling
        await asyncio.sleep(30)  # sleep: virtual time
        shown = await client.schedules.get("s")
        assert (shown.fired, shown.backfilling, {run.by for run in shown.runs}) == (
            4,
            False,
            {"backfill"},
        )
        assert spaced(shown) == [3600] * 3
        assert await client.schedules.backfill("s", now - timedelta(hours=4), now) == 4
        await asyncio.sleep(30)  # sleep: virtual time
        assert (await client.schedules.get("s")).fired == 4

    in_virtual_time(main, job)


def test_what_cannot_be_backfilled_is_refused():
    async def main(worker: Worker) -> None:
        client, now = worker.client, _now(worker)
        await client.schedules.create("s", job, every="1s")
        day = timedelta(days=1)
        for after, before, message in (
            (now, now, "not after"),
            (now, now + day, "in the future"),
            (now - day, now, "more than 10,000"),
            (datetime(2020, 1, 1), now, "no time zone"),  # noqa: DTZ001 - on purpose
        ):
            with pytest.raises(errors.Invalid, match=message):
                await client.schedules.backfill("s", after, before)

    in_virtual_time(main, job)


def test_bad_requests_write_nothing():
    async def main(worker: Worker) -> None:
        client = worker.client
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, "one of cron=, every= and at="),
            ({"cron": "0 9 * *"}, "4 fields"),
            ({"cron": "@daily", "timezone": "Europe/Berlim"}, "did you mean Europe/Berlin"),
            ({"every": "10ms"}, "less than 1s"),
            ({"every": 0}, "no interval"),
            ({"at": datetime(2030, 1, 1)}, "no time zone"),  # noqa: DTZ001 - on purpose
            ({"at": _now(worker) - timedelta(hours=1)}, "at: is over"),
            (
                {"cron": "0 0 1 2 *", "start": datetime(9999, 12, 1, tzinfo=UTC)},
                "start: no tick would come",
            ),
            ({"every": 5, "overlap": "never"}, "use one of skip"),
            ({"every": 5, "start_delay": 5}, "unknown option 'start_delay'"),
            ({"every": 5, "id_reuse_policy": "x"}, "unknown option"),
            ({"every": 5, "max_executions": "2"}, "no whole number"),
            ({"every": 5, "paused": 1}, "neither True nor False"),
            ({"every": 5, "search": {"a": object()}}, "cannot be indexed"),
        ]
        for spec, message in cases:
            with pytest.raises(errors.Invalid, match=message):
                await client.schedules.create("s", job, **spec)
        with pytest.raises(errors.Invalid, match=r"job\(seconds\)"):
            await client.schedules.create("s", job, "five", every=5)  # type: ignore[arg-type]
        lists: list[tuple[dict[str, Any], str]] = [
            ({"limit": 1.0}, "limit: 1.0 is not a number"),
            ({"paused": "no"}, "paused: 'no' is neither"),
            ({"prefix": 7}, "prefix: 7 is not text"),
            ({"cursor": 7}, "cursor: 7 is not text"),
            ({"workflow": 7}, "workflow: 7 is not text"),
        ]
        for asked, message in lists:
            with pytest.raises(errors.Invalid, match=message):
                await client.schedules.list(**asked)
        with pytest.raises(errors.Invalid, match="count: '3' is not a number"):
            client.schedules.preview(count="3", every=5)  # type: ignore[arg-type]
        assert (await client.schedules.list()).items == []
        for call in (client.schedules.get, client.schedules.pause, client.schedules.delete):
            with pytest.raises(errors.ScheduleNotFound, match="no schedule 's'"):
                await call("s")
        with pytest.raises(errors.NotFound):
            await client.schedules.update("s", job, every=5)

    in_virtual_time(main, job)


def test_a_principal_of_a_tenant_changes_its_own_schedules_alone():
    async def main(worker: Worker) -> None:
        acme, globex = (
            worker.client.as_(Principal(id, tenant=tenant)).schedules
            for id, tenant in (("ada", "acme"), ("eve", "globex"))
        )
        made = await acme.create("s", job, every="1h")
        with pytest.raises(errors.AlreadyExists, match="is taken"):
            await globex.create("s", job, every="1h", replace=True)
        past = _now(worker) - timedelta(hours=3), _now(worker)
        calls = [
            globex.update("s", job, every="2h"),
            globex.backfill("s", *past),
            *(getattr(globex, verb)("s") for verb in ("pause", "resume", "trigger", "delete")),
        ]
        for call in calls:
            with pytest.raises(errors.PermissionDenied):
                await call
        assert await worker.client.schedules.get("s") == made
        assert (await acme.pause("s")).paused
        assert not (await worker.client.schedules.resume("s")).paused

    in_virtual_time(main, job)


def test_create_again_update_and_delete():
    async def main(worker: Worker) -> None:
        schedules = worker.client.schedules
        made = await schedules.create("s", job, every="1h", description="hourly")
        assert await schedules.create("s", job, every="60m", description="hourly") == made
        with pytest.raises(errors.AlreadyExists, match="replace=True"):
            await schedules.create("s", job, every="2h")
        changed = await schedules.create("s", job, every="2h", replace=True)
        assert (changed.every, changed.description) == (7_200, "")
        changed = await schedules.update(
            "s", "other", {"a": 1}, cron="@daily", timezone="Asia/Tokyo"
        )
        assert (changed.workflow, changed.input, changed.spec) == (
            "other",
            {"a": 1},
            "0 0 * * * (Asia/Tokyo)",
        )
        await schedules.delete("s")
        assert (await schedules.list()).items == []

    in_virtual_time(main, job)


def test_a_list_has_pages():
    async def main(worker: Worker) -> None:
        schedules = worker.client.schedules
        for n in range(5):
            await schedules.create(f"s{n}", job, cron="@daily")
        first = await schedules.list(limit=3)
        assert [one.id for one in first.items] == ["s0", "s1", "s2"]
        rest = await schedules.list(limit=3, cursor=first.cursor)
        assert ([one.id for one in rest.items], rest.cursor) == (["s3", "s4"], None)

    in_virtual_time(main, job)


def test_a_preview_needs_no_schedule():
    async def main(worker: Worker) -> None:
        schedules = worker.client.schedules
        found = schedules.preview(cron="0 9 * * 1", timezone="Europe/Berlin", count=3)
        assert [f"{one.local:%a %H:%M}" for one in found] == ["Mon 09:00"] * 3
        with pytest.raises(errors.Invalid, match="count: 0"):
            schedules.preview(every="1h", count=0)
        with pytest.raises(errors.Invalid, match="unknown option 'workflow'"):
            schedules.preview(every="1h", workflow="x")

    in_virtual_time(main, job)


def test_an_event_starts_what_it_triggers_once_for_its_id():
    async def main(worker: Worker) -> None:
        client = worker.client
        handles = await client.publish("order.paid", "A-1", id="e1")
        assert [one.id for one in handles] == ["count-e1", "ship-e1"]
        assert [await one for one in handles] == ["counted A-1", "shipped A-1"]
        again = await client.publish("order.paid", "A-1", id="e1")
        assert [one.id for one in again] == ["count-e1", "ship-e1"]
        assert await client.count() == 2
        [only] = await client.publish("order.lost", "A-2")
        assert await only == "counted A-2"
        assert await client.publish("orders", "A-3") == []
        assert await client.publish("manual", "A-3") == []

    in_virtual_time(main, ship, count)
