"""A worker that is killed between a blob and its commit leaves a blob that nothing refers to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.crash.processes import Place, kill

from perdure import Client, Engine, FileBlobs, workflow
from perdure.store import tending

HANGS = """
import asyncio, sys, threading
from perdure import Engine, FileBlobs
from tests.crash.test_blobs import grows

class Hangs(FileBlobs):
    def put(self, name, data):
        super().put(name, data)
        print("put", flush=True)
        threading.Event().wait()

async def main():
    blobs = Hangs(sys.argv[2])
    async with Engine(sys.argv[1], [grows], blobs=blobs, offload_above=1_000, compress_above=None):
        await asyncio.Event().wait()

asyncio.run(main())
"""


@workflow.define
async def grows(size: int) -> str:
    return "x" * size


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Place(tmp_path, url)


async def test_the_sweep_takes_what_a_killed_commit_has_put(place: Place, tmp_path: Path):
    blobs = FileBlobs(tmp_path / "blobs")
    async with Engine(place.url, [grows]):
        pass  # the tables, and the definition
    async with Client(place.url) as client:
        await client.start(grows, 5_000, id="a")
    process = await asyncio.to_thread(place.start, HANGS, blobs.path)
    try:
        (orphan,) = blobs.list("", 10)
    finally:
        kill(process)
    options = {"blobs": blobs, "offload_above": 1_000, "compress_above": None}
    async with Engine(place.url, [grows], lease="1s", **options) as engine:
        assert len(await engine.client.get("a").result("60s")) == 5_000
    assert len(blobs.list("", 10)) == 2
    async with Client(place.url, **options) as client:
        later = datetime.now(UTC) + timedelta(days=2)
        assert await tending.sweep_blobs(client.door.write, client.seal, later) == (2, 1)
        assert len(await client.get("a").result("20s")) == 5_000
    assert orphan.name not in [blob.name for blob in blobs.list("", 10)]
