"""Loggers whose lines are kept with the run: those of workflows, of activities and of steps.

In workflow code a line is a part of its turn: it is written and told with the turn's commit, and
never again in a replay. In an activity it is told at once, and kept whatever becomes of the
attempt. Anywhere else such a logger is like any other.

Kept is what has level INFO or above, or what Python's logging would show.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from perdure.kernel import traps
from perdure.values import lines
from perdure.values.lines import Line

_formatter = logging.Formatter()


class Keeper(Protocol):
    """What keeps the lines of an attempt."""

    @property
    def place(self) -> str:
        """Whose lines they are: ids and names for people."""
        ...

    def keep(self, line: Line) -> None:
        """Take a line; may be called from any thread."""
        ...


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """See the module's text. ``find`` returns the attempt that runs, if there is one.

    A mapping as the only argument, and ``extra=``, are the line's data.
    """

    def __init__(
        self,
        logger: logging.Logger,
        find: Callable[[], Keeper | None],
        *,
        place: str = "",
        step: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(logger, dict(extra or {}))
        self._find = find
        self._place = place
        self._step = step

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log a line, as :meth:`logging.Logger.log` does."""
        if not self._is_kept(level):
            return
        data: Any = kwargs.get("extra")
        if len(args) == 1 and isinstance(args[0], Mapping) and "%(" not in str(msg):
            # Shown by Python's logging only if the text has a place for it; here it is the data.
            data = {**cast("dict[str, Any]", args[0]), **cast("dict[str, Any]", data or {})}
            args = ()
        exc_info = _exc_info(kwargs.get("exc_info"))
        record = logging.LogRecord("", level, "", 0, msg, args, exc_info)
        try:
            text = _formatter.format(record)
        except Exception:  # noqa: BLE001 - logging raises nowhere, least of all into a workflow
            text = f"{msg} {args!r}"
        self.keep(level, text, data)

    def keep(self, level: int, message: object, data: Any = None) -> None:
        """Log a line with data (any payload)."""
        if not self._is_kept(level):
            return
        instance = traps.current()
        if instance is not None and not instance.is_read_only:
            instance.effect("log", lines.make(level, message, data, step=self._step))
            return
        line = lines.make(level, message, data, step=self._step)
        keeper = self._find() if instance is None else None
        place = self._place
        if keeper is not None:
            place = place or keeper.place
            keeper.keep(line)
        show(self.logger, place, line, self.extra)

    def _is_kept(self, level: int) -> bool:
        return level >= logging.INFO or self.isEnabledFor(level)


def show(
    logger: logging.Logger, place: str, line: Line, extra: Mapping[str, object] | None = None
) -> None:
    """Hand a line to Python's logging."""
    if logger.isEnabledFor(line.level):
        data = f" {line.data.decode()}" if line.data is not None else ""
        where = f"[{place}] " if place else ""
        logger.log(line.level, "%s%s%s", where, line.message, data, extra=dict(extra or {}))


def _exc_info(given: Any) -> Any:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    return sys.exc_info() if given is True else given or None
