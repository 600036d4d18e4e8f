"""Cron texts: five fields or an alias, checked here, read by cronsim (daylight saving included)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from perdure.errors import Invalid

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = 5
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_cron(text: object) -> str:
    """Return ``text`` with aliases resolved.

    Raises:
        Invalid: not five fields, a field out of range, or a date that never comes.
    """
    if not isinstance(text, str):
        raise Invalid(f"cron: {text!r} is not text")
    resolved = ALIASES.get(text.strip().lower(), text.strip())
    if resolved[:1] == "@":
        raise Invalid(f"cron: {text!r} is unknown; use one of {', '.join(ALIASES)}")
    fields = resolved.split()
    if len(fields) != _FIELDS:
        raise Invalid(
            f"cron: {text!r} has {len(fields)} fields; it needs five: "
            "minute, hour, day of month, month, day of week"
        )
    try:
        next(CronSim(resolved, _EPOCH))
    except CronSimError as exc:
        raise Invalid(f"cron: {text!r}: {str(exc).lower()}") from exc
    except StopIteration:
        raise Invalid(f"cron: {text!r} names a date that never comes") from None
    return resolved


def next_tick(text: str, after: int) -> int:
    """Return the first moment after ``after`` that a checked cron text names, in UTC.

    Both in microseconds since 1970.
    """
    start = _UNIX_EPOCH + timedelta(microseconds=after)
    tick = next(CronSim(text, start))
    return (tick - _UNIX_EPOCH) // timedelta(microseconds=1)
