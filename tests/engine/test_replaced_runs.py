"""The owner of a run that a start has replaced hears of it, and stops what is under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import activity, workflow
from perdure.testing.simulator import Simulation

stopped: list[float] = []


@activity.define
async def endless() -> None:
    try:
        await asyncio.sleep(500)  # sleep: it is stopped meanwhile, in virtual time
    finally:
        stopped.append(asyncio.get_running_loop().time())


@workflow.define
async def busy() -> None:
    await endless()


@workflow.define
async def idle() -> None:
    await workflow.listen("go").receive()


DEFINITIONS = [busy, idle, endless]


@pytest.mark.parametrize(
    ("lease", "options"),
    [("9s", {"start_delay": "1h"}), ("10m", {})],
    ids=["at the next extension of the lease", "with its next commit"],
)
def test_an_attempt_of_a_run_that_another_process_replaced_is_stopped(
    lease: str, options: dict[str, Any]
):
    stopped.clear()
    with Simulation(seed=1) as sim:

        async def main() -> None:
            worker = sim.worker("a", DEFINITIONS, lease=lease)
            await worker.start()
            process, client = sim.foreign_client("c")
            await process.spawn(client.start("busy", id="w"))
            await asyncio.sleep(1)  # sleep: virtual time
            replacing = {"id": "w", "id_conflict_policy": "terminate_existing", **options}
            await process.spawn(client.start("idle", **replacing))
            await asyncio.sleep(5)  # sleep: virtual time

        sim.run(main())
        assert len(stopped) == 1
