"""What a worker learns from one look."""

from __future__ import annotations

import msgspec


class News(msgspec.Struct, frozen=True):
    """Whether reading the rest is worth it.

    ``has_work``: something waits for a worker like this one. ``has_room``: ``admit`` would find an
    execution to let in. ``next_at``: when it will, since a rate then lets one begin.
    ``has_offers``: a claim would find something; ``offers_due``: when the next offered activity is
    due, or the pause before its next attempt is over. ``inactive``: (name, version) of definitions
    that no start by name takes. ``people_at``: when the clock next does something to a human task.
    ``schedules_at``: when the next look at a schedule is due; 0: now.
    """

    has_work: bool
    has_room: bool
    inactive: frozenset[tuple[str, str]]
    next_at: int | None = None
    has_offers: bool = False
    offers_due: int | None = None
    people_at: int | None = None
    schedules_at: int | None = None
