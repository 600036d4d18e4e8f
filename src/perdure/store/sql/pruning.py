"""Deletes ended runs of long ago, with everything of theirs, a few at a time.

What goes when:

* Never an open run, and never the first run of an open execution: it is what the execution is
  known by (its number, parent and tags stand there).
* A run between the first and the latest of its execution goes by its own end. A workflow that
  continues as new, or runs by a cron text, for years would keep all of them otherwise.
* The latest goes when all of its execution have ended so long ago, and the first goes with it.
* Whether its parent, or its children, are open does not matter: a parent's history has what became
  of a child.
* Never the newest run or the run of the newest history row: numbers must not be given twice.

Executions that were started with a retention of their own go by that (``keeping.py``); only who
deletes by hand passes over it.

A batch takes candidates in the order of their ends, through the index of those, and says how far
that came. Where others can write meanwhile the executions are held, and looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from perdure.store.port import Place, Prune, Pruned
from perdure.store.sql.database import Writing
from perdure.store.sql.encoding import to_json
from perdure.store.sql.keeping import Due, Picked
from perdure.values.states import CODES

OF_RUNS = (
    "perdure_history",
    "perdure_memo",
    "perdure_attr",
    "perdure_tag",
    "perdure_log",
    "perdure_human_log",
    "perdure_human_task",
    "perdure_beat",
    "perdure_open_tx",
    "perdure_task",
    "perdure_fork",
    "perdure_copy",
    "perdure_state",
    "perdure_run",
)
"""Tables with rows of runs; column ``run`` says whose. What was copied from a run stays."""
OF_EXECUTIONS = {
    "perdure_inbox": ("execution",),
    "perdure_slot": ("execution",),
    "perdure_place": ("execution",),
    "perdure_budget": ("execution",),
    "perdure_hold": ("execution",),
    "perdure_keep": ("execution",),
    "perdure_watch": ("target", "watcher"),
}
"""Tables with rows of executions: they go with the last run."""
OF_NO_RUN = {
    "perdure_audit": "who did what: archived and cut off by `perdure audit cut`",
    "perdure_audit_head": "where the audit ends",
    "perdure_blob": "goes with its blob, when that is swept",
    "perdure_codec": "what data was sealed with",
    "perdure_definition": "what workers define",
    "perdure_identity": "the database",
    "perdure_journal": "what was deleted",
    "perdure_limit": "what workers allow",
    "perdure_mail": "goes with its mailbox",
    "perdure_mailbox": "goes when nobody keeps it open",
    "perdure_meter": "goes when its time has passed",
    "perdure_migration": "the schema",
    "perdure_queue": "what workers allow",
    "perdure_rate": "goes when its time has passed",
    "perdure_question": "goes a minute after its deadline",
    "perdure_record": "what administrators keep",
    "perdure_schedule": "goes when somebody deletes it",
    "perdure_sender": "goes when it has been silent for a week",
    "perdure_sweep": "a row per workflow",
    "perdure_worker": "goes a week after its end",
}
"""Tables that a run's deletion leaves alone, and why."""
_LOOKS = 2
"""Candidates that a batch looks at, for each run that it may take: some have to stay."""
_BYTES_PER_ROW = 300


class _Candidate(msgspec.Struct, array_like=True):
    run: int
    closed_at: int
    execution: int
    length: int
    latest: int
    status: int
    """Of the latest."""
    ended_at: int | None
    """The latest."""
    has_own: bool
    """Whether the execution has a retention of its own."""


def count_prunable(database: Writing, wish: Prune) -> Pruned:
    """Count a batch: see the port."""
    assert wish.scope != "own"  # whoever looks there also moves what is due later
    picked = _Batch(database, wish, is_trial=True)
    return Pruned(len(picked.runs), goes_on=picked.goes_on)


def prune(database: Writing, wish: Prune) -> Pruned:
    """Delete a batch: see the port."""
    picked = _pick(database, wish)
    if not picked.executions:
        return Pruned(0, goes_on=picked.goes_on)
    if database.hold_executions(sorted(picked.executions)):
        held, goes_on = picked.executions, picked.goes_on
        picked = _pick(database, wish)
        kept = [run for run, of in picked.runs.items() if of in held]
        over = picked.over & held
        moved = {on: due for on, due in picked.moved.items() if on in held}
    else:
        kept, over, moved, goes_on = list(picked.runs), picked.over, picked.moved, picked.goes_on
    rows = _delete(database, kept, sorted(over))
    if moved:
        database.run("move_keeps", to_json(sorted(moved.items())))
    return Pruned(len(kept), rows, goes_on)


def _pick(database: Writing, wish: Prune) -> Picked:
    return Due(database, wish) if wish.scope == "own" else _Batch(database, wish)


class _Batch(Picked):
    """A batch of those that had ended by a time."""

    def __init__(self, database: Writing, wish: Prune, *, is_trial: bool = False) -> None:
        super().__init__()
        self._wish = wish
        self._is_trial = is_trial
        self._codes = {CODES[status] for status in wish.statuses}
        place, most = wish.after or Place(0), _LOOKS * wish.runs
        found = database.run("ended", wish.before, place.at, place.run, most).fetchall()
        if not found:
            return
        newest = set(database.run("newest").fetchone())
        looked_at, size = 0, 0
        families: list[_Candidate] = []
        for one in (_Candidate(*row) for row in found):
            if len(self.runs) >= wish.runs or size >= wish.events:
                break
            looked_at += 1
            self.goes_on = Place(one.run, one.closed_at)
            if one.run in newest or not self._may_go(one):
                continue
            size += one.length
            self.runs[one.run] = one.execution
            if one.run == one.latest:
                self.over.add(one.execution)
                if one.run != one.execution:
                    families.append(one)
        if looked_at == len(found) < most:
            self.goes_on = None
        if families:
            self._take_families(database, families, newest)

    def _may_go(self, one: _Candidate) -> bool:
        if one.has_own and self._wish.scope == "others":
            return False
        if self._codes and (
            one.status not in self._codes
            or one.ended_at is None
            or one.ended_at > self._wish.before
        ):
            return False
        return one.run == one.latest or one.run != one.execution

    def _take_families(
        self, database: Writing, latest: list[_Candidate], newest: set[int | None]
    ) -> None:
        """With the latest run of an execution all others go, or none."""
        wanted = to_json([one.execution for one in latest])
        families: dict[int, list[tuple[int, int | None]]] = {}
        for run, execution, closed_at in database.run("family", wanted).fetchall():
            families.setdefault(execution, []).append((run, closed_at))
        for one in latest:
            family = families[one.execution]
            if any(
                closed_at is None or closed_at > self._wish.before or run in newest
                for run, closed_at in family
            ):
                self.over.discard(one.execution)
                del self.runs[one.run]
                continue
            for run, _ in family:
                # Nothing is deleted in a trial: those between were counted by themselves.
                if not self._is_trial or run == one.execution:
                    self.runs[run] = one.execution


def _delete(database: Writing, runs: list[int], executions: list[int]) -> int:
    """Delete runs with all of theirs; return how many history rows there were."""
    if not runs:
        return 0
    among, wanted, whole = database.sql["among"], to_json(runs), to_json(executions)
    rows, last = database.run("histories_to_delete", wanted).fetchone()
    for table, column in _columns_of_executions():
        text = f"DELETE FROM {table} WHERE {column} {among}"  # noqa: S608 - names from above
        database.ask(text, (whole,))
    for table in OF_RUNS:
        database.ask(f"DELETE FROM {table} WHERE run {among}", (wanted,))  # noqa: S608 - names from above
    if last is not None:
        database.run("note_deleted", last)
    database.written += rows * _BYTES_PER_ROW
    return int(rows)


def _columns_of_executions() -> Iterator[tuple[str, str]]:
    for table, columns in OF_EXECUTIONS.items():
        for column in columns:
            yield table, column


def forget(database: Writing, until: int, after: str, limit: int) -> str | None:
    """Forget senders that have been silent since ``until``: see the port."""
    found = database.run("senders_after", after, limit).fetchall()
    old = [sender for sender, at in found if at < until]
    if old:
        database.run("delete_senders", to_json(old), until)
    return found[-1][0] if len(found) == limit else None
