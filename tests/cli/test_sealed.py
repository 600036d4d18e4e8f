"""Commands on a database whose data is sealed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.cli.shell import Shell

from perdure import Engine, FileBlobs, Status, workflow
from perdure.crypto import AesGcm

KEYS = {"new": AesGcm.new_key(), "old": AesGcm.new_key()}
MODULE = f"""
from perdure.crypto import AesGcm

codec = AesGcm({KEYS!r}, current="new")
old = AesGcm({{"old": {KEYS["old"]!r}}})
broken = 7

def made():
    return codec
"""


@workflow.define
async def waits(text: str) -> str:
    await workflow.listen("go").receive()
    return text


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "sealing.py").write_text(MODULE)

    async def fill() -> None:
        options = {"codec": AesGcm(KEYS, "old"), "blobs": FileBlobs(tmp_path / "blobs")}
        async with Engine(
            f"sqlite:///{tmp_path / 'perdure.db'}", [waits], offload_above=1_000, **options
        ) as engine:
            await engine.client.start(waits, "small secret", id="a")
            handle = await engine.client.start(waits, os.urandom(2_000).hex(), id="b")
            while await handle.status() is not Status.WAITING:
                await asyncio.sleep(0.01)  # sleep: polls until the first turn is there

    asyncio.run(fill())
    return Shell(tmp_path, PERDURE_BLOBS=f"file://{tmp_path / 'blobs'}")


def test_without_the_codec_lists_work_and_payloads_say_what_is_missing(shell: Shell):
    listed = shell("list", "-o", "ids")
    assert listed.lines == ["b", "a"]
    shown = shell("show", "a")
    assert shown.code == 6
    assert "codec 'aes-gcm'" in shown.err
    assert "perdure --codec" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("given", ["sealing:codec", "sealing.py:codec", "sealing:made"])
def test_the_codec_is_named_by_its_module(shell: Shell, given: str):
    assert "small secret" in shell("show", "a", "--codec", given).out
    assert "small secret" in shell("--codec", given, "show", "a").out
    assert "small secret" in shell("show", "a", PERDURE_CODEC=given).out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sealing", "is not MODULE:NAME"),
        ("sealing:nothing", "sealing has no 'nothing'"),
        ("nowhere:codec", "there is no module 'nowhere'"),
        ("sealing:broken", "7 is no object with the methods of perdure.Codec"),
    ],
)
def test_what_is_no_codec_is_a_matter_of_usage(shell: Shell, given: str, said: str):
    done = shell("show", "a", "--codec", given)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_an_export_is_in_plain_and_an_import_is_sealed(shell: Shell):
    done = shell("export", "a", "--with-seed", "--codec", "sealing:codec")
    assert "small secret" in done.out
    (shell.folder / "a.json").write_text(done.out)
    taken = shell("import", "a.json", "--id", "c", "--codec", "sealing:codec")
    assert taken.code == 0, taken
    assert "small secret" in shell("show", "c", "--codec", "sealing:codec").out
    stored = [path.read_bytes() for path in shell.folder.glob("perdure.db*")]
    assert not any(b"small secret" in data for data in stored)


def test_an_old_key_is_replaced_and_can_go(shell: Shell):
    done = shell("db", "reseal", "--codec", "sealing:codec")
    assert done.code == 0, done
    assert "rows sealed anew" in done.out
    assert "perdure_history: " in done.err
    assert shell("db", "reseal", "--codec", "sealing:codec").out == "nothing to do\n"
    refused = shell("show", "a", "--codec", "sealing:old")
    assert refused.code == 6
    assert "key 'new', and here are 'old'" in refused.err


def test_reseal_needs_the_key_that_is_replaced(shell: Shell):
    done = shell("db", "reseal")
    assert done.code == 6
    assert "codec 'aes-gcm'" in done.err


def test_blobs_that_nothing_refers_to_are_swept(shell: Shell):
    (blob,) = [path for path in (shell.folder / "blobs").rglob("*") if path.is_file()]
    orphan = blob.with_name("aa" * 20)
    orphan.write_bytes(b"left behind")
    assert shell("db", "sweep-blobs", "--codec", "sealing:codec").out == "0 of 2 blobs deleted\n"
    for path in (orphan, blob):
        os.utime(path, (1, 1))
    assert shell("db", "sweep-blobs", "--codec", "sealing:codec").out == "1 of 2 blobs deleted\n"
    assert blob.exists()
    asked = shell("db", "sweep-blobs", PERDURE_BLOBS="")
    assert asked.code == 2
    assert "which blob store?" in asked.err


def test_what_is_to_be_typed_next_names_the_codec_again(shell: Shell):
    done = shell("show", "a", "--codec", "sealing:codec")
    assert "history a --codec sealing:codec" in done.err
