"""A fork shares what another run recorded up to a point, says so, and goes on from there."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import engine_on, events_of, until, until_status
from tests.seed1.virtual import in_virtual_time

from perdure import ApplicationError, Client, Retry, activity, errors, workflow
from perdure.handle import Handle
from perdure.testing.simulator import SimulatedWorker
from perdure.values.states import Status

calls: list[tuple[str, Any]] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    broken.clear()


async def _work(name: str) -> str:
    calls.append((name, activity.info().idempotency_key))
    if name in broken:
        raise ApplicationError(f"{name} is broken", kind="Broken")
    return f"{name} done"


@activity.define(retry=Retry(max_attempts=1))
async def validate() -> str:
    return await _work("validate")


@activity.define(retry=Retry(max_attempts=1))
async def charge() -> str:
    return await _work("charge")


@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def ship() -> str:
    return await _work("ship")


@workflow.define
async def order(name: str = "an order") -> list[Any]:
    first = workflow.random()
    done = [await validate(), await charge(), await ship()]
    return [name, *done, first, workflow.random()]


@workflow.define
async def patient(name: str = "somebody") -> list[Any]:
    got = [await validate()]
    got.append(await workflow.listen("go").receive())
    return [name, *got, workflow.info().workflow_id]


@workflow.define
async def parent() -> Any:
    child = await workflow.start(patient, "child", id="the-child")
    await validate()
    return await child


DEFINITIONS = (order, patient, parent, validate, charge, ship)


def names() -> list[str]:
    return [name for name, _ in calls]


def keys_of(step: str) -> list[str]:
    return [key for name, key in calls if name == step]


async def rows_of(handle: Handle[Any]) -> list[Any]:
    run = (await handle._row()).run
    return [
        (row.first, row.count, row.time, row.applied, row.worker, row.payload)
        for row in await handle._door.read(lambda store: store.history(run))
    ]


# -- forks ---------------------------------------------------------------------------------------


async def test_a_fork_repeats_nothing_of_what_it_shares_and_draws_anew(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, "A", id="o")
        result = await handle.result()
        fork = await handle.fork(before_step="ship")
        forked = await fork.result()
        assert forked[:5] == result[:5]
        assert forked[5] != result[5]
        assert names() == ["validate", "charge", "ship", "ship"]
        assert len(set(keys_of("ship"))) == 2


async def test_the_shared_rows_are_those_of_the_original_byte_for_byte(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        original = await rows_of(handle)
        for event in range(2, len(await handle.history()) + 1):
            copied = await rows_of(await handle.fork(after_event=event))
            whole = [row for row in original[:-1] if row[0] + row[1] - 1 <= event]
            assert copied[: len(whole)] == whole
            ids = [row[0] for row in copied]
            assert ids == [1 + sum(row[1] for row in copied[:n]) for n in range(len(copied))]


async def test_both_runs_say_where_the_fork_was_made(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        fork = await handle.fork(before_step="charge", id="f")
        [event] = await events_of(fork, "forked")
        run_id = (await handle.describe()).run_id
        assert event.data["origin"] == "o" and event.data["origin_run"] == run_id
        assert event.data["event"] == event.id - 1
        assert "seed" not in event.data
        [told] = (await handle.describe()).forks
        assert (told.id, told.event, told.how) == ("f", event.id - 1, "fork")
        origin = (await fork.describe()).origin
        assert origin is not None and (origin.id, origin.run_id) == ("o", run_id)
        assert (await handle.describe()).origin is None


async def test_a_fork_from_the_start_may_have_another_input(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, "A", id="o")
        await handle.result()
        fork = await handle.fork(after_event=0, input="B")
        assert (await fork.result())[0] == "B"
        assert (await fork.describe()).input == "B"
        with pytest.raises(errors.Invalid, match="very start"):
            await handle.fork(before_step="charge", input="B")


async def test_a_waiting_run_is_forked_and_both_go_on_on_their_own(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(patient, id="p")
        await until_status(handle, Status.WAITING)
        length = (await handle.describe()).history_length
        fork = await handle.fork(after_event=length, id="f")
        await until_status(fork, Status.WAITING)
        await fork.send("go", 1)
        assert await fork.result() == ["somebody", "validate done", 1, "f"]
        assert await handle.status() is Status.WAITING
        await handle.send("go", 2)
        assert await handle.result() == ["somebody", "validate done", 2, "p"]
        assert names() == ["validate"]


async def test_a_fork_made_by_a_client_waits_for_a_worker(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, "A", id="o")
        await handle.result()
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        fork = await client.get("o").fork(before_step="ship", id="f", memo={"why": "again"})
        assert await fork.status() is Status.RUNNING
        assert (await fork.describe()).memo == {"why": "again"}
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        assert (await engine.client.get("f").result())[0] == "A"


async def test_a_fork_of_a_fork_shares_both_beginnings(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        first = await handle.fork(before_step="charge", id="f1")
        await first.result()
        second = await first.fork(before_step="ship", id="f2")
        result = await second.result()
        assert result[:4] == (await first.result())[:4]
        assert [e.data["origin"] for e in await events_of(second, "forked")] == ["o", "f1"]
        assert names() == ["validate", "charge", "ship", "charge", "ship", "ship"]
        assert len(set(keys_of("ship"))) == 3


async def test_a_step_left_open_begins_anew_with_a_new_key(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        [done] = [e for e in await events_of(handle, "activity_completed") if "charge" in str(e)]
        fork = await handle.fork(after_event=done.id - 1)
        await fork.result()
        assert names().count("charge") == 2
        assert len(set(keys_of("charge"))) == 2


async def test_a_point_within_an_answer_snaps_down(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        length = len(await handle.history())
        fork = await handle.fork(after_event=length)
        [event] = await events_of(fork, "forked")
        assert event.data["event"] == length - 1  # the facts of the closing turn, not its end
        await fork.result()
        assert names() == ["validate", "charge", "ship"]


@pytest.mark.parametrize("point", [{}, {"after_event": 1, "before_step": "ship"},
                                   {"after_event": -1}, {"after_event": 99}, {"after_event": "1"},
                                   {"before_step": "sell"}, {"before_step": 1},
                                   {"after_event": 0, "tags": "one"}])  # fmt: skip
async def test_a_point_that_is_not_there_is_refused(tmp_path: Path, point: dict[str, Any]):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        with pytest.raises(errors.Invalid):
            await handle.fork(**point)
        assert len((await engine.client.list()).items) == 1


async def test_an_id_that_is_taken_is_refused_and_nothing_is_written(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(order, id="o")
        await handle.result()
        with pytest.raises(errors.AlreadyExists):
            await handle.fork(after_event=1, id="o")
        assert (await handle.describe()).forks == ()


async def test_a_point_with_an_open_child_is_refused_and_names_it(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(parent, id="p")
        await until(lambda: names().count("validate") == 2)
        await until_status(handle, Status.WAITING)
        length = (await handle.describe()).history_length
        with pytest.raises(errors.Invalid, match="the-child"):
            await handle.fork(after_event=length)
        await engine.client.get("the-child").send("go", 1)
        result = await handle.result()
        length = (await handle.describe()).history_length
        fork = await handle.fork(after_event=length)
        assert await fork.result() == result


def test_timeouts_count_anew_in_a_fork():
    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(patient, id="p", run_timeout="30s")
        with pytest.raises(errors.WorkflowTimedOut):
            await handle.result()
        length = (await handle.describe()).history_length
        fork = await handle.fork(after_event=length)
        await until_status(fork, Status.WAITING)
        with pytest.raises(errors.WorkflowTimedOut):
            await fork.result()

    in_virtual_time(main, *DEFINITIONS)


async def test_a_fork_taken_over_by_another_worker_goes_on_under_its_own_name(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(patient, id="p")
        await until_status(handle, Status.WAITING)
        fork = await handle.fork(after_event=(await handle.describe()).history_length, id="f")
        await until_status(fork, Status.WAITING)
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        fork = engine.client.get("f")
        await fork.send("go", 1)
        assert (await fork.result())[-1] == "f"


@pytest.mark.parametrize("by_name", [False, True])
async def test_an_open_transactional_step_of_a_fork_writes_with_its_outcome(
    tmp_path: Path, *, by_name: bool
):
    @activity.define(transactional=True)
    def book() -> str:
        connection = activity.connection()
        connection.execute("create table if not exists booked (key)")
        connection.execute("insert into booked values (?)", (activity.info().idempotency_key,))
        return "booked"

    @workflow.define
    async def booking() -> str:
        await validate()
        return await (workflow.call("book") if by_name else book())

    async with engine_on(tmp_path, booking, validate, book) as engine:
        handle = await engine.client.start(booking)
        assert await handle.result() == "booked"
        [_, done] = await events_of(handle, "activity_completed")
        fork = await handle.fork(after_event=done.id - 1)
        assert await fork.result() == "booked"
    with sqlite3.connect(tmp_path / "test.db") as connection:
        keys = {row[0] for row in connection.execute("select key from booked")}
    connection.close()
    assert len(keys) == 2


async def test_a_parked_run_is_forked_under_mended_code_and_stays_parked(tmp_path: Path):
    def defined(*, broken: bool) -> Any:
        @workflow.define(name="stepping")
        async def stepping() -> str:
            done = await validate()
            await workflow.listen("go").receive()
            return await (ship() if broken else charge()) + done

        return stepping

    async with engine_on(tmp_path, defined(broken=False), *DEFINITIONS) as engine:
        handle = await engine.client.start("stepping", id="p")
        await until_status(handle, Status.WAITING)
        await handle.send("go")
        assert await handle.result() == "charge donevalidate done"
        length = (await handle.describe()).history_length
    async with engine_on(tmp_path, defined(broken=True), *DEFINITIONS) as engine:
        other = await engine.client.get("p").fork(after_event=length - 1, id="q")
        await until_status(other, Status.PARKED)
        length = (await other.describe()).history_length
    async with Client(f"sqlite:///{tmp_path / 'test.db'}") as client:
        await client.get("q").fork(after_event=length, id="r")
    async with engine_on(tmp_path, defined(broken=False), *DEFINITIONS) as engine:
        assert await engine.client.get("r").result() == "charge donevalidate done"


# -- retries -------------------------------------------------------------------------------------


async def failed(engine: Any, step: str, definition: Any = order, **options: Any) -> Handle[Any]:
    broken.add(step)
    handle = await engine.client.start(definition, id="o", **options)
    with pytest.raises(errors.WorkflowFailed):
        await handle.result()
    broken.clear()
    return handle


async def test_a_retry_keeps_what_succeeded_and_the_key_of_what_did_not(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await failed(engine, "charge")
        retry = await handle.retry()
        result = await retry.result()
        assert result[1:4] == ["validate done", "charge done", "ship done"]
        assert names() == ["validate", "charge", "charge", "ship"]
        assert len(set(keys_of("charge"))) == 1


async def test_a_retry_is_the_next_run_of_the_same_execution(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await failed(engine, "charge", memo={"a": 1}, search={"b": 2}, tags=["c"])
        before = await handle.describe()
        retry = await handle.retry()
        await retry.result()
        found = await engine.client.get("o").describe()
        assert found.run_id == retry.run_id != before.run_id
        assert (found.memo, found.search, found.tags) == ({"a": 1}, {"b": 2}, ("c",))
        assert found.origin is not None and found.origin.how == "retry"
        with pytest.raises(errors.Conflict):
            await engine.client.get("o", before.run_id).retry()
        with pytest.raises(errors.Invalid, match="nothing failed"):
            await engine.client.get("o").retry()


async def test_attempts_count_anew_in_a_retry(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await failed(engine, "ship")
        broken.add("ship")
        retry = await handle.retry()
        with pytest.raises(errors.WorkflowFailed):
            await retry.result()
        assert names() == ["validate", "charge", "ship", "ship", "ship", "ship"]


async def test_a_retry_from_a_step_begins_where_it_was_first_scheduled(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await failed(engine, "ship")
        await (await handle.retry(from_step="charge")).result()
        assert names() == ["validate", "charge", "ship", "ship", "charge", "ship"]
        assert len(set(keys_of("charge"))) == 2  # it had succeeded: it is meant to be done again
        assert len(set(keys_of("ship"))) == 1


async def test_a_retry_under_an_id_of_its_own_works_for_an_open_run_too(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(patient, id="p")
        await until_status(handle, Status.WAITING)
        with pytest.raises(errors.Conflict, match="has not ended"):
            await handle.retry()
        retry = await handle.retry(id="again")
        await until_status(retry, Status.WAITING)
        await retry.send("go", 1)
        assert (await retry.result())[-1] == "again"
        assert await handle.status() is Status.WAITING


async def test_a_cancelled_run_is_retried_from_before_the_cancel(tmp_path: Path):
    async with engine_on(tmp_path, *DEFINITIONS) as engine:
        handle = await engine.client.start(patient, id="p")
        await until_status(handle, Status.WAITING)
        await handle.cancel(deadline="1ms")
        with pytest.raises((errors.WorkflowCancelled, errors.WorkflowTerminated)):
            await handle.result()
        retry = await handle.retry()
        await until_status(retry, Status.WAITING)
        await retry.send("go", 1)
        assert (await retry.result())[2] == 1
        assert names() == ["validate"]


async def test_messages_that_came_before_the_end_are_in_the_retry(tmp_path: Path):
    @workflow.define
    async def reader() -> Any:
        await validate()
        await charge()
        return await workflow.listen("go").receive()

    async with engine_on(tmp_path, reader, validate, charge) as engine:
        broken.add("charge")
        handle = await engine.client.start(reader, id="o", messages=[("go", "early")])
        with pytest.raises(errors.WorkflowFailed):
            await handle.result()
        broken.clear()
        assert await (await handle.retry()).result() == "early"


async def test_a_failed_child_is_started_again_by_a_retry(tmp_path: Path):
    @workflow.define
    async def child() -> str:
        return await charge()

    @workflow.define
    async def outer() -> str:
        await validate()
        return await workflow.execute(child)

    async with engine_on(tmp_path, child, outer, validate, charge) as engine:
        handle = await failed(engine, "charge", outer)
        assert await (await handle.retry()).result() == "charge done"
        assert names() == ["validate", "charge", "charge"]


async def test_a_bug_is_mended_and_the_run_goes_on_where_it_failed(tmp_path: Path):
    def defined(*, mended: bool) -> Any:
        @workflow.define(name="buggy")
        async def buggy() -> str:
            done = await validate()
            if not mended:
                raise ApplicationError("a bug")
            return done

        return buggy

    async with engine_on(tmp_path, defined(mended=False), validate) as engine:
        handle = await engine.client.start("buggy", id="b")
        with pytest.raises(errors.WorkflowFailed):
            await handle.result()
    async with engine_on(tmp_path, defined(mended=True), validate) as engine:
        retry = await engine.client.get("b").retry()
        assert await retry.result() == "validate done"
        assert names() == ["validate"]


@workflow.define
async def inheriting(is_first: bool) -> Any:
    if is_first:
        await workflow.start(patient, id="kid")
        await workflow.continue_as_new(False)
    await validate()
    event = await workflow.events().receive()
    await ship()
    return event.result


async def test_a_retry_keeps_what_a_continued_run_heard_of_its_children(tmp_path: Path):
    async with engine_on(tmp_path, inheriting, patient, validate, ship) as engine:
        broken.add("ship")
        handle = await engine.client.start(inheriting, True)
        await until_status(engine.client.get("kid"), Status.WAITING)
        await engine.client.get("kid").send("go", "said")
        with pytest.raises(errors.WorkflowFailed):
            await handle.result("20s")
        broken.clear()
        again = await handle.retry(from_step="validate")
        assert await again.result("20s") == ["somebody", "validate done", "said", "kid"]
