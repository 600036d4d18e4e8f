"""Durations: text, seconds or ``timedelta`` in; whole microseconds inside.

Microseconds as ``int`` everywhere inside: no float ever decides when a timer fires.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from perdure.errors import Invalid

Duration = timedelta | str | int | float
"""What users may write: ``timedelta``, ``"1h30m"``, ISO ``"PT1H30M"``, or a number of seconds."""

SECOND = 1_000_000
_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3_600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 604_800 * SECOND,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")
_ISO = re.compile(
    r"P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_ISO_UNITS = (_UNITS["w"], _UNITS["d"], _UNITS["h"], _UNITS["m"], SECOND)
_LIMIT = 100 * 366 * _UNITS["d"]


def microseconds(value: Duration, *, what: str = "duration") -> int:
    """Return ``value`` in microseconds.

    Raises:
        Invalid: not a duration, negative, not finite, or over 100 years.
    """
    if type(value) is str:
        result = _from_text(value, what)
    elif isinstance(value, timedelta):
        result = (value.days * 86_400 + value.seconds) * SECOND + value.microseconds
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{what}: {value!r} is not a duration; write '90s', '1h30m' or seconds")
    elif not math.isfinite(value):
        raise Invalid(f"{what}: {value!r} is not a finite number of seconds")
    else:
        result = round(value * SECOND)
    if result < 0:
        raise Invalid(f"{what}: {value!r} is negative")
    if result > _LIMIT:
        raise Invalid(f"{what}: {value!r} is over 100 years")
    return result


def optional_microseconds(value: Duration | None, *, what: str = "duration") -> int | None:
    """Like :func:`microseconds`; ``None`` stays ``None``."""
    return None if value is None else microseconds(value, what=what)


def soonest(*times: int) -> int:
    """Return the earliest of the times that are not 0; 0 if none is."""
    return min((time for time in times if time), default=0)


def to_text(value: int) -> str:
    """Write microseconds the way :func:`microseconds` reads them: ``"1h30m"``, ``"250ms"``."""
    if value == 0:
        return "0s"
    parts: list[str] = []
    rest = value
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _from_text(text: str, what: str) -> int:
    compact = text.strip().replace(" ", "")
    if compact[:1] == "P":
        match = _ISO.fullmatch(compact)
        if match and any(match.groups()):
            pairs = zip(match.groups(), _ISO_UNITS, strict=True)
            return round(sum(float(number) * unit for number, unit in pairs if number))
    elif compact:
        total, end = 0.0, 0
        for match in _PART.finditer(compact):
            if match.start() != end:
                break
            total += float(match[1]) * _UNITS[match[2]]
            end = match.end()
        if end == len(compact):
            return round(total)
        try:
            return round(float(compact) * SECOND)
        except (ValueError, OverflowError):
            pass
    raise Invalid(f"{what}: {text!r} is not a duration; write '200ms', '90s', '1h30m' or 'PT1H30M'")
