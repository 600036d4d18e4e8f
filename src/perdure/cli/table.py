"""Tables for people: aligned by what a terminal shows, cut only where it is one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

_GAP = "  "
_LEAST = 8
_MOST = 72
"""What a column is padded to in a pipe; a longer cell moves the rest of its own row only."""
_COLOURS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_STATUS = {
    "completed": "green",
    "failed": "red",
    "timed_out": "red",
    "parked": "magenta",
    "paused": "magenta",
    "waiting": "yellow",
    "running": "blue",
    "cancelled": "dim",
    "terminated": "dim",
    "continued_as_new": "dim",
}


def is_plain(stream: TextIO) -> bool:
    """Tell whether ``stream`` must get text without colours and cursor movements."""
    return not stream.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Colour a text if ``stream`` (stdout unless given) may have colours."""
    if colour not in _COLOURS or is_plain(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paint_status(text: str) -> str:
    """Colour a status, whatever spaces follow it."""
    return paint(text, _STATUS.get(text.strip(), ""))


def clean(text: str) -> str:
    """Return the text in one line, with nothing in it that would move a terminal's cursor."""
    if text.isprintable():
        return text
    flat = " ".join(text.split()) if "\n" in text else text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in flat)


def render(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    elastic: str = "",
    painters: dict[str, Callable[[str], str]] | None = None,
) -> str:
    """Return the lines of a table.

    ``elastic``: the column that is cut with an ellipsis where the terminal is too narrow; a pipe
    gets everything.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    is_cut = sys.stdout.isatty()
    widths = [
        max([_width(title), *(w for row in cells if (w := _width(row[i])) <= _MOST or is_cut)])
        for i, title in enumerate(titles)
    ]
    if elastic and is_cut:
        column = list(titles).index(elastic)
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
        if over > 0:
            widths[column] = max(_LEAST, widths[column] - over)
    lines = [paint(_GAP.join(map(_fit, titles, widths)).rstrip(), "dim")]
    for row in cells:
        shown = [
            _fit(cell, width if is_cut else max(width, _width(cell)))
            for cell, width in zip(row, widths, strict=True)
        ]
        shown[-1] = shown[-1].rstrip()
        for index, title in enumerate(titles):
            if painters and title in painters:
                shown[index] = painters[title](shown[index])
        lines.append(_GAP.join(shown).rstrip())
    return "\n".join(lines)


def _fit(text: str, width: int) -> str:
    length = _width(text)
    if length <= width:
        return text + " " * (width - length)
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…" + " " * (width - 1 - _width(text))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
