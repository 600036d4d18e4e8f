"""What a rate limit in the database is asked: how many of what kind, at which rate."""

from __future__ import annotations

import re

import msgspec

from perdure.values.rates import Rate, parse_rate

_COUNT = re.compile(r"\s*(\d+)\s*/")


class Meter(msgspec.Struct, frozen=True, gc=False):
    """Something that is counted in time, under one key for all processes. ``count``: how many are
    to be spent now.
    """

    key: str
    rate: Rate
    count: int = 1


class Spent(msgspec.Struct, gc=False):
    """What became of meters that were to be spent together. ``refused``: the key of the first that
    has not enough left (then none was spent), and from ``retry_at`` on it has; ``""``: all were.
    """

    refused: str = ""
    retry_at: int = 0


def window_rate(text: str, *, what: str = "rate") -> Rate:
    """Read a rate whose count may come at once: of ``100/minute`` a hundred, and then as they come.

    Raises:
        Invalid: see ``parse_rate``.
    """
    rate = parse_rate(text, what=what)
    count = _COUNT.match(text)
    if "burst" in text.lower() or count is None:
        return rate
    return msgspec.structs.replace(rate, burst=int(count[1]))
