"""Concurrency limits inside the transactions that start, end and admit executions.

Every count is made while the write lock is held, so no two starts see the same free slot. A slot is
freed by the statement that ends its execution, and given to the next in the queue in the same
transaction: there is nothing between the two that a crash could part.

Whom a key's limits hold back stands in the queue as ``held``; as many as the key has room for are
``ready``, and ranked (``ranks.py``). So the next one of a workflow is the first ready row of an
index, however many others wait, and a key that is full stands in nobody's way. Rates are paid in
the transaction that lets somebody begin (``pace.py``).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.errors import StoreError
from perdure.store.port import Batch, Definition
from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.pace import Pace
from perdure.store.sql.pace import Place as Paced
from perdure.store.sql.plan import Plan
from perdure.store.sql.ranks import UNRANKED, Entrant, rank_all
from perdure.store.sql.rooms import Line, Ready, Room, let_in, queue_place
from perdure.store.sql.starting import REPLACES, Existing, requests_of
from perdure.values import events
from perdure.values.concurrency import NO_LIMIT, Limit, Place, Standing, lane_of
from perdure.values.terms import Deadlines

_EVERYTHING = 1_000_000_000
_DELAYED = 1_000
_KEYS = 1_000

Held = tuple[int, int, int, str]
"""Negative priority, since when, execution, lane: the smallest is the next of its key."""


class Slots:
    """One transaction's view of limits, slots and queues."""

    def __init__(self, database: Writing) -> None:
        self._database = database
        self._limits: dict[str, Limit] | None = None
        self._workflows: dict[str, None] = {}
        self._keys: dict[tuple[str, str], None] = {}
        self._pace = Pace(database, self._limit)

    @property
    def next_at(self) -> int | None:
        """When the first of those may begin whom this transaction found held back by a rate."""
        return self._pace.next_at

    @property
    def limits(self) -> Mapping[str, Limit]:
        """All limits, by workflow."""
        if self._limits is None:
            rows = from_json(one(self._database, "limits"))
            self._limits = {row[0]: Limit(*row[1:]) for row in rows}
        return self._limits

    def room(self, batch: Batch, existing: Iterable[Existing]) -> Room | None:
        """Count what is taken of what the batch's starts need; ``None``: no limit touches it."""
        requests = [one for one in requests_of(batch) if self._limit(one.workflow).limits]
        if not requests:
            return None
        names = self._with_pools(request.workflow for request in requests)
        keys = {(request.workflow, request.key) for request in requests if request.key}
        replaceable = [
            other.execution
            for other in existing
            if any(request.conflict in REPLACES for request in requests)
        ]
        holders: dict[int, tuple[str, str]] = {}
        if replaceable:
            rows = from_json(one(self._database, "holders", to_json(replaceable)))
            holders = {execution: (workflow, key) for execution, workflow, key in rows}
        paid: dict[Paced, int] = {}
        queued: set[Paced] = set()
        if any(self._limit(request.workflow).is_paced for request in requests):
            paid = self._pace.paid([*((name, "") for name in names), *keys])
            waited_for = from_json(one(self._database, "queued", to_json(list(paid))))
            queued = {(workflow, key) for workflow, key in waited_for}
        taken, of_keys = self._taken(names), self._taken_of(keys)
        return Room(self.limits, taken, of_keys, holders, paid, queued)

    # -- what a batch changes ----------------------------------------------------------------

    def write(self, plan: Plan, now: int) -> bool:
        """Write the places of a batch, free what it ends, and admit; tell whether anybody was."""
        if plan.slots:
            self._enter(plan.slots, now)
        waits: list[int] = []
        if plan.later:
            waits += self._changed("delay_slots", plan.later)
        if plan.resumed:
            waits += self._changed("resume_slots", plan.resumed)
        if waits:
            self._run("delay_states", waits)
        if plan.paused:
            self._changed("pause_slots", plan.paused)
        if plan.ended:
            self._changed("delete_slots", plan.ended)
        if waits:
            self._queue_due(now)
        return self._admit(now) > 0

    def admit(self, now: int) -> int:
        """Let those in whom nobody let in; return how many joined the queue or got a slot."""
        joined = self._queue_due(now)
        for workflow, key in self._database.run("held_no_longer", now, _KEYS).fetchall():
            self._touch(workflow, key)
        names = to_json(list(self.limits))
        for workflow in from_json(one(self._database, "workflows_with_queue", names)):
            self._workflows[workflow] = None
        return joined + self._admit(now)

    # -- what workers register ---------------------------------------------------------------

    def register(self, definitions: Sequence[Definition], now: int) -> None:
        """Let these limits hold from now on; those of other workflows stay."""
        wanted = {one.name: one.limit for one in definitions}
        changed = {name: new for name, new in wanted.items() if new != self._limit(name)}
        if not changed:
            return
        added = [name for name in changed if name not in self.limits]
        rows = [(name, *msgspec.structs.astuple(it)) for name, it in changed.items()]
        self._run("upsert_limits", rows)
        unbegun: list[int] = []
        if added:
            unbegun = self._adopt(added)
            self._run("mark_unqueued", added)
        paces = [(name, of) for name, it in changed.items() for of in (0, 1) if not it.has_pace(of)]
        self._run("delete_rates_of", paces)
        self._limits = None
        if unbegun:
            self._run("delay_states", unbegun)
            self._queue_due(now)
        for name in changed:
            self._workflows[name] = None
            for key in from_json(one(self._database, "keys_with_queue", name)):
                if key:
                    self._keys[name, key] = None
        self._admit(now)
        free = [name for name, new in changed.items() if not new.limits]
        if free:  # everybody was let in
            self._run("unmark_delayed", free)
            self._run("delete_slots_of_workflows", free)
            self._run("delete_limits", free)

    # -- what people are shown ---------------------------------------------------------------

    def standing(self, execution: int) -> Standing | None:
        """Return what stands between an execution and its slot; ``None``: it has no place."""
        found = self._database.run("slot", execution).fetchone()
        if found is None:
            return None
        workflow, key, priority, since, place, rank, turn = found
        limit = self._limit(workflow)
        taken = self._taken(self._with_pools([workflow]))
        if place == Place.HELD:
            before = one(self._database, "before_of_key", workflow, key, priority, since, execution)
        else:
            before = one(self._database, "before", workflow, priority, rank, turn)
        standing = Standing(
            workflow,
            key,
            limit,
            taken.get(workflow, 0),
            self._taken_of({(workflow, key)}).get((workflow, key), 0),
            sum(taken.values()) if limit.pool else 0,
            int(before),
        )
        paced = workflow, key if place == Place.HELD else ""
        rate, paid = limit.pace(paced[1]), self._pace.paid([paced])
        if rate is not None and place in (Place.HELD, Place.READY):
            standing.rate, standing.rate_is_of_key = rate.text, bool(paced[1])
            standing.begins_at = rate.next_at(paid[paced]) + standing.before * rate.interval
        return standing

    # -- inside ------------------------------------------------------------------------------

    def _limit(self, workflow: str) -> Limit:
        return self.limits.get(workflow, NO_LIMIT)

    def _adopt(self, workflows: Sequence[str]) -> list[int]:
        """Count what was open before these workflows had a limit; return what nobody had begun.

        That has no slot, and joins the queue as if it came now; what was started paused, later.
        """
        slots: list[Any] = []
        found = self._database.run("adoptable", to_json(workflows)).fetchall()
        waiting = [row[0] for row in found if row[-1] or row[3] == Place.ASIDE]
        if waiting and self._database.hold_executions(sorted(waiting)):
            # Some may have been begun before they were held.
            found = self._database.run("adoptable", to_json(workflows)).fetchall()
        unbegun: list[int] = []
        for execution, workflow, since, place, tenant, payload, is_unbegun in found:
            if is_unbegun:
                unbegun.append(execution)
            started = _started(payload)
            key, priority, deadline = "", 0, None
            if started is not None:
                key, priority = started.terms.key, started.terms.priority
                times = Deadlines(0, started.run_deadline, started.execution_deadline)
                deadline = times.first or None
            row = (execution, workflow, key, priority, since, deadline, place)
            slots.append((*row, lane_of(tenant, key), UNRANKED, 0))
        self._run("insert_slots", slots)
        return unbegun

    def _enter(self, slots: Sequence[Any], now: int) -> None:
        """Write the places of new executions; those that begin pay."""
        ready = [
            Entrant(execution, workflow, priority, lane)
            for execution, workflow, _, priority, _, _, place, lane in slots
            if place == Place.READY
        ]
        ranks = dict(zip((one[0] for one in ready), self._ranked(ready), strict=True))
        self._run("insert_slots", [(*row, *ranks.get(row[0], (UNRANKED, 0))) for row in slots])
        begun: list[Paced] = []
        for _, workflow, key, _, _, _, place, _ in slots:
            if place in (Place.HELD, Place.READY):
                self._touch(workflow, key)
            elif place == Place.TAKEN and self._limit(workflow).is_paced:
                begun += [(workflow, ""), (workflow, key)] if key else [(workflow, "")]
        self._pay(begun, now)

    def _ranked(self, entrants: Sequence[Entrant]) -> list[tuple[int, int]]:
        return rank_all(self._database, entrants)

    def _pay(self, begun: Sequence[Paced], now: int) -> None:
        self._pace.look_at(begun)
        for place in begun:
            self._pace.pay(place, now)

    def _run(self, query: str, rows: Sequence[Any]) -> None:
        self._database.run(query, to_json(rows))

    def _touch(self, workflow: str, key: str) -> None:
        self._workflows[workflow] = None
        if key and self._limit(workflow).limits_keys:
            self._keys[workflow, key] = None

    def _changed(self, query: str, rows: Sequence[Any]) -> list[int]:
        """Change places; return the executions, if the statement does."""
        found = self._database.run(query, to_json(rows)).fetchall()
        for workflow, key, *_ in found:
            self._touch(workflow, key)
        return [row[2] for row in found if len(row) > 2]

    def _queue_due(self, now: int) -> int:
        """Let those join the queue whose delay is over."""
        due = self._database.run("delayed", now, _DELAYED).fetchall()
        if due:
            places: list[Any] = []
            ready: list[Entrant] = []
            for execution, workflow, key, priority, lane, rank, turn in due:
                self._touch(workflow, key)
                if queue_place(self._limit(workflow), key) is Place.READY:
                    ready.append(Entrant(execution, workflow, priority, lane, rank, turn))
                else:
                    places.append((execution, Place.HELD, UNRANKED, 0))
            self._place(places, ready)
            queued = to_json([row[0] for row in due])
            self._database.run("queue_states", queued, now)
        return len(due)

    def _admit(self, now: int) -> int:
        """Let in the first of the queues of the workflows that were touched."""
        admitted = self._let_in(now) if self._workflows else 0
        self._pace.write(now)
        return admitted

    def _let_in(self, now: int) -> int:
        self._make_ready(now)
        names = self._with_pools(self._workflows)
        taken = self._taken(names)
        self._pace.look_at((name, "") for name in names)
        pools: dict[str, int] = {}
        for name in names:
            limit = self._limit(name)
            if limit.pool_max:
                left = pools.setdefault(limit.pool, limit.pool_max)
                pools[limit.pool] = left - taken[name]
        lines: list[Line] = []
        for name in names:
            limit = self._limit(name)
            room = limit.max_open - taken[name] if limit.max_open else _EVERYTHING
            if limit.pool_max:
                room = min(room, pools[limit.pool])
            in_time = self._pace.left((name, ""), now)
            if room > 0:
                free = room if in_time is None else min(room, in_time)
                # One more than may begin now says whether somebody waits for the rate.
                rows = self._database.run("ready", name, free + (in_time is not None)).fetchall()
                pool = limit.pool if limit.pool_max else ""
                lines.append(Line(name, [Ready(*row) for row in rows], free, pool, taken[name]))
            elif in_time is not None:
                self._pace.hold((name, ""), None)  # it is for a slot that they wait
        admitted = let_in(lines, pools)
        if admitted:
            executions = [one.execution for _, one in admitted]
            self._run("place_slots", [(one, Place.TAKEN, None, None) for one in executions])
            self._database.run("admit_states", to_json(executions), now)
        self._note_pace(lines, admitted, now)
        return len(admitted)

    def _note_pace(
        self, lines: Sequence[Line], admitted: Sequence[tuple[str, Ready]], now: int
    ) -> None:
        """Let those pay who begin, and note until when the others are held back by a rate."""
        begun: dict[str, int] = {}
        keys: dict[tuple[str, str], None] = {}
        for workflow, one_ in admitted:
            begun[workflow] = begun.get(workflow, 0) + 1
            self._pace.pay((workflow, ""), now)
            if one_.key and self._limit(workflow).rate_per_key:
                self._pace.look_at([(workflow, one_.key)])
                self._pace.pay((workflow, one_.key), now)
                keys[workflow, one_.key] = None
        for line in lines:
            more = len(line.first) > begun.get(line.workflow, 0)
            left = self._pace.left((line.workflow, ""), now)
            if left is not None:
                self._pace.hold((line.workflow, ""), 0 if more and not left else None)
        if keys:  # who waits behind them is held back for longer now
            self._keys = keys
            self._make_ready(now)

    def _make_ready(self, now: int) -> None:
        """Let as many of each touched key be ready as the key has room for: the first ones."""
        taken = self._taken_of(self._keys)
        self._pace.look_at(self._keys)
        places: list[Any] = []
        entrants: list[tuple[Held, Entrant]] = []
        for workflow, key in self._keys:
            most = self._limit(workflow).max_per_key
            room = max(0, most - taken[workflow, key]) if most else _EVERYTHING
            in_time = self._pace.left((workflow, key), now)
            free = room if in_time is None else min(room, in_time)
            ready = self._of_key(workflow, key, Place.READY, _EVERYTHING)
            held = self._of_key(workflow, key, Place.HELD, free + 1)
            first = set(heapq.nsmallest(free, [*ready, *held]))
            places += [(row[2], Place.HELD, UNRANKED, 0) for row in ready if row not in first]
            entrants += [
                (row, Entrant(row[2], workflow, -row[0], row[3])) for row in held if row in first
            ]
            if in_time is not None:
                waits = len(ready) + len(held) > free and in_time < room
                self._pace.hold((workflow, key), in_time if waits else None)
        self._place(places, [entrant for _, entrant in sorted(entrants)])

    def _place(self, places: list[Any], ready: Sequence[Entrant]) -> None:
        """Move executions to their places: (execution, place, rank, turn), and those that get
        ready.
        """
        if places:  # first: they are ranked with nobody any more
            self._run("place_slots", places)
        if ready:
            ranks = self._ranked(ready)
            pairs = zip(ready, ranks, strict=True)
            self._run("place_slots", [(it.execution, Place.READY, *rank) for it, rank in pairs])

    def _of_key(self, workflow: str, key: str, place: Place, limit: int) -> list[Held]:
        wanted = (workflow, key, int(place), limit)
        return self._database.run("of_key", *wanted).fetchall()

    def _with_pools(self, workflows: Iterable[str]) -> list[str]:
        """Return these workflows, and those that share a pool with one of them."""
        names = dict.fromkeys(workflows)
        pools = {self._limit(name).pool for name in names if self._limit(name).pool_max}
        if pools:
            names |= {name: None for name, limit in self.limits.items() if limit.pool in pools}
        return list(names)

    def _taken(self, names: Iterable[str]) -> dict[str, int]:
        return dict(from_json(one(self._database, "taken", to_json(list(names)))))

    def _taken_of(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        wanted = list(keys)
        if not wanted:
            return {}
        rows = from_json(one(self._database, "taken_of_keys", to_json(wanted)))
        return {(workflow, key): count for workflow, key, count in rows}


def _started(payload: bytes) -> events.RunStarted | None:
    """Return event 1 of a history; ``None`` if it cannot be read, which loading reports."""
    try:
        first = events.decode_turn(payload)[0]
    except StoreError:
        return None
    return first if isinstance(first, events.RunStarted) else None
