"""What attempts spend of the budgets of their runs (``perdure.spending`` is their side)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from perdure import errors, spending
from perdure.values.budgets import ONE_CALL, carried, charged, may_carry, shown
from perdure.values.meters import Spend, Spent

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.work import Work

T = TypeVar("T")


def has_any(work: Work) -> bool:
    """Tell cheaply whether the run of an attempt may have a budget."""
    started = work.run.started
    return started is not None and may_carry(started.context)


def purse_of(core: Core, work: Work) -> Purse | None:
    """Return the budgets of an attempt's run, if it has any."""
    started = work.run.started
    context = started.context if started is not None else None
    if context is None or not carried(context):
        return None  # or the word stands elsewhere in it
    return Purse(core, work, context)


async def begin(core: Core, work: Work) -> None:
    """Let an attempt whose run has a budget spend from it; it pays for itself first. One in a
    subprocess does that there.

    Raises:
        BudgetExceeded: it may not begin.
    """
    if work.job is None and (mine := purse_of(core, work)) is not None:
        spending.purse.set(mine)
        await mine.spend(ONE_CALL, holds=False)


class Purse:
    """The budgets of an attempt's run."""

    def __init__(self, core: Core, work: Work, context: bytes) -> None:
        self._core = core
        self._work = work
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._name = f"{work.run.key}/{work.number}/{work.attempt}"
        self._holds = 0

    async def spend(self, amounts: Mapping[str, int], *, holds: bool) -> str:
        charges = charged(self._context, amounts)
        if not charges:
            return ""
        hold = ""
        if holds:
            self._holds += 1
            hold = f"{self._name}/{self._holds}"
        wish = Spend(charges=charges, hold=hold, execution=self._work.run.execution)
        core = self._core
        spent = await core.desk.write(lambda store: store.spend(wish, core.clock.now()))
        if spent.is_refused:
            raise exceeded(spent, amounts)
        return hold

    async def settle(self, hold: str, used: Mapping[str, int]) -> None:
        await self._core.desk.write(lambda store: store.settle(hold, used))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def exceeded(spent: Spent, amounts: Mapping[str, int]) -> errors.PerdureError:
    """Return the error of what could not be spent."""
    if spent.is_closed:
        return errors.Closed("the run has ended, and reserves nothing any more")
    wanted = shown(amounts.get(spent.unit, 0))
    what = f"{wanted} {spent.unit} of the budget of run {spent.refused}"
    if spent.is_gone:
        why = "was deleted with its run"
    else:
        why = f"cannot be spent: {shown(spent.left)} are left"
    details = {"unit": spent.unit, "wanted": wanted, "left": shown(spent.left)}
    return errors.BudgetExceeded(f"{what} {why}", details={**details, "budget": spent.refused})
