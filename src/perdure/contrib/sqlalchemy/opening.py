"""How this process opens what stands in Perdure's tables, which the models read by themselves."""

from __future__ import annotations

from typing import Any

from perdure.store.blobs import BlobStore
from perdure.store.sealing import Codec, Seal, make_seal


class _Opening:
    def __init__(self) -> None:
        self.seal = Seal()
        self.options: dict[str, Any] = {}


_here = _Opening()


def open_with(codec: Codec | None = None, blobs: BlobStore | str | None = None) -> None:
    """Let all models of this process open what the workers seal: with their codec, and from their
    blob store (docs/encryption.md).

    A ``PersistentExecutionEngine`` that is given them does it by itself.
    """
    _here.seal = make_seal(codec, blobs=blobs)
    _here.options = {"codec": codec, "blobs": blobs}


def opened(data: bytes) -> bytes:
    """Return the data of stored bytes.

    Raises:
        Sealed: the codec, its key or the blob store is missing.
        Corrupt: they are damaged.
    """
    return _here.seal.open(data)


def opened_text(text: str | None) -> str | None:
    """The same for a stored text."""
    return _here.seal.open_text(text)


def client_options() -> dict[str, Any]:
    """Return what a client of this process is given."""
    return _here.options
