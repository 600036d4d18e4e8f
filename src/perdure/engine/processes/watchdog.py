"""When a subprocess is taken for hung, and who is told."""

from __future__ import annotations

from perdure import errors
from perdure.values.duration import SECOND, Duration, microseconds, to_text

_DEFAULT_MISSED = 12


class Watchdog:
    """How subprocesses are watched over.

    Each sends a sign of life every ``interval``, from a thread of its own. One of which nothing was
    heard for ``missed`` intervals hangs (a stopped process, C code that never lets go of the
    interpreter): it is ended, and the attempt it ran has failed and counts.

    Args:
        enabled: whether silence ends a subprocess. One that died is noticed at once anyway.
        interval: between two signs of life.
        missed: how many of them may be missed.

    Raises:
        Invalid: a bad duration, a number below 1, or what is neither on nor off.
    """

    __slots__ = ("enabled", "interval", "missed")

    def __init__(
        self, enabled: bool = True, interval: Duration = "5s", *, missed: int = _DEFAULT_MISSED
    ) -> None:
        span = microseconds(interval, what="watchdog interval")
        if span <= 0:
            raise errors.Invalid(f"watchdog: interval={interval!r} must be above 0")
        if type(missed) is not int or missed < 1:
            raise errors.Invalid(f"watchdog: missed={missed!r} must be a whole number from 1 on")
        if type(enabled) is not bool:
            raise errors.Invalid(f"watchdog: enabled={enabled!r} is neither True nor False")
        self.enabled = enabled
        self.interval = span
        """Microseconds."""
        self.missed = missed

    @property
    def interval_seconds(self) -> float:
        """The interval in seconds."""
        return self.interval / SECOND

    @property
    def limit_seconds(self) -> float:
        """For how long nothing may be heard, in seconds."""
        return self.interval * self.missed / SECOND

    def __repr__(self) -> str:
        return (
            f"Watchdog(enabled={self.enabled}, interval={to_text(self.interval)!r}, "
            f"missed={self.missed})"
        )
