"""The line that shows how a run is doing, redrawn in place on stderr."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from perdure.cli.out import took
from perdure.cli.story import Story
from perdure.cli.table import clean, is_plain, paint
from perdure.client import Handle
from perdure.engine.clock import monotonic
from perdure.values.states import Status

_CLEAR = "\r\x1b[K"


class LiveLine:
    """Status, current step and event count of a run; nothing if stderr is no terminal."""

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty() and not is_plain(sys.stderr)
        self._began = monotonic()
        self._is_drawn = False

    async def follow(self, handle: Handle[Any]) -> None:
        """Redraw as events are committed, until the run ends or the task is cancelled."""
        story = Story()
        async for event in handle.follow():
            story.take(event)
            self._draw(await handle.describe() if not story.current else None, story)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._is_drawn = False

    def _draw(self, execution: Any, story: Story) -> None:
        status = str(execution.status) if execution is not None else str(Status.RUNNING)
        step = story.current or (execution.current_step if execution is not None else "") or ""
        events = "1 event" if story.length == 1 else f"{story.length} events"
        parts = [status, step, events, took(monotonic() - self._began)]
        text = clean("  ".join(part for part in parts if part))
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(_CLEAR + paint(text[:width], "dim", sys.stderr))
        sys.stderr.flush()
        self._is_drawn = True
