"""Where in a queue one stands that is ready: lanes take turns, by start-time fair queuing.

Start-time fair queuing (Goyal, Vin, Cheng 1996) with unit costs, and nothing kept but what stands
in the queue. An execution that gets ready is ranked, among those of its workflow and priority,

    rank = 1 + max(the lowest rank that is ready, the highest rank of its lane that is ready)

(0 if nobody is ready), and gets the next ``turn`` of that rank. The next one to be let in is the
lowest (rank, turn).

The bound. Let ``r`` be the lowest rank when ``x`` gets ready as the first of its lane: x has rank
r + 1. In front of it are executions of rank r and r + 1 only, and of each other lane at most one of
each, since the ranks of a lane differ. Nobody who gets ready later comes before it: while r is the
lowest rank the others get r + 1 at least, with a later turn, and after that r + 2 at least. So with
``K`` lanes in the queue (its own counted) x is let in after at most ``2 (K - 1)`` others, however
many they have queued. In the same way the n-th of its lane is let in after at most
``(n + 1)(K - 1) + n - 1`` others, where K counts the lanes that are ready at some time meanwhile.

The paper's rule is without the 1 before the lowest rank, and remembers each lane's last rank. Where
that is forgotten with the last entry of a lane, three lanes that always come back with one
execution each would stay at the lowest rank for ever, and nobody of a higher rank were let in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import from_json, to_json

UNRANKED = -1


class Entrant(NamedTuple):
    """An execution that gets ready. ``rank``: what it had before somebody paused it, if it did."""

    execution: int
    workflow: str
    priority: int
    lane: str
    rank: int = UNRANKED
    turn: int = 0


Line = tuple[str, int]
"""Workflow and priority: those who are ranked together."""


class Ranks:
    """Gives ranks, on what is known of who is ready: (lowest, highest of a lane). Pure."""

    def __init__(self, known: Iterable[tuple[str, int, str, int | None, int | None]]) -> None:
        self._lowest: dict[Line, int] = {}
        self._highest: dict[tuple[str, int, str], int] = {}
        for workflow, priority, lane, lowest, highest in known:
            if lowest is not None:
                self._lowest[workflow, priority] = lowest
            if highest is not None:
                self._highest[workflow, priority, lane] = highest

    def enter(self, entrant: Entrant) -> int | None:
        """Return the rank of the next to get ready; ``None``: it has the one it had, and its turn.

        Who comes back stays where it stood, but never before all others.
        """
        line = entrant.workflow, entrant.priority
        place = *line, entrant.lane
        lowest = self._lowest.get(line)
        keeps = entrant.rank != UNRANKED and (lowest is None or entrant.rank >= lowest)
        if keeps:
            rank = entrant.rank
        else:
            first = UNRANKED if lowest is None else lowest
            rank = 1 + max(first, self._highest.get(place, UNRANKED))
        self._lowest[line] = rank if lowest is None else min(lowest, rank)
        self._highest[place] = max(rank, self._highest.get(place, UNRANKED))
        return None if keeps else rank


def rank_all(database: Writing, entrants: Sequence[Entrant]) -> list[tuple[int, int]]:
    """Return rank and turn of executions that get ready in this order."""
    if not entrants:
        return []
    lanes = list(dict.fromkeys(entrant[1:4] for entrant in entrants))
    ranks = Ranks(from_json(one(database, "ranks", to_json(lanes))))
    given = [ranks.enter(entrant) for entrant in entrants]
    lines = [
        (entrant.workflow, entrant.priority, rank)
        for entrant, rank in zip(entrants, given, strict=True)
        if rank is not None
    ]
    turns: dict[tuple[str, int, int], int] = {}
    if lines:
        wanted = to_json(list(dict.fromkeys(lines)))
        for workflow, priority, rank, last in from_json(one(database, "turns", wanted)):
            turns[workflow, priority, rank] = last
    found: list[tuple[int, int]] = []
    for entrant, rank in zip(entrants, given, strict=True):
        if rank is None:
            found.append((entrant.rank, entrant.turn))
            continue
        line = entrant.workflow, entrant.priority, rank
        turns[line] = turns.get(line, -1) + 1
        found.append((rank, turns[line]))
    return found
