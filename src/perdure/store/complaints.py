"""A trouble that comes again and again is logged once in a while, with a count."""

from __future__ import annotations

import logging
from collections.abc import Callable

EVERY_SECONDS = 5.0


class Complaints:
    """Warnings about one trouble. ``now`` returns seconds of some clock. For one thread."""

    def __init__(self, log: logging.Logger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._next = 0.0
        self._unsaid = 0
        self._is_over = True

    def add(self, text: str, *args: object) -> None:
        """Warn, unless somebody was warned a moment ago: then count."""
        now = self._now()
        if not self._is_over and now < self._next:
            self._unsaid += 1
            return
        if self._unsaid:
            text += " (and %d times more in the last %.0f s)"
            args = *args, self._unsaid, EVERY_SECONDS
        self._log.warning(text, *args)
        self._next = now + EVERY_SECONDS
        self._unsaid = 0
        self._is_over = False

    def over(self, text: str) -> None:
        """Say, once, that the trouble is over."""
        if self._is_over:
            return
        self._is_over = True
        count, self._unsaid = self._unsaid, 0
        if count:
            self._log.warning("%s (after %d more failures)", text, count)
        else:
            self._log.info(text)
