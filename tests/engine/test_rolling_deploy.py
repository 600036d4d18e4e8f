"""Workers with different code under one version: who fits a run carries it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from perdure import Status, activity, workflow
from perdure.handle import Handle
from perdure.testing.simulator import Simulation


@activity.define
async def one() -> int:
    return 1


@activity.define
async def two() -> int:
    return 2


def code(body: Callable[[], Coroutine[Any, Any, str]]) -> Any:
    """Return `rolling` with this body."""
    definition = workflow.define(name="rolling")(body)
    definition.code = body.__name__
    return definition


async def first() -> str:
    await one()
    await workflow.listen("go").receive()
    await workflow.sleep("30s")
    return "first"


async def other() -> str:
    await two()
    await workflow.listen("go").receive()
    return "other"


async def another() -> str:
    await workflow.sleep("1h")
    return "another"


async def fails_later() -> str:
    await one()
    await workflow.listen("go").receive()
    raise ValueError("later")


async def fails_too() -> str:
    await one()
    await workflow.listen("go").receive()
    raise ValueError("too")


async def counted(handle: Handle[Any], kind: str) -> int:
    return [event.kind for event in await handle.history()].count(kind)


def test_what_a_newer_worker_parks_goes_on_with_the_older_that_fits_it():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            await sim.worker("old", [code(first), one]).start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("rolling", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            await sim.worker("new", [code(other), one, two]).start()
            await asyncio.sleep(10)  # sleep: virtual time
            parkings = await process.spawn(counted(handle, "run_parked"))
            status = await process.spawn(handle.status())
            await process.spawn(handle.send("go"))
            return [parkings, status, await process.spawn(handle.result("2m"))]

        parkings, status, result = sim.run(main())
    assert parkings >= 1, "the new worker looks at what waits"
    assert status is Status.WAITING
    assert result == "first"


def test_a_run_that_no_living_worker_fits_is_parked_once_and_left_alone():
    with Simulation(seed=1) as sim:

        async def main() -> list[Any]:
            begun = sim.worker("old", [code(first), one])
            await begun.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("rolling", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            begun.kill()
            workers = [sim.worker(body.__name__, [code(body), two]) for body in (other, another)]
            for worker in workers:
                await worker.start()
            await asyncio.sleep(60)  # sleep: virtual time
            loaded = [worker.core.loader.loaded for worker in workers]
            await asyncio.sleep(120)  # sleep: virtual time
            later = [worker.core.loader.loaded for worker in workers]
            length = (await process.spawn(handle.describe())).history_length
            return [loaded == later, length, await process.spawn(handle.history())]

        is_calm, length, history = sim.run(main())
    kinds = [event.kind for event in history]
    assert kinds.count("run_parked") == 1
    assert kinds[-1] == "run_parked"
    assert length == len(kinds)
    assert is_calm, "each worker has looked at it once"


def test_a_run_that_fails_with_every_code_is_passed_on_more_and_more_seldom():
    with Simulation(seed=1) as sim:

        async def main() -> list[int]:
            begun = sim.worker("old", [code(first), one])
            await begun.start()
            process, client = sim.foreign_client("c")
            handle = await process.spawn(client.start("rolling", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            begun.kill()
            for body in (fails_later, fails_too):
                await sim.worker(body.__name__, [code(body), one]).start()
            await process.spawn(handle.send("go"))
            counts: list[int] = []
            for _ in range(2):
                await asyncio.sleep(250)  # sleep: virtual time
                counts.append(await process.spawn(counted(handle, "run_parked")))
            return counts

        first_count, second_count = sim.run(main())
    assert 2 <= first_count <= 20
    assert second_count - first_count <= 4
