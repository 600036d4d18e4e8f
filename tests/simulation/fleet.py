"""What goes wrong where the database is on a server.

It crashes, is cut off from one process, stands still, and its hints do not come; the clocks of the
machines are wrong, and new workers join at any time.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from perdure.testing.clock import Process
from perdure.testing.network import Network

if TYPE_CHECKING:
    from tests.simulation.world import World

_SECONDS = 1_000_000
_OFFSETS = (0, 0, 5 * _SECONDS, -5 * _SECONDS, 90 * _SECONDS, -90 * _SECONDS, -300 * _SECONDS)
_MOST_WORKERS = 8


class Fleet:
    """See the module's text; ``chance`` is its own, so that it moves nothing else."""

    def __init__(self, world: World, network: Network, chance: Random) -> None:
        self._world = world
        self._network = network
        self._chance = chance
        self._outages = chance.choice((0.0, 0.15, 0.3))
        self._cuts = chance.choice((0.0, 0.2, 0.4))
        self._stalls = chance.choice((0.0, 0.0, 0.2))
        self._deaf = chance.choice((0.0, 0.2))
        self._joins = chance.choice((0.0, 0.2, 0.5))
        self._are_clocks_wrong = chance.random() < 0.6

    def clock_offset(self) -> int:
        """Return how many microseconds the clock of a new process is ahead."""
        return self._chance.choice(_OFFSETS) if self._are_clocks_wrong else 0

    async def make_trouble(self) -> None:
        """Until the time of trouble is over."""
        world, chance, network = self._world, self._chance, self._network
        loop = asyncio.get_running_loop()
        while loop.time() < world.trouble_seconds:
            await asyncio.sleep(chance.random())  # sleep: virtual time
            if chance.random() < self._outages:
                world.sim.note("server", "is down")
                network.go_down()
                loop.call_later(chance.choice((0.1, 1.0, 2.5, 6.0)), self._come_up)
            if chance.random() < self._cuts:
                process = self._somebody()
                world.sim.note("server", "does not reach", process.name)
                network.cut(process)
                loop.call_later(chance.choice((0.2, 1.5, 2.5, 6.0)), self._join, process)
            if chance.random() < self._stalls:
                seconds = chance.choice((0.1, 0.7, 2.2))
                world.sim.note("server", "stands still for", seconds)
                network.stall(seconds)
            if chance.random() < self._deaf:
                network.hears_hints = not network.hears_hints
            if chance.random() < self._joins and len(world.up()) < _MOST_WORKERS:
                world.employ()

    async def until_nobody_is_missed(self) -> None:
        """Wait until the rows of dead workers, and of those that never knew they joined, are gone.

        Their leases end, and one that lives notices. Whoever lives has a row by then.
        """
        sim = self._world.sim

        def holds() -> bool:
            here = [worker for worker in sim.workers if worker.process.is_alive]
            if not all(worker.is_up for worker in here):
                return False
            numbers = {worker.core.committer.worker for worker in here}
            return numbers == {row.id for row in sim.store.workers()}

        await sim.until(holds)

    def _somebody(self) -> Process:
        up = [worker.process for worker in self._world.up()]
        return self._chance.choice([*up, self._world.foreign()[0]])

    def _come_up(self) -> None:
        self._network.come_up()

    def _join(self, process: Process) -> None:
        self._network.join(process)
