"""Engines and clients with a codec, a blob store and large payloads, and without."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.engine.support import until, until_status
from tests.support.seals import Backwards, Raw

from perdure import Client, Engine, FileBlobs, Status, activity, workflow
from perdure.crypto import AesGcm
from perdure.errors import Corrupt, Sealed

MEGABYTE = 1_000_000
HERE = threading.local()


class Threaded(Backwards):
    """Remembers in which threads it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def encode(self, data: bytes) -> bytes:
        self.threads.add(threading.current_thread().name)
        return super().encode(data)

    def decode(self, data: bytes) -> bytes:
        self.threads.add(threading.current_thread().name)
        return super().decode(data)


@activity.define
async def double(text: str) -> str:
    return text * 2


@activity.define(transactional=True)
def written(text: str) -> str:
    activity.connection().execute("CREATE TABLE IF NOT EXISTS mine (text TEXT)")
    return text


@workflow.define
async def flow(text: str) -> str:
    @workflow.query("text")
    def shown() -> str:
        return text

    given = await workflow.listen("go").receive()
    await written("small")
    return await double(text) + str(given)


@workflow.define
async def parent(text: str) -> int:
    child = await workflow.start(large, len(text))
    return len(await child)


@workflow.define
async def large(size: int) -> str:
    return "x" * size


@workflow.define
async def waits(text: str | int) -> str:
    await workflow.listen("go").receive()
    return text if isinstance(text, str) else "x" * text


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def opened(url: str, **options: Any) -> Engine:
    return Engine(url, [flow, double, written, parent, large, waits], **options)


KEYS = {"2026": AesGcm.new_key(), "2025": AesGcm.new_key()}


@pytest.mark.parametrize(
    "options",
    [{}, {"codec": AesGcm(KEYS, "2026")}, {"codec": Backwards(), "compress_above": 10}],
    ids=["compressed", "aes", "both"],
)
async def test_runs_go_on_after_a_restart(url: str, options: dict[str, Any]):
    text = "words " * 2_000
    async with opened(url, **options) as engine:
        handle = await engine.client.start(flow, text, id="a", memo={"m": text})
        await until_status(handle, Status.WAITING)
    async with opened(url, **options) as engine, Client(url, **options) as client:
        handle = client.get("a")
        assert await handle.query("text") == text
        await handle.send("go", 7)
        assert await handle.result("20s") == text * 2 + "7"
        shown = await handle.describe()
        assert (shown.input, shown.memo, shown.sealed) == (text, {"m": text}, "")
        again = await handle.fork(after_event=1, id="b")
        await again.send("go", 8)
        assert await again.result("20s") == text * 2 + "8"


async def test_large_payloads_are_compressed_in_the_database(url: str):
    async with opened(url) as engine:
        assert len(await engine.client.execute(large, MEGABYTE)) == MEGABYTE
    raw = Raw(url)
    assert all(len(value) < 20_000 for value in raw.values("perdure_history", "payload"))


async def test_the_codec_is_never_called_in_the_thread_of_the_event_loop(url: str):
    codec = Threaded()
    async with opened(url, codec=codec) as engine, Client(url, codec=codec) as client:
        handle = await client.start(flow, "a", id="a")
        await until_status(handle, Status.WAITING)
        assert await handle.query("text") == "a"
        async with client.mailbox() as box:
            await box.send(handle, "go", 7)
            await handle.result("20s")
            await handle.describe()
            await handle.history()
            await client.list()
        assert await engine.client.execute(parent, "abc") == 3
    assert codec.threads
    assert threading.current_thread().name not in codec.threads


async def test_a_worker_without_the_codec_refuses_to_start_and_touches_nothing(url: str):
    async with opened(url, codec=Backwards()) as engine:
        await until_status(await engine.client.start(waits, "a", id="a"), Status.WAITING)
    with pytest.raises(Sealed, match=r"codec 'backwards', and no codec was given here"):
        async with opened(url):
            pass
    with pytest.raises(Sealed, match="key 'k1' is not here"):
        async with opened(url, codec=Backwards("k2")):
            pass
    async with Client(url, codec=Backwards()) as client:
        assert await client.get("a").status() is Status.WAITING


async def test_a_client_without_the_codec_can_list_and_stop_but_not_read(url: str):
    async with opened(url, codec=Backwards()) as engine, Client(url) as client:
        await until_status(await engine.client.start(waits, "a", id="a"), Status.WAITING)
        handle = client.get("a")
        (shown,) = (await client.list()).items
        assert (shown.id, shown.status, shown.current_step) == ("a", Status.WAITING, "message go")
        assert await client.count() == 1
        assert "go" in await handle.why()
        with pytest.raises(Sealed, match=r"codec 'backwards'.*Engine, Client or `perdure --codec`"):
            await handle.describe()
        with pytest.raises(Sealed, match="nothing was written"):
            await client.start(waits, "b", id="b")
        with pytest.raises(Sealed, match="nothing was written"):
            await handle.send("go")
        assert await handle.cancel()
        await until_status(handle, Status.CANCELLED)
        with pytest.raises(Sealed, match="codec 'backwards'"):
            await handle.result("20s")


async def test_a_worker_that_meets_a_codec_it_does_not_have_leaves_its_runs_to_the_others(url: str):
    serving: list[asyncio.Task[None]] = []
    async with opened(url) as old:
        serving.append(asyncio.create_task(old.run()))
        for number in range(5):
            handle = await old.client.start(waits, "plain", id=f"plain-{number}")
            await until_status(handle, Status.WAITING)
        async with opened(url, codec=Backwards()) as new:
            client = new.client
            for number in range(5):
                handle = await client.start(waits, "new", id=f"new-{number}")
                await until_status(handle, Status.WAITING)
            for item in (await client.list()).items:
                await client.get(item.id).send("go")
            for item in (await client.list()).items:
                assert await client.get(item.id).result("20s") in ("plain", "new")
            assert await client.count(status="parked") == 0
            left = await client.start(waits, "new", id="left")
            await until_status(left, Status.WAITING)
            await new.stop()
            async with Client(url, codec=Backwards()) as outside:
                await outside.get("left").send("go")
                with pytest.raises(Sealed, match="codec 'backwards'"):
                    await serving[0]
                assert await outside.get("left").status() is not Status.PARKED


async def test_one_payload_that_cannot_be_opened_parks_its_run_alone(url: str):
    codec = AesGcm(KEYS, "2026")
    async with opened(url, codec=codec) as engine:
        for name in ("bad", "good"):
            await until_status(await engine.client.start(waits, name, id=name), Status.WAITING)
    raw = Raw(url)
    ((run,),) = raw.ask("SELECT run FROM perdure_run WHERE workflow_id = 'bad'")
    ((payload,),) = raw.ask("SELECT payload FROM perdure_history WHERE run = ? AND first = 1", run)
    from zlib import crc32

    changed = payload[:-1] + bytes([payload[-1] ^ 1])  # by somebody who mends the checksum, too
    change = "UPDATE perdure_history SET payload = ?, crc = ? WHERE run = ? AND first = 1"
    raw.change(change, changed, crc32(changed), run)
    async with opened(url, codec=codec) as engine:
        for name in ("bad", "good"):
            await engine.client.get(name).send("go")
        assert await engine.client.get("good").result("20s") == "good"
        bad = engine.client.get("bad")
        await until_status(bad, Status.PARKED)
        why = await bad.why()
        assert "event 1" in why
        assert "does not fit key '2026'" in why


async def test_a_key_is_changed_while_runs_sleep(url: str):
    async with opened(url, codec=AesGcm(KEYS, "2025")) as engine:
        await until_status(await engine.client.start(waits, "old", id="old"), Status.WAITING)
    async with opened(url, codec=AesGcm(KEYS, "2026")) as engine:
        await until_status(await engine.client.start(waits, "new", id="new"), Status.WAITING)
        from perdure.store import tending

        assert await tending.reseal(engine.client.door.write, lambda _page: None) > 0
    async with opened(url, codec=AesGcm({"2026": KEYS["2026"]})) as engine:
        for name in ("old", "new"):
            await engine.client.get(name).send("go")
            assert await engine.client.get(name).result("20s") == name
    with pytest.raises(Sealed, match="key '2026', and here are '2025'"):
        async with opened(url, codec=AesGcm({"2025": KEYS["2025"]})):
            pass


# -- blobs ---------------------------------------------------------------------------------------


async def test_fifty_megabytes_go_through_a_run(url: str, blobs: FileBlobs):
    options = {"blobs": blobs, "max_payload": "64MiB", "compress_above": None}
    text = "0123456789" * 5 * MEGABYTE
    async with opened(url, **options) as engine, Client(url, **options) as client:
        handle = await client.start(waits, text, id="a")
        await handle.send("go")
        assert await handle.result("60s") == text
        assert await engine.client.execute(parent, "x" * 100) == 100
    raw = Raw(url)
    assert all(len(value) < 300_000 for value in raw.values("perdure_history", "payload"))
    assert sum(len(blobs.get(blob.name)) for blob in blobs.list("", 100)) > 100 * MEGABYTE


async def test_a_child_gives_its_large_result_to_its_parent(url: str, blobs: FileBlobs):
    options = {"blobs": blobs, "offload_above": 1_000, "compress_above": None}
    async with opened(url, **options) as engine:
        assert await engine.client.execute(parent, "x" * 5_000) == 5_000
    async with opened(url, **options) as engine:
        for item in (await engine.client.list()).items:
            assert len(await engine.client.get(item.id).history()) > 1


async def test_a_run_whose_blob_is_missing_is_parked_and_the_others_go_on(
    url: str, blobs: FileBlobs
):
    options = {"blobs": blobs, "offload_above": 1_000, "compress_above": None}
    async with opened(url, **options) as engine:
        handle = await engine.client.start(waits, "b" * 5_000, id="bad")
        await until_status(handle, Status.WAITING)
        (blob,) = blobs.list("", 10)
        handle = await engine.client.start(waits, "g" * 5_000, id="good")
        await until_status(handle, Status.WAITING)
    blobs.delete(blob.name)
    async with opened(url, **options) as engine:
        for name in ("bad", "good"):
            await engine.client.get(name).send("go")
        assert await engine.client.get("good").result("20s") == "g" * 5_000
        bad = engine.client.get("bad")
        await until_status(bad, Status.PARKED)
        assert f"event 1: its blob '{blob.name}' is missing" in await bad.why()
        with pytest.raises(Corrupt, match="is missing"):
            await bad.history()


async def test_while_the_blob_store_does_not_answer_runs_wait_and_then_go_on(
    url: str, blobs: FileBlobs
):
    options = {"blobs": blobs, "offload_above": 1_000, "compress_above": None}
    async with opened(url, **options) as engine:
        for name in ("a", "small"):
            text = name * 5_000 if name == "a" else name
            handle = await engine.client.start(waits, text, id=name)
            await until_status(handle, Status.WAITING)
    away = blobs.path.with_name("unmounted")
    blobs.path.rename(away)
    async with opened(url, **options) as engine, Client(url, **options) as client:
        for name in ("a", "small"):
            await client.get(name).send("go")
        assert await engine.client.get("small").result("20s") == "small"
        assert await engine.client.get("a").status() is not Status.PARKED
        away.rename(blobs.path)
        assert await engine.client.get("a").result("20s") == "a" * 5_000


async def test_a_worker_without_the_blob_store_refuses_to_start(url: str, blobs: FileBlobs):
    async with opened(url, blobs=blobs, offload_above=1_000, compress_above=None) as engine:
        await engine.client.execute(large, 5_000)
    with pytest.raises(Sealed, match="lie in a blob store, and none was given here"):
        async with opened(url):
            pass


async def test_a_batch_that_cannot_be_put_is_tried_again(
    url: str, blobs: FileBlobs, caplog: pytest.LogCaptureFixture
):
    options = {"blobs": blobs, "offload_above": 1_000, "compress_above": None}
    async with opened(url, **options) as engine:
        handle = await engine.client.start(waits, 5_000, id="a")
        await until_status(handle, Status.WAITING)
        blobs.path.write_text("a file where the folder is to be")
        sending = asyncio.create_task(handle.send("go"))
        await until(lambda: "could not be written" in caplog.text)
        blobs.path.unlink()
        await sending
        assert len(await handle.result("20s")) == 5_000
