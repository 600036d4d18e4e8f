"""Concurrency limits inside the transactions that start, end and admit executions.

Every count is made while the write lock is held, so no two starts see the same free slot. A slot is
freed by the statement that ends its execution, and given to the next in the queue in the same
transaction: there is nothing between the two that a crash could part.

Whom a key's limit holds back stands in the queue as ``held``; as many as the key has room for are
``ready``. So the next one of a workflow is the first ready row of an index, however many others
wait, and a key that is full stands in nobody's way.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure.errors import StoreError
from perdure.store.port import Batch, Definition
from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.plan import Plan
from perdure.store.sql.rooms import Room, queue_place
from perdure.store.sql.starting import Existing, requests_of
from perdure.values import events
from perdure.values.concurrency import NO_LIMIT, Limit, Place, Standing
from perdure.values.terms import Deadlines

_EVERYTHING = 1_000_000_000
_DELAYED = 1_000

Rank = tuple[int, int, int]
"""Negative priority, since when, execution: the smallest is the next."""


class Slots:
    """One transaction's view of limits, slots and queues."""

    def __init__(self, database: Writing) -> None:
        self._database = database
        self._limits: dict[str, Limit] | None = None
        self._workflows: dict[str, None] = {}
        self._keys: dict[tuple[str, str], None] = {}

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
            if any(request.conflict == "terminate_existing" for request in requests)
        ]
        holders: dict[int, tuple[str, str]] = {}
        if replaceable:
            rows = from_json(one(self._database, "holders", to_json(replaceable)))
            holders = {execution: (workflow, key) for execution, workflow, key in rows}
        return Room(self.limits, self._taken(names), self._taken_of(keys), holders)

    # -- what a batch changes ----------------------------------------------------------------

    def write(self, plan: Plan, now: int) -> bool:
        """Write the places of a batch, free what it ends, and admit; tell whether anybody was."""
        if plan.slots:
            self._run("insert_slots", plan.slots)
            for _, workflow, key, _, _, _, place in plan.slots:
                if place in (Place.HELD, Place.READY):
                    self._touch(workflow, key)
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
        rows = [
            (name, it.max_open, it.max_per_key, it.on_limit, it.pool, it.pool_max)
            for name, it in changed.items()
        ]
        self._run("upsert_limits", rows)
        if added:
            self._adopt(added)
            self._run("mark_delayed", added)
        self._limits = None
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
        workflow, key, priority, since = found
        limit = self._limit(workflow)
        taken = self._taken(self._with_pools([workflow]))
        rank = (workflow, priority, since, execution)
        return Standing(
            workflow,
            key,
            limit,
            taken.get(workflow, 0),
            self._taken_of({(workflow, key)}).get((workflow, key), 0),
            sum(taken.values()) if limit.pool else 0,
            int(one(self._database, "before", *rank)),
        )

    # -- inside ------------------------------------------------------------------------------

    def _limit(self, workflow: str) -> Limit:
        return self.limits.get(workflow, NO_LIMIT)

    def _adopt(self, workflows: Sequence[str]) -> None:
        """Count what was open before these workflows had a limit."""
        slots: list[Any] = []
        found = self._database.run("adoptable", to_json(workflows))
        for execution, workflow, since, place, payload in found.fetchall():
            started = _started(payload)
            key, priority, deadline = "", 0, None
            if started is not None:
                key, priority = started.terms.key, started.terms.priority
                times = Deadlines(0, started.run_deadline, started.execution_deadline)
                deadline = times.first or None
            slots.append((execution, workflow, key, priority, since, deadline, place))
        self._run("insert_slots", slots)

    def _run(self, query: str, rows: Sequence[Any]) -> None:
        self._database.run(query, to_json(rows))

    def _touch(self, workflow: str, key: str) -> None:
        self._workflows[workflow] = None
        if key:
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
            for execution, workflow, key in due:
                places.append((execution, queue_place(self._limit(workflow), key)))
                self._touch(workflow, key)
            self._run("place_slots", places)
            queued = to_json([execution for execution, _, _ in due])
            self._database.run("queue_states", queued, now)
        return len(due)

    def _admit(self, now: int) -> int:
        """Give free slots of the workflows that were touched to the first in their queues."""
        if not self._workflows:
            return 0
        self._make_ready()
        names = self._with_pools(self._workflows)
        taken = self._taken(names)
        pools: dict[str, int] = {}
        for name in names:
            limit = self._limit(name)
            if limit.pool_max:
                left = pools.setdefault(limit.pool, limit.pool_max)
                pools[limit.pool] = left - taken[name]
        queues: list[Iterable[tuple[Rank, str]]] = []
        for name in names:
            limit = self._limit(name)
            free = limit.max_open - taken[name] if limit.max_open else _EVERYTHING
            if limit.pool_max:
                free = min(free, pools[limit.pool])
            if free > 0:
                rows = self._database.run("ready", name, free).fetchall()
                queues.append([(row, name) for row in rows])
        admitted: list[int] = []
        for rank, name in heapq.merge(*queues):
            limit = self._limit(name)
            if limit.pool_max:
                if pools[limit.pool] <= 0:
                    continue
                pools[limit.pool] -= 1
            admitted.append(rank[2])
        if admitted:
            self._run("place_slots", [(execution, Place.TAKEN) for execution in admitted])
            self._database.run("admit_states", to_json(admitted), now)
        return len(admitted)

    def _make_ready(self) -> None:
        """Let as many of each touched key be ready as the key has room for: the first ones."""
        taken = self._taken_of(self._keys)
        places: list[Any] = []
        for workflow, key in self._keys:
            most = self._limit(workflow).max_per_key
            room = max(0, most - taken[workflow, key]) if most else _EVERYTHING
            ready = self._of_key(workflow, key, Place.READY, _EVERYTHING)
            held = self._of_key(workflow, key, Place.HELD, room)
            first = set(heapq.nsmallest(room, [*ready, *held]))
            places += [(rank[2], Place.HELD) for rank in ready if rank not in first]
            places += [(rank[2], Place.READY) for rank in held if rank in first]
        if places:
            self._run("place_slots", places)

    def _of_key(self, workflow: str, key: str, place: Place, limit: int) -> list[Rank]:
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
