"""Workers are killed while a subscriber comes and goes: it misses nothing, and nothing is twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill
from tests.crash.programs import MACHINE_STEPS

from perdure import Client
from perdure.named import NamedEvent

RUNS, KILLS, SEED = 12, 5, 20261121

pytestmark = pytest.mark.slow


class Subscriber:
    """Reads for a while, hangs up, and asks again behind the last event it has."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._chance = random.Random(SEED)
        self.events: list[NamedEvent] = []
        self.connected = 0

    @property
    def ended(self) -> int:
        return sum(event.name == "workflow.completed" for event in self.events)

    async def run(self) -> None:
        while self.ended < RUNS:
            self.connected += 1
            wanted = self._chance.randint(1, 40)
            async with Client(self._url) as client:
                after = self.events[-1].id if self.events else None
                async for event in client.events(after=after):
                    self.events.append(event)
                    wanted -= 1
                    if not wanted or self.ended == RUNS:
                        break


async def test_a_subscriber_that_reconnects_meets_every_event_once(tmp_path: Path):
    place = Place(tmp_path)
    async with Client(place.url) as client:
        workers = [place.start(), place.start()]
        subscriber = Subscriber(place.url)
        following = asyncio.create_task(subscriber.run())
        try:
            for number in range(RUNS):
                await client.start("machine", 0, id=f"m{number}")
            for _ in range(KILLS):
                count = len(subscriber.events) + 3 * RUNS
                async with asyncio.timeout(60):
                    while len(subscriber.events) < count and not following.done():
                        await asyncio.sleep(0.005)  # sleep: polls what other processes write
                for worker in workers:  # all: whoever has the runs is among them
                    kill(worker)
                workers = [place.start(), place.start()]
            async with asyncio.timeout(60):
                await following
        finally:
            following.cancel()
            for worker in workers:
                kill(worker)
        whole = [event async for event in client.events(follow=False)]
    assert subscriber.connected > 5
    assert subscriber.events == whole
    assert len({event.id for event in whole}) == len(whole)
    assert any(event.name == "workflow.step.retry" for event in whole), "no attempt was cut off"
    for number in range(RUNS):
        _check_run([event for event in whole if event.data["instance_id"] == f"m{number}"])


def _check_run(events: list[NamedEvent]) -> None:
    """Every step began once, ended once, and told what it emitted once, in this order."""
    told: list[tuple[str, Any]] = []
    for event in events:
        name = event.name.removeprefix("workflow.")
        if name == "event":
            told.append((name, event.data["data"]["from"]))
        elif name in ("step.started", "step.completed"):
            told.append((name, event.data["step_name"]))
        elif name != "progress" and name != "step.retry":
            told.append((name, None))
    wanted: list[tuple[str, Any]] = [("started", None)]
    for step in range(MACHINE_STEPS):
        wanted.append(("step.started", f"step{step}"))
        wanted.append(("event", step))
        wanted.append(("step.completed", f"step{step}"))
    assert told == [*wanted, ("completed", None)]
