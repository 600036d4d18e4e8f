"""Options of an invocation: every option of a start, and HotMesh's own names for some."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from perdure.errors import Invalid
from perdure.values import payload
from perdure.values.options import ALIASES, SHARED, check_texts
from perdure.values.retry import Retry

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_OF_CLIENTS = frozenset(
    {"correlation_id", "tags", "eager", "paused", "resume_within"},
)
_NAMES = {
    "workflow_id": "id",
    "origin_id": "correlation_id",
    "origin_job_id": "correlation_id",
    "expire": "retention",
    "pending": "resume_within",
    "config": "retry",
}
_PENDING = "pending"
"""HotMesh's word for both: paused from the start, and for so long at most."""
_RETRY = {
    "maximum_attempts": "max_attempts",
    "initial_interval": "interval",
    "backoff_coefficient": "backoff",
    "maximum_interval": "max_interval",
}
_OWN = frozenset({"entity"})
_REFUSED = {
    "args": "the input is the envelope, and what is in it is data=",
    "workflow_name": "that is type=",
    "parent_workflow_id": "only a run has children; what belongs together shares an originId",
    "await": "an invocation waits for nothing; get_result says whether there is a result",
    "persistent": "how long a run is kept says expire; 0 is for ever",
    "workflow_trace": "what is to travel with a run goes into context",
    "workflow_span": "what is to travel with a run goes into context",
    "marker": "HotMesh has it for itself",
    "guid": "HotMesh has it for itself",
}
"""HotMesh's own, and what to do instead."""
_IDLE = frozenset({"signal_in"})
"""HotMesh's own, taken and without effect, as there: every run can be sent messages."""
_OF_THE_CALLER = frozenset({"created_by", "tenant"})
KNOWN = (SHARED | _OF_CLIENTS | _OWN) - {"parent_close_policy", "wait_for_cancellation"}


class _Again(msgspec.Struct, forbid_unknown_fields=True):
    """A retry policy as a mapping."""

    max_attempts: int | None = None
    interval: str | float | None = None
    backoff: float | None = None
    max_interval: str | float | None = None
    non_retryable: tuple[str, ...] | None = None
    retry_on: tuple[str, ...] | None = None


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under their own names; camelCase is taken, too.

    Raises:
        Invalid: one is unknown, or given under two names, or says who starts the run, or is no text
            where policies are asked by it.
    """
    options: dict[str, Any] = {}
    pending = ""
    for name, value in given.items():
        plain = _plain(name)
        own = _NAMES.get(plain, ALIASES.get(plain, plain))
        if own in _OF_THE_CALLER:
            raise Invalid(f"options.{name}: who starts a run is not the caller's to say")
        if own in _IDLE:
            continue
        if (plain == _PENDING or own in _REFUSED) and (value is None or value is False):
            continue
        if own in _REFUSED:
            raise Invalid(f"options.{name}: {_REFUSED[own]}")
        if plain == _PENDING:
            pending = name
        if own not in KNOWN:
            raise Invalid(f"options.{name}: unknown; it takes {', '.join(sorted(KNOWN))}")
        if own in options:
            raise Invalid(f"options.{name}: {own!r} is given under two names")
        if value is not None:
            options[own] = _retry(value, f"options.{name}") if own == "retry" else value
    if pending and options.setdefault("paused", True) is not True:
        raise Invalid(f"options.{pending}: what waits to be resumed is paused")
    check_texts(options)
    return options


def _plain(name: Any) -> str:
    text = payload.text(name, what="options")
    return _HUMP.sub(lambda hump: "_" + hump[1].lower(), text)


def _retry(given: Any, what: str) -> Any:
    """Return the retry policy that a mapping says, under our names or HotMesh's."""
    if not isinstance(given, Mapping):
        return given
    plain = {_plain(name): value for name, value in cast("Mapping[Any, Any]", given).items()}
    said = {_RETRY.get(name, name): value for name, value in plain.items()}
    try:
        return Retry(**msgspec.structs.asdict(msgspec.convert(said, _Again)))
    except msgspec.ValidationError as exc:
        raise Invalid(f"{what}: {exc}") from exc
