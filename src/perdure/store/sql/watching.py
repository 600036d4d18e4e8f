"""Watches: who is told of an execution's end, in the commit that ends it.

A watch is a row. It is entered while its target is open; a watch of a target that has ended is
answered at once instead. The notices of both are made here from the closing event, which stands in
the last history row of the target, so that whoever ends a run need not know who watches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from perdure.errors import Corrupt, Sealed, StoreRefused
from perdure.store.sealing import Packing
from perdure.store.sql.database import Answer, Writing
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.writes import Watch
from perdure.values import endings
from perdure.values import events as ev


class Row(NamedTuple):
    """A watch as it is stored: the watcher is an execution or a mailbox."""

    target: int
    watcher: int | None
    mailbox: str | None
    way: str
    ref: int
    asked_by: str


class Notice(NamedTuple):
    """An encoded event for a watcher. ``run``: the watching execution's current run."""

    watcher: int | None
    run: int
    mailbox: str | None
    event: bytes


def row_of(watch: Watch, target: int, home: int | None) -> Row:
    """Return the row of a watch; ``home`` is the execution that carries it."""
    watcher = None if watch.mailbox else home
    return Row(target, watcher, watch.mailbox or None, watch.way, watch.ref, watch.asked_by)


class Watching:
    """The watches of one batch: entered, taken back, and answered."""

    def __init__(self, database: Writing, packing: Packing) -> None:
        self._database = database
        self._packing = packing
        self._entered: list[Row] = []
        self._dropped: list[tuple[Any, ...]] = []
        self._due: list[tuple[Row, int]] = []
        self._asked: Answer | None = None

    def enter(self, row: Row) -> None:
        """Watch an open execution."""
        self._entered += _with_reverse(row)

    def drop(self, row: Row) -> None:
        """Take a watch back; a link whichever side has set it."""
        self._dropped += [each[:4] for each in _with_reverse(row)]
        if row.way == "link" and row.watcher is not None:
            back = row._replace(target=row.watcher, watcher=row.target)
            self._dropped += [each[:4] for each in _with_reverse(back)]

    def answer(self, row: Row, run: int) -> None:
        """The target has ended: tell the watcher, whose current run is ``run``."""
        self._due.append((row, run))

    def notices(self, ended: Sequence[int], *, has_watches: bool) -> Iterator[Notice]:
        """Write the watches; yield the notices of what was answered and of ended executions.

        ``has_watches``: those may themselves watch others.
        """
        database = self._database
        if self._dropped:
            database.run("delete_watches", to_json(self._dropped))
        if self._entered:
            database.run("insert_watches", to_json(self._entered))
        if ended:
            self._end(ended, has_watches=has_watches)
        if self._due:
            targets = sorted({row.target for row, _ in self._due})
            found = database.run("endings", to_json(targets)).fetchall()
            facts = {each[0]: each for each in found}
            for row, run in self._due:
                event = _event(row, facts[row.target], self._packing)
                if event is not None:
                    yield Notice(row.watcher, run, row.mailbox, ev.encode_turn([event]))

    def ask(self, ended: Sequence[int]) -> None:
        """Ask who watches executions that end, without waiting for the answer."""
        if ended:
            self._asked = self._database.run("watchers", to_json(list(ended)))

    def _end(self, ended: Sequence[int], *, has_watches: bool) -> None:
        database, over = self._database, to_json(list(ended))
        if self._asked is None:
            self.ask(ended)
        assert self._asked is not None
        gone = set(ended)
        rows = from_json(self._asked.fetchone()[0])
        for *columns, run in rows:
            row = Row(*columns)
            if row.watcher not in gone:
                self._due.append((row, run or 0))
        if rows:
            database.run("delete_watches_of_ended", over)
        if has_watches:
            database.run("delete_watches_by_ended", over)


def _with_reverse(row: Row) -> list[Row]:
    """A link between executions is entered both ways: each hears of the other's failure."""
    if row.way != "link" or row.watcher is None:
        return [row]
    return [row, Row(row.watcher, row.target, None, "linked", 0, "")]


def _event(row: Row, facts: tuple[Any, ...], packing: Packing) -> ev.Event | None:
    _, workflow_id, run_id, time, stored = facts
    try:
        payload = packing.open(stored)
    except (Corrupt, Sealed) as exc:
        why = f"the end of execution {workflow_id!r}, which is watched, cannot be read"
        raise StoreRefused(f"{why}: {exc.message}", cause=exc) from exc
    closing = ev.decode_turn(payload)[-1]
    failure, result = endings.failure_of(closing), endings.result_of(closing)
    if isinstance(closing, ev.RunCompleted) and row.way in ("link", "linked"):
        # A link breaks by a bad end, and one that was erased is none.
        failure, result = None, closing.result
    if row.way == "linked" and failure is None:
        return None
    if row.way == "child":
        return ev.ChildClosed(
            child=row.ref,
            status=endings.status_of(closing),
            result=result,
            failure=failure,
            run_id=run_id,
            at=time,
            asked_by=row.asked_by,
        )
    return ev.ExecutionEnded(
        watch=row.ref,
        way=row.way,
        workflow_id=workflow_id,
        run_id=run_id,
        status=endings.status_of(closing),
        result=result,
        failure=failure,
        at=time,
        asked_by=row.asked_by,
    )
