"""Recorded decisions, and what would become of them under other policies.

A line of the file is one decision, as JSON: ``operation``, ``request`` and ``verdict``, with ``at``
(RFC 3339) if it is known. Of an input only the names of its fields are recorded, and its size: all
that rules look at, but for the schema, which was checked when it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec

from perdure.errors import Invalid
from perdure.policy.checks import CODES, input_fields, input_size
from perdure.policy.counted import NO_PLACE, RATE_LIMITED
from perdure.policy.policies import Policies
from perdure.policy.verdict import OPERATIONS, Request, Schedule, Verdict

_FIELDS = frozenset(Request.__struct_fields__) - {"validate"}
_KINDS: dict[str, type] = {
    **dict.fromkeys(("claims", "instance", "metadata", "schedule"), dict),
    "input_size": int,
    "input": object,
    "limit": object,  # a check is about what it is
    "statuses": list,
}
"""Types of the fields that are not text."""
_NOT_RECORDED = (RATE_LIMITED, NO_PLACE, CODES["input_schema"])
"""Refusals that depend on more than the request: what else there was, or an input's values."""


class Change(NamedTuple):
    """A decision that would be another one. ``line``: of the file, from 1."""

    line: int
    operation: str
    what: str
    before: Verdict
    after: Verdict

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.operation} {self.what}: was {_said(self.before)}, "
            f"would be {_said(self.after)}"
        )


class Decision(NamedTuple):
    """A recorded decision."""

    operation: str
    request: Request
    verdict: Verdict


def record(operation: str, request: Request, verdict: Verdict, at: datetime | None = None) -> bytes:
    """Return a line for the file of decisions, with its end."""
    told: dict[str, Any] = {} if at is None else {"at": at}
    given = {
        name: getattr(request, name)
        for name in Request.__struct_fields__
        if name in _FIELDS and name != "input"
    }
    defaults = Request()
    asked = {name: value for name, value in given.items() if value != getattr(defaults, name)}
    if operation in ("run", "trigger", "signal"):
        asked["input_size"] = input_size(request)
    if fields := input_fields(request.input):
        asked["input"] = dict.fromkeys(fields)
    answer = {"allowed": verdict.allowed, "version": verdict.version}
    if not verdict.allowed:
        answer |= {"code": verdict.code, "rule": verdict.rule, "reason": verdict.reason}
    told |= {"operation": operation, "request": asked, "verdict": answer}
    return msgspec.json.encode(told) + b"\n"


def replay(policies: Policies, lines: Iterable[bytes]) -> Iterator[Change | None]:
    """Judge recorded decisions again; yield for each what would change, or ``None``.

    Codes are compared, and whether it is allowed. A refusal by a rate, for want of a place or by
    the workflow's schema is passed over: it depends on what is not recorded.

    Raises:
        Invalid: a line is no recorded decision; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        decision = read_decision(line, f"line {number}")
        before = decision.verdict
        if before.code in _NOT_RECORDED:
            yield None
            continue
        after = policies.check(decision.operation, decision.request)
        same = (before.allowed, before.code) == (after.allowed, after.code)
        asked = decision.request
        what = asked.workflow_id or asked.instance_id or f"of {asked.service or 'somebody'}"
        yield None if same else Change(number, decision.operation, what, before, after)


def read_decision(line: bytes, place: str) -> Decision:
    """Read a line of the file.

    Raises:
        Invalid: it is no recorded decision.
    """
    try:
        told = msgspec.json.decode(line, type=dict[str, Any])
        answer = told["verdict"]
        given = answer["allowed"], answer.get("code", ""), answer.get("reason", "")
        verdict = Verdict(*given, answer.get("rule", ""), answer.get("version", ""))
        operation, request = read_request(told)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as exc:
        raise Invalid(f"{place}: this is no recorded decision: {exc}") from None
    except Invalid as exc:
        raise Invalid(f"{place}: {exc.message}") from None
    return Decision(operation, request, verdict)


def read_request(told: Mapping[str, Any]) -> tuple[str, Request]:
    """Read an operation and its request from JSON types: ``{"operation": …, "request": {…}}``.

    Raises:
        Invalid: there is no such operation or field, or a field of a wrong type.
    """
    operation = told.get("operation")
    if operation not in OPERATIONS:
        raise Invalid(f"operation: {operation!r} is none of {', '.join(OPERATIONS)}")
    fields = told.get("request", {})
    if not isinstance(fields, Mapping):
        raise Invalid("request: it is no mapping of fields")
    given: dict[str, Any] = dict(cast("Mapping[str, Any]", fields))
    unknown = sorted(set(given) - _FIELDS)
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise Invalid(f"request: it has no field {unknown[0]!r} (it has: {known})")
    for name, value in given.items():
        kind = _KINDS.get(name, str)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Invalid(f"request.{name}: {value!r} does not fit")
    if "schedule" in given:
        try:
            given["schedule"] = msgspec.convert(given["schedule"], Schedule)
        except msgspec.ValidationError as exc:
            raise Invalid(f"request.schedule: {exc}") from None
    return operation, Request(**given)


def _said(verdict: Verdict) -> str:
    return "allowed" if verdict.allowed else f"denied ({verdict.code} by {verdict.rule})"
