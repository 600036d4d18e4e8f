"""The seal: what stands between users' data and the database.

Whatever a store keeps of users' data goes through :meth:`Seal.seal` and comes back through
:meth:`Seal.open`. What is stored as it is begins as it always has: an encoded turn with a
MessagePack array, JSON with a character of text. Sealed bytes begin with 0xC1, which neither of
them ever does, and say themselves how they are to be opened; so rows of all kinds lie side by side,
and the settings may change at any time:

    0xC1, flags, [length of the codec's id, the id,] data

Data is compressed first, then encoded by the codec. A history row whose sealed form is large holds
a reference instead, and the sealed form lies in the blob store. Columns of text hold the same in
base64, behind ``~sealed~``.

Pure, but for the blob store. It is called in the store's threads.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import time
import zlib
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import msgspec

from perdure.errors import Corrupt, PerdureError, Sealed, StoreRefused, Unavailable, UsageError
from perdure.store.blobs import BlobStore, open_blobs
from perdure.values.sizes import parse_size

MARK = b"\xc1"
TEXT_MARK = "~sealed~"
COMPRESS_ABOVE = 4 * 1024
OFFLOAD_ABOVE = 256 * 1024
HOW = "give Engine, Client or `perdure --codec` the one that the workers have"

_COMPRESSED, _CODED, _ELSEWHERE = 1, 2, 4
_LEVEL = 1
_HEAD = 128
"""Bytes of a sealed form that a reference repeats: enough for its header and a codec's."""
_MAX_ID = 64
_BLOBS = "it lies in blob {!r}, and no blob store was given here: {}"
_HOW_BLOBS = "give Engine, Client or `perdure --blobs` the one that the workers have"
_FRESH_SECONDS = 3600.0
"""How long after a blob was put a row may begin to refer to it: the sweep waits for a day."""


@runtime_checkable
class Codec(Protocol):
    """Turns stored bytes into others and back: encryption, say.

    Both functions are plain and are called in the store's threads, several at the same time (but
    for ``start(connection=…)``, which works in the thread of its caller). A codec may also have
    ``is_current(data: bytes) -> bool``, which tells whether ``data`` (the beginning of what it has
    encoded, 32 bytes or more) was encoded as it would encode now, with the key that is current. By
    that ``perdure db reseal`` finds what to seal anew.
    """

    @property
    def id(self) -> str:
        """What kind of codec it is, 1 to 64 characters; stored beside what it has encoded."""
        ...

    def encode(self, data: bytes) -> bytes:
        """Encode. What it raises is taken for a trouble that passes."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Return what was encoded.

        Raises:
            Sealed: the key is not here; the message names it.
            Unavailable: it cannot be told now (a service does not answer); it is tried again.
            Corrupt: the bytes are not what was encoded. Any other exception counts as this one.
        """
        ...


class _Reference(msgspec.Struct, array_like=True):
    """Where the sealed form of a history row lies. ``head``: how it begins."""

    name: str
    size: int
    digest: bytes
    head: bytes


_read_reference = msgspec.msgpack.Decoder(_Reference).decode
_write_reference = msgspec.msgpack.Encoder().encode


class Seal:
    """How a process seals what it stores, and opens what it reads; see the module's text.

    Args:
        codec: encodes everything; ``None`` stores it as it is.
        compress_above: bytes from which on data is compressed, if that makes it smaller; 0 never.
        blobs: where large history rows go.
        offload_above: bytes of a sealed form from which on they do.

    Raises:
        UsageError: the codec or the blob store is none.
    """

    def __init__(
        self,
        codec: Codec | None = None,
        *,
        compress_above: int = 0,
        blobs: BlobStore | None = None,
        offload_above: int = OFFLOAD_ABOVE,
    ) -> None:
        self.codec = codec
        self.blobs = blobs
        self.folder = ""
        """This database's part of the blob store; the store says it."""
        self.lock = ""
        """Why users' data must not be written here; the store finds out."""
        self._compress_above = compress_above or math.inf
        self._offload_above = offload_above if blobs is not None else math.inf
        self._head = b"" if codec is None else _head_of(codec)
        _check_blobs(blobs)

    @property
    def limit(self) -> float:
        """Bytes up to which data is stored as it is; -1: none is."""
        return -1 if self._head or self.lock else self._compress_above

    @property
    def row_limit(self) -> float:
        """The same for history rows, which may also be put elsewhere."""
        return min(self.limit, self._offload_above)

    def seal(self, data: bytes, *, is_control: bool = False) -> bytes:
        """Return what to store for ``data``.

        ``is_control``: what stops a run or lets it go on, by somebody who need not have the codec.

        Raises:
            Sealed: the database's data is sealed by a codec that this process does not have.
        """
        if len(data) <= self.limit:
            return data
        if self.lock:
            if is_control:
                return data
            raise Sealed(f"nothing was written: {self.lock}")
        flags, body = 0, data
        if len(data) > self._compress_above:
            packed = zlib.compress(data, _LEVEL)
            if len(packed) < len(data):
                flags, body = _COMPRESSED, packed
        if self.codec is not None:
            return b"".join((MARK, bytes((flags | _CODED,)), self._head, self._encode(body)))
        return b"".join((MARK, bytes((flags,)), body)) if flags else data

    def open(self, stored: bytes) -> bytes:
        """Return the data of what was stored.

        Raises:
            Sealed: its codec, its key or the blob store is missing here.
            Corrupt: it is damaged, or its blob is missing or damaged.
            Unavailable: the blob store does not answer.
        """
        if stored[:1] != MARK:
            return stored
        if len(stored) < 2:
            raise _damaged("its header is cut off")
        flags = stored[1]
        if flags & _ELSEWHERE:
            stored = self._fetch(stored)
            if stored[:1] != MARK:
                return stored
            if len(stored) < 2 or stored[1] & _ELSEWHERE:
                raise _damaged("its blob holds no data")
            flags = stored[1]
        if flags & ~(_COMPRESSED | _CODED):
            raise _damaged(f"flags {flags:#x} are unknown")
        body = stored[2:]
        if flags & _CODED:
            id, body = _split(body)
            body = self._decode(id, body)
        if flags & _COMPRESSED:
            try:
                body = zlib.decompress(body)
            except zlib.error as exc:
                raise _damaged("it cannot be decompressed") from exc
        return body

    def seal_text(self, text: str | None, *, is_control: bool = False) -> str | None:
        """Return what to store for a text; ``None`` and no text at all stay."""
        is_marked = text is not None and text.startswith(TEXT_MARK)
        if not text or (len(text) <= self.limit and not is_marked):
            return text
        try:
            data = text.encode()
        except UnicodeError as exc:
            raise StoreRefused(f"the text cannot be stored: {exc}", cause=exc) from exc
        sealed = self.seal(data, is_control=is_control)
        if sealed[:1] != MARK:
            if not is_marked:
                return text
            sealed = MARK + bytes((0,)) + data  # a user's own text that looks sealed
        made = TEXT_MARK + base64.b64encode(sealed).decode()
        is_smaller = len(made) < len(data) or self.codec is not None
        return made if is_smaller or is_marked else text

    def open_text(self, text: str | None) -> str | None:
        """Return the text of what was stored; errors as of :meth:`open`."""
        if text is None or not text.startswith(TEXT_MARK):
            return text
        try:
            return self.open(base64.b64decode(text[len(TEXT_MARK) :], validate=True)).decode()
        except (binascii.Error, UnicodeError) as exc:
            raise _damaged("it is no sealed text") from exc

    def is_current(self, stored: bytes) -> bool:
        """Tell whether it is stored as it would be stored now, as far as the codec goes."""
        if stored[:1] == MARK and stored[1] & _ELSEWHERE:
            stored = reference_of(stored).head
        is_coded = stored[:1] == MARK and bool(stored[1] & _CODED)
        if self.codec is None or not is_coded:
            return is_coded == (self.codec is not None)
        if not stored.startswith(self._head, 2):
            return False
        asked = getattr(self.codec, "is_current", None)
        return asked is None or bool(asked(stored[2 + len(self._head) :][:_HEAD]))

    def is_current_text(self, stored: str) -> bool:
        """The same for a text, or its beginning (of 136 characters or more)."""
        if not stored.startswith(TEXT_MARK):
            return self.codec is None
        head = stored[len(TEXT_MARK) :]
        try:
            return self.is_current(base64.b64decode(head[: len(head) // 4 * 4]))
        except binascii.Error as exc:
            raise _damaged("it is no sealed text") from exc

    def put(self, sealed: bytes) -> tuple[bytes, str]:
        """Put a history row's sealed form into the blob store, if it is large.

        Returns what the row holds, and the blob's name (``""``: it stays).

        Raises:
            Unavailable: the blob store did not take it.
        """
        if self.blobs is None or len(sealed) <= self._offload_above:
            return sealed, ""
        name = f"{self.folder}/{os.urandom(20).hex()}"
        try:
            self.blobs.put(name, sealed)
        except Exception as exc:
            raise Unavailable(f"blob {name!r} could not be written: {_said(exc)}") from exc
        reference = _Reference(name, len(sealed), sha256(sealed).digest(), sealed[:_HEAD])
        return MARK + bytes((_ELSEWHERE,)) + _write_reference(reference), name

    def _fetch(self, stored: bytes) -> bytes:
        reference = reference_of(stored)
        name = reference.name
        if self.blobs is None:
            raise Sealed(_BLOBS.format(name, _HOW_BLOBS))
        try:
            data = bytes(self.blobs.get(name))
        except (KeyError, FileNotFoundError) as exc:
            raise Corrupt(f"its blob {name!r} is missing") from exc
        except Exception as exc:
            raise Unavailable(f"blob {name!r} could not be read: {_said(exc)}") from exc
        if len(data) != reference.size or sha256(data).digest() != reference.digest:
            raise Corrupt(f"its blob {name!r} is damaged: its checksum does not fit")
        return data

    def sample(self, data: bytes) -> bytes:
        """Seal what tells others of the codec, whatever the lock says."""
        return b"".join((MARK, bytes((_CODED,)), self._head, self._encode(data)))

    def _encode(self, data: bytes) -> bytes:
        assert self.codec is not None
        try:
            return bytes(self.codec.encode(data))
        except PerdureError:
            raise
        except Exception as exc:  # noqa: BLE001 - of a user's codec; its text may hold secrets
            raise Unavailable(
                f"codec {self.codec.id!r} could not encode ({type(exc).__name__}); nothing was "
                "written"
            ) from None

    def _decode(self, id: str, data: bytes) -> bytes:
        codec = self.codec
        if codec is None:
            raise Sealed(f"it was sealed by codec {id!r}, and no codec was given here: {HOW}")
        if codec.id != id:
            raise Sealed(f"it was sealed by codec {id!r}, and here is {codec.id!r}: {HOW}")
        try:
            return bytes(codec.decode(data))
        except PerdureError:
            raise
        except Exception as exc:  # noqa: BLE001 - of a user's codec; its text may hold secrets
            raise Corrupt(f"codec {id!r} cannot open it ({type(exc).__name__})") from None


def make_seal(
    codec: Codec | None = None,
    compress_above: int | str | None = COMPRESS_ABOVE,
    blobs: BlobStore | str | None = None,
    offload_above: int | str = OFFLOAD_ABOVE,
) -> Seal:
    """Return the seal that users' settings ask for: sizes may be text, a blob store a URL.

    Raises:
        Invalid: a size or a URL that is none.
        UsageError: a codec or blob store that is none.
    """
    return Seal(
        codec,
        compress_above=parse_size(compress_above) if compress_above else 0,
        blobs=open_blobs(blobs) if isinstance(blobs, str) else blobs,
        offload_above=parse_size(offload_above),
    )


class Packing:
    """The history rows of one batch on their way: each is sealed, and put elsewhere, once, however
    often the batch is laid out.
    """

    def __init__(self, seal: Seal) -> None:
        self.seal = seal
        self.limit = seal.row_limit
        self._packed: dict[int, tuple[bytes, bytes, str]] = {}
        self._put_at: float | None = None

    def row(self, payload: bytes) -> tuple[bytes, str]:
        """Return what a row holds for a payload, and the name of its blob, if it has one."""
        found = self._packed.get(id(payload))
        if found is None:
            began = _elapsed()
            stored, name = self.seal.put(self.seal.seal(payload))
            if name and self._put_at is None:
                self._put_at = began
            found = self._packed[id(payload)] = payload, stored, name
        return found[1:]

    def open(self, stored: bytes) -> bytes:
        """Open a row: one of this batch without asking the blob store."""
        for payload, mine, name in self._packed.values():
            if name and mine == stored:
                return payload
        return self.seal.open(stored)

    def check_fresh(self) -> None:
        """Make sure, within the transaction, that no sweep may have met the blobs of this batch.

        Raises:
            Unavailable: they were put too long ago; nothing was written.
        """
        if self._put_at is not None and _elapsed() - self._put_at > _FRESH_SECONDS:
            raise Unavailable(
                "this process stood still after it had put blobs; nothing was written"
            )


def reference_of(stored: bytes) -> _Reference:
    """Return the reference that a row holds.

    Raises:
        Corrupt: it is none.
    """
    try:
        return _read_reference(stored[2:])
    except msgspec.DecodeError as exc:
        raise _damaged("its reference to a blob cannot be read") from exc


def is_elsewhere(stored: bytes) -> bool:
    """Tell whether a row holds a reference."""
    return stored[:1] == MARK and len(stored) > 1 and bool(stored[1] & _ELSEWHERE)


def _head_of(codec: Any) -> bytes:
    if isinstance(codec, type) or not isinstance(codec, Codec):
        raise UsageError(f"codec: {codec!r} is no object with the methods of perdure.Codec")
    id = str(codec.id).encode()
    if not 1 <= len(id) <= _MAX_ID:
        raise UsageError(f"codec: its id {codec.id!r} has not 1 to {_MAX_ID} characters")
    return bytes((len(id),)) + id


def _check_blobs(blobs: Any) -> None:
    if blobs is not None and (isinstance(blobs, type) or not isinstance(blobs, BlobStore)):
        raise UsageError(f"blobs: {blobs!r} is no object with the methods of perdure.BlobStore")


def _split(body: bytes) -> tuple[str, bytes]:
    end = 1 + body[0] if body else 1
    if len(body) < end or end == 1:
        raise _damaged("its header is cut off")
    try:
        return body[1:end].decode(), body[end:]
    except UnicodeError as exc:
        raise _damaged("the name of its codec cannot be read") from exc


def _damaged(why: str) -> Corrupt:
    return Corrupt(f"it begins like sealed data, and is damaged: {why}")


def _said(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"


def _elapsed() -> float:
    # Also while the machine sleeps, where that can be told.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
