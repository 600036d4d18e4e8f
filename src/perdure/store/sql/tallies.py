"""Meters, places and budgets: what is counted for all processes together, in transactions.

* A *meter* is a rate: until when is paid (``values/rates.py``). Its row is locked when it is asked.
* A *place* is an open execution that is counted under a key. Starts count while nobody else can,
  and the row goes in the commit that ends the execution.
* A *budget* is an amount, of which some is used, and some reserved by attempts. A reservation is a
  row: whoever takes it away settles it, so it is settled once; the end of its execution takes what
  is left, as used, since it may have been.

Whoever has none of these has no statement for them: the fence says whether there ever were any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.store.port import Batch
from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.plan import Plan
from perdure.store.sql.starting import REPLACES, Existing, Places, requests_of
from perdure.values.meters import BudgetRow, Charge, Meter, Spend, Spent

PLACES, BUDGETS = 1, 2
_OVER = 1_000


def places(database: Writing, batch: Batch, existing: Iterable[Existing]) -> Places | None:
    """Count what is taken of the places that a batch's starts want; ``None``: they want none."""
    wanting = [request for request in requests_of(batch) if request.places or request.charges]
    if not wanting:
        return None
    charges = {(it.key, it.unit) for request in wanting for it in request.charges}
    rows = from_json(one(database, "hold_budgets", to_json(sorted(charges)))) if charges else ()
    left = {(row[0], row[1]): BudgetRow(*row).left for row in rows}
    keys = {key: None for request in wanting for key, _ in request.places}
    taken = dict[str, int](from_json(one(database, "places_taken", to_json(list(keys)))))
    held: dict[int, list[str]] = {}
    if any(request.conflict in REPLACES for request in wanting):
        others = to_json([other.execution for other in existing])
        for execution, key in from_json(one(database, "places_of", others)):
            held.setdefault(execution, []).append(key)
    return Places(taken, held, left)


def write(database: Writing, plan: Plan, counts: int) -> None:
    """Write the places and budgets of a batch's starts, and take away what its ends leave.

    ``counts``: what there ever was, ``PLACES + BUDGETS``.
    """
    places = [(on, key) for on, request in plan.counted for key, _ in request.places]
    if places:
        database.run("insert_places", to_json(places))
    budgets = [(it.run_id, unit, on, most) for on, it in plan.counted for unit, most in it.budget]
    if budgets:
        database.run("insert_budgets", to_json(budgets))
    charged = _sums(it for _, request in plan.counted for it in request.charges)
    if charged:
        more = [(*place, amount, 0) for place, amount in sorted(charged.items())]
        database.run("change_budgets", to_json(more))
    fresh = (PLACES if places else 0) | (BUDGETS if budgets else 0)
    if fresh & ~counts:
        database.run("note_counted", fresh)
    if not plan.ended:
        return
    ended = plan.json["ended"]
    if counts & PLACES or places:
        database.run("delete_places", ended)
    if counts & BUDGETS:
        left = database.run("take_holds_of", ended).fetchall()
        _settle(database, [(key, unit, amount, amount) for key, unit, amount in left])


class Meters:
    """Meters that are held together, in the order of their keys, and written together."""

    def __init__(self, database: Writing, meters: Iterable[Meter], now: int) -> None:
        self._database = database
        self._now = now
        self._paid: dict[str, int] = {}
        self._is_spent = False
        if keys := sorted({meter.key for meter in meters}):
            self._paid = dict(from_json(one(database, "meters", to_json(keys))))

    def spend(self, meters: Sequence[Meter]) -> Spent | None:
        """Spend all of it; or nothing, and return the refusal."""
        paid = dict(self._paid)
        for meter in meters:
            until = paid.get(meter.key, 0)
            if meter.rate.left(until, self._now) < meter.count:
                return Spent(meter.key, retry_at=_enough_at(meter, until, self._now))
            paid[meter.key] = meter.rate.paid(until, self._now, meter.count)
        self._paid = paid
        self._is_spent |= bool(meters)
        return None

    def write(self) -> None:
        """Write down what was spent."""
        if self._is_spent:
            self._database.run("upsert_meters", to_json(list(self._paid.items())))


def spend(database: Writing, wish: Spend, now: int) -> Spent:
    """Spend all of it, or nothing: see the port."""
    if wish.hold:
        database.hold_executions([wish.execution])
    meters = Meters(database, wish.meters, now)
    refused = meters.spend(wish.meters)
    if refused is None and wish.charges:
        refused = _charge(database, wish)
    if refused is not None:
        return refused
    meters.write()
    return Spent()


def settle(database: Writing, hold: str, used: Mapping[str, int]) -> bool:
    """Take a reservation away: see the port."""
    rows = database.run("take_hold", hold).fetchall()
    changes = [(key, unit, used.get(unit, amount), amount) for key, unit, amount in rows]
    _settle(database, changes)
    return bool(rows)


def forget(database: Writing, now: int) -> None:
    """Delete meters whose time is over: they say what no row says."""
    database.run("delete_meters", now, _OVER)


def _enough_at(meter: Meter, until: int, now: int) -> int:
    rate, count = meter.rate, meter.count
    return max(rate.next_at(until) + (count - 1) * rate.interval, now)


def _charge(database: Writing, wish: Spend) -> Spent | None:
    """Use, or reserve, what is charged; return a refusal if there is not enough."""
    wanted = _sums(wish.charges)
    rows = from_json(one(database, "hold_budgets", to_json(sorted(wanted))))
    found = {(row[0], row[1]): BudgetRow(*row) for row in rows}
    if wish.hold:
        if one(database, "has_hold", wish.hold):
            return None  # asked again after a lost acknowledgement
        if not one(database, "is_open", wish.execution):
            return Spent(is_closed=True)
    for place, amount in wanted.items():
        row = found.get(place)
        if row is None:
            return Spent(place[0], unit=place[1], is_gone=True)
        if amount > row.left:
            return Spent(row.key, unit=row.unit, left=max(0, row.left))
    changes: list[Any] = []
    for (key, unit), amount in sorted(wanted.items()):
        changes.append((key, unit, 0, amount) if wish.hold else (key, unit, amount, 0))
    database.run("change_budgets", to_json(changes))
    if wish.hold:
        holds = [(wish.hold, *place, wish.execution, amount) for place, amount in wanted.items()]
        database.run("insert_holds", to_json(holds))
    return None


def _sums(charges: Iterable[Charge]) -> dict[tuple[str, str], int]:
    sums: dict[tuple[str, str], int] = {}
    for charge in charges:
        place = charge.key, charge.unit
        sums[place] = sums.get(place, 0) + charge.amount
    return sums


def _settle(database: Writing, rows: Sequence[tuple[str, str, int, int]]) -> None:
    """Count what was used of reservations that were taken away: (key, unit, used, reserved)."""
    if not rows:
        return
    sums: dict[tuple[str, str], list[int]] = {}
    for key, unit, used, reserved in rows:
        so_far = sums.setdefault((key, unit), [0, 0])
        so_far[0] += used
        so_far[1] -= reserved
    places = sorted(sums)
    one(database, "hold_budgets", to_json(places))
    database.run("change_budgets", to_json([(*place, *sums[place]) for place in places]))
