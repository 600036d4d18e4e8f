"""How many executions may begin in a time: ``"100/minute"``, ``"10/s burst 20"``.

A rate is kept by one time, *paid until*: each execution that begins pays one interval (of a
hundred a minute: 0.6 s) from then, or from now, whichever is later. Another may begin while no more
is paid ahead than ``burst - 1`` intervals. So in any span ``t`` at most ``burst + t / interval``
begin, and whoever has the time of a workflow or a key knows all that its rate depends on. It is the
generic cell rate algorithm, as virtual scheduling (ITU-T I.371).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from perdure.errors import Invalid

_SECOND = 1_000_000
_UNITS = {"s": _SECOND, "m": 60 * _SECOND, "h": 3_600 * _SECOND, "d": 86_400 * _SECOND}
_TEXT = re.compile(
    r"(\d+)\s*/\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)(?:[\s,]+burst\s+(\d+))?",
    re.IGNORECASE,
)
_SMOOTH = 100_000
_MAX_PER_SECOND = 10_000
_MAX_BURST = 1_000_000


class Rate(msgspec.Struct, frozen=True, gc=False):
    """A rate. ``interval``: microseconds that one execution pays; ``burst``: how many may begin at
    once after a pause.
    """

    text: str
    interval: int
    burst: int

    def next_at(self, paid_until: int) -> int:
        """Return when the next one may begin."""
        return paid_until - (self.burst - 1) * self.interval

    def left(self, paid_until: int, now: int) -> int:
        """Return how many may begin now."""
        ahead = now - self.next_at(max(paid_until, now))
        return 0 if ahead < 0 else ahead // self.interval + 1

    def paid(self, paid_until: int, now: int, count: int = 1) -> int:
        """Return until when is paid after ``count`` more have begun now."""
        return max(paid_until, now) + count * self.interval


@lru_cache(maxsize=1_000)
def parse_rate(text: str, *, what: str = "rate") -> Rate:
    """Read a rate: ``N/second``, ``/minute``, ``/hour`` or ``/day``, or their short forms ``s``,
    ``m``, ``h``, ``d``; with ``burst N`` behind it if more than one may begin at once.

    Without it one may, or at more than ten a second as many as come in 100 ms.

    Raises:
        Invalid: not a rate, none at all, or more than 10,000 a second.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise Invalid(
            f"{what}: {text!r} is not a rate; write '100/minute', '10/s' or '10/s burst 20'"
        )
    count, unit = int(match[1]), _UNITS[match[2][0].lower()]
    if not count:
        raise Invalid(f"{what}: {text!r} lets nobody begin; leave it out for no limit")
    if count * _SECOND > _MAX_PER_SECOND * unit:
        raise Invalid(f"{what}: {text!r} is more than {_MAX_PER_SECOND:,} a second")
    interval = -(-unit // count)  # rounded up: never more than was said
    burst = max(1, _SMOOTH // interval) if match[3] is None else int(match[3])
    if not 1 <= burst <= _MAX_BURST:
        raise Invalid(f"{what}: {text!r}: a burst is a number from 1 to {_MAX_BURST:,}")
    return Rate(text.strip(), interval, burst)
