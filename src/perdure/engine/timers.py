"""Timers: near ones in memory, far ones by index.

Unowned runs keep their wake time in the store. Twice per horizon the ones that come due within it
are read into a heap; a run that goes to sleep for less than that goes into the heap directly. Runs
this worker owns are in the heap however far their timer is, since the store does not know it.
One call of the real loop waits for the earliest.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from perdure.engine.clock import Clock

HORIZON = 30_000_000


class Timers:
    """Calls ``wake(run key)`` when a run's time has come by the store's clock, never earlier."""

    def __init__(self, clock: Clock, wake: Callable[[int], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[int, int]] = []
        self._due: dict[int, int] = {}
        self._call: asyncio.TimerHandle | None = None
        self._called_for = 0
        self.known_until = 0
        """Up to here the heap holds what the store holds."""

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: int, due: int, *, even_if_far: bool = False) -> None:
        """Wake run ``key`` at ``due``; a later call for the same run replaces an earlier one."""
        if due > self.known_until and not even_if_far:
            self._due.pop(key, None)
            return
        if self._due.get(key) == due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if self._call is None or due < self._called_for:
            self._arrange()

    def remove(self, key: int) -> None:
        """Forget run ``key``."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Forget all runs."""
        self._heap.clear()
        self._due.clear()
        self.known_until = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _arrange(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if self._heap:
            due = self._heap[0][0]
            self._called_for = due
            delay = max(0.0, (due - self._clock.now()) / 1_000_000)
            self._call = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._call = None
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._wake(key)
        self._arrange()
