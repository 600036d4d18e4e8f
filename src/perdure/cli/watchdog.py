"""Ends the process when a limit is over and the event loop, which should notice, is held."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])
_ASYNCIO = str(Path(asyncio.__file__).parent)


class Watchdog:
    """A thread that ends the process with ``code`` unless :meth:`cancel` comes in time.

    ``tell`` gets, in that thread, the place in user code where the main thread is (or "").
    """

    def __init__(self, code: int, tell: Callable[[str], None]) -> None:
        self._code = code
        self._tell = tell
        self._timer: threading.Timer | None = None
        self._watched = threading.get_ident()

    def set(self, seconds: float) -> None:
        """Begin anew: the process ends in so many seconds."""
        self.cancel()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Let the process live."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        try:
            self._tell(self._place())
            sys.stderr.flush()
        finally:
            # What holds the loop can be neither interrupted nor waited for.
            os._exit(self._code)

    def _place(self) -> str:
        frame = sys._current_frames().get(self._watched)  # pyright: ignore[reportPrivateUsage] - the documented way to see another thread's stack
        while frame is not None:
            name = frame.f_code.co_filename
            if not name.startswith((_PACKAGE, _ASYNCIO, "<")):
                return f"{os.path.relpath(name)}:{frame.f_lineno}"
            frame = frame.f_back
        return ""
