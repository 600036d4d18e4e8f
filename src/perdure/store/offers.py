"""Activities on offer in task queues: what goes into a store, and what comes back.

An activity whose task queue is another one than its run's is *offered*: a row that any worker may
*claim* which serves the queue and knows the activity, whoever has the run. What comes of the
attempt takes the row away, or changes it for the next attempt, and goes into the inbox of the run
in the same transaction; so of outcome, timeout, cancel and loss the first one wins (I4).

A row is *ready*, *delayed* (until the pause after a failure is over), *claimed*, or *lost*: its
attempt was cut off with its worker, the run was told, and decides whether there is another one.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Stage(IntEnum):
    """What becomes of an offer now. Stored: append only."""

    READY = 0
    DELAYED = 1
    CLAIMED = 2
    LOST = 3


class Offer(msgspec.Struct, gc=False):
    """An activity to be put on offer (``TurnWrite.offers``).

    ``activity``: its event's number; ``call``: what a worker needs to carry it out, as the engine
    encodes it; ``lane``: for whom it is (fairness is between lanes); ``due``: when it fails if
    nobody carries it out by then, 0 for never; ``scheduled_at``: 0 is the turn's time; ``lost``:
    attempts before this one that were lost with their workers, in a row.
    """

    activity: int
    queue: str
    name: str
    call: bytes
    lane: str = ""
    priority: int = 0
    attempt: int = 1
    scheduled_at: int = 0
    not_before: int = 0
    due: int = 0
    lost: int = 0


class Then(IntEnum):
    """What an outcome does to the offer."""

    OVER = 0
    """It is taken away."""
    AGAIN = 1
    """The next attempt is on offer, from ``not_before`` on."""
    LOST = 2
    """The run decides."""


class Outcome(msgspec.Struct, gc=False):
    """What came of an attempt (``Batch.outcomes``): ``event``, encoded, goes into the run's inbox.

    It counts only if the offer is there, with this attempt, claimed by the batch's worker, or
    (``is_unclaimed``) by nobody. ``due`` and ``not_before``: of the next attempt. ``details``: the
    last heartbeat's, for it.
    """

    run: int
    execution: int
    activity: int
    attempt: int
    event: bytes
    then: Then = Then.OVER
    not_before: int = 0
    due: int = 0
    details: bytes | None = None
    is_unclaimed: bool = False


class Wanted(msgspec.Struct, gc=False):
    """What a worker takes of one queue: up to ``free``, with turns from behind lane ``after``."""

    queue: str
    free: int
    after: str | None = None


class Carried(msgspec.Struct, gc=False):
    """A claimed offer, and whose it is. ``details``: the last heartbeat of the attempt before;
    ``priority``: higher goes first.
    """

    run: int
    execution: int
    activity: int
    attempt: int
    queue: str
    lane: str
    lost: int
    call: bytes
    details: bytes | None
    workflow_id: str
    run_id: str
    workflow: str
    namespace: str
    priority: int


class Claimed(msgspec.Struct):
    """What a claim brought. ``after``: for each queue, the lane that had the last turn;
    ``is_short``: there may be more for this worker at once; ``again_at``: when a rate lets the next
    one begin, 0 if none stands in the way.
    """

    carried: list[Carried] = []
    after: dict[str, str] = {}
    is_short: bool = False
    again_at: int = 0


class OfferRow(msgspec.Struct, gc=False):
    """An offer as it stands. ``created_at``: when the activity was scheduled; ``owner``: the worker
    that has claimed it, at ``claimed_at``.
    """

    run: int
    execution: int
    activity: int
    attempt: int
    queue: str
    name: str
    stage: Stage
    created_at: int
    not_before: int
    due: int
    owner: int | None
    claimed_at: int | None
    lost: int
    call: bytes = b""


OfferKey = tuple[int, int, int]
"""Run, activity, attempt."""
