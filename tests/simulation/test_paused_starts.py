"""Starts that are paused, under faults: whoever dies, each is either resumed or ends in time.

One world per seed: workers that are killed and started anew over a database whose answers fail, get
lost and come late; in every other world it is on a server, and the machines' clocks are wrong.
Somebody resumes most of the runs at about the time when they are to end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

import pytest

from perdure import workflow
from perdure.errors import PerdureError
from perdure.store.port import Filter
from perdure.testing import checks
from perdure.testing.faults import RandomFaults
from perdure.testing.simulator import SimulatedWorker, Simulation
from perdure.values import events as ev
from perdure.values.terms import RESUME_WITHIN

T = TypeVar("T")
SEEDS = int(os.environ.get("PERDURE_SIM_SEEDS", "60"))
CHUNK = 10
STARTS = 12


@workflow.define
async def job(seconds: float) -> str:
    await workflow.sleep(seconds)
    return "done"


@workflow.define
async def limited(seconds: float) -> str:
    await workflow.sleep(seconds)
    return "done"


class World:
    """``said``: what was answered to whoever resumed a run, by id; nothing if the answer to one of
    their calls was lost.
    """

    def __init__(self, seed: int) -> None:
        self.plan = RandomFaults(
            Random(seed),
            error=0.02,
            lost_ack=0.03,
            death=0.01,
            slow=0.1,
            slow_seconds=0.1,
            stuck=0.002,
            lost_hint=0.3,
        )
        self.said: dict[str, bool] = {}
        self.asked: set[str] = set()
        self.sim = Simulation(
            f"paused starts {seed}", plan=self.plan, limit_seconds=1_000, on_server=bool(seed % 2)
        )
        self._chance = self.sim.chance("world")
        self._left = 8

    def run(self) -> list[str]:
        with self.sim:
            self.sim.run(self._main())
            found = [*self._judge(), *checks.problems(self.sim.store, [job, limited])]
            found += self.sim.alarms
            found += [str(note) for note in self.sim.trace if "internal error" in str(note)]
            return [*found, self.sim.report()] if found else []

    async def _main(self) -> None:
        asked = [self._start(f"x{number}") for number in range(STARTS)]
        await asyncio.gather(self._churn("a"), self._churn("b"), *asked)
        self.plan.calm()
        await self._worker("last").start()
        await asyncio.sleep(60)  # sleep: virtual time, in which all ends

    def _worker(self, name: str) -> SimulatedWorker:
        offset = self._chance.choice((0, -3_600_000_000, 5_000_000)) if self.sim.network else 0

        def prepare(engine: Any) -> None:
            engine.register(limited, max_concurrent=1, on_limit="queue")

        return self.sim.worker(name, [job], prepare=prepare, clock_offset=offset)

    async def _churn(self, name: str) -> None:
        while self._left > 0:
            self._left -= 1
            worker = self._worker(f"{name}{self._left}")
            worker.may_die = worker.desk.may_die = True
            try:
                await worker.start()
            except PerdureError:
                worker.kill()
                continue
            await asyncio.sleep(self._chance.random() * 6)  # sleep: virtual time
            if self._chance.random() < 0.6:
                worker.kill()
            elif worker.is_up:
                await worker.stop("500ms")

    async def _start(self, id: str) -> None:
        chance = self.sim.chance(id)
        process, client = self.sim.foreign_client(id)
        within = chance.choice((0.5, 2, 5))
        options: dict[str, Any] = {"paused": True, "resume_within": within}
        if chance.random() < 0.2:
            options["start_delay"] = chance.choice((1, 4))
        await asyncio.sleep(2 + chance.random() * 8)  # sleep: until a worker has registered both
        name = chance.choice(("job", "job", "limited"))
        await self._insist(lambda: process.spawn(client.start(name, 0.5, id=id, **options)))
        if chance.random() < 0.3:
            return
        self.asked.add(id)
        await asyncio.sleep(max(0, within - 0.5 + chance.random()))  # sleep: virtual time
        said, is_sure = await self._insist(lambda: process.spawn(client.get(id).resume()))
        if is_sure:
            self.said[id] = said

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the answer, and whether the first call gave it."""
        is_sure = True
        while True:
            try:
                return await call(), is_sure
            except PerdureError:
                is_sure = False
                await asyncio.sleep(0.3)  # sleep: virtual time

    def _judge(self) -> list[str]:
        found: list[str] = []
        rows = {row.workflow_id: row for row in self.sim.store.list(Filter(), limit=100).rows}
        if len(rows) != STARTS:
            found.append(f"there are {len(rows)} executions of {STARTS}")
        for history in checks.histories(self.sim.store):
            id, last = history.row.workflow_id, history.events[-1]
            status = str(history.row.status)
            began = any(isinstance(event, ev.RunResumed) for event in history.events)
            lapsed = isinstance(last, ev.RunTerminated) and last.by == RESUME_WITHIN
            if status != ("completed" if began else "terminated") or lapsed == began:
                found.append(f"{id} is {status}; resumed: {began}, ended unresumed: {lapsed}")
            if id not in self.asked and began:
                found.append(f"{id} began, and nobody had resumed it")
            if self.said.get(id, began) != began:
                found.append(f"{id}: the answer was {self.said[id]}; resumed: {began}")
        return found


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_each_is_resumed_or_ends_in_every_world(first: int):
    seen: set[bool] = set()
    for seed in range(first, min(first + CHUNK, SEEDS)):
        world = World(seed)
        found = world.run()
        assert not found, f"seed {seed}:\n" + "\n".join(found)
        seen.update(world.said.values())
    assert seen == {True, False}, "both come first now and then"
