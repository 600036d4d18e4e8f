"""Forgotten ``await``: a call of an activity, or of anything async, that did nothing.

Python warns when a coroutine that never ran is dropped. Its warning names no run, and comes once
per line and process. Inside an activation this one takes its place: a log line of the run, after
the commit. It costs nothing where nothing is forgotten.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from perdure.kernel import match, traps
from perdure.values import lines

_stock: Any = vars(warnings).get("_warn_unawaited_coroutine")


def install() -> None:
    """Let Python ask here first. Idempotent; without effect outside an activation."""
    if _stock is not None:
        warnings._warn_unawaited_coroutine = _warn  # type: ignore[attr-defined]  # no public hook has the run


def _warn(coro: Any) -> None:
    instance = traps.current()
    if instance is None or instance.is_read_only:
        _stock(coro)
        return
    text = f"{_name(coro)} was called without `await` and did nothing; dropped at {match.place()}"
    instance.effect("log", lines.make(logging.WARNING, text))


def _name(coro: Any) -> str:
    """Name what was called: an activity by its name, a function by its own."""
    inner: dict[str, Any] = coro.cr_frame.f_locals if coro.cr_frame is not None else {}
    if coro.cr_code is traps.activity.__code__:
        return f"activity {inner['event'].name!r}"
    if coro.cr_code.co_filename == traps.__file__ and "event" in inner:
        return inner["event"].brief()
    return str(coro.__qualname__)
