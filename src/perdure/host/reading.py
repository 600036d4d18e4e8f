"""What services say, read: statuses, tags, times and counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from perdure.errors import Invalid
from perdure.policy.statuses import InstanceStatus
from perdure.timetable import read_time
from perdure.values import payload
from perdure.values.limits import COUNTED


def read_statuses(given: str | Sequence[str] | None) -> tuple[InstanceStatus, ...]:
    """Return what a query asks for.

    Raises:
        Invalid: one is none of the six.
    """
    if given is None:
        return ()
    if not isinstance(cast("Any", given), Iterable):
        raise Invalid(f"status: {given!r} is neither a status nor a list of them")
    names = (given,) if isinstance(given, str) else tuple(given)
    try:
        return tuple(InstanceStatus(name) for name in names)
    except ValueError as exc:
        raise Invalid(f"status: {exc}; use {', '.join(InstanceStatus)}") from exc


def tag_texts(given: Mapping[str, str] | None) -> list[str]:
    """Return tags as executions have them: ``key=value``.

    Raises:
        Invalid: they are no mapping of texts, or a key is empty or holds ``=``.
    """
    if given is None:
        return []
    if not isinstance(cast("Any", given), Mapping):
        raise Invalid(f"tags: {given!r} is no mapping; write {{'region': 'eu'}}")
    for key in given:
        name = payload.text(key, what="tags")
        if not name or "=" in name:
            raise Invalid(f"tags: {name!r} is no key; it has at least a character, and no '='")
    return [f"{key}={payload.text(value, what=f'tags[{key!r}]')}" for key, value in given.items()]


def moment(what: str, given: datetime | str | None) -> int | None:
    """Return a time in microseconds since 1970; it may be text of ISO 8601.

    Raises:
        Invalid: it is none, or has no time zone.
    """
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise Invalid(f"{what}: {given!r} is not like '2026-11-22T09:00:00Z'") from None
    return None if given is None else read_time(what, given)


def check_count(what: str, given: object, *, least: int = 0) -> None:
    """Refuse what is no whole number, or one that cannot be meant.

    Raises:
        Invalid: so it is.
    """
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= COUNTED:
        raise Invalid(f"{what}: {given!r} is no whole number from {least} to {COUNTED:,}")
