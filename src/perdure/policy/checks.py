"""The seven checks that are always made, whatever a policy says. They need no CEL.

Each returns why it refuses, or ``""``. The codes, by the check's name in a verdict's ``rule``, are
in :data:`CODES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from perdure.errors import Invalid
from perdure.policy.globs import read_name
from perdure.policy.verdict import MAX_RESULTS, Request
from perdure.values import payload

MAX_INPUT = 1_048_576
"""Bytes of an input, if nothing smaller is said."""
CODES = {
    "workflow_id": "INVALID_WORKFLOW_ID",
    "self_run": "SELF_RUN",
    "input_size": "INPUT_TOO_LARGE",
    "input_schema": "INVALID_INPUT",
    "signal_name": "INVALID_SIGNAL",
    "instance_id": "INVALID_INSTANCE_ID",
    "query_limit": "INVALID_LIMIT",
}
_SIGNAL = re.compile(r"[A-Za-z0-9_-]+")
_MAX_SIGNAL = 200
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SYSTEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,254}")


def check_workflow_id(text: str, *, needs_version: bool = True) -> str:
    """Check that a definition is named in full: ``namespace.name.version``."""
    name = read_name(text)
    if name is None or not name.namespace:
        return f"{text!r} is no workflow id; write namespace.name.v1, like user.onboarding.v1"
    if needs_version and not name.version:
        return f"{text!r} names no version; write {text}.v1 or {text}@1.0.0"
    return ""


def check_input(value: Any, validate: Callable[[Any], object] | None) -> str:
    """Check an input against the workflow's schema; ``validate`` raises ``Invalid``."""
    if validate is None:
        return ""
    try:
        validate(value)
    except Invalid as exc:
        return exc.message
    return ""


def check_signal_name(name: str) -> str:
    """Check that a signal's name has only letters, digits, ``_`` and ``-``."""
    if len(name) > _MAX_SIGNAL or not _SIGNAL.fullmatch(name):
        return f"{name[:_MAX_SIGNAL]!r} is no name of a signal: letters, digits, _ and - only"
    return ""


def check_input_size(size: int, most: int = MAX_INPUT) -> str:
    """Check the bytes of an input."""
    if size > most:
        return f"the input has {size:,} bytes, and {most:,} is the most"
    return ""


def check_instance_id(id: str) -> str:
    """Check that an instance's id is a UUID, or one that a system may have given: letters, digits
    and ``. _ : @ / + -``, 255 at most.
    """
    if _UUID.fullmatch(id) or _SYSTEM_ID.fullmatch(id):
        return ""
    return f"{id[:60]!r} is no id of an instance: a UUID, or letters, digits and . _ : @ / + -"


def clamp_limit(limit: int, most: int = MAX_RESULTS) -> int:
    """Return how many instances a query gives: what it asks for, and no more than ``most``."""
    return min(limit, most, MAX_RESULTS)


def check_limit(limit: object) -> str:
    """Check that a query asks for a number of instances; too many are clamped, not refused."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        return f"limit: {limit!r} is not a number from 1 to {MAX_RESULTS:,}"
    return ""


def check_self_run(caller: str, name: str) -> str:
    """Check that an instance does not start its own workflow, in whatever version; ``name``: of the
    one to start, without a version.
    """
    if not caller:
        return ""
    own = read_name(caller)
    if name == caller or (own is not None and name == own.name):
        return f"workflow {name!r} cannot run itself"
    return ""


def input_size(request: Request) -> int:
    """Return the bytes of a request's input, encoded if nobody has said.

    Raises:
        Invalid: it cannot be encoded.
    """
    if request.input_size >= 0:
        return request.input_size
    return len(payload.encode(request.input, what="input"))


def input_fields(given: Any) -> Collection[str]:
    """Return the names of an input's fields, as it is encoded; of a text or a list there are none.

    Raises:
        Invalid: it cannot be encoded.
    """
    if not isinstance(given, Mapping):
        given = payload.decode(payload.encode(given, what="input"))
    return cast("Mapping[str, Any]", given).keys() if isinstance(given, Mapping) else ()
