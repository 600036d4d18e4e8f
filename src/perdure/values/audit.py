"""Who did what: lines of the audit, and the chain that they make.

Each row's hash covers the row and the hash before it, so a row that was changed, taken out or put
in between breaks the chain there. What a line says in detail (``data``) is covered by its digest
alone: it may be sealed anew, or erased, and the chain still holds. It begins with random salt, so
that nobody can find out what was erased by trying values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.values.principals import Principal

_SALT = 16
_WORDS = (
    "action",
    "principal",
    "target",
    "run_id",
    "initiated_by",
    "namespace",
    "decision",
    "rule",
)


class Level(StrEnum):
    """How much is told: nothing, who did what to what, or also what was before and after."""

    NONE = "none"
    SUMMARY = "summary"
    FULL = "full"


class AuditLine(msgspec.Struct, frozen=True, gc=False):
    """A line to append. ``principal`` did ``action`` to ``target``.

    ``target``: a workflow id, a human task, ``kind/id`` of a record. ``run_id``: of the run that it
    was done to. ``initiated_by``: the person for whom a service account acted. ``decision`` and
    ``rule``: of a policy. ``data``: what :func:`detail` made.

    Raises:
        Invalid: one of them is no text. A database would keep it as another value than the one that
            the hash covers, and the chain would be broken there.
    """

    action: str
    principal: str = ""
    target: str = ""
    run_id: str = ""
    initiated_by: str = ""
    namespace: str = "default"
    decision: str = ""
    rule: str = ""
    data: bytes | None = None

    def __post_init__(self) -> None:
        for name in _WORDS:
            if not isinstance(getattr(self, name), str):
                raise Invalid(f"audit: {name}: {getattr(self, name)!r} is not text")


class AuditRow(msgspec.Struct, gc=False):
    """A row as a store has it. ``at``: microseconds since 1970.

    ``data`` is ``None`` if there was none (``digest`` is empty then), if it was erased, or if it
    could not be opened, and then ``sealed`` says why.
    """

    number: int
    at: int
    namespace: str
    action: str
    principal: str
    initiated_by: str
    target: str
    run_id: str
    decision: str
    rule: str
    digest: str
    hash: str
    data: bytes | None = None
    sealed: str = ""


class AuditFilter(msgspec.Struct, gc=False):
    """What a list selects; empty fields do not filter. Times in microseconds, the last excluded.

    ``action``: exactly, or all that begin with it if it ends with ``*``.
    """

    namespace: str = "default"
    principal: str = ""
    action: str = ""
    target: str = ""
    run_id: str = ""
    since: int | None = None
    until: int | None = None


class AuditPlace(msgspec.Struct, frozen=True, gc=False):
    """Where a list goes on: behind this row."""

    at: int
    number: int


class AuditHead(msgspec.Struct, frozen=True, gc=False):
    """The end of the chain, and where it was cut off: the last row that was archived."""

    number: int = 0
    hash: str = ""
    cut: int = 0
    cut_hash: str = ""


def level_of(given: object) -> Level:
    """Return a level.

    Raises:
        Invalid: there is no such level.
    """
    try:
        return Level(given)  # pyright: ignore[reportArgumentType] - that is the question
    except ValueError as exc:
        names = ", ".join(Level)
        raise Invalid(f"audit: {given!r} is not one of {names}") from exc


def line_by(principal: Principal | None, action: str, **fields: Any) -> AuditLine:
    """Return a line of what a principal did; without one, nobody was named."""
    if principal is None:
        return AuditLine(action, **fields)
    fields.setdefault("initiated_by", principal.initiated_by)
    return AuditLine(action, principal.id, **fields)


def detail(chance: Callable[[int], bytes], facts: Mapping[str, Any]) -> bytes:
    """Encode what a line says in detail, with salt."""
    return msgspec.json.encode({"salt": chance(_SALT).hex(), **facts})


def digest_of(data: bytes | None) -> str:
    """Return what stands for the detail in the chain."""
    return "" if data is None else sha256(data).hexdigest()


def hash_of(before: str, row: AuditRow) -> str:
    """Return the hash of a row that stands behind the one with hash ``before``."""
    facts = [
        row.number,
        row.at,
        row.namespace,
        row.action,
        row.principal,
        row.initiated_by,
        row.target,
        row.run_id,
        row.decision,
        row.rule,
        row.digest,
    ]
    return sha256(before.encode() + msgspec.json.encode(facts)).hexdigest()


def linked(line: AuditLine, after: AuditHead, at: int) -> AuditRow:
    """Return the row that a line becomes behind the end of the chain."""
    row = AuditRow(
        number=after.number + 1,
        at=at,
        namespace=line.namespace,
        action=line.action,
        principal=line.principal,
        initiated_by=line.initiated_by,
        target=line.target,
        run_id=line.run_id,
        decision=line.decision,
        rule=line.rule,
        digest=digest_of(line.data),
        hash="",
        data=line.data,
    )
    row.hash = hash_of(after.hash, row)
    return row


def fault_of(row: AuditRow, before: AuditHead) -> str:
    """Say what of a row does not fit behind the one before; ``""``: it does."""
    if row.number != before.number + 1:
        gone = before.number + 1
        which = f"{gone}" if row.number == gone + 1 else f"{gone} to {row.number - 1}"
        return f"row {which} is missing" if row.number > gone else "its number is not the next"
    if hash_of(before.hash, row) != row.hash:
        return "its hash does not cover what it says and the row before: one of them was changed"
    if row.data is not None and digest_of(row.data) != row.digest:
        return "its detail is not the one that was written"
    return ""
