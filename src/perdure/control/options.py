"""Options of an invocation: every option of a start, and HotMesh's own names for some."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perdure.errors import Invalid
from perdure.values.options import ALIASES, SHARED

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_OF_CLIENTS = frozenset(
    {"correlation_id", "tags", "eager", "paused", "resume_within"},
)
_NAMES = {
    "workflow_id": "id",
    "origin_id": "correlation_id",
    "expire": "retention",
    "pending": "resume_within",
}
_PENDING = "pending"
"""HotMesh's word for both: paused from the start, and for so long at most."""
_OWN = frozenset({"entity"})
_IDLE = frozenset({"signal_in"})
"""HotMesh's own, taken and without effect, as there: every run can be sent messages."""
_OF_THE_CALLER = frozenset({"created_by", "tenant"})
KNOWN = (SHARED | _OF_CLIENTS | _OWN) - {"parent_close_policy", "wait_for_cancellation"}


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options under their own names; camelCase is taken, too.

    Raises:
        Invalid: one is unknown, or given under two names, or says who starts the run.
    """
    options: dict[str, Any] = {}
    pending = ""
    for name, value in given.items():
        plain = _HUMP.sub(lambda hump: "_" + hump[1].lower(), name)
        own = _NAMES.get(plain, ALIASES.get(plain, plain))
        if own in _OF_THE_CALLER:
            raise Invalid(f"options.{name}: who starts a run is not the caller's to say")
        if own in _IDLE:
            continue
        if plain == _PENDING:
            if value is None or value is False:
                continue
            pending = name
        if own not in KNOWN:
            raise Invalid(f"options.{name}: unknown; it takes {', '.join(sorted(KNOWN))}")
        if own in options:
            raise Invalid(f"options.{name}: {own!r} is given under two names")
        if value is not None:
            options[own] = value
    if pending and options.setdefault("paused", True) is not True:
        raise Invalid(f"options.{pending}: what waits to be resumed is paused")
    return options
