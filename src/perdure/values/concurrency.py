"""How many executions may be open at a time, and what becomes of those that are too many.

An execution of a limited workflow has a *place*. It holds a *slot* from its admission to its end;
before that it is in the queue, or not yet (its start is delayed) or not now (somebody paused it).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

REJECT, QUEUE = "reject", "queue"
ON_LIMIT = (REJECT, QUEUE)


class Limit(msgspec.Struct, frozen=True, gc=False):
    """Limits of one workflow; 0 means none.

    ``max_open``: executions of the workflow; ``max_per_key``: of those with one concurrency key;
    ``pool_max``: executions of all workflows with the same ``pool`` together. ``on_limit``: what a
    start meets that is one too many: ``reject`` or ``queue``.
    """

    max_open: int = 0
    max_per_key: int = 0
    on_limit: str = REJECT
    pool: str = ""
    pool_max: int = 0

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return bool(self.max_open or self.max_per_key or self.pool_max)


NO_LIMIT = Limit()


class Place(IntEnum):
    """Where an execution stands. Stored: append only.

    ``HELD``: in the queue, behind its key's limit; ``READY``: in the queue, and next when the
    workflow has a slot; ``TAKEN``: it holds a slot; ``DELAYED``: it joins the queue later;
    ``ASIDE``: paused in the queue.
    """

    HELD = 0
    READY = 1
    TAKEN = 2
    DELAYED = 3
    ASIDE = 4


class Queued(StrEnum):
    """Reasons in the state row of an execution that was not admitted yet."""

    QUEUED = "queued"
    DELAYED = "delayed"
    PAUSED = "paused_in_queue"


IN_QUEUE = frozenset(str(reason) for reason in Queued)


class Standing(msgspec.Struct, gc=False):
    """What stands between a queued execution and its slot. ``before``: executions ahead of it."""

    workflow: str
    key: str
    limit: Limit
    open: int
    open_of_key: int
    open_of_pool: int
    before: int
