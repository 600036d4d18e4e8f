"""The reading verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from perdure.errors import Corrupt
from perdure.store.port import (
    Beat,
    Counted,
    Definition,
    Filter,
    Fork,
    HumanTaskFilter,
    HumanTaskRow,
    InboxRow,
    Journal,
    JournalRow,
    Listed,
    Loaded,
    LogLine,
    News,
    OpenRun,
    Place,
    Prune,
    Pruned,
    Question,
    RunRow,
    Sweep,
    TurnRow,
    Worker,
)
from perdure.store.sql.database import Database, one, reading
from perdure.store.sql.encoding import from_json, status_of, to_json
from perdure.store.sql.listing import count_query, list_query
from perdure.store.sql.people import task_of, tasks_query
from perdure.store.sql.pruning import count_prunable
from perdure.store.sql.slots import Slots
from perdure.values.concurrency import Standing
from perdure.values.states import CODES, Status

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
_LAST = "\U0010ffff"


class SqlReader:
    """The reading half of the port on one connection."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @reading
    def find(self, key: str, *, namespace: str = "default", run_id: str = "") -> RunRow | None:
        if run_id:
            row = self._one("run_by_run_id", (run_id,))
            if row is None or row[2] != namespace:
                return None
            if key and key not in (row[3], self._one("run_id_by_number", (row[1],))[0]):
                return None
            return self._row(row[0])
        return self._latest([(namespace, key)])[0]

    @reading
    def latest(self, names: Sequence[tuple[str, str]]) -> list[RunRow | None]:
        return self._latest(names)

    def _latest(self, names: Sequence[tuple[str, str]]) -> list[RunRow | None]:
        wanted = list(dict.fromkeys(names))
        runs = [run for _, run in self._all("latest_of_workflow_ids", (to_json(wanted),))]
        for place, (namespace, key) in enumerate(wanted):
            if runs[place] is None:
                runs[place] = self._latest_of_first(namespace, key)
        numbers = [run for run in runs if run is not None]
        rows = {row.run: row for row in self._rows(numbers)} if numbers else {}
        found = {name: rows.get(run) for name, run in zip(wanted, runs, strict=True)}
        return [found[name] for name in names]

    def _latest_of_first(self, namespace: str, run_id: str) -> int | None:
        """Return the latest run of the execution whose first run has this id."""
        first = self._one("run_by_run_id", (run_id,))
        if first is None or first[0] != first[1] or first[2] != namespace:
            return None
        return int(self._one("current_run", (first[1],))[0])

    @reading
    def rows(self, runs: Sequence[int]) -> list[RunRow]:
        return self._rows(runs)

    def _rows(self, runs: Sequence[int]) -> list[RunRow]:
        return [_run(row) for row in self._all("rows", (to_json(list(runs)),))]

    @reading
    def prefix(self, key: str, *, namespace: str = "default", limit: int = 10) -> list[RunRow]:
        span = (namespace, key, key + _LAST, limit)
        runs = [row[0] for row in self._all("prefix_of_workflow_id", span)]
        runs += [row[0] for row in self._all("prefix_of_run_id", span)]
        return [_run(row) for row in self._all("rows", (to_json(runs),))]

    @reading
    def list(self, where: Filter, *, limit: int, before: Place | None = None) -> Listed:
        query = list_query(self.database, where, limit + 1, before)
        rows = [_run(row) for row in self._made(query.text, query.parameters)]
        if len(rows) <= limit:
            return Listed(rows, query.floor)
        last = rows[limit - 1]
        return Listed(rows[:limit], Place(last.run, last.created_at))

    @reading
    def count(self, where: Filter, *, limit: int | None = None) -> Counted:
        query = count_query(self.database, where, None if limit is None else limit + 1)
        found = int(self._made(query.text, query.parameters)[0][0])
        if limit is not None and found > limit:
            return Counted(limit, is_all=False)
        return Counted(found, is_all=query.floor is None)

    @reading
    def prunable(self, prune: Prune) -> Pruned:
        return count_prunable(self.database, prune)

    @reading
    def history(self, run: int, *, after: int = 0, limit: int = 10_000) -> list[TurnRow]:
        return [self._checked(row) for row in self._all("history", (run, after, limit))]

    @reading
    def journal(
        self, *, after: int = 0, limit: int, namespace: str = "default", workflow_id: str = ""
    ) -> Journal:
        # The end first: a row that comes between the two is not behind what is said to be the last.
        deleted_to, last = self._one("journal_ends", ())
        if workflow_id:
            rows = self._all("journal_of", (after, limit, namespace, workflow_id))
        else:
            rows = self._all("journal", (after, limit))
        return Journal([_journal_row(row) for row in rows], last, deleted_to)

    @reading
    def log(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[LogLine]:
        rows = self._all("log", (run, after, limit))
        return [_line(row) for row in rows]

    @reading
    def forks(self, run: int) -> list[Fork]:
        return [Fork(*row) for row in self._all("forks", (run,))]

    @reading
    def last_turn(self, run: int) -> TurnRow | None:
        row = self._one("last_turn", (run,))
        return None if row is None else self._checked(row)

    @reading
    def load(self, runs: Sequence[int]) -> list[Loaded]:
        wanted = (to_json(list(runs)),)
        with self.database.snapshot():
            rows = self._all("rows", wanted)
            turns = self._all("histories", wanted)
            inbox = self._all("inboxes", wanted)
            beats = self._all("beats", wanted)
        loaded: dict[int, Loaded] = {}
        for row in rows:
            state = _run(row)
            loaded[state.run] = Loaded(state, [], [])
        for row in turns:
            found = loaded.get(row[0])
            if found is None:
                continue  # its state is gone
            found.broken = found.broken or _fault(found, row)
            if not found.broken:
                found.turns.append(_turn(row[:-1]))
        for beat in beats:
            if beat[0] in loaded:
                loaded[beat[0]].beats.append(Beat(*beat))
        for id, execution, run, event in inbox:
            if run in loaded:
                loaded[run].inbox.append(InboxRow(id, execution, run, event))
        for found in loaded.values():
            found.broken = found.broken or _missing_end(found) or found.row.fault
        return list(loaded.values())

    @reading
    def news(
        self, now: int, soon: int, workflows: Sequence[str], queues: Sequence[str], worker: int
    ) -> News:
        served = (to_json(list(workflows)), to_json(list(queues)))
        has_work, has_room, inactive = self._one("news", (*served, worker, now, soon))
        names = frozenset((name, version) for name, version in from_json(inactive))
        return News(bool(has_work), bool(has_room), names)

    @reading
    def claimable(
        self, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[int]:
        served = (to_json(list(workflows)), to_json(list(queues)), limit)
        return [row[0] for row in self._all("claimable", served)]

    @reading
    def parked(self, reasons: Sequence[str], *, limit: int, after: int = 0) -> list[RunRow]:
        wanted = (to_json(list(reasons)), after, limit)
        return [_run(row) for row in self._all("parked", wanted)]

    @reading
    def open_runs(self, statuses: Sequence[Status], *, limit: int, after: int = 0) -> list[OpenRun]:
        wanted = (to_json([CODES[status] for status in statuses]), after, limit)
        return [OpenRun(*row) for row in self._all("open_runs", wanted)]

    @reading
    def sweeps(self) -> list[Sweep]:
        return [Sweep(*row) for row in self._all("sweeps", ())]

    @reading
    def unserved(
        self, services: Sequence[tuple[Sequence[str], Sequence[str]]], *, limit: int
    ) -> list[RunRow]:
        wanted = (to_json(list(services)), limit)
        return [_run(row) for row in self._all("unserved", wanted)]

    @reading
    def due(
        self,
        until: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        *,
        limit: int,
        after: int = -1,
    ) -> list[tuple[int, int]]:
        served = (to_json(list(workflows)), to_json(list(queues)), until, limit, after)
        return self._all("due", served)

    @reading
    def beginning(
        self, until: int, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[tuple[int, int]]:
        served = (to_json(list(workflows)), to_json(list(queues)), until, limit)
        return self._all("beginning", served)

    @reading
    def inbox(
        self, workflows: Sequence[str], queues: Sequence[str], worker: int, *, limit: int
    ) -> list[InboxRow]:
        served = (to_json(list(workflows)), to_json(list(queues)), worker, limit)
        return [InboxRow(*row) for row in self._all("inbox", served)]

    @reading
    def questions(self, now: int, workflows: Sequence[str], *, limit: int) -> list[Question]:
        wanted = (now, to_json(list(workflows)), limit)
        return [Question(*row) for row in self._all("questions", wanted)]

    @reading
    def reply(self, question: str) -> bytes | None:
        row = self._one("reply", (question,))
        return None if row is None else row[0]

    @reading
    def mail(self, mailboxes: Sequence[str], *, limit: int) -> list[tuple[int, str, bytes]]:
        return self._all("mail", (to_json(list(mailboxes)), limit))

    @reading
    def workers(self) -> list[Worker]:
        return [
            Worker(
                *row[:9],
                workflows=tuple(from_json(row[9])),
                queues=tuple(from_json(row[10])),
                alive_for_sure=self._is_alive(row[0]),
            )
            for row in self._all("workers", ())
        ]

    @reading
    def definitions(self) -> list[Definition]:
        return [
            Definition(*row[:5], is_active=bool(row[5]), registered_at=row[6])
            for row in self._all("definitions", ())
        ]

    @reading
    def standing(self, execution: int) -> Standing | None:
        return Slots(self.database).standing(execution)

    @reading
    def attributes(self, run: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, stored, form in self._all("attributes", (run,)):
            value = self._attribute(stored)
            if form is None:
                found[key] = value
            elif form < 0:
                found[key] = bool(value)
            else:
                found.setdefault(key, []).append(value)
        return found

    @reading
    def human_task(self, id: str, *, namespace: str = "default") -> HumanTaskRow | None:
        row = self._one("human_task", (id,))
        found = None if row is None else task_of(row)
        return found if found is not None and found.namespace == namespace else None

    @reading
    def human_tasks(
        self,
        where: HumanTaskFilter,
        now: int,
        *,
        limit: int,
        after: HumanTaskRow | None = None,
    ) -> list[HumanTaskRow]:
        query = tasks_query(self.database.sql, where, now, limit, after)
        return [task_of(row) for row in self._made(*query)]

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    def _attribute(self, stored: Any) -> Any:
        """Return the value of a search attribute as it is kept."""
        return stored

    def _is_alive(self, worker: int) -> bool | None:
        """Tell whether a worker that has not left still lives; ``None`` if that cannot be told."""
        return None

    def _made(self, text: str, parameters: Sequence[Any]) -> list[Any]:
        return self.database.ask(text, parameters).fetchall()

    def _all(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        return self.database.run(query, *parameters).fetchall()

    def _one(self, query: str, parameters: Sequence[Any]) -> Any:
        return self.database.run(query, *parameters).fetchone()

    def _checked(self, row: tuple[Any, ...]) -> TurnRow:
        run, first, payload, crc = row[0], row[1], row[6], row[7]
        if _is_damaged(payload, crc):
            name = f"history of run {run} ({one(self.database, 'run_id_by_number', run)})"
            raise Corrupt(f"{name}: the row of event {first} is damaged: its checksum does not fit")
        return _turn(row[:-1])

    def _row(self, run: int) -> RunRow:
        return _run(self._one("run_by_number", (run,)))


def _run(row: tuple[Any, ...]) -> RunRow:
    fields: list[Any] = [*row[:11], status_of(row[11]), *row[12:34]]
    damaged: tuple[str, ...] = ()
    for column, (name, read) in _JSON.items():
        text = fields[column]
        if text is not None and not _is_readable(text, read):
            damaged = (*damaged, name)
            fields[column] = None
    tags, memo = fields[31], fields[32]
    fields[31] = () if tags is None else _read_tags(tags)
    fields[32] = None if memo is None else memo.encode()
    fields.append(damaged)
    return RunRow(*fields)


def _is_readable(text: object, read: Callable[[str], Any]) -> bool:
    try:
        read(text if isinstance(text, str) else "")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _journal_row(row: tuple[Any, ...]) -> JournalRow:
    found = JournalRow(*row[:10])
    if _is_damaged(row[9], row[10]):
        found.payload = b""
        found.fault = f"the row of event {found.first} is damaged: its checksum does not fit"
    return found


def _line(row: tuple[Any, ...]) -> LogLine:
    key, at, level, message, data, *rest = row
    return LogLine(key, at, level, message, None if data is None else data.encode(), *rest)


def _turn(row: tuple[Any, ...]) -> TurnRow:
    run, first, count, time, applied, worker, payload = row
    return TurnRow(run, first, count, time, bool(applied), worker, payload)


def _fault(loaded: Loaded, row: tuple[Any, ...]) -> str:
    """Say what is wrong with the next history row, or return ``""``."""
    turns = loaded.turns
    expected = turns[-1].first + turns[-1].count if turns else 1
    first, payload, crc = row[1], row[6], row[7]
    if first != expected:
        return (
            f"history of run {loaded.row.run} ({loaded.row.run_id}): events {expected} to "
            f"{first - 1} are missing"
        )
    if _is_damaged(payload, crc):
        return (
            f"history of run {loaded.row.run} ({loaded.row.run_id}): the row of event {first} is "
            "damaged: its checksum does not fit"
        )
    return ""


def _is_damaged(payload: object, crc: object) -> bool:
    return not isinstance(payload, bytes) or crc32(payload) != crc


def _missing_end(loaded: Loaded) -> str:
    end = loaded.turns[-1].first + loaded.turns[-1].count - 1 if loaded.turns else 0
    if end == loaded.row.length and end:
        return ""
    return (
        f"history of run {loaded.row.run} ({loaded.row.run_id}) ends with event {end}; "
        f"{loaded.row.length} events were recorded"
    )
