"""The rates of workflows and keys inside a transaction: who has paid, and who waits for them.

A row holds until when is paid (``values/rates.py``), and until when somebody is held back by it. It
is written in the transaction that lets executions begin, so a crash neither loses nor invents one,
and deleted when its time is over: then it says what no row says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.values.concurrency import Limit
from perdure.values.rates import Rate

Place = tuple[str, str]
"""Workflow and key; a key of ``""`` is the workflow's own rate."""

_OVER = 1_000


class Pace:
    """One transaction's view of them. ``limit``: the limit of a workflow."""

    def __init__(self, database: Writing, limit: Callable[[str], Limit]) -> None:
        self._database = database
        self._limit = limit
        self._paid: dict[Place, int] = {}
        self._held: dict[Place, int | None] = {}
        self._changed: dict[Place, None] = {}
        self.next_at: int | None = None
        """When the first of those whom this transaction found held back may begin."""

    def rate(self, place: Place) -> Rate | None:
        """Return the rate of a place, if it has one."""
        return self._limit(place[0]).pace(place[1])

    def look_at(self, places: Iterable[Place]) -> None:
        """Read what is not known yet of places that have a rate."""
        wanted = [place for place in places if place not in self._paid and self.rate(place)]
        if wanted:
            for place in wanted:
                self._paid[place] = 0
            for workflow, key, paid, held in from_json(
                one(self._database, "rates", to_json(wanted))
            ):
                self._paid[workflow, key], self._held[workflow, key] = paid, held

    def paid(self, places: Iterable[Place]) -> dict[Place, int]:
        """Return until when is paid, for those of the places that have a rate."""
        places = list(places)
        self.look_at(places)
        return {place: self._paid[place] for place in places if place in self._paid}

    def left(self, place: Place, now: int) -> int | None:
        """Return how many may begin now; ``None``: there is no rate. It was looked at."""
        rate = self.rate(place)
        return None if rate is None else rate.left(self._paid[place], now)

    def pay(self, place: Place, now: int) -> None:
        """Count one that begins now. It was looked at, if there is a rate."""
        rate = self.rate(place)
        if rate is not None:
            self._paid[place] = rate.paid(self._paid[place], now)
            self._changed[place] = None

    def hold(self, place: Place, ahead: int | None) -> None:
        """Note that somebody waits until ``ahead`` more than may begin now may; ``None``: nobody.

        It was looked at.
        """
        rate = self.rate(place)
        until = None
        if rate is not None and ahead is not None:
            until = rate.next_at(self._paid[place]) + ahead * rate.interval
            self.next_at = until if self.next_at is None else min(self.next_at, until)
        if self._held.get(place) != until:
            self._held[place] = until
            self._changed[place] = None

    def write(self, now: int) -> None:
        """Write what changed, and delete what is over."""
        if self._changed:
            rows = [
                (*place, self._paid.get(place, 0), self._held.get(place)) for place in self._changed
            ]
            self._changed = {}
            self._database.run("upsert_rates", to_json(rows))
            self._database.run("delete_rates", now, _OVER)
