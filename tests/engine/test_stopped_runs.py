"""What becomes of a paused run when another worker has it, or when its time has not come."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from perdure import Retry, Status, activity, workflow
from perdure.testing.simulator import Simulation

begun: list[int] = []


@activity.define(retry=Retry(interval="5s"))
async def soon(fails: bool) -> str:
    begun.append(activity.info().attempt)
    await asyncio.sleep(2)  # sleep: the pause comes meanwhile, in virtual time
    if fails and activity.info().attempt == 1:
        raise ValueError("at first")
    return "done"


@workflow.define
async def one_step(fails: bool) -> str:
    done = await soon(fails)
    await workflow.sleep("5s")
    return done


@workflow.define
async def nothing() -> str:
    return workflow.now().isoformat()


@workflow.define
async def pushy() -> Any:
    first = await workflow.start(one_step, False, id="child")
    second = await workflow.start(nothing, id="child", id_conflict_policy="terminate_existing")
    return [str(await second) > "", str(await asyncio.wait_for(_failure(first), 60))]


async def _failure(child: Any) -> str:
    try:
        await child
    except Exception as exc:
        return str(exc)
    return "?"


@workflow.define
async def with_child() -> str:
    await workflow.start(nothing, id="child", start_delay="20s")
    return await soon(False)


@workflow.define
async def napping() -> str:
    await workflow.sleep("1m")
    return "done"


def _other_code() -> Any:
    """Return a definition of the same name whose code no longer fits."""

    @workflow.define(name="one_step")
    async def changed(fails: bool) -> str:
        await workflow.sleep("1s")
        return await soon(fails)

    return changed


DEFINITIONS = [one_step, nothing, pushy, soon, with_child, napping]


def test_an_outcome_recorded_in_a_pause_is_not_asked_for_again_by_the_next_worker():
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> str:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("one_step", False, id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            await process.spawn(handle.pause())
            await asyncio.sleep(5)  # sleep: virtual time
            first.kill()
            await sim.worker("b", DEFINITIONS).start()
            await process.spawn(handle.resume())
            return await process.spawn(handle.result("60s"))

        assert sim.run(main()) == "done"
    assert begun == [1]


def test_a_retry_that_was_due_in_a_pause_begins_when_another_worker_resumes_the_run():
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("one_step", True, id="w"))
            await asyncio.sleep(3)  # sleep: virtual time
            first.kill()
            await process.spawn(handle.pause())
            await sim.worker("b", DEFINITIONS).start()
            await asyncio.sleep(20)  # sleep: virtual time
            paused = await process.spawn(handle.status())
            await process.spawn(handle.resume())
            await asyncio.sleep(0.5)  # sleep: virtual time
            resumed = await process.spawn(handle.status())
            return [paused, resumed, await process.spawn(handle.result("60s"))]

        assert sim.run(main()) == [Status.PAUSED, Status.RUNNING, "done"]
    assert begun == [1, 2]


def test_a_delayed_start_that_is_paused_and_resumed_begins_no_earlier():
    with Simulation(seed=1) as sim:

        async def main() -> timedelta:
            await sim.worker("a", DEFINITIONS, cache=1).start()
            process, client = sim.foreign_client("c")
            start = client.start("nothing", id="w", start_delay="5m")
            handle = await process.spawn(start)
            await process.spawn(handle.pause())
            await asyncio.sleep(2)  # sleep: virtual time
            await process.spawn(handle.resume())
            await process.spawn(handle.result("9m"))
            events = await process.spawn(handle.history())
            return events[-1].time - events[0].time

        assert sim.run(main()) >= timedelta(minutes=5)


def test_a_child_may_take_the_place_of_one_that_was_started_in_the_same_turn():
    with Simulation(seed=1) as sim:

        async def main() -> Any:
            worker = sim.worker("a", DEFINITIONS)
            await worker.start()
            return await worker.spawn(worker.client.execute(pushy, id="p"))

        is_done, said = sim.run(main())
    assert is_done
    assert "a new start took its place" in said


def _kinds(events: list[Any]) -> list[str]:
    return [event.kind for event in events]


def test_an_attempt_lost_in_a_pause_is_counted_although_the_next_worker_recorded_something_else():
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("with_child", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            await process.spawn(handle.pause())
            await asyncio.sleep(0.5)  # sleep: virtual time
            first.kill()
            await sim.worker("b", DEFINITIONS).start()
            await process.spawn(client.get("child").result("60s"))
            await asyncio.sleep(1)  # sleep: virtual time
            paused = _kinds(await process.spawn(handle.history()))
            await process.spawn(handle.resume())
            done = await process.spawn(handle.result("60s"))
            return [paused, done, _kinds(await process.spawn(handle.history()))]

        paused, done, history = sim.run(main())
    assert (paused[-1], "attempt_lost" in paused) == ("child_closed", False)
    assert done == "done"
    assert history.count("attempt_lost") == 1
    assert begun == [1, 2]


def test_an_attempt_lost_before_a_code_change_is_counted_after_the_change_is_taken_back():
    begun.clear()
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("one_step", False, id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            first.kill()
            second = sim.worker("b", [_other_code(), soon])
            await second.start()
            await asyncio.sleep(5)  # sleep: virtual time
            parked = await process.spawn(handle.describe())
            second.kill()
            await sim.worker("c", DEFINITIONS).start()
            await process.spawn(handle.unpark())
            done = await process.spawn(handle.result("60s"))
            return [parked.reason, done, _kinds(await process.spawn(handle.history()))]

        reason, done, history = sim.run(main())
    assert reason == "nondeterminism"
    assert done == "done"
    assert history.count("attempt_lost") == 1
    assert begun == [1, 2]


def test_pauses_and_resumes_that_no_worker_has_read_yet_count_in_their_order():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            first = sim.worker("a", DEFINITIONS)
            await first.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("napping", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            first.kill()
            said = [await process.spawn(handle.pause()), await process.spawn(handle.resume())]
            second = sim.worker("b", DEFINITIONS)
            await second.start()
            await asyncio.sleep(5)  # sleep: virtual time
            states = [await process.spawn(handle.status())]
            await process.spawn(handle.pause())
            await asyncio.sleep(5)  # sleep: virtual time
            second.kill()
            said += [await process.spawn(handle.resume()), await process.spawn(handle.pause())]
            await sim.worker("c", DEFINITIONS).start()
            await asyncio.sleep(5)  # sleep: virtual time
            states.append(await process.spawn(handle.status()))
            said.append(await process.spawn(handle.resume()))
            return [said, states, await process.spawn(handle.result("2m"))]

        said, states, done = sim.run(main())
    assert said == [True] * 5
    assert states[0] is not Status.PAUSED
    assert states[1] is Status.PAUSED
    assert done == "done"
