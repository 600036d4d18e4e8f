"""Small documents that administrators keep, and how they are changed: all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.values.audit import AuditLine

ANY = -1
"""Stands for whatever version there is, or none."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A document, as JSON. ``changed_at``: microseconds since 1970."""

    kind: str
    id: str
    version: int
    data: bytes
    changed_at: int
    namespace: str = "default"


class Put(msgspec.Struct, frozen=True, gc=False):
    """Write a document. ``replaces``: the version that must be there now; 0: there must be none."""

    kind: str
    id: str
    data: bytes
    replaces: int = 0
    namespace: str = "default"


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Take a document away, if it still is of the version."""

    kind: str
    id: str
    replaces: int = ANY
    namespace: str = "default"


class Amend(msgspec.Struct, frozen=True, gc=False):
    """What one transaction does to documents, and what the audit tells of it."""

    puts: Sequence[Put] = ()
    drops: Sequence[Drop] = ()
    audit: Sequence[AuditLine] = ()


class Amended(msgspec.Struct, frozen=True, gc=False):
    """What became of it: the new version of each put."""

    versions: tuple[int, ...] = ()
