"""What activities spend of the budgets of their run: at once, or reserved first and settled after.

A run without a budget, or whose budget does not count the unit, spends without limit; so does a
function that is called outside a run.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from perdure.errors import Invalid
from perdure.values.budgets import Amount, read_amounts

T = TypeVar("T")


class Purse(Protocol):
    """What the engine gives to an attempt whose run has a budget. Amounts are millionths."""

    async def spend(self, amounts: Mapping[str, int], *, holds: bool) -> str:
        """Spend, or reserve under the id that is returned."""
        ...

    async def settle(self, hold: str, used: Mapping[str, int]) -> None:
        """Settle what was reserved."""
        ...

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the engine's loop, and wait for it in this thread."""
        ...


purse: contextvars.ContextVar[Purse | None] = contextvars.ContextVar("perdure_purse", default=None)
"""Set by the engine around attempts whose run has a budget."""


class _Done(Generic[T]):
    """What is done, for those who await it nevertheless."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        return self._value
        yield


def spend(unit: str, amount: Amount) -> Awaitable[None]:
    """Spend an amount of a unit, ``await activity.spend("tokens", 1234)``, from every budget of the
    run that counts it. In a plain function, which runs in a thread, no ``await`` is needed.

    It is durable when this returns, also if the attempt fails afterwards: what an attempt has spent
    is spent, and the next one spends its own.

    Raises:
        BudgetExceeded: there is not so much left; nothing was spent. It is not retried.
        Invalid: no unit, or no amount.
    """
    amounts = read_amounts({unit: amount}, "spend")
    mine = purse.get()
    if mine is None:
        return _Done(None)
    return _run(mine, _spent(mine, amounts))


def reserve(**amounts: Amount) -> Reservation:
    """Reserve amounts for the length of a ``with``, or ``async with``, block.

    ``async with activity.reserve(tokens=4000, usd="0.10") as held:`` takes them from the run's
    budgets before the block begins; ``held.used(tokens=1234)`` in it says what was used, and the
    rest is given back at its end. What nothing was said of counts as used, also if the block raises
    or the worker dies in it (then with the end of the run): it may have been.

    Raises:
        BudgetExceeded: there is not so much left. It is not retried.
        Invalid: no amount.
    """
    return Reservation(read_amounts(amounts, "reserve"))


class Reservation:
    """What :func:`reserve` has reserved, while its block runs."""

    def __init__(self, amounts: Mapping[str, int]) -> None:
        self._amounts = amounts
        self._used: dict[str, int] = {}
        self._purse = purse.get()
        self._hold = ""

    def used(self, **amounts: Amount) -> None:
        """Say how much was used, in all; it may be more than was reserved.

        Raises:
            Invalid: no amount, or one of a unit that was not reserved, which would be lost.
        """
        used = read_amounts(amounts, "used")
        if others := sorted(used.keys() - self._amounts.keys()):
            of = ", ".join(sorted(self._amounts))
            raise Invalid(f"used: {others[0]!r} was not reserved here ({of} was)")
        self._used |= used

    async def __aenter__(self) -> Self:
        if self._purse is not None:
            self._hold = await self._purse.spend(self._amounts, holds=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            return  # the loop is gone: nothing can be awaited
        if self._purse is not None and self._hold:
            # Cancelled here it would stay reserved to the end of the run.
            await asyncio.shield(self._purse.settle(self._hold, self._used))

    def __enter__(self) -> Self:
        if self._purse is not None:
            self._hold = self._purse.wait(self._purse.spend(self._amounts, holds=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._purse is not None and self._hold:
            self._purse.wait(self._purse.settle(self._hold, self._used))


async def _spent(mine: Purse, amounts: Mapping[str, int]) -> None:
    await mine.spend(amounts, holds=False)


def _run(mine: Purse, coroutine: Coroutine[Any, Any, T]) -> Awaitable[T]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _Done(mine.wait(coroutine))
    return coroutine
