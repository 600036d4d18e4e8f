"""Budgets: how much an execution and all that it starts may spend, of whatever it counts.

A start may bring one. It travels in the propagated context, so children, their children and later
runs share it; a child may bring one of its own, and then spends from both. Amounts are kept as
whole millionths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final, cast

import msgspec

from perdure.errors import Invalid
from perdure.values.meters import BudgetRow, Charge

CONTEXT_KEY: Final = "budget"
"""Where ``workflow.context`` has the budgets of a run: ``[[key, {unit: millionths}], …]``."""
CALLS: Final = "calls"
"""The unit of which each attempt of an activity spends one before it begins."""
ONE_CALL: Final = {CALLS: 1_000_000}
"""That one."""
RUNS: Final = "runs"
"""The unit of which each child spends one with its start."""
Amount = int | float | str | Decimal


class Budget(msgspec.Struct, frozen=True):
    """What a budget has of one unit. ``run_id``: of the run that was started with it; ``reserved``:
    by attempts that are under way. What was used beyond what was reserved may leave less than 0.
    """

    run_id: str
    unit: str
    amount: Decimal
    used: Decimal
    reserved: Decimal
    left: Decimal


_MILLION = 1_000_000
_MOST = 9 * 10**18
_UNIT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_UNITS = 20
_MARK = f'"{CONTEXT_KEY}"'.encode()


def millionths(amount: object, what: str) -> int:
    """Return an amount in millionths, rounded up.

    Raises:
        Invalid: it is no number of 0 or more, or too large.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise Invalid(f"{what}: {amount!r} is no amount; write 100000 or '0.25'")
    try:
        # Through text: a float is what people see of it, 0.1 and not a little more.
        exact = Decimal(str(amount)) * _MILLION
        whole = int(exact.to_integral_value(rounding=ROUND_CEILING))
    except (InvalidOperation, ValueError, OverflowError):
        raise Invalid(f"{what}: {amount!r} is no amount; write 100000 or '0.25'") from None
    if not 0 <= whole <= _MOST:
        raise Invalid(f"{what}: {amount!r} is not between 0 and {_MOST // _MILLION:,}")
    return whole


def shown(amount: int) -> str:
    """Return millionths as people write the amount."""
    text = f"{Decimal(amount) / _MILLION:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def budget_of(row: BudgetRow) -> Budget:
    """Return a budget's row in whole units."""
    amounts = (row.amount, row.used, row.reserved, row.left)
    return Budget(row.key, row.unit, *(Decimal(shown(it).replace(",", "")) for it in amounts))


def read_amounts(given: object, what: str = "budget") -> dict[str, int]:
    """Return units with their millionths.

    Raises:
        Invalid: a unit is no name, or an amount is none.
    """
    if not isinstance(given, Mapping) or not given:
        raise Invalid(f"{what}: {given!r} is no mapping of units to amounts")
    amounts = cast("Mapping[object, object]", given)
    if len(amounts) > _UNITS:
        raise Invalid(f"{what}: {len(amounts)} units are over the limit of {_UNITS}")
    found: dict[str, int] = {}
    for unit, amount in amounts.items():
        if not isinstance(unit, str) or not _UNIT.fullmatch(unit):
            raise Invalid(f"{what}: {unit!r} is no unit: letters, digits and _, 64 at most")
        found[unit] = millionths(amount, f"{what}.{unit}")
    return found


def with_budget(
    context: Mapping[str, Any], given: object, run_id: str, inherited: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Return the context of a start: what it inherits, what it was given, and its budget.

    Raises:
        Invalid: the given context has the reserved key, or the budget is none.
    """
    if CONTEXT_KEY in context:
        raise Invalid(
            f"context: {CONTEXT_KEY!r} is where budgets travel; start with budget={{…}} instead"
        )
    merged = {**inherited, **context}
    if given is not None:
        above: list[Any] = list(merged.get(CONTEXT_KEY, ()))
        merged[CONTEXT_KEY] = [*above, [run_id, read_amounts(given)]]
    return merged


def may_carry(context: bytes | None) -> bool:
    """Tell cheaply whether there may be budgets in an encoded context."""
    return context is not None and _MARK in context


def carried(context: bytes | None) -> list[tuple[str, dict[str, int]]]:
    """Return the budgets in an encoded context: the keys, and what each limits."""
    if context is None or not may_carry(context):
        return []
    try:
        return _decode(context).budget
    except msgspec.ValidationError:  # the word stands elsewhere in it
        return []


def own(context: bytes | None, run_id: str) -> tuple[tuple[str, int], ...]:
    """Return the budget that a start brings itself, for ``StartRequest.budget``."""
    return tuple(
        place for key, amounts in carried(context) if key == run_id for place in amounts.items()
    )


def charged(context: bytes | None, amounts: Mapping[str, int]) -> tuple[Charge, ...]:
    """Return what these amounts cost: in each budget that limits the unit."""
    return tuple(_charged(context, amounts))


def _charged(context: bytes | None, amounts: Mapping[str, int]) -> Iterator[Charge]:
    for key, limited in carried(context):
        for unit, amount in amounts.items():
            if unit in limited:
                yield Charge(key, unit, amount)


def for_child(context: bytes | None, run_id: str) -> tuple[Charge, ...]:
    """Return what the start of a child costs: a run of each budget above it."""
    return tuple(one for one in charged(context, {RUNS: _MILLION}) if one.key != run_id)


class _Context(msgspec.Struct):
    budget: list[tuple[str, dict[str, int]]] = []


_decode = msgspec.json.Decoder(_Context).decode
