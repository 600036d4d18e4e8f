"""Who erases is killed in the middle: the run says so, and the same call goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.crash.processes import Place, kill
from tests.engine.support import until
from tests.support.seals import Raw

from perdure import Client, Engine, workflow
from perdure.engine import retention
from perdure.errors import Erased

SECRET = "Ada Lovelace"
ERASES = """
import asyncio, sys, threading
from perdure import Client
from perdure.store.sql import erasing

real, calls = erasing._write, 0

def write(*args):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        print("in the middle", flush=True)
        threading.Event().wait()
    return real(*args)

erasing._write = write

async def main():
    async with Client(sys.argv[1]) as client:
        await client.personal.erase_payloads("talks")

asyncio.run(main())
"""


@workflow.define
async def talks(name: str) -> str:
    for _ in range(450):
        await workflow.emit("said", {"name": name})
        await workflow.sleep("1ms")
    return name


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Place(tmp_path, url)


def holders(place: Place) -> set[Any]:
    return Raw(place.url).holding(SECRET.encode())


@pytest.mark.parametrize("part", [1, 2, 3])
async def test_it_goes_on_where_somebody_was_killed(place: Place, part: int):
    async with Engine(place.url, [talks]) as engine:
        assert await engine.client.execute(talks, SECRET, id="talks") == SECRET
    process = await asyncio.to_thread(place.start, ERASES, part)
    kill(process)
    async with Client(place.url) as client:
        handle = client.get("talks")
        assert (await handle.describe()).reason == "erasing"
        assert holders(place) == {("perdure_history", "payload")}
        with pytest.raises(Erased, match="is being erased"):
            await handle.retry(id="again")
        rows = await client.personal.erase_payloads("talks")
        assert 0 < rows <= 455 - 200 * (part - 1)
        assert (await handle.describe()).reason == "erased"
        assert holders(place) == set()
        assert len(await handle.history()) > 900


@workflow.define
async def chain(runs: int) -> str:
    await workflow.emit("said", {"name": SECRET})
    if runs > 1:
        await workflow.continue_as_new(runs - 1)
    return SECRET


@pytest.mark.parametrize("part", [1, 3, 5])
async def test_a_worker_goes_on_where_somebody_was_killed(
    place: Place, part: int, monkeypatch: pytest.MonkeyPatch
):
    async with Engine(place.url, [talks, chain]) as engine:
        await engine.client.execute(chain, 3, id="talks")
    process = await asyncio.to_thread(place.start, ERASES, part)
    kill(process)
    assert ("perdure_history", "payload") in holders(place)
    async with Client(place.url) as client:
        assert (await client.get("talks").describe()).reason == "erasing"
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0.0)
    async with Engine(place.url, [talks, chain]) as engine:
        handle = engine.client.get("talks")

        async def is_done() -> bool:
            return not await engine.client.door.read(lambda store: store.being_erased(limit=9))

        await until(is_done)
        assert holders(place) == set()
        assert (await handle.describe()).reason == "erased"
        lines = (await engine.client.audit.list(action="erase")).items
        assert {(line.principal, line.target) for line in lines} == {("perdure", "talks")}
