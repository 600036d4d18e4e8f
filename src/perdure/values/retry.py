"""How often and how fast to try again."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import Invalid
from perdure.values.duration import SECOND, Duration, optional_microseconds
from perdure.values.failures import FailureInfo
from perdure.values.limits import COUNTED


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A resolved policy as it stands in the history. Microseconds; 0 attempts: no limit.

    ``forgives_losses``: an attempt that was lost with its worker may be the last, too.
    """

    max_attempts: int = 0
    interval: int = SECOND
    backoff: float = 2.0
    max_interval: int = 100 * SECOND
    non_retryable: tuple[str, ...] = ()
    retry_on: tuple[str, ...] = ()
    forgives_losses: bool = False

    def delay_after(self, attempt: int) -> int:
        """Return the pause in microseconds after failed attempt number ``attempt`` (from 1)."""
        # The exponent is capped: an unlimited policy must not overflow a float at attempt 1,100.
        grown = self.interval * self.backoff ** min(attempt - 1, 64)
        return int(min(grown, self.max_interval))

    def allows_after_loss(self, attempt: int) -> bool:
        """Tell whether attempt ``attempt + 1`` may follow one that was lost with its worker."""
        return self.forgives_losses or not self.max_attempts or attempt < self.max_attempts

    def allows(self, failure: FailureInfo, attempt: int) -> bool:
        """Tell whether attempt ``attempt + 1`` may follow ``failure``."""
        if not failure.retryable or (self.max_attempts and attempt >= self.max_attempts):
            return False
        if failure.matches(self.non_retryable):
            return False
        return not self.retry_on or failure.matches(self.retry_on)


ACTIVITY_DEFAULT = RetryPolicy()


class Retry:
    """A retry policy as users write it; what is left out comes from where it is used.

    Args:
        max_attempts: attempts in all, the first included; 0 means without limit.
        interval: pause after the first failure.
        backoff: factor from one pause to the next.
        max_interval: the longest pause.
        non_retryable: kinds, exception class names or text in the message that stop at once.
        retry_on: when given, only these are tried again.

    Raises:
        Invalid: a number out of range or a bad duration.
    """

    __slots__ = ("_given",)

    def __init__(
        self,
        max_attempts: int | None = None,
        interval: Duration | None = None,
        backoff: float | None = None,
        max_interval: Duration | None = None,
        *,
        non_retryable: tuple[str, ...] | list[str] | None = None,
        retry_on: tuple[str, ...] | list[str] | None = None,
    ) -> None:
        if max_attempts is not None and not _is_count(max_attempts):
            raise Invalid(
                f"retry: max_attempts={max_attempts!r} must be a whole number from 0 (no limit) to "
                f"{COUNTED:,}"
            )
        if backoff is not None and not 1.0 <= backoff <= 1_000:
            raise Invalid(f"retry: backoff={backoff} must be from 1 to 1000")
        given = {
            "max_attempts": max_attempts,
            "interval": optional_microseconds(interval, what="retry interval"),
            "backoff": None if backoff is None else float(backoff),  # as it is read back
            "max_interval": optional_microseconds(max_interval, what="retry max_interval"),
            "non_retryable": None if non_retryable is None else tuple(non_retryable),
            "retry_on": None if retry_on is None else tuple(retry_on),
        }
        self._given = {name: value for name, value in given.items() if value is not None}

    @property
    def given(self) -> dict[str, Any]:
        """What was not left out, by name; spans in microseconds."""
        return dict(self._given)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._given.items())
        return f"Retry({inside})"

    def resolve(self, default: RetryPolicy = ACTIVITY_DEFAULT) -> RetryPolicy:
        """Fill what was left out from ``default``."""
        return msgspec.structs.replace(default, **self._given)


def _is_count(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= COUNTED
