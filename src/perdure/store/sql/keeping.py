"""Executions that were started with a retention of their own: each is kept so long after its end.

A row of ``perdure_keep`` says how long, and when it is due: at first, when the execution could go
at the earliest. Whoever looks then deletes what may go, by the rules of ``pruning.py``, or moves
the row on to when something may:

* an execution that has ended so long ago goes as a whole;
* of an open one, or one that ended lately, the runs between the first and the latest go, each by
  its own end. The row is moved to when the next of these may go; if there is none, to that long
  after now, or after the end: nothing can go before.

Whoever keeps for ever is never due. A row goes with its execution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from perdure.store.port import Place, Prune
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.sql.starting import Decisions

_LOOKS = 2
"""Runs that a batch looks at, for each that it may take."""
_LEAST = 4
"""Of one execution: the first, one that may be its latest, and some between."""


def write(database: Writing, decisions: Decisions, now: int) -> None:
    """Write down how long the executions are kept that a batch starts."""
    rows = [
        (decision.started.execution, keep_for, now + keep_for if keep_for else None)
        for decision in decisions.everything()
        if decision.is_written and (keep_for := decision.request.keep_for) is not None
    ]
    if rows:
        database.run("insert_keeps", to_json(rows))


class Picked:
    """Which runs go. ``runs``: with their executions; ``over``: executions that go as a whole;
    ``moved``: executions of which something is due later, with that time; ``goes_on``: where to
    look next.
    """

    def __init__(self) -> None:
        self.runs: dict[int, int] = {}
        self.over: set[int] = set()
        self.moved: dict[int, int] = {}
        self.goes_on: Place | None = None

    @property
    def executions(self) -> set[int]:
        """Those that something is done to."""
        return {*self.runs.values(), *self.moved}


class _Kept(msgspec.Struct, array_like=True):
    execution: int
    keep_for: int
    due: int
    run: int
    closed_at: int | None
    length: int


class Due(Picked):
    """A batch of executions that are due at ``wish.before``."""

    def __init__(self, database: Writing, wish: Prune) -> None:
        super().__init__()
        place, most = wish.after or Place(0), max(_LEAST, _LOOKS * wish.runs)
        found = database.run("due_keeps", wish.before, place.at, place.run, most).fetchall()
        if not found:
            return
        self._now = wish.before
        self._newest = set[int | None](database.run("newest").fetchone())
        rows = [_Kept(*row) for row in found]
        # There may be more runs of the last one than were read, and its latest may be among those.
        cut = rows[-1].execution if len(rows) == most else 0
        self.goes_on, size = place, 0
        for execution, family in groupby(rows, lambda row: row.execution):
            if len(self.runs) >= wish.runs or size >= wish.events:
                return
            runs = list(family)
            if execution != cut:
                taken = self._take(runs)
            elif execution == rows[0].execution:
                taken = self._take_between(runs[1:-1])
            else:
                return
            size += sum(row.length for row in taken)
            if execution == cut and taken:
                return
            self.goes_on = Place(execution, runs[0].due)
        if not cut:
            self.goes_on = None

    def _take(self, family: Sequence[_Kept]) -> Sequence[_Kept]:
        """Take what may go of all runs of an execution."""
        if not all(self._is_over(row) for row in family):
            return self._take_between(family[1:-1], family)
        if any(row.run in self._newest for row in family):
            return ()  # it stays due
        self.over.add(family[0].execution)
        self.runs.update((row.run, row.execution) for row in family)
        return family

    def _take_between(
        self, between: Sequence[_Kept], family: Sequence[_Kept] = ()
    ) -> Sequence[_Kept]:
        """Take what may go of runs between the first and the latest; ``family``: all of them, if
        they are known. If they are not, and something goes, the execution stays due.
        """
        taken = [row for row in between if self._is_over(row) and row.run not in self._newest]
        self.runs.update((row.run, row.execution) for row in taken)
        if taken and not family:
            return taken
        one = (family or between)[0]
        ends = [row.closed_at for row in family or between if row.closed_at is not None]
        later = [end + one.keep_for for end in ends if end + one.keep_for > self._now]
        self.moved[one.execution] = min(later, default=self._now + one.keep_for)
        return taken

    def _is_over(self, row: _Kept) -> bool:
        return row.closed_at is not None and row.closed_at + row.keep_for <= self._now
