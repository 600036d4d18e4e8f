"""How many executions may be open at a time or begin in a time, and what becomes of the others.

An execution of a limited workflow has a *place*. It holds a *slot* from its admission to its end;
before that it is in the queue, or not yet (its start is delayed) or not now (somebody paused it).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from perdure.values.rates import Rate, parse_rate

REJECT, QUEUE = "reject", "queue"
ON_LIMIT = (REJECT, QUEUE)


class Limit(msgspec.Struct, frozen=True, gc=False):
    """Limits of one workflow; 0 means none.

    ``max_open``: executions of the workflow; ``max_per_key``: of those with one concurrency key;
    ``pool_max``: executions of all workflows with the same ``pool`` together. ``on_limit``: what a
    start meets that is one too many: ``reject`` or ``queue``. ``rate`` and ``rate_per_key``: how
    many may begin in a time (``values/rates.py``), of the workflow and of those with one key.
    """

    max_open: int = 0
    max_per_key: int = 0
    on_limit: str = REJECT
    pool: str = ""
    pool_max: int = 0
    rate: str = ""
    rate_per_key: str = ""

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return bool(self.max_open or self.max_per_key or self.pool_max or self.is_paced)

    @property
    def is_paced(self) -> bool:
        """Whether there is any rate."""
        return bool(self.rate or self.rate_per_key)

    @property
    def limits_keys(self) -> bool:
        """Whether a key has limits of its own."""
        return bool(self.max_per_key or self.rate_per_key)

    def has_pace(self, of_keys: int) -> bool:
        """Tell whether the workflow (0) or its keys (1) have a rate."""
        return bool(self.rate_per_key if of_keys else self.rate)

    def pace(self, key: str) -> Rate | None:
        """Return the rate of a key; with ``""`` that of the workflow."""
        text = self.rate_per_key if key else self.rate
        return parse_rate(text) if text else None


NO_LIMIT = Limit()


class Place(IntEnum):
    """Where an execution stands. Stored: append only.

    ``HELD``: in the queue, behind its key's limits; ``READY``: in the queue, and next when the
    workflow has room; ``TAKEN``: it holds a slot; ``DELAYED``: it joins the queue later;
    ``ASIDE``: paused in the queue, or before it joined.
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
    """What stands between a queued execution and its slot.

    ``before``: executions ahead of it, of its key if that is what holds it back. ``rate``: the one
    that it waits for; ``begins_at``: when that will let it begin, if nothing else holds it back.
    """

    workflow: str
    key: str
    limit: Limit
    open: int
    open_of_key: int
    open_of_pool: int
    before: int
    rate: str = ""
    rate_is_of_key: bool = False
    begins_at: int = 0


def lane_of(tenant: str | None, key: str) -> str:
    """Return whose a run is when runs take turns: its tenant's, else its key's, else nobody's."""
    return tenant or key
