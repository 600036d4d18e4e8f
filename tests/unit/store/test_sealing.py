"""The seal by itself: what goes in comes out, and what cannot be opened says why."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.seals import Backwards

from perdure import BlobStore, Codec, FileBlobs
from perdure.errors import Corrupt, Invalid, Sealed, Unavailable, UsageError
from perdure.store.blobs import open_blobs
from perdure.store.sealing import MARK, TEXT_MARK, Packing, Seal, make_seal
from perdure.values import events

SEALS = {
    "plain": lambda: Seal(),
    "compressed": lambda: Seal(compress_above=10),
    "coded": lambda: Seal(Backwards()),
    "both": lambda: Seal(Backwards(), compress_above=10),
}


@pytest.fixture(params=SEALS)
def seal(request: pytest.FixtureRequest) -> Seal:
    return SEALS[request.param]()


@given(data=st.binary(max_size=200).filter(lambda data: data[:1] != MARK), again=st.integers(0, 9))
def test_what_is_sealed_comes_out_as_it_was(data: bytes, again: int):
    for make in SEALS.values():
        seal = make()
        assert seal.open(seal.seal(data * again)) == data * again


@given(text=st.text(st.characters(exclude_categories=["Cs"])), mark=st.booleans())
def test_texts_come_out_as_they_were_also_those_that_look_sealed(text: str, mark: bool):
    text = f"{TEXT_MARK}{text}" if mark else text
    for make in SEALS.values():
        seal = make()
        assert seal.open_text(seal.seal_text(text)) == text


def test_no_encoded_turn_and_no_json_begins_like_sealed_data():
    turns = [[events.RunCancelled()] * count for count in (0, 1, 15, 16, 70_000)]
    assert all(events.encode_turn(turn)[:1] != MARK for turn in turns)
    with pytest.raises(UnicodeDecodeError):
        MARK.decode()  # so neither does any text


def test_small_data_without_a_codec_is_stored_as_it_is():
    assert Seal(compress_above=100).seal(b"a" * 100) == b"a" * 100
    assert Seal(compress_above=100).seal_text("a" * 100) == "a" * 100


def test_large_data_is_compressed_only_if_that_makes_it_smaller():
    seal, chance = Seal(compress_above=100), os.urandom(1000)
    assert len(seal.seal(b"a" * 1000)) < 100
    assert seal.seal(chance) == chance


def test_every_seal_opens_what_others_without_another_codec_have_sealed(seal: Seal):
    data = b"data" * 100
    for other in (Seal(), Seal(compress_above=10)):
        assert seal.open(other.seal(data)) == data


def test_data_of_a_codec_says_which_one_is_missing():
    stored = Seal(Backwards()).seal(b"data")
    with pytest.raises(Sealed, match=r"codec 'backwards', and no codec was given here.*--codec"):
        Seal().open(stored)

    class Other(Backwards):
        id = "other"

    with pytest.raises(Sealed, match="codec 'backwards', and here is 'other'"):
        Seal(Other()).open(stored)


def test_what_a_codec_raises_is_named_without_its_text():
    class Bad(Backwards):
        def decode(self, data: bytes) -> bytes:
            raise ValueError("the key is swordfish")

    with pytest.raises(Corrupt, match=r"codec 'backwards' cannot open it \(ValueError\)") as caught:
        Seal(Bad()).open(Seal(Backwards()).seal(b"data"))
    assert "swordfish" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_codec_that_cannot_encode_now_is_a_trouble_that_passes():
    class Away(Backwards):
        def encode(self, data: bytes) -> bytes:
            raise ConnectionError("token swordfish was refused")

    with pytest.raises(Unavailable, match=r"could not encode \(ConnectionError\)") as caught:
        Seal(Away()).seal(b"data")
    assert "swordfish" not in str(caught.value)


@given(data=st.binary(max_size=40))
def test_anything_that_begins_like_sealed_data_opens_or_is_corrupt_or_sealed(data: bytes):
    for seal in (Seal(), Seal(Backwards())):
        try:
            assert isinstance(seal.open(MARK + data), bytes)
        except (Corrupt, Sealed):
            pass


def test_a_locked_seal_lets_only_control_through_and_that_in_plain():
    seal = Seal(Backwards())
    seal.lock = "another key is in use"
    with pytest.raises(Sealed, match="nothing was written: another key is in use"):
        seal.seal(b"data")
    with pytest.raises(Sealed):
        seal.seal_text("text")
    assert seal.seal(b"cancel", is_control=True) == b"cancel"


def test_what_is_current_is_told_by_the_beginning():
    old, new = Seal(Backwards("k1")), Seal(Backwards("k2", "k1"))
    assert new.is_current(new.seal(b"d" * 1000)[:200])
    assert not new.is_current(old.seal(b"d" * 1000)[:200])
    assert not new.is_current(b"plain")
    assert Seal().is_current(b"plain")
    assert not Seal().is_current(old.seal(b"d"))
    assert new.is_current_text((new.seal_text("t" * 1000) or "")[:200])
    assert not new.is_current_text("plain")


@pytest.mark.parametrize("codec", [object(), "aes", Backwards])
def test_what_is_no_codec_is_refused(codec: Any):
    with pytest.raises(UsageError, match="is no object with the methods of perdure.Codec"):
        Seal(codec)
    with pytest.raises(UsageError, match="is no object with the methods of perdure.BlobStore"):
        Seal(blobs=codec)


def test_sizes_are_text_or_numbers_and_none_is_never():
    assert make_seal(compress_above="1KiB").limit == 1024
    assert make_seal(compress_above=None).limit == float("inf")
    with pytest.raises(Invalid, match="size"):
        make_seal(compress_above="a lot")


# -- blobs ---------------------------------------------------------------------------------------


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def offloading(blobs: Any, **more: Any) -> Seal:
    seal = Seal(blobs=blobs, offload_above=100, **more)
    seal.folder = "0a"
    return seal


def test_the_protocols_fit_what_is_shipped(blobs: FileBlobs):
    assert isinstance(blobs, BlobStore)
    assert isinstance(Backwards(), Codec)


@pytest.mark.parametrize("codec", [None, Backwards()])
def test_a_large_row_lies_in_a_blob_and_is_read_back(blobs: FileBlobs, codec: Any):
    seal = offloading(blobs, codec=codec)
    data = b"{" + os.urandom(999)  # no payload begins as what is sealed does
    stored, name = Packing(seal).row(data)
    assert len(stored) < 400
    assert seal.open(stored) == data
    (blob,) = blobs.list("", 10)
    assert blob.name == name
    assert abs(datetime.now(UTC) - blob.at) < timedelta(hours=1)
    assert seal.is_current(stored)
    assert Seal(Backwards("k2", "k1")).is_current(stored) is False


def test_a_batch_that_is_laid_out_twice_puts_its_blobs_once(blobs: FileBlobs):
    packing, data = Packing(offloading(blobs)), b"a" * 1000
    assert packing.row(data) == packing.row(data)
    assert len(blobs.list("", 10)) == 1


def test_a_missing_or_damaged_blob_is_named(blobs: FileBlobs):
    seal = offloading(blobs)
    stored, name = Packing(seal).row(b"a" * 1000)
    file = next((blobs.path / "0a").rglob(name[3:]))
    file.write_bytes(b"a" * 999 + b"b")
    with pytest.raises(Corrupt, match=f"blob '{name}' is damaged"):
        seal.open(stored)
    blobs.delete(name)
    blobs.delete(name)
    with pytest.raises(Corrupt, match=f"blob '{name}' is missing"):
        seal.open(stored)


def test_a_blob_store_that_does_not_answer_is_a_trouble_that_passes(blobs: FileBlobs):
    seal = offloading(blobs)
    stored, _ = Packing(seal).row(b"a" * 1000)
    blobs.path.rename(blobs.path.with_name("elsewhere"))  # as if it were not mounted
    with pytest.raises(Unavailable, match="could not be read"):
        seal.open(stored)
    blobs.path.write_text("a file where the folder was")
    with pytest.raises(Unavailable, match="could not be written"):
        Packing(seal).row(b"a" * 1000)


def test_without_the_blob_store_the_row_says_what_is_missing(blobs: FileBlobs):
    stored, _ = Packing(offloading(blobs)).row(b"a" * 1000)
    with pytest.raises(Sealed, match=r"it lies in blob .* no blob store was given here"):
        Seal().open(stored)


def test_blobs_are_listed_in_the_order_of_names_page_by_page(blobs: FileBlobs):
    names = sorted(f"{home}/{os.urandom(8).hex()}" for home in ("0a", "0b", "ff") for _ in range(9))
    for name in names:
        blobs.put(name, b"data")
    found: list[str] = []
    while page := blobs.list(found[-1] if found else "", 4):
        found += [blob.name for blob in page]
    assert found == names
    assert [blob.name for blob in blobs.list("0b/", 100)] == [n for n in names if n > "0b/"]


def test_what_a_process_left_behind_half_way_is_listed_and_can_be_deleted(blobs: FileBlobs):
    blobs.put("0a/11223344", b"data")
    (place,) = [path for path in blobs.path.rglob("*") if path.is_file()]
    place.rename(place.with_name(f"{place.name}.0123456789ab.tmp"))
    (left,) = blobs.list("", 10)
    blobs.delete(left.name)
    assert blobs.list("", 10) == []


@pytest.mark.parametrize("name", ["../../etc", "0a/../../x", "/etc/passwd", "0a", "0a/zz", ""])
def test_a_name_that_is_none_of_a_blob_leads_nowhere(blobs: FileBlobs, name: str):
    with pytest.raises(Invalid):
        blobs.put(name, b"")


def test_a_blob_store_is_named_by_a_url(tmp_path: Path):
    found = open_blobs(f"file://{tmp_path}/my%20blobs")
    assert isinstance(found, FileBlobs)
    assert found.path == tmp_path / "my blobs"
    for url in ("file://", "file:///", "file://host/path", "s3://bucket", "path"):
        with pytest.raises(Invalid, match="blobs"):
            open_blobs(url)
