"""Values made of stored rows: what of them cannot be read is said, and is in nobody's way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.errors import Corrupt, Sealed, Unavailable
from perdure.store.offers import OfferRow, Stage
from perdure.store.port import Loaded, LogLine, RunRow
from perdure.store.sealing import TEXT_MARK, Seal
from perdure.store.sql.encoding import from_json, status_of

_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_JSON: dict[int, tuple[str, Callable[[str], Any]]] = {
    RunRow.__struct_fields__.index(name): (name, read)
    for name, read in (
        ("waits", from_json),
        ("progress", from_json),
        ("tags", _read_tags),
        ("memo", _read_object),
    )
}
"""Columns of a run that hold JSON, and how to read them."""
_SEALED = {RunRow.__struct_fields__.index(name): name for name in ("detail", "progress", "memo")}
"""Columns of a run that may be sealed."""


def run_of(row: tuple[Any, ...], seal: Seal) -> RunRow:
    """Return a run: what cannot be read or opened of it is left out, and said."""
    fields: list[Any] = [*row[:11], status_of(row[11]), *row[12:34]]
    damaged: tuple[str, ...] = ()
    sealed = ""
    for column, name in _SEALED.items():
        text = fields[column]
        if isinstance(text, str) and text.startswith(TEXT_MARK):
            try:
                fields[column] = seal.open_text(text)
            except Sealed as error:
                fields[column], sealed = None, sealed or error.message
            except Corrupt:
                fields[column], damaged = None, (*damaged, name)
    for column, (name, read) in _JSON.items():
        text = fields[column]
        if text is not None and not _is_readable(text, read):
            damaged = (*damaged, name)
            fields[column] = None
    tags, memo = fields[31], fields[32]
    fields[31] = () if tags is None else _read_tags(tags)
    fields[32] = None if memo is None else memo.encode()
    fields += (damaged, sealed)
    return RunRow(*fields)


def _is_readable(text: object, read: Callable[[str], Any]) -> bool:
    try:
        read(text if isinstance(text, str) else "")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def line_of(row: tuple[Any, ...], seal: Seal) -> LogLine:
    """Return a log line, or what is wrong with it."""
    key, at, level, message, data, *rest = row
    try:
        message, data = seal.open_text(message) or "", seal.open_text(data)
    except Corrupt as error:
        message, data = f"(this line cannot be read: {error.message})", None
    return LogLine(key, at, level, message, None if data is None else data.encode(), *rest)


def breaks(found: Loaded, why: str, exc: Exception) -> None:
    """Say of a run that is loaded why it cannot go on."""
    found.broken = found.broken or why
    found.is_sealed |= isinstance(exc, Sealed)
    found.is_unavailable |= isinstance(exc, Unavailable)


def offer_of(row: tuple[Any, ...]) -> OfferRow:
    """Return an activity on offer."""
    fields: list[Any] = [*row]
    fields[6] = Stage(row[6])
    return OfferRow(*fields)


def first_of(times: Sequence[int | None]) -> int | None:
    """Return the first of these times, if there is one."""
    return min((time for time in times if time is not None), default=None)


def fault_of(loaded: Loaded, row: tuple[Any, ...]) -> str:
    """Say what is wrong with the next history row, or return ``""``."""
    turns = loaded.turns
    expected = turns[-1].first + turns[-1].count if turns else 1
    first, payload, crc = row[1], row[6], row[7]
    if first != expected:
        return (
            f"history of run {loaded.row.run} ({loaded.row.run_id}): events {expected} to "
            f"{first - 1} are missing"
        )
    if is_damaged(payload, crc):
        return (
            f"history of run {loaded.row.run} ({loaded.row.run_id}): the row of event {first} is "
            "damaged: its checksum does not fit"
        )
    return ""


def is_damaged(payload: object, crc: object) -> bool:
    """Tell whether a payload is another than was stored."""
    return not isinstance(payload, bytes) or crc32(payload) != crc


def missing_end(loaded: Loaded) -> str:
    """Say that the end of a history is missing, or return ``""``."""
    end = loaded.turns[-1].first + loaded.turns[-1].count - 1 if loaded.turns else 0
    if end == loaded.row.length and end:
        return ""
    return (
        f"history of run {loaded.row.run} ({loaded.row.run_id}) ends with event {end}; "
        f"{loaded.row.length} events were recorded"
    )
