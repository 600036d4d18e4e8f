"""Workers are killed while parents, children and clients write to each other."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill
from tests.crash.programs import CHILDREN, LETTERS, correspondent, family

from perdure import Client
from perdure.handle import Handle
from perdure.store.opening import open_store
from perdure.testing import checks

FAMILIES = 12
MIN_KILLS = 6
SEED = 20261122
IN_ORDER = list(range(LETTERS))

pytestmark = pytest.mark.slow


async def _write(handle: Handle[object]) -> None:
    for number in IN_ORDER:
        await handle.send("post", number)
        await asyncio.sleep(0.2)  # sleep: letters come while workers die


async def _is_over(client: Client) -> bool:
    return await client.count(status=["running", "waiting", "parked"]) == 0


async def _unpark(client: Client) -> None:
    """Three losses in a row of one attempt wait for a person, and a family for its child."""
    for run in (await client.list(status="parked", limit=1_000)).items:
        assert run.reason == "worker_lost"
        await client.get(run.id).unpark()


async def _wait_for_lines(place: Place, client: Client, count: int) -> None:
    async with asyncio.timeout(60):
        while len(place.lines()) < count and not await _is_over(client):
            await _unpark(client)
            await asyncio.sleep(0.005)  # sleep: polls a file that another process writes


async def test_no_letter_is_lost_or_doubled_or_overtaken_under_kill_after_kill(tmp_path: Path):
    place = Place(tmp_path)
    chance = random.Random(SEED)
    async with Client(place.url) as client:
        worker = place.start()
        handles = await asyncio.gather(
            *(client.start("family", f"f{n}", id=f"f{n}") for n in range(FAMILIES))
        )
        writing = asyncio.gather(*map(_write, handles))
        kills = 0
        while not await _is_over(client):
            # Every other worker lives long enough to record something.
            grace = 0 if kills % 2 else 2 * FAMILIES
            count = len(place.lines()) + grace + chance.randint(1, 30)
            place.limit(count + FAMILIES)
            await _wait_for_lines(place, client, count)
            kill(worker)
            kills += 1
            worker = place.start()
        place.unlimit()
        try:
            await writing
            results = await asyncio.wait_for(asyncio.gather(*handles), 60)
        finally:
            kill(worker)
    assert kills >= MIN_KILLS
    for name, found in zip((handle.id for handle in handles), results, strict=True):
        assert found == {
            "clients": [IN_ORDER],
            **{f"{name}-{number}": [IN_ORDER, IN_ORDER] for number in range(CHILDREN)},
        }
    store = open_store(place.url)
    try:
        assert checks.problems(store, [family, correspondent]) == []
        assert len(checks.histories(store)) == FAMILIES * (1 + CHILDREN)
    finally:
        store.close()
