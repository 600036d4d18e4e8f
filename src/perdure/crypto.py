"""Encryption of what is stored: a codec for ``Engine(codec=…)``. Extra ``crypto``.

An encoded text is

    1, length of the key's id, the id, nonce (12 bytes), ciphertext and tag

and everything before the ciphertext is authenticated with it. docs/encryption.md says what this
protects from, and from what not.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from perdure.errors import Corrupt, Invalid, Sealed, UsageError

_VERSION = 1
_NONCE = 12
_TAG = 16
_KEY = 32
_MAX_ID = 64


class AesGcm:
    """AES-256-GCM with keys that have ids, so that they can be changed.

    Each text gets a random nonce of 96 bits. Change the key before it has sealed 2**32 of them
    (docs/encryption.md counts).

    Args:
        keys: 256-bit keys by their ids (1 to 64 characters, stored in the clear): 32 bytes each, or
            base64 of that. Old ones stay as long as something is sealed with them.
        current: the id of the key that seals from now on; may be left out if there is one key.

    Raises:
        Invalid: a key or an id that is none; the message never holds the key.
        UsageError: ``cryptography`` is not installed.
    """

    id = "aes-gcm"

    def __init__(self, keys: Mapping[str, bytes | str], current: str | None = None) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as exc:
            raise UsageError(
                "AesGcm needs cryptography: pip install 'perdure[crypto]'", cause=exc
            ) from exc
        if not keys:
            raise Invalid("AesGcm: give at least one key")
        if current is None:
            if len(keys) > 1:
                raise Invalid(f"AesGcm: which key is current? There are {_list(keys)}")
            current = next(iter(keys))
        if current not in keys:
            raise Invalid(f"AesGcm: current={current!r} is none of the keys: {_list(keys)}")
        self._ciphers = {_check_id(id): AESGCM(_key(id, key)) for id, key in keys.items()}
        self._invalid: type[Exception] = InvalidTag
        self.current = current
        """The id of the key that seals."""
        self._head = _head(current)

    def __repr__(self) -> str:
        return f"AesGcm(keys: {_list(self._ciphers)}; current={self.current!r})"

    @classmethod
    def from_env(cls, variable: str = "PERDURE_KEYS") -> Self:
        """Read the keys from an environment variable: JSON like ``{"current": "2026-11", "keys":
        {"2026-11": "base64…", "2025": "base64…"}}``.

        Raises:
            Invalid: it is not set, or not like this.
        """
        text = os.environ.get(variable, "")
        if not text:
            raise Invalid(f"the environment variable {variable} is not set; {_like(variable)}")
        try:
            given = msgspec.json.decode(text, type=_Given)
        except msgspec.DecodeError:  # its text may quote what is secret
            raise Invalid(f"{variable} is not JSON of that form; {_like(variable)}") from None
        return cls(dict(given.keys), given.current)

    @staticmethod
    def new_key() -> str:
        """Return a new random key, as base64."""
        return base64.b64encode(os.urandom(_KEY)).decode()

    def encode(self, data: bytes) -> bytes:
        """Encrypt."""
        nonce = os.urandom(_NONCE)
        sealed = self._ciphers[self.current].encrypt(nonce, data, self._head)
        return b"".join((self._head, nonce, sealed))

    def decode(self, data: bytes) -> bytes:
        """Decrypt.

        Raises:
            Sealed: the key is not here; the message has its id.
            Corrupt: the bytes, or the key, are not those it was encrypted with.
        """
        id, head = _read_head(data)
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise Sealed(
                f"it was encrypted with key {id!r}, and here are {_list(self._ciphers)}: "
                f"add it, AesGcm(keys={{…, {id!r}: …}})"
            )
        start = len(head) + _NONCE
        if len(data) < start + _TAG:
            raise Corrupt(f"what was encrypted with key {id!r} is cut off")
        try:
            return cipher.decrypt(data[len(head) : start], data[start:], head)
        except self._invalid:
            raise Corrupt(
                f"it does not fit key {id!r}: it was changed, or the key of that name is another"
            ) from None

    def is_current(self, data: bytes) -> bool:
        """Tell whether this was encrypted with the current key."""
        return data.startswith(self._head)


class _Given(msgspec.Struct):
    keys: dict[str, str]
    current: str | None = None


def _like(variable: str) -> str:
    return f'{variable}=\'{{"current": "ID", "keys": {{"ID": "base64 of 32 bytes"}}}}\''


def _head(id: str) -> bytes:
    name = id.encode()
    return bytes((_VERSION, len(name))) + name


def _read_head(data: bytes) -> tuple[str, bytes]:
    if len(data) < 2 or data[0] != _VERSION:
        raise Corrupt("it begins like nothing that AesGcm has encrypted")
    head = data[: 2 + data[1]]
    try:
        return head[2:].decode(), head
    except UnicodeDecodeError:
        raise Corrupt("the id of its key cannot be read") from None


def _check_id(id: Any) -> str:
    if not isinstance(id, str) or not 1 <= len(id.encode()) <= _MAX_ID:
        raise Invalid(f"AesGcm: the id of a key is text of 1 to {_MAX_ID} bytes, not {id!r}")
    return id


def _key(id: str, key: Any) -> bytes:
    found: Any = key
    if isinstance(key, str):
        try:
            found = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(f"AesGcm: key {id!r} is not base64") from None
    if not isinstance(found, (bytes, bytearray)):
        raise Invalid(f"AesGcm: key {id!r} is neither bytes nor base64 text")
    if len(found) != _KEY:
        raise Invalid(f"AesGcm: key {id!r} has {len(found) * 8} bits; it must have 256")
    return bytes(found)


def _list(keys: Mapping[str, Any]) -> str:
    return ", ".join(repr(id) for id in keys)
