"""Workers in virtual time: an hour passes at once, and chance comes from a seed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from perdure.testing.simulator import SimulatedWorker, Simulation

Main = Callable[[SimulatedWorker], Coroutine[Any, Any, Any]]


def in_virtual_time(main: Main, *definitions: Any) -> Any:
    """Run ``main`` beside one worker that serves ``definitions``."""

    async def story(sim: Simulation) -> Any:
        worker = sim.worker("a", list(definitions))
        await worker.start()
        return await worker.spawn(main(worker))

    with Simulation(seed=1, limit_seconds=400_000) as sim:
        return sim.run(story(sim))
