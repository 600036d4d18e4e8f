"""The part of the port about what stands beside runs: people, records, the audit, tallies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from perdure.errors import PerdureError
from perdure.store.rows import Acted, Moved
from perdure.store.schedules import ScheduleDrop, SchedulePut
from perdure.store.writes import HumanTaskRaise
from perdure.values.audit import AuditLine
from perdure.values.meters import Spend, Spent
from perdure.values.people import Act, HumanTaskRow
from perdure.values.records import Amend, Amended


class Beside(Protocol):
    """Verbs that write; errors are those of every verb (``port.py``)."""

    def act(self, act: Act, now: int) -> Acted:
        """Let somebody act on a human task, and tell its run if that decides it.

        After a lost acknowledgement ``human_task`` says whether it was written; asked again, a
        decision is refused, with the name of who has decided.

        Raises:
            TaskNotFound: there is none with this id.
            TaskClosed, TaskClaimed, TaskDenied: see ``perdure.values.people.judge``; nothing was
                changed.
        """
        ...

    def amend(
        self, amend: Amend, now: int, *, schedules: Sequence[SchedulePut | ScheduleDrop] = ()
    ) -> Amended:
        """Write documents that administrators keep, all or none, and append to the audit; put or
        delete the schedules that follow from them.

        After a lost acknowledgement the documents say whether it was written; asked again, it is
        refused.

        Raises:
            Conflict: one is not of the version that it was to replace; ``details`` names it.
        """
        ...

    def erase_audit(
        self, target: str, lines: Sequence[AuditLine], now: int, *, namespace: str = "default"
    ) -> int:
        """Erase the details of all lines of a target, and append ``lines`` if there were any.

        Returns how many there were. The chain holds. It may be repeated.
        """
        ...

    def cut_audit(
        self, number: int, lines: Sequence[AuditLine], now: int, *, limit: int = 5_000
    ) -> int:
        """Cut the audit off behind row ``number``, which ``lines`` tell of; then delete up to
        ``limit`` rows that were cut off, and return how many there were.

        It may be repeated, and goes on where it ended.

        Raises:
            Conflict: there is no such row.
        """
        ...

    def act_all(
        self, acts: Sequence[Act], now: int, *, all_or_none: bool = False
    ) -> list[Acted | PerdureError]:
        """Let somebody act on several human tasks in one transaction; each answer is what came of
        it, or why it was refused. ``all_or_none``: if one is refused, nothing is written.
        """
        ...

    def raise_human_task(self, wanted: HumanTaskRaise, now: int) -> HumanTaskRow:
        """Open a human task that no run asks for; a repeated id changes nothing."""
        ...

    def move_human_tasks(self, now: int, *, limit: int) -> list[Moved]:
        """Do what the clock does to up to ``limit`` human tasks: see ``perdure.values.overdue``.

        Whoever asks first moves one, and nobody after them. ``News.people_at`` says when to ask. A
        lost acknowledgement costs that nobody is told of what was moved; the log has it.
        """
        ...

    def forget_human_tasks(self, before: int, *, limit: int) -> int:
        """Delete up to ``limit`` human tasks that no run asked for and that ended before a time;
        return how many. Those of runs go with their run.
        """
        ...

    def spend(self, spend: Spend, now: int) -> Spent:
        """Spend from meters and budgets, all of it or nothing; what is reserved waits for
        ``settle``.

        After a lost acknowledgement a reservation may be asked for again; what is spent without one
        may then count twice.
        """
        ...

    def settle(self, hold: str, used: Mapping[str, int]) -> bool:
        """Count what was used of a reservation, by unit (in millionths; of a unit that is not named
        all of it), and give back the rest.

        ``False``: it was settled before, or with the end of its execution. It may be repeated.
        """
        ...
