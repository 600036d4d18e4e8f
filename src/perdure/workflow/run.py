"""What a run knows about itself, and what the faces of ``workflow`` share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from perdure import errors
from perdure.kernel import traps
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.values import limits, payload
from perdure.values.context import ContextView
from perdure.values.principals import Principal, principal_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Info(msgspec.Struct, frozen=True):
    """What a run knows about itself. ``history_size`` in bytes.

    ``first_run_id``: of the first run of the execution, which may be this one. ``schedule``: the id
    of the schedule that began the execution, if one did, and ``scheduled_at`` the time that its
    tick names, however late it began.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    version: str
    task_queue: str
    namespace: str
    attempt: int
    history_length: int
    history_size: int
    started_at: datetime
    parent_workflow_id: str | None = None
    parent_run_id: str | None = None
    continued_from: str | None = None
    first_run_id: str = ""
    schedule: str | None = None
    scheduled_at: datetime | None = None


def info() -> Info:
    """Return what this run knows about itself."""
    instance = traps.here()
    started = started_event(instance)
    return Info(
        workflow_id=started.workflow_id,
        run_id=started.run_id,
        workflow_type=started.workflow,
        version=started.version,
        task_queue=started.queue,
        namespace=started.namespace,
        attempt=started.attempt,
        history_length=instance.length,
        history_size=instance.size,
        started_at=to_time(started.started_at),
        parent_workflow_id=started.parent.workflow_id if started.parent else None,
        parent_run_id=started.parent.run_id if started.parent else None,
        continued_from=started.continued_from,
        first_run_id=started.first_run,
        schedule=started.schedule or None,
        scheduled_at=to_time(started.scheduled_at) if started.schedule else None,
    )


def history_length() -> int:
    """Return the number of events before this turn."""
    return traps.here().length


def history_size() -> int:
    """Return the bytes of history before this turn."""
    return traps.here().size


def _context() -> dict[str, Any]:
    raw = started_event(traps.here()).context
    return payload.decode(raw) if raw else {}


context = ContextView(_context)
"""The propagated context, read-only: ``workflow.context["tenant"]``."""


def principal() -> Principal | None:
    """Return who this run acts for; ``None``: its start named nobody."""
    return principal_in(context)


def check_mapping(given: Any, what: str) -> Mapping[str, Any]:
    """Return ``given`` if it is a mapping with text for keys.

    Raises:
        Invalid: it is not; the message begins with ``what``.
    """
    is_mapping = isinstance(given, Mapping)
    if not is_mapping or not all(isinstance(key, str) for key in cast("Mapping[Any, Any]", given)):
        raise errors.Invalid(f"{what}: {given!r} is not a mapping with text for keys")
    return cast("Mapping[str, Any]", given)


def encode_mapping(given: Any, what: str, maximum: int) -> bytes | None:
    """Encode a mapping with text for keys; ``None`` if it is empty.

    Raises:
        Invalid: it is none, cannot be encoded or has more than ``maximum`` bytes.
    """
    values = dict(check_mapping(given or {}, what))
    return payload.limit(payload.encode(values, what=what), maximum, what=what) if values else None


def check_search(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return search attributes if all can be indexed.

    Raises:
        Invalid: no mapping, or a value that is not text, number, bool, aware datetime, list of
            text or ``None``; more of them, or longer ones, than the limits allow.
    """
    check_mapping(given, "search")
    if len(given) > limits.SEARCH_ATTRIBUTES:
        raise errors.Invalid(
            f"search: {len(given):,} attributes are over the limit of {limits.SEARCH_ATTRIBUTES}"
        )
    for key in given:
        payload.text(key, what="name of a search attribute", maximum=limits.LABEL)
    return {key: _indexable(key, value) for key, value in given.items()}


def _indexable(key: str, value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise errors.Invalid(f"search attribute {key!r}: {value!r} has no time zone")
        # Text that sorts as time does.
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if not (value is None or isinstance(value, (str, int, float, bool)) or _is_texts(value)):
        raise errors.Invalid(
            f"search attribute {key!r}: {type(value).__name__} cannot be indexed; "
            "use text, a number, a bool, an aware datetime or a list of text"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise errors.Invalid(f"search attribute {key!r}: {value} has over 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise errors.Invalid(f"search attribute {key!r}: {value} is no number that can be compared")
    texts: Any = (value,) if isinstance(value, str) else value if _is_texts(value) else ()
    if any("\0" in text for text in (key, *texts)):
        raise errors.Invalid(f"search attribute {key!r}: the text holds a NUL character")
    size = sum(map(len, texts))
    if size > limits.SEARCH_TEXT:
        raise errors.Invalid(
            f"search attribute {key!r}: {size:,} characters are over the limit of "
            f"{limits.SEARCH_TEXT:,}"
        )
    return value


def _is_texts(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    return all(isinstance(item, str) for item in cast("Sequence[object]", value))


def started_event(instance: Instance) -> ev.RunStarted:
    """Return event 1."""
    assert instance.started is not None, "user code runs after event 1"
    return instance.started


def to_time(microseconds: int) -> datetime:
    """Return a recorded time, aware, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)
