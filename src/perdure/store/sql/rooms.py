"""Which starts of a batch may begin, given how many slots are taken and how far rates are paid; and
who is let in from the queues. Pure, like the judge it serves.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from perdure.store.port import StartRequest
from perdure.values.concurrency import QUEUE, Limit, Place
from perdure.values.states import Status


class Verdict(NamedTuple):
    """Where a start stands (``None``: nothing limits it), or why it is refused.

    ``retry_at``: when a rate lets the next one begin, if it is one that refuses.
    """

    place: Place | None
    refusal: str = ""
    retry_at: int = 0


UNLIMITED = Verdict(None)


class Room:
    """Limits, and how many slots are taken of workflows and of their keys.

    ``holders``: workflow and key of executions that hold a slot and may be replaced. ``paid``:
    until when is paid, of workflows (key ``""``) and keys that have a rate. ``queued``: those of
    them that somebody waits for, who has been accepted already.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        taken: Mapping[str, int],
        of_keys: Mapping[tuple[str, str], int],
        holders: Mapping[int, tuple[str, str]],
        paid: Mapping[tuple[str, str], int],
        queued: AbstractSet[tuple[str, str]],
    ) -> None:
        self._limits = limits
        self._taken = dict(taken)
        self._of_keys = dict(of_keys)
        self._holders = holders
        self._paid = dict(paid)
        self._queued = queued

    def copy(self) -> Room:
        """Return one that counts for itself."""
        return Room(
            self._limits, self._taken, self._of_keys, self._holders, self._paid, self._queued
        )

    def judge(self, request: StartRequest, now: int, replaced: int = 0) -> Verdict:
        """Find a place for a start that ends execution ``replaced``, and count it."""
        limit = self._limits.get(request.workflow)
        holder = self._holders.get(replaced)
        if holder is not None:
            self._count(*holder, -1)
        if limit is None or not limit.limits:
            return UNLIMITED
        if request.is_paused:
            return Verdict(Place.ASIDE)
        if request.not_before > now:
            return Verdict(Place.DELAYED)
        full, retry_at = self._full(limit, request.workflow, request.key), 0
        if not full:
            full, retry_at = self._late(limit, request.workflow, request.key, now)
        if not full:
            self._pay(request.workflow, request.key, now)
            first = request.first
            # One that ends with its first turn has left again before anybody could count it.
            if first is None or not first.closes or first.continued is not None:
                self._count(request.workflow, request.key, 1)
            return Verdict(Place.TAKEN)
        if limit.on_limit == QUEUE:
            # One that was imported paused is not to begin when there is room, but when resumed.
            stays = request.state is not None and request.state.status is Status.PAUSED
            return Verdict(Place.ASIDE if stays else queue_place(limit, request.key))
        if holder is not None:
            self._count(*holder, 1)
        return Verdict(None, full, retry_at)

    def _count(self, workflow: str, key: str, change: int) -> None:
        self._taken[workflow] = self._taken.get(workflow, 0) + change
        self._of_keys[workflow, key] = self._of_keys.get((workflow, key), 0) + change

    def _full(self, limit: Limit, workflow: str, key: str) -> str:
        if limit.max_open and self._taken.get(workflow, 0) >= limit.max_open:
            return f"workflow {workflow!r} has reached its concurrency limit ({limit.max_open})"
        if key and limit.max_per_key and self._of_keys.get((workflow, key), 0) >= limit.max_per_key:
            return (
                f"workflow {workflow!r} has reached its concurrency limit for key {key!r} "
                f"({limit.max_per_key})"
            )
        if limit.pool_max:
            pool = [name for name, other in self._limits.items() if other.pool == limit.pool]
            if sum(self._taken.get(name, 0) for name in pool) >= limit.pool_max:
                return (
                    f"the engine of workflow {workflow!r} has reached its concurrency limit "
                    f"({limit.pool_max} of all its workflows together)"
                )
        return ""

    def _pay(self, workflow: str, key: str, now: int) -> None:
        limit = self._limits[workflow]
        for place in _paces(limit, workflow, key):
            rate = limit.pace(place[1])
            assert rate is not None
            self._paid[place] = rate.paid(self._paid.get(place, 0), now)

    def _late(self, limit: Limit, workflow: str, key: str, now: int) -> tuple[str, int]:
        """Say which rate lets nobody begin now, and when it will; those who wait come first."""
        for place in _paces(limit, workflow, key):
            rate = limit.pace(place[1])
            assert rate is not None
            paid = self._paid.get(place, 0)
            is_queued = place in self._queued
            if is_queued or not rate.left(paid, now):
                of = f" for key {key!r}" if place[1] else ""
                retry_at = max(rate.next_at(paid), now + rate.interval if is_queued else now)
                return (
                    f"workflow {workflow!r} has reached its rate limit{of} ({rate.text})",
                    retry_at,
                )
        return "", 0


def _paces(limit: Limit, workflow: str, key: str) -> Iterator[tuple[str, str]]:
    """Yield the places whose rate an execution goes by."""
    if limit.rate:
        yield workflow, ""
    if key and limit.rate_per_key:
        yield workflow, key


def queue_place(limit: Limit, key: str) -> Place:
    """Return where in the queue one begins to wait: a key's limits are looked at afterwards."""
    return Place.HELD if key and limit.limits_keys else Place.READY


class Ready(NamedTuple):
    """One that is ready; the smallest is the next of its workflow."""

    behind: int
    rank: int
    turn: int
    execution: int
    key: str


class Line(NamedTuple):
    """The first of a workflow's queue. ``free``: how many it has room for; ``pool``: what it shares
    with other workflows (``""``: nothing); ``taken``: slots that it holds.
    """

    workflow: str
    first: Sequence[Ready]
    free: int
    pool: str
    taken: int


def let_in(lines: Iterable[Line], pools: Mapping[str, int]) -> list[tuple[str, Ready]]:
    """Choose who gets a slot; ``pools``: how many each has left.

    In a pool the workflow with the highest priority at its head is next, and among those the one
    that holds the fewest slots.
    """
    left = dict(pools)
    chosen: list[tuple[str, Ready]] = []
    heads: list[tuple[int, int, int, int]] = []
    lines = list(lines)
    for number, line in enumerate(lines):
        if not line.pool:
            chosen += [(line.workflow, one) for one in line.first[: line.free]]
        elif line.first and line.free > 0:
            head = line.first[0]
            heapq.heappush(heads, (head.behind, line.taken, head.execution, number))
    places = [0] * len(lines)
    while heads:
        _, taken, _, number = heapq.heappop(heads)
        line = lines[number]
        if left[line.pool] <= 0:
            continue
        left[line.pool] -= 1
        chosen.append((line.workflow, line.first[places[number]]))
        places[number] += 1
        if places[number] < min(line.free, len(line.first)):
            head = line.first[places[number]]
            heapq.heappush(heads, (head.behind, taken + 1, head.execution, number))
    return chosen
