"""The line that shows how a run is doing, redrawn in place on stderr."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import Any

from perdure.cli.out import hint, took
from perdure.cli.story import Story
from perdure.cli.table import clean, is_plain, paint
from perdure.engine.clock import monotonic
from perdure.handle import Handle
from perdure.values.states import Status

_REDRAW_SECONDS = 0.1
_TROUBLE = frozenset({"attempt_failed", "attempt_lost", "run_parked"})
_CLEAR = "\r\x1b[K"


class Above:
    """Where others write while a line is shown: the line makes way for them, on stderr."""

    def __init__(self, line: LiveLine) -> None:
        self._line = line

    def write(self, text: str) -> int:
        """Write above the line."""
        self._line.clear()
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush stderr."""
        sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        """Be stderr in whatever else is asked of a stream: ``isatty``, ``encoding`` and so on."""
        return getattr(sys.stderr, name)


class LiveLine:
    """Status, current step and event count of a run.

    Where stderr is no terminal there is no line, and only what goes wrong on the way is told.
    """

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty() and not is_plain(sys.stderr)
        self._began = monotonic()
        self._story = Story()
        self._is_drawn = False

    async def follow(self, handle: Handle[Any]) -> None:
        """Redraw until the run ends or the task is cancelled."""
        drawing = asyncio.create_task(self._keep_drawing(handle))
        try:
            await self.tell_rest(handle)
        finally:
            drawing.cancel()

    async def tell_rest(self, handle: Handle[Any]) -> None:
        """Read the events that were not read yet, to the run's end."""
        async for event in handle.follow(after=self._story.length):
            told = self._story.take(event)
            if event.kind in _TROUBLE:
                self.clear()
                hint(f"{event.kind}: {clean(told)}")

    def clear(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._is_drawn = False

    async def _keep_drawing(self, handle: Handle[Any]) -> None:
        story = self._story
        while self.is_shown:
            status, step = str(Status.RUNNING), story.current
            if not step:
                execution = await handle.describe()
                status, step = str(execution.status), execution.current_step or ""
            events = "1 event" if story.length == 1 else f"{story.length} events"
            self._draw(status, step, events, took(monotonic() - self._began))
            await asyncio.sleep(_REDRAW_SECONDS)

    def _draw(self, *parts: str) -> None:
        text = clean("  ".join(part for part in parts if part))
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(_CLEAR + paint(text[:width], "dim", sys.stderr))
        sys.stderr.flush()
        self._is_drawn = True
