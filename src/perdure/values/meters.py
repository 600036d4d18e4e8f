"""What is counted in the database for all processes together: rates in time, and budgets."""

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


class Charge(msgspec.Struct, frozen=True, gc=False):
    """An amount of a budget's unit, in millionths."""

    key: str
    unit: str
    amount: int


class Spend(msgspec.Struct, frozen=True):
    """What is to be spent together: all of it, or nothing.

    ``hold``: the charges are reserved under this id until they are settled, for ``execution``, with
    whose end they count as used. Without one they are used at once.
    """

    meters: tuple[Meter, ...] = ()
    charges: tuple[Charge, ...] = ()
    hold: str = ""
    execution: int = 0


class Spent(msgspec.Struct, gc=False):
    """What became of it. ``refused``: the key of the first meter or budget that has not enough left
    (then nothing was spent); ``""``: all was. A meter has enough from ``retry_at`` on. Of a budget
    ``left`` millionths of ``unit`` are left; ``is_gone``: there is no such budget any more.
    ``is_closed``: the execution has ended, and can reserve nothing.
    """

    refused: str = ""
    retry_at: int = 0
    unit: str = ""
    left: int = 0
    is_gone: bool = False
    is_closed: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether nothing was spent."""
        return bool(self.refused) or self.is_closed


class BudgetRow(msgspec.Struct, gc=False):
    """What a budget has of one unit, in millionths: given, used, and reserved by attempts."""

    key: str
    unit: str
    execution: int
    amount: int
    used: int
    reserved: int

    @property
    def left(self) -> int:
        """How much may still be reserved."""
        return self.amount - self.used - self.reserved


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
