"""The reading verbs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from perdure.errors import Corrupt, Sealed, Unavailable
from perdure.store.offers import OfferKey, OfferRow
from perdure.store.port import (
    Beat,
    Counted,
    Filter,
    Fork,
    HumanTaskFilter,
    HumanTaskRow,
    InboxRow,
    Journal,
    JournalRow,
    Listed,
    Loaded,
    LogEntry,
    LogLine,
    News,
    OpenRun,
    Place,
    Question,
    RunRow,
    Sweep,
    TurnRow,
    Worker,
)
from perdure.store.sealing import is_elsewhere
from perdure.store.sql.claims import claimable
from perdure.store.sql.database import one, reading
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.ended import EndedReader
from perdure.store.sql.listing import count_query, list_query
from perdure.store.sql.made import (
    breaks,
    fault_of,
    first_of,
    is_damaged,
    line_of,
    missing_end,
    offer_of,
    run_of,
)
from perdure.store.sql.people import log_entry_of, task_of
from perdure.store.sql.records import RecordReader
from perdure.store.sql.schedules import ScheduleReader
from perdure.store.sql.slots import Slots
from perdure.store.sql.workflows import WorkflowReader
from perdure.store.sql.worklists import rare_attribute, tasks_count, tasks_query, tasks_tally
from perdure.values.concurrency import Standing
from perdure.values.meters import BudgetRow
from perdure.values.people import TallyBy
from perdure.values.states import CODES, Status

_LAST = "\U0010ffff"


class SqlReader(EndedReader, RecordReader, ScheduleReader, WorkflowReader):
    """The reading half of the port on one connection."""

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
        return [self._run(row) for row in self._all("rows", (to_json(list(runs)),))]

    @reading
    def budgets(self, keys: Sequence[str]) -> list[BudgetRow]:
        return [BudgetRow(*row) for row in self.database.run("budgets", to_json(keys)).fetchall()]

    @reading
    def prefix(self, key: str, *, namespace: str = "default", limit: int = 10) -> list[RunRow]:
        span = (namespace, key, key + _LAST, limit)
        runs = [row[0] for row in self._all("prefix_of_workflow_id", span)]
        runs += [row[0] for row in self._all("prefix_of_run_id", span)]
        return [self._run(row) for row in self._all("rows", (to_json(runs),))]

    @reading
    def list(self, where: Filter, *, limit: int, before: Place | None = None) -> Listed:
        query = list_query(self.database, where, limit + 1, before)
        rows = [self._run(row) for row in self._made(query.text, query.parameters)]
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
    def history(self, run: int, *, after: int = 0, limit: int = 10_000) -> list[TurnRow]:
        return [self._checked(row) for row in self._all("history", (run, after, limit))]

    @reading
    def journal(
        self, *, after: int = 0, limit: int, namespace: str = "default", workflow_id: str = ""
    ) -> Journal:
        # The end first: a row that comes between the two is not behind what is said to be the last.
        _, last = self._one("journal_ends", ())
        if workflow_id:
            rows = self._all("journal_of", (after, limit, namespace, workflow_id))
        else:
            rows = self._all("journal", (after, limit))
        deleted_to, _ = self._one("journal_ends", ())  # of all that is missing among the rows
        return Journal([self._journal_row(row) for row in rows], last, deleted_to)

    @reading
    def log(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[LogLine]:
        rows = self._all("log", (run, after, limit))
        return [line_of(row, self.database.seal) for row in rows]

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
            offers = self._all("offers_of_runs", wanted)
        loaded: dict[int, Loaded] = {}
        for row in rows:
            state = self._run(row)
            loaded[state.run] = Loaded(state, [], [])
        for row in turns:
            found = loaded.get(row[0])
            if found is None:
                continue  # its state is gone
            found.broken = found.broken or fault_of(found, row)
            if not found.broken:
                self._add_turn(found, row)
        for offer in offers:
            if offer[0] in loaded:
                loaded[offer[0]].offers.append(offer_of(offer))
        for run, activity, details in beats:
            if run in loaded:
                self._add_beat(loaded[run], activity, details)
        for row in inbox:
            if row[2] in loaded:
                loaded[row[2]].inbox.append(self._inbox_row(row, loaded[row[2]]))
        for found in loaded.values():
            row = found.row
            found.is_sealed |= bool(row.sealed)
            found.broken = found.broken or missing_end(found) or row.fault or row.sealed
        return list(loaded.values())

    @reading
    def news(
        self,
        now: int,
        soon: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        worker: int,
        activities: Sequence[str] = (),
    ) -> News:
        served = (to_json(list(workflows)), to_json(list(queues)))
        known = to_json(list(activities))
        found = self._one("news", (*served, worker, now, soon, known))
        has_work, has_room, has_offers, *due, inactive, next_at, people_at, schedules_at = found
        names = frozenset((name, version) for name, version in from_json(inactive))
        has = bool(has_work), bool(has_room)
        at = next_at, bool(has_offers), first_of(due), people_at, schedules_at
        return News(*has, names, *at)

    @reading
    def offers(self, queues: Sequence[str], activities: Sequence[str]) -> tuple[bool, int | None]:
        known = (to_json(list(queues)), to_json(list(activities)))
        has_offers, *due = self._one("offers", known)
        return bool(has_offers), first_of(due)

    @reading
    def offers_of(self, run: int) -> list[OfferRow]:
        return [offer_of(row) for row in self._all("offers_of_runs", (to_json([run]),))]

    @reading
    def overdue_offers(self, now: int, *, limit: int) -> list[OfferRow]:
        return [self._opened_offer(row) for row in self._all("overdue_offers", (now, limit))]

    @reading
    def carried_by(self, worker: int) -> list[OfferKey]:
        return [tuple(row) for row in self._all("carried_by", (worker,))]

    @reading
    def claimable(
        self,
        workflows: Sequence[str],
        queues: Sequence[str],
        *,
        limit: int,
        after: int = 0,
        passed_over: Sequence[str] = (),
    ) -> list[int]:
        served = (to_json(list(workflows)), to_json(list(queues)))
        return claimable(self.database, served, limit=limit, after=after, passed_over=passed_over)

    @reading
    def served_again(
        self, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[int]:
        served = (to_json(list(workflows)), to_json(list(queues)), limit)
        return [row[0] for row in self._all("served_again", served)]

    @reading
    def parked(self, reasons: Sequence[str], *, limit: int, after: int = 0) -> list[RunRow]:
        wanted = (to_json(list(reasons)), after, limit)
        return [self._run(row) for row in self._all("parked", wanted)]

    @reading
    def open_runs(self, statuses: Sequence[Status], *, limit: int, after: int = 0) -> list[OpenRun]:
        wanted = (to_json([CODES[status] for status in statuses]), after, limit)
        return [OpenRun(*row) for row in self._all("open_runs", wanted)]

    @reading
    def sweeps(self) -> list[Sweep]:
        return [Sweep(*row) for row in self._all("sweeps", ())]

    @reading
    def unserved(
        self, services: Sequence[tuple[Sequence[str], Sequence[str]]], until: int, *, limit: int
    ) -> list[RunRow]:
        wanted = (to_json(list(services)), limit, until)
        return [self._run(row) for row in self._all("unserved", wanted)]

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
        return [self._inbox_row(row) for row in self._all("inbox", served)]

    @reading
    def questions(self, now: int, workflows: Sequence[str], *, limit: int) -> list[Question]:
        wanted = (now, to_json(list(workflows)), limit)
        found = [Question(*row) for row in self._all("questions", wanted)]
        for question in found:
            with suppress(Corrupt, Sealed):  # it is answered that it cannot be read
                question.args = self.database.seal.open(question.args)
        return found

    @reading
    def reply(self, question: str) -> bytes | None:
        row = self._one("reply", (question,))
        answer = None if row is None else row[0]
        return None if answer is None else self.database.seal.open(answer)

    @reading
    def mail(self, mailboxes: Sequence[str], *, limit: int) -> list[tuple[int, str, bytes]]:
        rows = self._all("mail", (to_json(list(mailboxes)), limit))
        return [(id, mailbox, self._mail(event)) for id, mailbox, event in rows]

    @reading
    def workers(self) -> list[Worker]:
        return [
            Worker(
                *row[:9],
                workflows=tuple(from_json(row[9])),
                queues=tuple(from_json(row[10])),
                activities=tuple(from_json(row[11])),
                alive_for_sure=self._is_alive(row[0]),
            )
            for row in self._all("workers", ())
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
        found = None if row is None else task_of(row, self.database.seal)
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
        rare = rare_attribute(self.database, where)
        query = tasks_query(self.database.sql, where, now, limit, after, rare=rare)
        return [task_of(row, self.database.seal) for row in self._made(*query)]

    @reading
    def count_human_tasks(self, where: HumanTaskFilter, now: int) -> int:
        rare = rare_attribute(self.database, where)
        return int(self._made(*tasks_count(self.database.sql, where, now, rare=rare))[0][0])

    @reading
    def tally_human_tasks(self, where: HumanTaskFilter, now: int, by: TallyBy) -> dict[str, int]:
        rare = rare_attribute(self.database, where)
        query = tasks_tally(self.database.sql, where, now, by, rare=rare)
        return {what: int(number) for what, number in self._made(*query)}

    @reading
    def human_log(self, id: str, *, after: int = 0, limit: int) -> list[LogEntry]:
        rows = self._all("human_log", (id, after, limit))
        return [log_entry_of(row, self.database.seal) for row in rows]

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
        if is_damaged(payload, crc):
            name = f"history of run {run} ({one(self.database, 'run_id_by_number', run)})"
            raise Corrupt(f"{name}: the row of event {first} is damaged: its checksum does not fit")
        try:
            return self._turn(row)
        except (Corrupt, Sealed, Unavailable) as exc:
            name = f"history of run {run} ({one(self.database, 'run_id_by_number', run)})"
            raise type(exc)(f"{name}: the row of event {first}: {exc.message}") from exc

    def _turn(self, row: tuple[Any, ...]) -> TurnRow:
        run, first, count, time, applied, worker, payload, _ = row
        data = self._opened(run, first, payload)
        return TurnRow(run, first, count, time, bool(applied), worker, data)

    def _opened(self, run: int, first: int, stored: bytes) -> bytes:
        """Open what a history row holds."""
        seal = self.database.seal
        try:
            return seal.open(stored)
        except Corrupt:
            if not is_elsewhere(stored):
                raise
            # Sealed anew since it was read, it lies in another blob, and the old one is swept.
            row = self._one("payload_of", (run, first))
            if row is None or row[0] == stored or is_damaged(*row):
                raise
            return seal.open(row[0])

    def _add_turn(self, found: Loaded, row: tuple[Any, ...]) -> None:
        try:
            found.turns.append(self._turn(row))
        except (Corrupt, Sealed, Unavailable) as exc:
            name = f"history of run {found.row.run} ({found.row.run_id})"
            breaks(found, f"{name}: the row of event {row[1]}: {exc.message}", exc)

    def _add_beat(self, found: Loaded, activity: int, stored: bytes) -> None:
        try:
            details = self.database.seal.open(stored)
        except (Corrupt, Sealed) as exc:
            what = f"heartbeat of activity #{activity} of run {found.row.run}"
            breaks(found, f"{what}: {exc.message}", exc)
        else:
            found.beats.append(Beat(found.row.run, activity, details))

    def _opened_offer(self, row: tuple[Any, ...]) -> OfferRow:
        offer = offer_of(row)
        with suppress(Corrupt):  # whoever decodes the call finds out
            offer.call = self.database.seal.open(offer.call)
        return offer

    def _inbox_row(self, row: tuple[Any, ...], found: Loaded | None = None) -> InboxRow:
        id, execution, run, stored = row
        try:
            return InboxRow(id, execution, run, self.database.seal.open(stored))
        except (Corrupt, Sealed) as exc:
            if found is not None:
                found.is_sealed |= isinstance(exc, Sealed)
            return InboxRow(id, execution, run, b"", exc.message)

    def _mail(self, stored: bytes) -> bytes:
        with suppress(Corrupt):  # whoever reads the message finds out, and goes on with the next
            return self.database.seal.open(stored)
        return stored

    def _journal_row(self, row: tuple[Any, ...]) -> JournalRow:
        found = JournalRow(*row[:10])
        if is_damaged(row[9], row[10]):
            found.payload = b""
            found.fault = f"the row of event {found.first} is damaged: its checksum does not fit"
            return found
        try:
            found.payload = self._opened(found.run, found.first, found.payload)
        except (Corrupt, Sealed) as exc:
            found.payload = b""
            found.fault = f"the row of event {found.first}: {exc.message}"
        return found

    def _row(self, run: int) -> RunRow:
        return self._run(self._one("run_by_number", (run,)))

    def _run(self, row: tuple[Any, ...]) -> RunRow:
        return run_of(row, self.database.seal)
