"""Cron texts: five fields or an alias, checked here, read by cronsim (daylight saving included).

What daylight saving does (docs/schedules.md has a table): a text that names hours and minutes runs
once a day whatever the clocks do; at a time that is skipped it runs when the clocks have gone on,
and at one that comes twice it runs the first time. A text with ``*`` for hour or minute goes by the
time that passes.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

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


def check_zone(name: object) -> str:
    """Return ``name`` if it is a time zone of the IANA database.

    Raises:
        Invalid: it is not; the message has names that are near.
    """
    if not isinstance(name, str):
        raise Invalid(f"timezone: {name!r} is not text, such as 'Europe/Berlin'")
    zone_of(name)
    return name


def zone_of(name: str) -> tzinfo:
    """Return a time zone.

    Raises:
        Invalid: there is none with this name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise Invalid(f"timezone: {_unknown_zone(name)}", cause=exc) from exc


def next_tick(text: str, after: int, timezone: str = "UTC") -> int:
    """Return the first moment after ``after`` that a checked cron text names in a time zone.

    Both in microseconds since 1970.
    """
    start = _UNIX_EPOCH + timedelta(microseconds=after)
    times = CronSim(text, start.astimezone(zone_of(timezone)))
    while True:
        # In the hour that comes twice, cronsim may begin with the first of the two, which is over.
        tick = (next(times).astimezone(UTC) - _UNIX_EPOCH) // timedelta(microseconds=1)
        if tick > after:
            return tick


def names_time(text: str, local: datetime) -> bool:
    """Tell whether a checked cron text names this hour and minute; else a gap has moved it."""
    fields = CronSim(text, _EPOCH)
    return local.hour in fields.hours and local.minute in fields.minutes


def _unknown_zone(name: str) -> str:
    known = available_timezones()
    if not known:
        return (
            f"{name!r} cannot be looked up: this machine has no time zone database; install the "
            "package tzdata (of the system, or of Python)"
        )
    wanted = name.strip().lower().replace(" ", "_")
    near = [one for one in known if one.lower().rpartition("/")[2] == wanted]
    by_name = {one.lower(): one for one in known}
    near += [by_name[one] for one in difflib.get_close_matches(wanted, by_name, n=3)]
    hint = ", ".join(dict.fromkeys(sorted(near[:1]) + near))
    return f"there is no time zone {name!r}" + (f"; did you mean {hint}?" if hint else "")
