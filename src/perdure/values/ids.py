"""Ids: UUIDv7 text for runs, checked text for executions."""

from __future__ import annotations

import re
import uuid

from perdure.errors import Invalid

_MAX_ID = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ADDRESS = re.compile(r"@(mailbox|client)/[0-9a-f]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DEFINITIONS = uuid.UUID("c3b5a9d2-6a51-5f0e-9a3c-3a0f6f6f2f71")
ALERT = "perdure.alert"
"""The workflow that posts a webhook of a run that failed."""
MAILBOX = "@"
"""First character of a mailbox's address; no execution's id may begin with it."""


def uuid7(milliseconds: int, chance: bytes) -> str:
    """Return a UUIDv7 made of a Unix time in milliseconds and 10 bytes of chance (RFC 9562)."""
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(chance[:10], "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def definition_id(name: str, version: str) -> str:
    """Return the id of a definition: a UUID (version 5) that its name and version always give."""
    return str(uuid.uuid5(_DEFINITIONS, f"{name} {version}"))


def check_workflow_id(text: object) -> str:
    """Return ``text`` if it can be an execution's id.

    Raises:
        Invalid: not text, empty, over 255 characters, control characters, no UTF-8, ``@`` first.
    """
    if not isinstance(text, str):
        raise Invalid(f"id: {text!r} is not text")
    if not text or len(text) > _MAX_ID:
        raise Invalid(f"id: {len(text)} characters; it must have 1 to {_MAX_ID}")
    if _SURROGATE.search(text):
        raise Invalid(f"id: {text!r} is not valid UTF-8")
    if _CONTROL.search(text):
        raise Invalid(f"id: {text!r} holds control characters")
    if text[0] == MAILBOX:
        raise Invalid(f"id: {text!r} begins with '@', which is kept for mailboxes")
    return text


def alerts_of(run_id: str) -> str:
    """Return how the ids begin of the executions that post webhooks of a run's end."""
    return f"{ALERT}/{run_id}/"


def is_address(text: object) -> bool:
    """Tell whether ``text`` is the address of a mailbox, or of a client without one."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None
