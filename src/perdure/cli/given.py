"""Values as people type them: JSON, ``@file``, ``-``, ``key=value``, or plain text."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import Invalid

_PAIR = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_DOCUMENT = re.compile(r'\s*[\[{"]')


def value(text: str) -> Any:
    """Read one value: JSON if it is JSON, else the text itself; ``@file`` and ``-`` (stdin) hold
    JSON.

    Raises:
        Invalid: broken JSON, or no such file.
    """
    if text == "-":
        return _json(sys.stdin.read(), "stdin")
    if text[:1] == "@":
        return _json(_file(text), text)
    if _DOCUMENT.match(text):
        return _json(text, f"{text[:40]!r}")
    return scalar(text)


def scalar(text: str) -> Any:
    """Read the right side of ``key=value``: JSON if it parses, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def pairs(items: Sequence[str], what: str) -> dict[str, Any]:
    """Read ``key=value`` items.

    Raises:
        Invalid: an item without ``=``.
    """
    result: dict[str, Any] = {}
    for item in items:
        match = _PAIR.fullmatch(item)
        if match is None:
            raise Invalid(f"{what}: {item!r} is not key=value")
        result[match[1]] = scalar(match[2])
    return result


def payload(items: Sequence[str], option: str | None = None) -> Any:
    """Join what was given into one payload: at most one document, and ``key=value`` items over it.

    Raises:
        Invalid: two documents, or fields for something that is no object.
    """
    documents = [item for item in items if not _PAIR.fullmatch(item)]
    if option is not None:
        documents.append(option)
    if len(documents) > 1:
        raise Invalid(f"input: {documents[0]!r} and {documents[1]!r}; give one value, or key=value")
    fields = pairs([item for item in items if _PAIR.fullmatch(item)], "input")
    if not documents:
        return fields or None
    document = value(documents[0])
    if not fields:
        return document
    if not isinstance(document, dict):
        raise Invalid(f"input: {documents[0]!r} is no object; {next(iter(fields))}= has no place")
    merged: dict[str, Any] = {**document, **fields}
    return merged


def hint_at_text(exc: Invalid, items: Sequence[str]) -> Invalid:
    """Return the error, with how to pass text if a field was read as something else."""
    match = _PAIR.fullmatch(next((item for item in items if _PAIR.fullmatch(item)), ""))
    if match is None or "Expected `str`, got" not in exc.message:
        return exc
    return Invalid(f"{exc.message}. K=V is read as JSON; text is written {match[1]}='\"…\"'")


def _json(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise Invalid(f"{where}: not JSON: {exc}") from exc


def _file(text: str) -> str:
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise Invalid(
            f"{text}: {reason}; @ names a file. A text that begins with @ is written '\"{text}\"'"
        ) from exc
