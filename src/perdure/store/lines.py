"""Log lines, as they go into a store and come back; ``port.py`` says how."""

from __future__ import annotations

import msgspec


class LogLine(msgspec.Struct, gc=False):
    """A log line of a run: ``level`` as Python's logging counts, ``data`` as JSON.

    ``step``: the step or activity that logged it, in its ``attempt``; empty and 0 if workflow code
    did. ``number``: from 1 on, per run; 0 until it is written. In a turn, ``run`` may be 0.
    """

    run: int
    at: int
    level: int
    message: str
    data: bytes | None = None
    step: str = ""
    attempt: int = 0
    number: int = 0
