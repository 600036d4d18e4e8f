"""Which of the runs that anybody may claim a worker is shown: some of each lane, in turns.

Between priorities the higher one is first, always. Within one, a page holds a run of each lane,
then a second of each, and so on; where there are more lanes than a page has runs, the next page
goes on with the lanes behind it. Lanes are found one by one in an index, so a long one costs
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from perdure.store.sql.database import Writing, one
from perdure.store.sql.encoding import to_json

_ABOVE_ALL = 2**62
_NEXT = "\x01"
"""The first text behind a lane is the lane and this: no text holds a NUL."""
_LEAST = 8


def claimable(
    database: Writing,
    served: tuple[str, str],
    *,
    limit: int,
    after: int,
    passed_over: Sequence[str],
) -> list[int]:
    """Return runs: see ``Reader.claimable``. ``served``: workflows and queues, as JSON."""
    position: tuple[int, str] = (_ABOVE_ALL, "")
    if after:
        position = database.run("lane_of", after).fetchone() or position
    over = to_json(list(passed_over))
    found: dict[int, None] = {}
    priority = one(database, "claimable_priority", _ABOVE_ALL)
    while priority is not None and len(found) < limit:
        for lane in [position[1] + _NEXT, ""] if position[0] == priority else [""]:
            if len(found) < limit:
                page = (*served, priority, lane, limit, over)
                found |= dict.fromkeys(_in_turns(database, page, limit))
        priority = one(database, "claimable_priority", priority)
    return list(found)[:limit]


def _in_turns(database: Writing, page: tuple[Any, ...], limit: int) -> list[int]:
    """Return runs of the lanes of a page: the first of each, the second of each, and so on."""
    each = _LEAST
    while True:
        lanes: dict[str, list[int]] = {}
        rows = database.run("claimable", *page, min(each, limit)).fetchall()
        for lane, run in rows:
            lanes.setdefault(lane, []).append(run)
        is_cut_off = any(len(runs) == each for runs in lanes.values())
        if len(rows) >= limit or not is_cut_off:
            return [run for turn in zip_longest(*lanes.values()) for run in turn if run is not None]
        each *= _LEAST
