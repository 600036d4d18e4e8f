"""AES-GCM as a codec: keys by their ids, errors without secrets."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from perdure.crypto import AesGcm
from perdure.errors import Corrupt, Invalid, PerdureError, Sealed

OLD, NEW = os.urandom(32), os.urandom(32)


def secrets_in(text: str) -> bool:
    forms = [form for key in (OLD, NEW) for form in (repr(key), key.hex(), text_of(key))]
    return any(form in text for form in forms) or "the data" in text


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_what_was_encrypted_is_decrypted_and_never_looks_the_same():
    codec = AesGcm({"2026": NEW})
    one, other = codec.encode(b"the data"), codec.encode(b"the data")
    assert one != other
    assert b"the data" not in one
    assert codec.decode(one) == codec.decode(other) == b"the data"
    assert codec.decode(codec.encode(b"")) == b""


def test_a_key_is_bytes_or_base64():
    sealed = AesGcm({"k": NEW}).encode(b"the data")
    assert AesGcm({"k": text_of(NEW)}).decode(sealed) == b"the data"
    assert AesGcm({"k": AesGcm.new_key()}).encode(b"x")


def test_old_keys_open_and_the_current_one_seals():
    old = AesGcm({"2025": OLD})
    both = AesGcm({"2026": NEW, "2025": OLD}, current="2026")
    sealed = old.encode(b"the data")
    assert both.decode(sealed) == b"the data"
    assert not both.is_current(sealed)
    assert both.is_current(both.encode(b"the data"))
    with pytest.raises(Sealed, match="key '2026', and here are '2025'"):
        old.decode(both.encode(b"the data"))


@pytest.mark.parametrize("place", range(50))
def test_a_changed_byte_anywhere_is_found_out(place: int):
    codec = AesGcm({"2025": OLD, "2026": NEW}, current="2026")
    sealed = bytearray(codec.encode(b"the data of a user"))
    sealed[place % len(sealed)] ^= 1
    with pytest.raises((Corrupt, Sealed)) as caught:
        codec.decode(bytes(sealed))
    assert not secrets_in(str(caught.value))


def test_the_id_of_the_key_is_authenticated():
    same = AesGcm({"a": NEW, "b": NEW}, current="a")
    sealed = same.encode(b"the data")
    with pytest.raises(Corrupt, match="does not fit key 'b'"):
        same.decode(sealed.replace(b"\x01a", b"\x01b", 1))


@pytest.mark.parametrize("cut", range(36))
def test_what_is_cut_off_is_corrupt(cut: int):
    codec = AesGcm({"2026": NEW})
    with pytest.raises((Corrupt, Sealed)):
        codec.decode(codec.encode(b"the data")[:cut])


def test_another_key_of_the_same_name_does_not_open():
    with pytest.raises(Corrupt, match="the key of that name is another"):
        AesGcm({"k": OLD}).decode(AesGcm({"k": NEW}).encode(b"the data"))


@pytest.mark.parametrize(
    ("keys", "current", "message"),
    [
        ({}, None, "at least one key"),
        ({"a": OLD, "b": NEW}, None, "which key is current"),
        ({"a": OLD}, "b", "none of the keys: 'a'"),
        ({"a": OLD[:16]}, None, "has 128 bits; it must have 256"),
        ({"a": text_of(OLD)[1:]}, None, "is not base64"),
        ({"a": 7}, None, "neither bytes nor base64"),
        ({"": OLD}, None, "the id of a key"),
        ({"a" * 65: OLD}, None, "the id of a key"),
    ],
)
def test_bad_keys_are_refused_and_not_shown(keys: Any, current: str | None, message: str):
    with pytest.raises(Invalid, match=message) as caught:
        AesGcm(keys, current)
    assert not secrets_in(str(caught.value))


def test_a_repr_shows_ids_and_no_key():
    codec = AesGcm({"2026": NEW, "2025": OLD}, current="2026")
    assert repr(codec) == "AesGcm(keys: '2026', '2025'; current='2026')"


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    text = f'{{"current": "2026", "keys": {{"2026": "{text_of(NEW)}", "2025": "{text_of(OLD)}"}}}}'
    monkeypatch.setenv("PERDURE_KEYS", text)
    codec = AesGcm.from_env()
    assert codec.current == "2026"
    assert codec.decode(AesGcm({"2025": OLD}).encode(b"the data")) == b"the data"


@pytest.mark.parametrize("text", ["", "nonsense", '{"keys": 7}', '{"keys": {"a": "swordfish="}}'])
def test_an_environment_without_keys_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setenv("MY_KEYS", text)
    with pytest.raises(PerdureError) as caught:
        AesGcm.from_env("MY_KEYS")
    assert "MY_KEYS" in str(caught.value) or "key 'a'" in str(caught.value)
    assert "swordfish" not in str(caught.value)
