"""Log lines of attempts, on their way into the run's log.

A line is told to listeners at once, and written with whatever this worker commits next: lines have
no commit of their own unless nothing else is committed for a second. They are no part of the
history: a crash may lose the last second of them, and a line of an attempt that failed, or that was
cut off, stays. Lines of workflow code go with their turn instead (``engine/turns.py``).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perdure.store.port import LogLine
from perdure.values import payload
from perdure.values.lines import Line, level_name

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run

_FLUSH_SECONDS = 1.0
_HELD = 100_000


def logged(effects: Sequence[tuple[str, Any]], now: int) -> list[LogLine]:
    """Return what workflow code logged in a turn."""
    lines: list[LogLine] = []
    for name, value in effects:
        if name == "log":
            lines.append(LogLine(0, now, value.level, value.message, value.data, value.step))
    return lines


class Logs:
    """See the module's text. Bound to the running loop; :meth:`add` may be called anywhere."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._incoming: deque[tuple[Run, Line, str, int, int]] = deque()
        self._is_awake = False
        self._lines: list[LogLine] = []
        self._untold: list[tuple[Run, LogLine]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, run: Run, line: Line, activity: str, attempt: int) -> None:
        """Take a line of an attempt."""
        now = self._core.clock.now()
        self._incoming.append((run, line, line.step or activity, attempt, now))
        if not self._is_awake:
            self._is_awake = True
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._wake)
                return
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                pass  # a thread that was left behind logs after the end of the loop

    def tell(self, run: Run, line: LogLine) -> None:
        """Tell listeners of a line; without any it costs next to nothing."""
        listeners = self._core.listeners
        if not listeners.has_any:
            return
        data = {
            "instance_id": run.workflow_id,
            "workflow_name": run.workflow,
            "level": level_name(line.level),
            "message": line.message,
            "data": None if line.data is None else payload.decode(line.data),
            "step": line.step,
            "attempt": line.attempt,
        }
        listeners.tell("log.workflow", data)
        listeners.tell(f"log.workflow.{run.workflow_id}", data)

    def take(self) -> list[LogLine]:
        """Return, once, what is to be written now."""
        self._collect()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        return lines

    def give_back(self, lines: Sequence[LogLine]) -> None:
        """Keep lines that were not written, for the next commit."""
        self._lines[:0] = lines
        del self._lines[:-_HELD]
        self._flush_later()

    def flush(self) -> None:
        """Have all lines written soon, also without anything else to write."""
        self._wake()
        if self._lines:
            self._core.committer.flush_lines()

    def _wake(self) -> None:
        self._is_awake = False
        self._collect()
        self._flush_later()
        untold, self._untold = self._untold, []
        for run, line in untold:
            self.tell(run, line)

    def _collect(self) -> None:
        while self._incoming:
            run, line, step, attempt, now = self._incoming.popleft()
            made = LogLine(run.key, now, line.level, line.message, line.data, step, attempt)
            self._lines.append(made)
            self._untold.append((run, made))

    def _flush_later(self) -> None:
        if self._lines and self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_SECONDS, self.flush)
