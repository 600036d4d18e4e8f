"""Which codecs a database has met, and sealing anew what it holds.

Each codec, and each key of it, leaves a sample here before anything is sealed by it: a known text,
sealed. Whoever opens the database tries all samples; so a process without the codec, or with
another key, knows that before it has read or written a run.

:data:`TABLES` is the list of all columns that hold users' data sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from perdure.errors import Corrupt, Invalid, Sealed
from perdure.store.rows import Resealed
from perdure.store.sealing import Packing, is_elsewhere, reference_of
from perdure.store.sql.database import Database, Writing, one
from perdure.store.sql.encoding import to_json

_SAMPLE = b"perdure"
_HEAD = 512
"""How much of a column is read to see how it was sealed: a multiple of 4, for base64."""


class Table(NamedTuple):
    """A table with sealed columns: of bytes, or (``is_text``) text. ``first``: before any key."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    is_text: bool = False
    first: tuple[Any, ...] = (-1,)


TABLES = (
    Table("perdure_history", ("id",), ("payload",)),
    Table("perdure_inbox", ("id",), ("event",)),
    Table("perdure_mail", ("id",), ("event",)),
    Table("perdure_question", ("id",), ("args", "answer"), first=("",)),
    Table("perdure_beat", ("run", "activity"), ("details",), first=(-1, -1)),
    Table("perdure_task", ("id",), ("call",)),
    Table("perdure_state", ("run",), ("detail", "progress"), is_text=True),
    Table("perdure_memo", ("run",), ("memo",), is_text=True),
    Table(
        "perdure_human_task",
        ("id",),
        ("description", "form", "data", "value", "comment", "approvals"),
        is_text=True,
        first=("",),
    ),
    Table("perdure_human_log", ("id",), ("data",), is_text=True),
    Table("perdure_record", ("namespace", "kind", "id"), ("data",), first=("", "", "")),
    Table("perdure_audit", ("number",), ("data",)),
    Table("perdure_schedule", ("namespace", "id"), ("template", "note"), first=("", "")),
    Table("perdure_log", ("id",), ("message", "data"), is_text=True),
)


class Met(NamedTuple):
    """What came of :func:`meet`: what codec or key is missing, whether the blob store is, and a
    sample if the codec that is used here has left none yet.
    """

    sealed: str
    elsewhere: str
    sample: bytes | None


def meet(database: Writing) -> Met:
    """Try what the database has met."""
    seal = database.seal
    seal.folder = str(one(database, "identity"))
    troubles: list[str] = []
    is_known = seal.codec is None
    for codec, sample in database.run("codecs").fetchall():
        try:
            if seal.open(sample) != _SAMPLE:
                raise Corrupt(f"codec {codec!r} does not give back what it was given")
            is_known = is_known or seal.is_current(sample)
        except (Corrupt, Sealed) as error:
            troubles.append(error.message)
    sealed = elsewhere = ""
    if troubles:
        found = "; ".join(dict.fromkeys(troubles))
        sealed = f"data in {database.name} cannot be opened here: {found}"
    if seal.blobs is None and one(database, "has_blobs"):
        elsewhere = (
            f"large payloads of {database.name} lie in a blob store, and none was given here: give "
            "Engine, Client or `perdure --blobs` the one that the workers have"
        )
    is_new = not is_known and not sealed
    return Met(sealed, elsewhere, seal.sample(_SAMPLE) if is_new else None)


def reseal_page(database: Database, after: str, limit: int) -> Resealed:
    """Look at a page of rows, and seal anew those that are not sealed as they would be now."""
    place, key = _read_cursor(after)
    if place == len(TABLES):
        return Resealed("")
    table = TABLES[place]
    rows = database.read(lambda: _page(database, table, key or table.first, limit))
    changed = 0
    for row in rows:
        heads = row[len(table.keys) :]
        if not all(_is_current(database, head, table) for head in heads):
            changed += _reseal(database, table, row[: len(table.keys)])
    if len(rows) == limit:
        last = rows[-1][: len(table.keys)]
        return Resealed(_cursor(place, last), table.name, len(rows), changed)
    following = _cursor(place + 1, ()) if place + 1 < len(TABLES) else ""
    return Resealed(following, table.name, len(rows), changed)


def forget_codecs(database: Database) -> int:
    """Forget the samples of codecs and keys that are not the current one; return how many."""
    rows = database.read(lambda: database.run("codecs").fetchall())
    gone = [row for row in rows if not database.seal.is_current(row[1])]
    for codec, sample in gone:
        database.write(lambda it=(codec, sample): database.run("delete_codec", *it))
    return len(gone)


def _page(database: Database, table: Table, key: Sequence[Any], limit: int) -> list[Any]:
    keys = ", ".join(table.keys)
    marks = ", ".join("?" * len(key))
    heads = ", ".join(f"substr({column}, 1, {_HEAD})" for column in table.columns)
    text = (
        f"SELECT {keys}, {heads} FROM {table.name} WHERE ({keys}) > ({marks}) "  # noqa: S608 - our own words
        f"ORDER BY {keys} LIMIT ?"
    )
    return database.ask(text, [*key, limit]).fetchall()


def _is_current(database: Database, head: Any, table: Table) -> bool:
    if not head:
        return True
    seal = database.seal
    return seal.is_current_text(head) if table.is_text else seal.is_current(head)


def _reseal(database: Database, table: Table, key: Sequence[Any]) -> bool:
    """Seal one row anew; tell whether it still was what was read."""
    same = " AND ".join(f"{name} = ?" for name in table.keys)
    columns = ", ".join(table.columns)
    text = f"SELECT {columns} FROM {table.name} WHERE {same}"  # noqa: S608 - our own words
    row = database.read(lambda: database.ask(text, key).fetchone())
    if row is None:
        return False
    seal = database.seal
    if table.is_text:
        made: list[Any] = [seal.seal_text(seal.open_text(stored)) for stored in row]
        return _replace(database, table, key, row, made)
    if table.columns == ("payload",):
        return _reseal_history(database, table, key, row[0])
    made = [None if stored is None else seal.seal(seal.open(stored)) for stored in row]
    return _replace(database, table, key, row, made)


def _reseal_history(database: Database, table: Table, key: Sequence[Any], stored: bytes) -> bool:
    packing = Packing(database.seal)
    made, blob = packing.row(database.seal.open(stored))
    old = reference_of(stored).name if is_elsewhere(stored) else ""

    def write() -> bool:
        text = (
            f"UPDATE {table.name} SET payload = ?, crc = ? WHERE id = ? AND payload = ? "  # noqa: S608 - our own words
            "RETURNING run, first"
        )
        place = database.ask(text, [made, crc32(made), *key, stored]).fetchone()
        if place is None:
            return False
        if old:
            database.run("forget_blobs", to_json([old]))
        if blob:
            database.run("insert_blobs", to_json([(blob, *place)]))
            packing.check_fresh()
        return True

    return database.write(write)


def _replace(
    database: Database, table: Table, key: Sequence[Any], old: Sequence[Any], new: Sequence[Any]
) -> bool:
    changes = [
        (column, before, after)
        for column, before, after in zip(table.columns, old, new, strict=True)
        if before != after
    ]
    sets = ", ".join(f"{column} = ?" for column, _, _ in changes)
    # Only what is still as it was read: somebody may have written the row meanwhile.
    same = " AND ".join(f"{name} = ?" for name in (*table.keys, *(one[0] for one in changes)))
    text = f"UPDATE {table.name} SET {sets} WHERE {same} RETURNING 1"  # noqa: S608 - our own words
    values = [after for _, _, after in changes]
    befores = [before for _, before, _ in changes]
    if not changes:
        return False
    answer = database.write(lambda: database.ask(text, [*values, *key, *befores]).fetchone())
    return answer is not None


def _cursor(place: int, key: Sequence[Any]) -> str:
    return msgspec.json.encode([place, list(key)]).decode()


def _read_cursor(after: str) -> tuple[int, tuple[Any, ...]]:
    if not after:
        return 0, ()
    try:
        place, key = msgspec.json.decode(after, type=tuple[int, tuple[Any, ...]])
    except msgspec.DecodeError as exc:
        raise Invalid(f"after: {after!r} is no place of a reseal") from exc
    if not 0 <= place <= len(TABLES):
        raise Invalid(f"after: {after!r} is no place of a reseal")
    return place, key
