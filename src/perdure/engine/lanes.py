"""What waits for a place in this worker: lanes take turns, so a long one delays no other.

The higher priority is first; within one the lanes (tenants, or keys) take turns, and within a lane
the first that came is next. With ``n`` lanes waiting at a priority, the first of a lane is preceded
by at most ``n - 1`` others of it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LANE_FULL = 256


class Lanes(Generic[T]):
    """See the module's text. Not for several threads at a time."""

    __slots__ = ("_count", "_lengths", "_levels")

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[str, OrderedDict[int, T]]] = {}
        self._lengths: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def length(self, lane: str) -> int:
        """Return how many wait in a lane."""
        return self._lengths.get(lane, 0)

    def lengths(self) -> dict[str, int]:
        """Return how many wait in each lane."""
        return dict(self._lengths)

    def append(self, item: T, lane: str, priority: int) -> None:
        """Let an item wait at the end of its lane."""
        level = self._levels.setdefault(priority, OrderedDict())
        level.setdefault(lane, OrderedDict())[id(item)] = item
        self._lengths[lane] = self._lengths.get(lane, 0) + 1
        self._count += 1

    def popleft(self) -> T:
        """Take the next one; there is one."""
        priority = max(self._levels) if len(self._levels) > 1 else next(iter(self._levels))
        level = self._levels[priority]
        lane, waiting = next(iter(level.items()))
        _, item = waiting.popitem(last=False)
        level.move_to_end(lane)
        self._left(lane, priority)
        return item

    def remove(self, item: T, lane: str, priority: int) -> None:
        """Take away one that no longer waits."""
        del self._levels[priority][lane][id(item)]
        self._left(lane, priority)

    def _left(self, lane: str, priority: int) -> None:
        self._count -= 1
        if self._lengths[lane] == 1:
            del self._lengths[lane]
        else:
            self._lengths[lane] -= 1
        level = self._levels[priority]
        if not level[lane]:
            del level[lane]
            if not level:
                del self._levels[priority]


def full_lanes(lines: Sequence[Lanes[Any]]) -> list[str]:
    """Return the lanes of which so many wait that other workers may take what comes."""
    if not any(lines):
        return []
    lengths = Counter[str]()
    for line in lines:
        lengths.update(line.lengths())
    return sorted(lane for lane, length in lengths.items() if length >= LANE_FULL)


def is_any_short(lines: Sequence[Lanes[Any]], lanes: Iterable[str]) -> bool:
    """Tell whether one of these lanes, which were full, has become short."""
    return any(sum(line.length(lane) for line in lines) <= LANE_FULL // 2 for lane in lanes)
