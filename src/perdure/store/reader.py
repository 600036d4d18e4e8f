"""The verbs of the store port that only read; ``port.py`` has the theory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from perdure.store.erasing import Unerased
from perdure.store.journal import Journal
from perdure.store.lines import LogLine
from perdure.store.news import News
from perdure.store.offers import OfferKey, OfferRow
from perdure.store.rows import (
    Counted,
    Definition,
    Filter,
    Fork,
    InboxRow,
    Listed,
    Loaded,
    OpenRun,
    Place,
    Pruned,
    Question,
    RunRow,
    Sweep,
    TurnRow,
    Worker,
)
from perdure.store.schedules import ScheduleFilter, ScheduleRow
from perdure.store.writes import Prune
from perdure.values.audit import AuditFilter, AuditHead, AuditPlace, AuditRow
from perdure.values.concurrency import Standing
from perdure.values.meters import BudgetRow
from perdure.values.people import HumanTaskFilter, HumanTaskRow, LogEntry, TallyBy
from perdure.values.records import Record
from perdure.values.states import Status


class Reader(Protocol):
    """The verbs that only read. Each answers from one snapshot of committed rows."""

    def find(self, key: str, *, namespace: str = "default", run_id: str = "") -> RunRow | None:
        """Return the latest run of workflow id ``key`` (or of the execution whose first run's id is
        ``key``), or exactly the run ``run_id`` of it.
        """
        ...

    def latest(self, names: Sequence[tuple[str, str]]) -> list[RunRow | None]:
        """Return for each (namespace, key) what ``find`` would."""
        ...

    def rows(self, runs: Sequence[int]) -> list[RunRow]:
        """Return the rows of these runs, in no order; unknown ones are left out."""
        ...

    def budgets(self, keys: Sequence[str]) -> list[BudgetRow]:
        """Return what budgets have, by key and unit; of those that are gone, nothing."""
        ...

    def prefix(self, key: str, *, namespace: str = "default", limit: int = 10) -> list[RunRow]:
        """Return the latest runs of up to ``limit`` executions whose workflow id begins with
        ``key``, and runs whose run id does.
        """
        ...

    def list(self, where: Filter, *, limit: int, before: Place | None = None) -> Listed:
        """Return up to ``limit`` runs behind ``before``, newest first: by ``run``, and by
        ``created_at`` if the filter has times. A page may be shorter than ``limit`` (even empty)
        and the list go on: then much was looked at, and little of it matched.
        """
        ...

    def count(self, where: Filter, *, limit: int | None = None) -> Counted:
        """Count matching runs: up to ``limit``, and only among so many of the newest candidates
        that it does not take long. ``None``: all of them.
        """
        ...

    def prunable(self, prune: Prune) -> Pruned:
        """Count a batch of what ``prune`` would delete; not of scope ``own``."""
        ...

    def history(self, run: int, *, after: int = 0, limit: int = 10_000) -> list[TurnRow]:
        """Return up to ``limit`` rows whose first event id is greater than ``after``.

        Raises:
            Corrupt: the checksum of one does not fit; the message names run and event.
        """
        ...

    def journal(
        self, *, after: int = 0, limit: int, namespace: str = "default", workflow_id: str = ""
    ) -> Journal:
        """Return up to ``limit`` history rows behind row ``after`` in the order of their commits:
        of all runs (of any namespace), or of the execution ``workflow_id``.

        Once a row was returned, none ever comes before it. Rows that a run has copied from another
        one are left out. A damaged row says so (``fault``) and is in nobody's way. Whoever deletes
        histories notes the highest row it has deleted, and never deletes the newest: a number is
        not given twice.
        """
        ...

    def log(self, run: int, *, after: int = 0, limit: int = 1_000) -> list[LogLine]:
        """Return up to ``limit`` log lines of a run whose number is greater than ``after``, in
        order. A run keeps its last ``limits.LOG_LINES``.
        """
        ...

    def forks(self, run: int) -> list[Fork]:
        """Return what was copied from this run, and from which one this one was."""
        ...

    def kept_for(self, execution: int) -> int | None:
        """Return how long an execution is kept after its end, in microseconds: its own retention,
        or that of the worker which has deleted last; 0 is for ever, ``None``: none has yet.
        """
        ...

    def being_erased(self, *, limit: int, after: int = 0) -> list[Unerased]:
        """Return up to ``limit`` runs that say that they are being erased, in order, behind run
        ``after``.
        """
        ...

    def last_turn(self, run: int) -> TurnRow | None:
        """Return the run's last history row.

        Raises:
            Corrupt: its checksum does not fit.
        """
        ...

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        """Return state, history and inbox of these runs, in no order; unknown ones are left out."""
        ...

    def news(
        self,
        now: int,
        soon: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        worker: int,
        activities: Sequence[str] = (),
    ) -> News:
        """Tell whether ``claimable``, ``served_again``, ``beginning`` (by ``soon``), ``inbox``,
        ``questions`` (of any workflow), ``due`` (by ``now``), ``admit`` or a claim
        of ``activities`` would find something.
        """
        ...

    def offers(self, queues: Sequence[str], activities: Sequence[str]) -> tuple[bool, int | None]:
        """Tell what ``news`` says of offered activities: whether there is one, and what is due."""
        ...

    def offers_of(self, run: int) -> list[OfferRow]:
        """Return what a run has on offer, without ``call``, by activity."""
        ...

    def overdue_offers(self, now: int, *, limit: int) -> list[OfferRow]:
        """Return offers that are due by ``now`` and that nobody carries out."""
        ...

    def carried_by(self, worker: int) -> list[OfferKey]:
        """Return what a worker has claimed."""
        ...

    def claimable(
        self,
        workflows: Sequence[str],
        queues: Sequence[str],
        *,
        limit: int,
        after: int = 0,
        passed_over: Sequence[str] = (),
    ) -> list[int]:
        """Return up to ``limit`` running runs without an owner.

        Those with the highest priority come first, and of those one of each lane (its oldest),
        then a second of each, and so on; lanes come in a fixed order, beginning behind that of run
        ``after``. Lanes ``passed_over`` are left out.
        """
        ...

    def served_again(
        self, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[int]:
        """Return up to ``limit`` parked runs that nobody served, oldest first."""
        ...

    def parked(self, reasons: Sequence[str], *, limit: int, after: int = 0) -> list[RunRow]:
        """Return parked runs with one of these reasons, by ``run`` ascending from ``after``."""
        ...

    def open_runs(self, statuses: Sequence[Status], *, limit: int, after: int = 0) -> list[OpenRun]:
        """Return open runs with one of these statuses, by ``run`` ascending from ``after``; none of
        any namespace is left out.
        """
        ...

    def sweeps(self) -> list[Sweep]:
        """Return how far the open runs of each workflow were checked."""
        ...

    def unserved(
        self, services: Sequence[tuple[Sequence[str], Sequence[str]]], until: int, *, limit: int
    ) -> list[RunRow]:
        """Return unowned runs that none of these (workflows, queues) serves: running ones, and
        waiting and delayed ones that are due by ``until``. Oldest first; not who is in a queue.
        """
        ...

    def due(
        self,
        until: int,
        workflows: Sequence[str],
        queues: Sequence[str],
        *,
        limit: int,
        after: int = -1,
    ) -> list[tuple[int, int]]:
        """Return (run, wake_at) of unowned runs due after ``after`` and by ``until``, in order."""
        ...

    def beginning(
        self, until: int, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[tuple[int, int]]:
        """Return (run, wake_at) of pending runs that begin by ``until``, soonest first."""
        ...

    def inbox(
        self, workflows: Sequence[str], queues: Sequence[str], worker: int, *, limit: int
    ) -> list[InboxRow]:
        """Return inbox rows, oldest first, of runs that ``worker`` owns or that anybody may claim
        (unowned and waiting or running, of these workflows and queues); of stopped runs only rows
        that are control.
        """
        ...

    def questions(self, now: int, workflows: Sequence[str], *, limit: int) -> list[Question]:
        """Return unanswered questions whose deadline is not over, to runs of these workflows."""
        ...

    def reply(self, question: str) -> bytes | None:
        """Return the answer to a question, or ``None`` while there is none."""
        ...

    def mail(self, mailboxes: Sequence[str], *, limit: int) -> list[tuple[int, str, bytes]]:
        """Return (id, mailbox, event) of what lies in these mailboxes, oldest first."""
        ...

    def workers(self) -> list[Worker]:
        """Return the live workers: those that neither left nor were taken over."""
        ...

    def definitions(self) -> list[Definition]:
        """Return registered definitions, sources left out."""
        ...

    def workflows_seen(self, *, namespace: str = "default") -> list[str]:
        """Return the names of all workflows of which there is a run."""
        ...

    def standing(self, execution: int) -> Standing | None:
        """Return what stands between an execution and its slot; ``None``: nothing limits it."""
        ...

    def schedule(self, id: str, *, namespace: str = "default") -> ScheduleRow | None:
        """Return a schedule."""
        ...

    def schedules(self, where: ScheduleFilter, *, limit: int, after: str = "") -> list[ScheduleRow]:
        """Return up to ``limit`` schedules whose ids are behind ``after``, by id."""
        ...

    def next_look(self) -> int | None:
        """Return when the next look at a schedule is due: ``News.schedules_at``."""
        ...

    def attributes(self, run: int) -> dict[str, Any]:
        """Return the search attributes of a run."""
        ...

    def record(self, kind: str, id: str, *, namespace: str = "default") -> Record | None:
        """Return a document that administrators keep."""
        ...

    def records(
        self, kind: str, *, limit: int, after: str = "", namespace: str = "default"
    ) -> list[Record]:
        """Return up to ``limit`` documents of a kind, by id, behind ``after``."""
        ...

    def audit(
        self, where: AuditFilter, *, limit: int, before: AuditPlace | None = None
    ) -> list[AuditRow]:
        """Return up to ``limit`` rows of the audit behind ``before``, newest first."""
        ...

    def audit_chain(self, *, limit: int, after: int = 0) -> list[AuditRow]:
        """Return up to ``limit`` rows of the audit, of any namespace, behind number ``after``."""
        ...

    def audit_head(self) -> AuditHead:
        """Return where the audit ends, and where it was cut off."""
        ...

    def human_task(self, id: str, *, namespace: str = "default") -> HumanTaskRow | None:
        """Return a human task."""
        ...

    def human_tasks(
        self, where: HumanTaskFilter, now: int, *, limit: int, after: HumanTaskRow | None = None
    ) -> list[HumanTaskRow]:
        """Return up to ``limit`` human tasks behind ``after``.

        Open ones by when they are due (those without at last), then by age; if ``where`` has a
        status that is none of theirs, the newest first. A claim that is over at ``now`` counts as
        open.
        """
        ...

    def count_human_tasks(self, where: HumanTaskFilter, now: int) -> int:
        """Return how many human tasks :meth:`human_tasks` would give without a limit."""
        ...

    def tally_human_tasks(self, where: HumanTaskFilter, now: int, by: TallyBy) -> dict[str, int]:
        """Return how many of them there are of each role, or of each type (of a run that says none,
        its workflow is the type); ``""`` is none. What there is none of is left out.
        """
        ...

    def human_log(self, id: str, *, after: int = 0, limit: int) -> list[LogEntry]:
        """Return what was done to a human task, oldest first, behind entry ``after``.

        That it was opened, and that its run gave it up, is said by its row alone.
        """
        ...
