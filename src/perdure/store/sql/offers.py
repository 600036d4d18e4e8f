"""Activities on offer in task queues: claims, outcomes, and what the dead leave behind.

Every method is called inside a transaction. On PostgreSQL claims of several workers pass each
other: what one is about to take, the others do not see. Only the row of a queue with limits is
held, from the first question to the commit: so nobody counts what another one is about to change.
Rows of offers are taken last of all (``store/postgres/holding.py``), and nobody who has one waits
for anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from perdure.errors import Corrupt, LeaseLost, Sealed
from perdure.store.offers import Carried, Claimed, OfferKey, Outcome, Stage, Then, Wanted
from perdure.store.port import Posted
from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.turns import circle, pick
from perdure.values import events
from perdure.values.queues import QueueLimit

_MOST = 100
"""What one claim takes at most: whoever has room for more claims again, behind the others."""
_RIPEN = 1_000
_EVERYTHING = 1_000_000_000
_FIRST_RANK = -(2**62)
_BEHIND = "\x01"
"""What makes of a lane the text that comes next in order."""
_LAST = "\U0010ffff"


class _Room:
    """What the limits of a queue leave, as it is taken."""

    def __init__(self, limit: QueueLimit | None, arrival: int, now: int) -> None:
        self.limit = limit
        self.arrival = arrival
        self.now = now
        self.lanes: Counter[str] = Counter()
        """Attempts under way."""

    @property
    def free(self) -> int:
        limit = self.limit
        if limit is None:
            return _EVERYTHING
        left = limit.max_open - self.lanes.total() if limit.max_open else _EVERYTHING
        if limit.rate is not None:
            left = min(left, limit.rate.left(self.arrival, self.now))
        return max(0, left)

    @property
    def again_at(self) -> int:
        """When the rate lets the next one begin; 0 if it does now."""
        rate = self.limit.rate if self.limit is not None else None
        if rate is None or rate.left(self.arrival, self.now):
            return 0
        return rate.next_at(self.arrival)

    def of(self, lane: str) -> int:
        if self.limit is None or not self.limit.max_per_key:
            return _EVERYTHING
        return max(0, self.limit.max_per_key - self.lanes[lane])

    @property
    def full_lanes(self) -> list[str]:
        return [lane for lane in self.lanes if not self.of(lane)]

    def take(self, lanes: Sequence[str]) -> None:
        self.lanes.update(lanes)
        rate = self.limit.rate if self.limit is not None else None
        if rate is not None:
            self.arrival = rate.paid(self.arrival, self.now, len(lanes))


class Offers:
    """One transaction's view of what is on offer."""

    def __init__(self, database: Writing) -> None:
        self._database = database

    # -- claims ------------------------------------------------------------------------------

    def claim(
        self,
        worker: int,
        epoch: int,
        now: int,
        wanted: Sequence[Wanted],
        activities: Sequence[str],
        most: int,
    ) -> Claimed:
        """Claim: see the port."""
        database = self._database
        self._hold(worker, epoch)
        database.run("ripen_tasks", now, _RIPEN)
        names = to_json(list(activities))
        rooms = self._rooms(wanted, now)
        claimed = Claimed()
        ids: list[int] = []
        for one_queue in wanted:
            queue = one_queue.queue
            room = rooms.get(queue) or _Room(None, 0, now)
            before = room.arrival
            free = min(one_queue.free, most - len(ids))
            picked, last = self._pick(one_queue, free, names, room, claimed)
            ids += picked
            if last is not None:
                claimed.after[queue] = last
            if room.arrival != before:
                database.run("set_arrival", queue, room.arrival)
            if again_at := room.again_at:
                claimed.again_at = min(claimed.again_at or again_at, again_at)
        if ids:
            database.run("claim_tasks", to_json(ids), worker, now)
            rows = database.run("claimed_tasks", to_json(ids)).fetchall()
            claimed.carried = [self._carried(row) for row in rows]
        return claimed

    def _hold(self, worker: int, epoch: int) -> None:
        if self._database.run("hold_worker", worker, epoch).fetchone() is None:
            raise LeaseLost(f"worker {worker} does not hold a lease of epoch {epoch}")

    def _rooms(self, wanted: Sequence[Wanted], now: int) -> dict[str, _Room]:
        database, rooms = self._database, dict[str, _Room]()
        queues = to_json([one_queue.queue for one_queue in wanted])
        for *limit, arrival in database.run("queue_limits", queues).fetchall():
            rooms[limit[0]] = _Room(QueueLimit(*limit), arrival, now)
        for queue, room in rooms.items():
            room.lanes.update(dict(database.run("claimed_of_lanes", queue).fetchall()))
        return rooms

    def _pick(
        self, wanted: Wanted, most: int, names: str, room: _Room, claimed: Claimed
    ) -> tuple[list[int], str | None]:
        """Choose from one queue, priority by priority, and count that in ``room``."""
        free = max(0, min(most, room.free, _MOST))
        picked: list[int] = []
        last: str | None = None
        after = wanted.after
        has_more = False
        rank = _FIRST_RANK
        while len(picked) < free:
            found = self._database.run("task_level", wanted.queue, rank).fetchone()[0]
            if found is None:
                break
            rank = found
            left = free - len(picked)
            lanes, is_cut = self._lanes(wanted.queue, rank, after, names, room, left)
            if not lanes:
                continue
            each = 1 if is_cut else -(-left // len(lanes))
            waiting = self._heads(wanted.queue, rank, lanes, each)
            taken, turn = pick(waiting, left, room.of, is_cut=is_cut)
            of = {id: lane for lane, found_ids in waiting.items() for id in found_ids}
            room.take([of[id] for id in taken])
            picked += taken
            if turn is not None:
                last = after = turn
            # What was not looked at has a higher priority than the rest, or others are at it.
            if is_cut or any(len(some) in (0, each) for some in waiting.values()):
                has_more = True
                break
        has_more |= bool(free) and len(picked) == free
        claimed.is_short |= has_more and len(picked) < most and room.free > 0
        return picked, last

    def _lanes(
        self, queue: str, rank: int, after: str | None, names: str, room: _Room, most: int
    ) -> tuple[dict[str, list[str]], bool]:
        """Return who waits, in the order of their turns, and whether that is not everybody."""
        most += 1
        full = to_json(room.full_lanes)
        start = "" if after is None else after + _BEHIND
        run = self._database.run
        found = run("task_groups", queue, rank, start, _LAST, names, full, most).fetchall()
        if after is not None and len(found) < most:
            rest = most - len(found)
            found += run("task_groups", queue, rank, "", after, names, full, rest).fetchall()
        is_cut = len(found) >= most
        return circle([(lane, name) for lane, name in found], is_cut=is_cut), is_cut

    def _heads(
        self, queue: str, rank: int, lanes: dict[str, list[str]], each: int
    ) -> dict[str, list[int]]:
        groups = [(lane, name) for lane, names in lanes.items() for name in names]
        rows = self._database.run("task_heads", to_json(groups), queue, rank, each).fetchall()
        waiting: dict[str, list[int]] = {lane: [] for lane in lanes}
        for id, lane in sorted(rows):
            if len(waiting[lane]) < each:
                waiting[lane].append(id)
        return waiting

    def hand_back(self, worker: int, epoch: int, keys: Sequence[OfferKey]) -> None:
        """Put on offer again what was claimed and not begun: see the port."""
        self._hold(worker, epoch)
        rows = self._database.run("hand_back_tasks", to_json(list(keys)), worker).fetchall()
        if rows:
            unused = Counter(queue for (queue,) in rows)
            self._database.run("return_arrivals", to_json(sorted(unused.items())))

    # -- outcomes ----------------------------------------------------------------------------

    def settle(
        self, outcomes: Sequence[Outcome], worker: int, now: int
    ) -> tuple[list[Posted], frozenset[OfferKey]]:
        """Let those outcomes count whose offer is as they say; return the inbox rows, and which
        did not count.
        """
        counted: set[tuple[int, int]] = set()
        for is_unclaimed in (False, True):
            over = [
                _key(one_of)
                for one_of in outcomes
                if one_of.then is Then.OVER and one_of.is_unclaimed is is_unclaimed
            ]
            if over:
                owner = None if is_unclaimed else worker
                rows = self._database.run("close_tasks", to_json(over), owner).fetchall()
                counted.update((run, activity) for run, activity in rows)
        redone = [_redone(one_of, now) for one_of in outcomes if one_of.then is not Then.OVER]
        if redone:
            rows = self._database.run("redo_tasks", to_json(redone), worker).fetchall()
            counted.update((run, activity) for run, activity in rows)
        told = [one_of for one_of in outcomes if (one_of.run, one_of.activity) in counted]
        beats = [
            value
            for one_of in told
            if one_of.then is not Then.OVER and one_of.details is not None
            for value in (one_of.run, one_of.activity, self._database.seal.seal(one_of.details))
        ]
        if beats:
            self._database.insert("insert_beats", 3, beats)
        posted = self._tell([(it.execution, it.run, it.event) for it in told], now)
        void = (it for it in outcomes if (it.run, it.activity) not in counted)
        return posted, frozenset(map(_key, void))

    def _tell(self, facts: Sequence[tuple[int, int, bytes]], now: int) -> list[Posted]:
        if not facts:
            return []
        seal = self._database.seal
        flat = [
            value
            for execution, _, event in facts
            for value in (execution, "", 0, seal.seal(event), 1, now)
        ]
        ids = self._database.insert("insert_inbox", 6, flat)
        self._database.written += sum(len(event) for *_, event in facts)
        return [
            Posted("delivered", id=id, execution=execution, run=run, event=event)
            for id, (execution, run, event) in zip(ids, facts, strict=True)
        ]

    # -- workers -----------------------------------------------------------------------------

    def release(self, worker: int) -> None:
        """Put on offer again what a worker that leaves has claimed and not begun."""
        self._database.run("release_tasks", worker)

    def lose(self, worker: int, now: int) -> None:
        """Count the attempts of a worker that died as lost, and tell their runs (I13)."""
        executions = from_json(one(self._database, "executions_of_tasks", worker))
        if not executions:
            return
        self._database.hold_executions(sorted(executions))
        lost = sorted(tuple(row) for row in self._database.run("lose_tasks", worker).fetchall())
        runs = to_json(sorted({row[0] for row in lost}))
        beats = {(run, activity): it for run, activity, it in self._beats(runs)}
        facts: list[tuple[int, int, bytes]] = []
        for run, execution, activity, attempt, in_a_row in lost:
            fact = events.AttemptLost(
                activity=activity,
                attempt=attempt,
                worker=str(worker),
                heartbeat=beats.get((run, activity)),
                in_a_row=in_a_row,
            )
            facts.append((execution, run, events.encode_turn([fact])))
        self._tell(facts, now)

    def _beats(self, runs: str) -> list[tuple[int, int, bytes]]:
        found: list[tuple[int, int, bytes]] = []
        for run, activity, details in self._database.run("beats", runs).fetchall():
            with suppress(Corrupt, Sealed):  # the row stays, and the next attempt finds out
                found.append((run, activity, self._database.seal.open(details)))
        return found

    def _carried(self, row: Any) -> Carried:
        carried, seal = Carried(*row), self._database.seal
        with suppress(Corrupt):  # whoever decodes the call finds out
            carried.call = seal.open(carried.call)
        if carried.details is not None:
            try:
                carried.details = seal.open(carried.details)
            except Corrupt:
                carried.details = None
        return carried

    def register(self, limits: Sequence[QueueLimit]) -> None:
        """Let these limits of task queues hold from now on; those of other queues stay."""
        held = [msgspec.structs.astuple(limit) for limit in limits if limit.limits]
        lifted = [limit.queue for limit in limits if not limit.limits]
        if held:
            self._database.run("upsert_queue_limits", to_json(held))
        if lifted:
            self._database.run("delete_queue_limits", to_json(lifted))


def _key(outcome: Outcome) -> OfferKey:
    return outcome.run, outcome.activity, outcome.attempt


def _redone(outcome: Outcome, now: int) -> tuple[int, ...]:
    if outcome.then is Then.LOST:
        return (*_key(outcome), Stage.LOST, outcome.attempt, 0, 0)
    stage = Stage.DELAYED if outcome.not_before > now else Stage.READY
    return (*_key(outcome), stage, outcome.attempt + 1, outcome.not_before, outcome.due)
