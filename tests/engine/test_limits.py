"""Concurrency limits: how many executions may be open, who is refused, who waits, who is next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from perdure import Retry, Status, workflow
from perdure.errors import ChildFailed, ConcurrencyLimit, Invalid, UsageError, WorkflowTimedOut
from perdure.handle import Handle
from perdure.testing.simulator import SimulatedWorker, Simulation

Main = Callable[[SimulatedWorker], Coroutine[Any, Any, Any]]


@workflow.define
async def holder(_: str) -> str:
    """Keep a slot until told to go."""
    await workflow.listen("go").receive()
    return "gone"


@workflow.define
async def other(_: str) -> str:
    await workflow.listen("go").receive()
    return "gone"


def run(
    main: Main,
    *definitions: Any,
    limit: dict[str, Any] | None = None,
    seed: int = 1,
    **options: Any,
) -> Any:
    """Run ``main`` with a worker in virtual time; ``limit`` is that of ``holder``."""

    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", list(definitions), **options)
        if limit is not None:
            worker.engine.register(holder, **limit)
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=seed, limit_seconds=20_000) as sim:
        return sim.run(story(sim))


async def start(worker: SimulatedWorker, id: str, **options: Any) -> Handle[Any]:
    return await worker.client.start(holder, id, id=id, **options)


async def open_ids(worker: SimulatedWorker) -> list[str]:
    """Return who has a slot, in the order of the starts."""
    await asyncio.sleep(0.5)  # sleep: virtual time
    page = await worker.client.list(status=["running", "waiting", "paused", "parked"])
    return sorted(one.id for one in page.items)


async def queued_ids(worker: SimulatedWorker) -> list[str]:
    page = await worker.client.list(status="pending")
    return sorted(one.id for one in page.items)


QUEUE = {"max_concurrent": 1, "on_limit": "queue"}


def test_a_start_above_the_limit_is_refused_and_leaves_nothing():
    async def main(worker: SimulatedWorker) -> None:
        await start(worker, "a")
        with pytest.raises(ConcurrencyLimit, match=r"'holder' has reached .* \(1\)") as caught:
            await start(worker, "b")
        assert caught.value.kind == "RateLimited"
        assert caught.value.retryable
        assert await worker.client.count() == 1

    run(main, limit={"max_concurrent": 1})


def test_an_ended_execution_makes_room():
    async def main(worker: SimulatedWorker) -> None:
        for id in ("a", "b", "c"):
            handle = await start(worker, id)
            await handle.send("go")
            assert await handle == "gone"

    run(main, limit={"max_concurrent": 1})


def test_of_fifty_starts_at_once_exactly_as_many_succeed_as_the_limit_says():
    async def main(worker: SimulatedWorker) -> None:
        answers = await asyncio.gather(
            *(start(worker, f"w{n}", eager=n % 2 == 0) for n in range(50)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, ConcurrencyLimit)]
        assert len(refused) == 43
        assert await worker.client.count() == 7

    run(main, limit={"max_concurrent": 7})


def test_executions_that_end_with_their_first_turn_are_in_nobodys_way():
    @workflow.define
    async def quick(number: int) -> int:
        return number

    async def main(worker: SimulatedWorker) -> Any:
        return await asyncio.gather(*(worker.client.execute(quick, n) for n in range(20)))

    assert run(main, quick, concurrent_workflows=1) == list(range(20))


def test_the_registered_limit_wins_over_the_one_by_name_and_that_over_the_default():
    @workflow.define
    async def third(_: str) -> None:
        await workflow.listen("go").receive()

    async def main(worker: SimulatedWorker) -> list[int]:
        counts: list[int] = []
        for definition in (holder, other, third):
            count = 0
            with pytest.raises(ConcurrencyLimit):
                while True:
                    await worker.client.start(definition, "")
                    count += 1
            counts.append(count)
        return counts

    options = {"concurrent_workflows": 1, "concurrent_workflows_by_name": {"holder": 2, "other": 2}}
    assert run(main, other, third, limit={"max_concurrent": 3}, **options) == [3, 2, 1]


def test_a_registered_zero_lifts_the_default():
    async def main(worker: SimulatedWorker) -> int:
        for n in range(5):
            await start(worker, str(n))
        return await worker.client.count()

    assert run(main, limit={"max_concurrent": 0}, concurrent_workflows=1) == 5


def test_the_total_of_an_engine_counts_all_its_workflows():
    async def main(worker: SimulatedWorker) -> None:
        await start(worker, "a")
        await worker.client.start(other, "")
        for definition in (holder, other):
            with pytest.raises(ConcurrencyLimit, match="all its workflows"):
                await worker.client.start(definition, "")

    run(main, holder, other, concurrent_total=2)


def test_a_slot_of_the_total_goes_to_the_next_of_any_workflow():
    async def story(sim: Simulation) -> None:
        worker = sim.worker("a", [], concurrent_total=1)
        worker.engine.register(holder, on_limit="queue")
        worker.engine.register(other, on_limit="queue")
        await worker.start()

        async def main() -> None:
            first = await start(worker, "first")
            await start(worker, "second")
            third = await worker.client.start(other, "", id="third", priority=1)
            assert "of all workflows" in await third.why()
            await first.send("go")
            assert await open_ids(worker) == ["third"]
            await third.send("go")
            assert await open_ids(worker) == ["second"]

        await worker.spawn(main())

    with Simulation(seed=1) as sim:
        sim.run(story(sim))


def test_a_start_above_the_limit_waits_if_the_limit_says_queue():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        second = await start(worker, "second")
        third = await start(worker, "third")
        assert await second.status() is Status.PENDING
        assert await second.why() == (
            "holder 'second' is pending: 1 of 1 slots of workflow 'holder' are taken; "
            "0 runs are before it."
        )
        assert "1 run is before it" in await third.why()
        await first.send("go")
        assert await open_ids(worker) == ["second"]
        await second.send("go")
        await third.send("go")
        assert await asyncio.gather(second.result(), third.result()) == ["gone", "gone"]

    run(main, limit=QUEUE)


def test_a_first_turn_that_was_taken_too_early_leaves_no_trace():
    seen: list[str] = []

    @workflow.define(name="holder")
    async def telling(id: str) -> None:
        await workflow.emit("began", id)
        await workflow.listen("go").receive()

    async def story(sim: Simulation) -> None:
        worker = sim.worker("a", [])
        worker.engine.register(telling, **QUEUE)
        await worker.start()
        worker.engine.events.on("*", lambda event: seen.append(event.data["data"]))

        async def main() -> None:
            first = await worker.client.start(telling, "first", id="first")
            second = await worker.client.start(telling, "second", id="second")
            await asyncio.sleep(3)  # sleep: virtual time
            assert [event.kind for event in await second.history()] == ["run_started"]
            assert seen == ["first"]
            await first.send("go")
            await asyncio.sleep(1)  # sleep: virtual time
            assert seen == ["first", "second"]

        await worker.spawn(main())

    with Simulation(seed=1) as sim:
        sim.run(story(sim))


def test_higher_priorities_go_first_and_equals_in_the_order_of_their_starts():
    async def main(worker: SimulatedWorker) -> list[str]:
        handle = await start(worker, "first")
        for number, priority in enumerate([0, 5, -1, 5, 0]):
            await start(worker, f"{number}", priority=priority)
        order: list[str] = []
        while True:
            await handle.send("go")
            running = await open_ids(worker)
            if not running:
                return order
            [id] = running
            order.append(id)
            handle = worker.client.get(id)

    assert run(main, limit=QUEUE) == ["1", "3", "0", "4", "2"]


def test_a_key_has_a_limit_of_its_own_and_a_full_one_is_in_no_other_keys_way():
    limit = {"max_concurrent": 3, "max_concurrent_per_key": 1, "on_limit": "queue"}

    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "a1", concurrency_key="a")
        for n in range(2, 6):
            await start(worker, f"a{n}", concurrency_key="a", priority=9)
        await start(worker, "b1", concurrency_key="b")
        await start(worker, "none")
        await start(worker, "c1", concurrency_key="c")
        assert await open_ids(worker) == ["a1", "b1", "none"]
        assert "1 of 1 slots of key 'a'" in await worker.client.get("a2").why()
        await worker.client.get("none").send("go")
        assert await open_ids(worker) == ["a1", "b1", "c1"]
        await first.send("go")
        assert await open_ids(worker) == ["a2", "b1", "c1"]

    run(main, limit=limit)


def test_a_higher_priority_overtakes_within_its_key():
    limit = {"max_concurrent": 1, "max_concurrent_per_key": 1, "on_limit": "queue"}

    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        await start(worker, "low", concurrency_key="a")
        await start(worker, "high", concurrency_key="a", priority=1)
        await first.send("go")
        assert await open_ids(worker) == ["high"]

    run(main, limit=limit)


def test_a_key_may_be_refused_while_others_start():
    async def main(worker: SimulatedWorker) -> None:
        await start(worker, "a1", concurrency_key="a")
        with pytest.raises(ConcurrencyLimit, match=r"for key 'a' \(1\)"):
            await start(worker, "a2", concurrency_key="a")
        await start(worker, "b1", concurrency_key="b")
        await start(worker, "none")

    run(main, limit={"max_concurrent_per_key": 1})


@pytest.mark.parametrize("ending", ["cancel", "terminate"])
def test_a_queued_execution_can_be_ended_and_leaves_the_queue(ending: str):
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        second = await start(worker, "second")
        await start(worker, "third")
        assert await getattr(second, ending)()
        assert (await second.status()).is_terminal
        await first.send("go")
        assert await open_ids(worker) == ["third"]

    run(main, limit=QUEUE)


def test_a_queued_execution_can_be_paused_and_takes_its_place_again_when_resumed():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        second = await start(worker, "second")
        third = await start(worker, "third")
        assert await second.pause()
        assert "paused_in_queue" in await second.why()
        await first.send("go")
        await asyncio.sleep(1)  # sleep: virtual time
        assert await third.status() is Status.WAITING
        await start(worker, "fourth")
        assert await second.resume()
        await asyncio.sleep(2)  # sleep: virtual time
        assert await second.status() is Status.PENDING
        await third.send("go")
        await asyncio.sleep(1)  # sleep: virtual time
        assert await second.status() is Status.WAITING

    run(main, limit=QUEUE)


def test_one_that_is_resumed_while_there_is_room_begins():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        second = await start(worker, "second")
        assert await second.pause()
        await first.send("go")
        await asyncio.sleep(2)  # sleep: virtual time
        assert await second.status() is Status.PAUSED
        assert await second.resume()
        await second.send("go")
        assert await second == "gone"

    run(main, limit=QUEUE)


def test_a_paused_execution_keeps_its_slot():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        await start(worker, "second")
        assert await first.pause()
        assert await open_ids(worker) == ["first"]
        assert await queued_ids(worker) == ["second"]

    run(main, limit=QUEUE)


def test_messages_to_a_queued_execution_wait_for_it():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        second = await start(worker, "second", messages=[("go", None)])
        third = await start(worker, "third")
        await third.send("go")
        await first.send("go")
        assert await second == "gone"
        assert await third == "gone"

    run(main, limit=QUEUE)


def test_timeouts_count_from_the_start_also_in_the_queue():
    async def main(worker: SimulatedWorker) -> None:
        await start(worker, "first")
        second = await start(worker, "second", run_timeout="1h")
        third = await start(worker, "third", execution_timeout="30m")
        for handle, which in ((third, "execution"), (second, "run")):
            with pytest.raises(WorkflowTimedOut, match=which):
                await handle
            assert [event.kind for event in await handle.history()] == [
                "run_started",
                "run_timed_out",
            ]
        assert await queued_ids(worker) == []

    run(main, limit=QUEUE)


def test_a_delayed_start_asks_for_a_slot_when_its_time_has_come():
    async def main(worker: SimulatedWorker) -> None:
        late = await start(worker, "late", start_delay="1m")
        first = await start(worker, "first")
        assert "it begins in 1m" in await late.why() or "it begins in 59s" in await late.why()
        await asyncio.sleep(90)  # sleep: virtual time
        assert await late.status() is Status.PENDING
        assert "1 of 1 slots" in await late.why()
        await first.send("go")
        await late.send("go")
        assert await late == "gone"

    run(main, limit={"max_concurrent": 1})


def test_a_delayed_start_begins_on_time_if_there_is_room():
    async def main(worker: SimulatedWorker) -> float:
        late = await start(worker, "late", start_delay="1h", messages=[("go", None)])
        before = asyncio.get_running_loop().time()
        await late
        return asyncio.get_running_loop().time() - before

    assert 3600 <= run(main, limit=QUEUE) < 3602


def test_a_replaced_execution_gives_its_slot_to_the_one_that_replaces_it():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "a")
        await asyncio.sleep(1)  # sleep: virtual time
        second = await start(worker, "a", id_conflict_policy="terminate_existing")
        assert second.run_id != first.run_id
        assert await second.status() is Status.WAITING
        with pytest.raises(ConcurrencyLimit):
            await start(worker, "b")
        await second.send("go")
        assert await second == "gone"
        await start(worker, "b")

    run(main, limit={"max_concurrent": 1})


def test_a_start_that_uses_an_existing_execution_needs_no_slot():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "a")
        second = await start(worker, "a")
        assert first.run_id == second.run_id

    run(main, limit={"max_concurrent": 1})


def test_a_bad_option_is_refused_by_name():
    async def main(worker: SimulatedWorker) -> None:
        for option, value in {
            "priority": "high",
            "concurrency_key": "x" * 257,
        }.items():
            with pytest.raises(Invalid, match=option):
                await start(worker, "a", **{option: value})

    run(main, limit=QUEUE)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_concurrent": -1}, Invalid, "max_concurrent: -1"),
        ({"max_concurrent_per_key": True}, Invalid, "max_concurrent_per_key"),
        ({"max_concurrent": 1, "on_limit": "wait"}, Invalid, "on_limit.*reject, queue"),
    ],
)
def test_a_bad_limit_is_refused(options: dict[str, Any], error: type[Exception], match: str):
    async def main(worker: SimulatedWorker) -> None:
        pytest.fail("it started")

    with pytest.raises(error, match=match):
        run(main, limit=options)


def test_a_limit_by_the_name_of_no_workflow_is_refused():
    async def main(worker: SimulatedWorker) -> None:
        pytest.fail("it started")

    with pytest.raises(UsageError, match=r"'holdr' is not among .* \(holder\)"):
        run(main, holder, concurrent_workflows_by_name={"holdr": 1})


def test_a_limit_for_a_running_engine_is_refused():
    async def main(worker: SimulatedWorker) -> None:
        with pytest.raises(UsageError, match="before"):
            worker.engine.register(other, max_concurrent=1)

    run(main, limit=QUEUE)


def test_a_queued_execution_that_times_out_queues_again_for_its_next_attempt():
    async def main(worker: SimulatedWorker) -> None:
        first = await start(worker, "first")
        policy = Retry(max_attempts=2, interval="0s", retry_on=("Timeout",))
        second = await start(worker, "second", run_timeout="1m", retry=policy)
        await asyncio.sleep(90)  # sleep: virtual time
        found = await worker.client.get("second").describe()
        assert (found.attempt, found.status) == (2, Status.PENDING)
        await first.send("go")
        await worker.client.get("second").send("go")
        assert await second == "gone"

    run(main, limit=QUEUE)


def test_a_refused_child_fails_with_the_limit_and_the_parent_goes_on():
    @workflow.define
    async def parent(_: None) -> str:
        try:
            await workflow.execute(holder, "child")
        except ChildFailed as failed:
            return f"{failed.kind}: {failed.cause!r}"
        return "it began"

    async def main(worker: SimulatedWorker) -> str:
        await start(worker, "first")
        return await worker.client.execute(parent, None)

    answer = run(main, parent, limit={"max_concurrent": 1})
    assert answer.startswith("RateLimited: ConcurrencyLimit(")


def test_a_queued_child_begins_when_there_is_room():
    @workflow.define
    async def parent(_: None) -> str:
        return await workflow.execute(holder, "child", id="child", messages=[("go", None)])

    async def main(worker: SimulatedWorker) -> str:
        first = await start(worker, "first")
        handle = await worker.client.start(parent, None)
        await asyncio.sleep(1)  # sleep: virtual time
        assert await queued_ids(worker) == ["child"]
        await first.send("go")
        return await handle

    assert run(main, parent, limit=QUEUE) == "gone"


def test_an_execution_keeps_its_slot_when_it_continues_as_new():
    @workflow.define
    async def again(count: int) -> int:
        await workflow.sleep("1s")
        if count < 5:
            await workflow.continue_as_new(count + 1)
        return count

    async def main(worker: SimulatedWorker) -> None:
        handle = await worker.client.start(again, 1, id="first")
        waiting = await worker.client.start(again, 5, id="second")
        for _ in range(3):
            await asyncio.sleep(1)  # sleep: virtual time
            assert await waiting.status() is Status.PENDING
        assert await asyncio.gather(handle.result(), waiting.result()) == [5, 5]

    async def story(sim: Simulation) -> None:
        worker = sim.worker("a", [])
        worker.engine.register(again, **QUEUE)
        await worker.start()
        await worker.spawn(main(worker))

    with Simulation(seed=1) as sim:
        sim.run(story(sim))
