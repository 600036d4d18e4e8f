"""Erases what users have put into runs that have ended, a few history rows at a time.

A run that is being erased says so in its row from the first part on, so nobody begins a retry of
it. History rows are read and made anew outside of a transaction (some lie in a blob store), and
written in a short one, each only if it still is what was read: it may have been sealed anew.
Nothing else changes a row of a run that has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from perdure.errors import Conflict, Corrupt, NotFound, Sealed, Unavailable
from perdure.store.erasing import Erase, ErasedPart
from perdure.store.rows import Place
from perdure.store.sealing import is_elsewhere, reference_of
from perdure.store.sql.audit import append
from perdure.store.sql.database import Database
from perdure.store.sql.encoding import status_of, to_json
from perdure.store.sql.made import is_damaged
from perdure.values import events as ev
from perdure.values.erasing import ERASED, ERASED_TEXT, Erasure, without_payloads

_MOST_BYTES = 4 * 1024 * 1024
"""Of history rows in one part, as they are stored; one may be larger."""


class _Run(NamedTuple):
    run: int
    run_id: str
    status: int

    @property
    def is_open(self) -> bool:
        return not status_of(self.status).is_terminal


class _Row(NamedTuple):
    """A history row; ``payload`` as it is stored."""

    id: int
    first: int
    payload: bytes
    crc: int


def erase(database: Database, wish: Erase, now: int) -> ErasedPart:
    """Erase a part: see the port."""
    after = wish.after or Place(0)
    runs = database.write(lambda: _begin(database, wish)) if not after.at else ()
    runs = runs or database.read(lambda: _wanted(database, wish))
    left = [run for run in runs if run.run >= after.run]
    if not left:
        return ErasedPart()  # the others were deleted meanwhile
    run, at = left[0], after.at if left[0].run == after.run else 0
    rows = database.read(lambda: _read(database, run, at, wish.rows))
    goes_on = Place(run.run, rows[-1].first) if rows else None
    if goes_on is None and len(left) > 1:
        goes_on = Place(left[1].run)
    written = _write(database, run, rows)
    if not rows:
        lines = wish.audit if goes_on is None else ()

        def finish() -> None:
            database.run("set_erased", run.run, Erasure.DONE, _SAID[Erasure.DONE])
            number = to_json([run.run])
            # By these it is found again by who was cut off, and attempts may have logged meanwhile.
            database.run("erase_attrs", number)
            database.run("erase_logs", number, ERASED_TEXT)
            if lines:
                append(database, lines, now)

        database.write(finish)
    return ErasedPart(written, goes_on)


def _begin(database: Database, wish: Erase) -> Sequence[_Run]:
    """Erase what is not in the history of the next run, and say that its history follows; of all
    runs with the first, so that none is forgotten if this is cut off.
    """
    database.hold_executions([wish.execution])
    runs = _wanted(database, wish)
    place = wish.after or Place(0)
    run = next((it for it in runs if it.run >= place.run), None)
    if run is None:
        return runs
    number = to_json([run.run])
    for one in [run] if place.run else runs:
        database.run("set_erased", one.run, Erasure.BEGUN, _SAID[Erasure.BEGUN])
    for query in ("erase_memos", "erase_beats", "erase_offers", "erase_details"):
        database.run(query, number)
    database.run("erase_logs", number, ERASED_TEXT)
    database.run("erase_human_tasks", number, ERASED_TEXT, ERASED.decode())
    database.run("erase_human_logs", number, ERASED.decode())
    if not wish.run:
        database.run("erase_inbox", wish.execution)
        database.run("erase_questions", wish.execution)
    return runs


_SAID = {
    Erasure.BEGUN: "what it was given and gave is being erased; cut off, a worker finishes it",
    Erasure.DONE: "what it was given and gave was erased",
}


def _wanted(database: Database, wish: Erase) -> Sequence[_Run]:
    """Return the runs to erase, if that may be.

    Raises:
        Conflict: what is to be erased is open.
        NotFound: there is no such run.
    """
    runs = [_Run(*row) for row in database.run("runs_to_erase", wish.execution).fetchall()]
    found = [run for run in runs if wish.run in (0, run.run)]
    if not found:
        raise NotFound("there is no such run: it has been deleted")
    if found[-1].is_open:
        raise Conflict(
            f"run {found[-1].run_id} is open, and needs what it was given: end it first. What is "
            "of persons can be erased at any time if it is passed as personal values",
            details={"run_id": found[-1].run_id},
        )
    return found


def _read(database: Database, run: _Run, after: int, limit: int) -> list[_Row]:
    found = [_Row(*row) for row in database.run("rows_to_erase", run.run, after, limit).fetchall()]
    size, taken = 0, list[_Row]()
    for row in found:
        size += len(row.payload)
        if taken and size > _MOST_BYTES:
            break
        taken.append(row)
    return taken


def _write(database: Database, run: _Run, rows: Sequence[_Row]) -> int:
    """Write rows anew, without what users have put into them; return how many had to be."""
    written = 0
    while rows:
        made = [(row, it) for row in rows if (it := _made(database, run, row)) is not None]
        if not made:
            break
        others, gone = database.write(lambda made=made: _replace(database, made))
        written += len(made) - len(others)
        for name in gone:
            _delete_blob(database, name)
        # Sealed anew since they were read, or deleted.
        rows = database.read(lambda others=others: _read_again(database, run, others))
    return written


def _delete_blob(database: Database, name: str) -> None:
    blobs = database.seal.blobs
    assert blobs is not None
    try:
        blobs.delete(name)
    except Exception as exc:
        raise Unavailable(
            f"blob {name!r} could not be deleted now ({type(exc).__name__}: {exc}); nothing refers "
            "to it any more, and the sweep deletes it when it is a day old. Ask again to go on"
        ) from exc


def _replace(
    database: Database, made: Sequence[tuple[_Row, bytes]]
) -> tuple[list[_Row], list[str]]:
    """Return the rows that are no longer what was read, and blobs that nothing refers to now."""
    others: list[_Row] = []
    gone: list[str] = []
    for row, data in made:
        sealed = database.seal.seal(data)
        database.written += len(sealed)
        if not database.run("erase_row", row.id, row.payload, crc32(sealed), sealed).rowcount:
            others.append(row)
        elif is_elsewhere(row.payload):
            gone.append(reference_of(row.payload).name)
    if gone:
        database.run("forget_blobs", to_json(gone))
    return others, gone


def _read_again(database: Database, run: _Run, rows: Sequence[_Row]) -> list[_Row]:
    found: list[_Row] = []
    for row in rows:
        stored = database.run("payload_of", run.run, row.first).fetchone()
        if stored is not None:
            found.append(row._replace(payload=stored[0], crc=stored[1]))
    return found


def _made(database: Database, run: _Run, row: _Row) -> bytes | None:
    """Return what a row holds without what users have put into it; ``None``: it holds no more."""
    where = f"history of run {run.run} ({run.run_id}): the row of event {row.first}"
    if is_damaged(row.payload, row.crc):
        raise Corrupt(f"{where} is damaged: its checksum does not fit; `perdure prune` deletes it")
    try:
        data = database.seal.open(row.payload)
        made = ev.encode_plain(without_payloads(ev.decode_plain(data)))
    except (Corrupt, Sealed) as exc:
        raise type(exc)(f"{where}: {exc.message}") from exc
    return None if made == data else made
