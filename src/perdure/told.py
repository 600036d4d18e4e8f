"""What a run has logged, as people and programs read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure import views
from perdure.door import Door
from perdure.store.port import LogLine as Row
from perdure.values import limits, payload
from perdure.values.lines import level_name

_PAGE = 1_000


class LogLine(msgspec.Struct, frozen=True):
    """One line; ``number`` counts from 1 in each run.

    ``level``: in lower case. ``step``: the step or activity, and which ``attempt`` of it; ``None``
    and 0 for a line of workflow code.
    """

    number: int
    time: datetime
    level: str
    message: str
    data: Any = None
    step: str | None = None
    attempt: int = 0


async def lines_of(door: Door, run: int, after: int) -> list[LogLine]:
    """Return a run's lines with numbers above ``after``; the first one says how many are gone."""
    rows: list[Row] = []
    while True:
        start = rows[-1].number if rows else after
        page = await door.read(lambda store: store.log(run, after=start, limit=_PAGE))  # noqa: B023 - awaited here
        rows += page
        if len(page) < _PAGE:
            break
    lines = [_shown(row) for row in rows]
    gone = rows[0].number - 1 - after if rows else 0
    if gone > 0:
        number = "1 older line is" if gone == 1 else f"{gone:,} older lines are"
        text = f"{number} gone: a run keeps its last {limits.LOG_LINES:,}"
        lines.insert(0, LogLine(rows[0].number - 1, lines[0].time, "warning", text))
    return lines


def _shown(row: Row) -> LogLine:
    return LogLine(
        row.number,
        views.to_datetime(row.at),
        level_name(row.level),
        row.message,
        None if row.data is None else payload.decode(row.data),
        row.step or None,
        row.attempt,
    )
