"""Which starts of a batch find a slot, given how many are taken. Pure, like the judge it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from perdure.store.port import StartRequest
from perdure.values.concurrency import QUEUE, Limit, Place


class Verdict(NamedTuple):
    """Where a start stands (``None``: nothing limits it), or why it is refused."""

    place: Place | None
    refusal: str = ""


UNLIMITED = Verdict(None)


class Room:
    """Limits, and how many slots are taken of workflows and of their keys.

    ``holders``: workflow and key of executions that hold a slot and may be replaced.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        taken: Mapping[str, int],
        of_keys: Mapping[tuple[str, str], int],
        holders: Mapping[int, tuple[str, str]],
    ) -> None:
        self._limits = limits
        self._taken = dict(taken)
        self._of_keys = dict(of_keys)
        self._holders = holders

    def copy(self) -> Room:
        """Return one that counts for itself."""
        return Room(self._limits, self._taken, self._of_keys, self._holders)

    def judge(self, request: StartRequest, now: int, replaced: int = 0) -> Verdict:
        """Find a place for a start that ends execution ``replaced``, and count it."""
        limit = self._limits.get(request.workflow)
        holder = self._holders.get(replaced)
        if holder is not None:
            self._count(*holder, -1)
        if limit is None or not limit.limits:
            return UNLIMITED
        if request.not_before > now:
            return Verdict(Place.DELAYED)
        full = self._full(limit, request.workflow, request.key)
        if not full:
            first = request.first
            # One that ends with its first turn has left again before anybody could count it.
            if first is None or not first.closes or first.continued is not None:
                self._count(request.workflow, request.key, 1)
            return Verdict(Place.TAKEN)
        if limit.on_limit == QUEUE:
            return Verdict(queue_place(limit, request.key))
        if holder is not None:
            self._count(*holder, 1)
        return Verdict(None, full)

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


def queue_place(limit: Limit, key: str) -> Place:
    """Return where in the queue one begins to wait: a key's limit is looked at afterwards."""
    return Place.HELD if key and limit.max_per_key else Place.READY
