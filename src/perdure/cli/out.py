"""Answers on stdout, in the format that was asked for; hints on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click
import msgspec

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

F = TypeVar("F", bound=Callable[..., Any])


def format_option(*formats: str) -> Callable[[F], F]:
    """Add ``-o``; the first format is the default. The command gets it as ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        help=f"Format.  [default: {formats[0]}]",
    )


def say(text: str) -> None:
    """Print data."""
    print(text, file=sys.stdout)


def hint(text: str) -> None:
    """Print what is not data."""
    print(text, file=sys.stderr)


def compact(value: Any) -> str:
    """Return JSON in one line."""
    return msgspec.json.encode(value).decode()


def document(value: Any) -> str:
    """Return JSON for reading."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def short(value: Any, limit: int = 60) -> str:
    """Return JSON in one line; on a terminal, cut after ``limit`` characters."""
    text = compact(value)
    return text if len(text) <= limit or not sys.stdout.isatty() else text[: limit - 1] + "…"


def moment(value: datetime | None) -> str:
    """Return a time for a table, in UTC."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}Z"


def took(seconds: float) -> str:
    """Return a span of time in two units at most."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.2f}s"
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])
