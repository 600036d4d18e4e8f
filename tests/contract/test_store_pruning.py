"""Deleting ended runs of long ago: what goes, what stays, and how far it came."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.store_contract import (
    World,
    closed,
    closing,
    request,
    snapshot,
    turn,
    waiting,
)
from tests.contract.test_store_journal import copied, journal

from perdure.store.lines import LogLine
from perdure.store.port import HumanTaskWrite, Place, Post, Prune, Pruned, Started, Watch
from perdure.store.sql.pruning import OF_EXECUTIONS, OF_NO_RUN, OF_RUNS
from perdure.values.commands import HumanTaskOpened
from perdure.values.states import Status

ALL = Prune(before=1_000)


def tables(world: World) -> set[str]:
    """Return the tables of a store."""
    database: Any = world.store.database  # type: ignore[attr-defined]
    if hasattr(database, "schema"):
        text = "SELECT tablename FROM pg_tables WHERE schemaname = ?"
        found = database.ask(text, [database.schema])
    else:
        text = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'perdure%'"
        found = database.ask(text, [])
    return {row[0] for row in found.fetchall()}


def count(world: World, table: str, condition: str) -> int:
    database: Any = world.store.database  # type: ignore[attr-defined]
    return database.ask(f"SELECT count(*) FROM {table} WHERE {condition}", []).fetchone()[0]


def ended(
    world: World, workflow_id: str, *, at: int = 10, status: Status = Status.COMPLETED, **rest: Any
) -> Started:
    """A run of two history rows that ended at a time."""
    run = world.owned(workflow_id, **rest)
    state = closed(3, status)
    state.closed_at = at
    world.commit(turn(run.run, first=3, closes=True, state=state))
    return run


def goes_on(world: World, run: int, execution: int, name: str, *, at: int, first: int = 2) -> int:
    """Let a run continue as new; return the next one."""
    state = closed(first, Status.CONTINUED_AS_NEW)
    state.closed_at = at
    after = request("chain", run_id=name, execution=execution, event=b"goes on")
    claim = world.row(run).length
    world.commit(
        turn(
            run,
            first=first,
            execution=execution,
            claim=claim,
            closes=True,
            state=state,
            continued=after,
        )
    )
    found = world.store.find("chain", run_id=name)
    assert found is not None
    return found.run


def runs(world: World) -> set[str]:
    from perdure.store.port import Filter

    return {row.run_id for row in world.store.list(Filter(), limit=100).rows}


@pytest.fixture
def newer(world: World) -> Started:
    """A run that is newer than all others of a test: the newest is never deleted."""
    return world.start("newest", run_id="newest")


def test_every_table_is_known_to_the_deletion(world: World):
    known = {*OF_RUNS, *OF_EXECUTIONS, *OF_NO_RUN}
    assert tables(world) == known


def test_an_ended_run_goes_with_everything_of_its(world: World):
    asked = HumanTaskWrite("task-1", 3, HumanTaskOpened(id="task-1", name="approve", title="t"))
    old = world.owned("old", memo=b'{"a":1}', search={"k": "v"}, tags=("t",), run_id="old")
    world.commit(
        turn(
            old.run,
            state=waiting(3),
            asks=[asked],
            lines=[LogLine(old.run, 5, 20, "said")],
            opens=((3, 1),),
        )
    )
    other = world.start("other", run_id="other", memo=b'{"b":2}', tags=("t",), search={"k": "v"})
    state = closed(4)
    world.commit(turn(old.run, first=4, claim=3, closes=True, state=state))
    world.start("newest")
    before = snapshot(world.store, [other.run])
    assert world.store.prune(ALL) == Pruned(1, 3)
    for table in OF_RUNS:
        assert count(world, table, f"run = {old.run}") == 0, table
    for table, columns in OF_EXECUTIONS.items():
        for column in columns:
            assert count(world, table, f"{column} = {old.execution}") == 0, table
    assert world.store.find("old") is None
    assert world.store.find("", run_id="old") is None
    assert world.post("old").outcome == "not_found"
    assert snapshot(world.store, [other.run]) == before
    assert world.store.prune(ALL) == Pruned(0)


def test_open_runs_and_those_that_ended_later_stay(world: World):
    ended(world, "a", at=10)
    ended(world, "b", at=21)
    world.asleep("c")
    world.start("newest")
    assert world.store.prune(Prune(before=20)) == Pruned(1, 2)
    assert runs(world) == {"run-of-b", "run-of-c", "run-of-newest"}


def test_the_newest_run_stays_and_so_does_that_of_the_newest_row(world: World):
    first, second = ended(world, "a"), ended(world, "b")
    assert world.store.prune(ALL) == Pruned(1, 2)
    assert runs(world) == {"run-of-b"}
    assert world.store.prune(ALL) == Pruned(0)
    third = world.start("c")
    assert len({first.run, second.run, third.run}) == 3


def test_only_executions_that_ended_so_are_deleted(world: World, newer: Started):
    ended(world, "a")
    ended(world, "b", status=Status.FAILED)
    world.start("later")
    assert world.store.prune(Prune(1_000, (Status.FAILED, Status.CANCELLED))) == Pruned(1, 2)
    assert runs(world) == {"run-of-a", "newest", "run-of-later"}


def test_of_an_open_execution_the_runs_between_go_and_the_first_stays(world: World):
    first = world.asleep("chain", run_id="r1")
    second = goes_on(world, first.run, first.execution, "r2", at=10, first=3)
    third = goes_on(world, second, first.execution, "r3", at=20)
    world.start("newest")
    assert world.store.prune(ALL) == Pruned(1, 2)
    assert runs(world) == {"r1", "r3", "run-of-newest"}
    row = world.store.find("chain")
    assert row is not None
    assert (row.run, row.execution) == (third, first.execution)
    assert world.post("chain").outcome == "delivered"


def chain_of_three(world: World) -> None:
    first = world.asleep("chain", run_id="r1")
    second = goes_on(world, first.run, first.execution, "r2", at=10, first=3)
    third = goes_on(world, second, first.execution, "r3", at=20)
    state = closed(2)
    state.closed_at = 30
    world.commit(turn(third, first=2, claim=1, execution=first.execution, closes=True, state=state))
    world.start("newest")


def test_an_execution_goes_when_its_last_run_ended_that_long_ago(world: World):
    chain_of_three(world)
    assert world.store.prune(Prune(before=29)) == Pruned(1, 2)
    assert runs(world) == {"r1", "r3", "run-of-newest"}
    assert world.store.prune(Prune(before=30)) == Pruned(2, 4)
    assert runs(world) == {"run-of-newest"}


def test_a_chain_goes_as_one_and_its_outcome_is_that_of_its_last_run(world: World):
    chain_of_three(world)
    assert world.store.prune(Prune(30, (Status.CONTINUED_AS_NEW,))) == Pruned(0)
    assert world.store.prunable(Prune(30, (Status.COMPLETED,))) == Pruned(3)
    assert world.store.prune(Prune(30, (Status.COMPLETED,))) == Pruned(3, 6)


def test_batches_go_on_in_the_order_of_the_ends_and_a_trial_deletes_nothing(world: World):
    for n in range(5):
        ended(world, f"w{n}", at=50 - n)
    newest = world.start("newest")
    trial = world.store.prunable(Prune(1_000, runs=3))
    assert (trial.runs, len(runs(world))) == (3, 6)
    assert trial.goes_on is not None
    rest = world.store.prunable(Prune(1_000, after=trial.goes_on))
    assert rest == Pruned(2)
    some = world.store.prune(Prune(1_000, runs=3))
    assert (some.runs, some.goes_on) == (3, Place(newest.run - 3, 48))
    assert runs(world) == {"run-of-w0", "run-of-w1", "run-of-newest"}
    few = world.store.prune(Prune(1_000, after=some.goes_on, events=1))
    assert (few.runs, few.rows) == (1, 2)
    assert world.store.prune(Prune(1_000, after=few.goes_on)) == Pruned(1, 2)


def test_the_journal_says_up_to_where_rows_may_be_gone(world: World):
    ended(world, "a")
    kept = world.start("b")
    rows = journal(world).rows
    assert world.store.prune(ALL).runs == 1
    found = journal(world)
    assert [row.run for row in found.rows] == [kept.run]
    assert (found.deleted_to, found.last) == (rows[1].id, rows[2].id)


def test_what_goes_while_the_journal_is_read_is_not_missing_without_a_word(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    ended(world, "a")
    world.start("b")
    rows = journal(world).rows
    database: Any = world.store.database  # type: ignore[attr-defined]
    run = database.run

    def pruned_meanwhile(query: str, *parameters: Any) -> Any:
        if query == "journal":
            monkeypatch.undo()
            assert world.store.prune(ALL).runs == 1
        return run(query, *parameters)

    monkeypatch.setattr(database, "run", pruned_meanwhile)
    found = world.store.journal(limit=10)
    assert (len(found.rows), found.deleted_to) == (1, rows[1].id)


def test_a_copy_outlives_its_origin_and_says_so(world: World):
    origin = ended(world, "origin")
    fork = world.start("fork", copied=copied(b"a", b"b"), origin=(origin.run, 1, "fork"))
    world.start("newest")
    assert world.store.prune(ALL).runs == 1
    [kin] = world.store.forks(fork.run)
    assert (kin.origin, kin.origin_workflow_id, kin.origin_run_id) == (origin.run, "", "")
    assert world.payloads(fork.run) == [b"a", b"b"]


def test_a_deleted_run_cannot_be_retried(world: World, newer: Started):
    old = ended(world, "old")
    world.start("later")
    world.store.prune(ALL)
    again = {"run_id": "again", "execution": old.execution, "retries": old.run}
    refused = world.start("old", copied=copied(b"a"), **again)
    assert (refused.created, refused.refused) == (False, "already_exists")
    assert runs(world) == {"newest", "run-of-later"}


def test_a_child_outlives_its_parent_and_its_end_is_told_to_nobody(world: World):
    parent = world.owned("parent")
    child = world.start("child", parent=(parent.execution, 2), parent_close="abandon")
    world.commit(closing(parent.run))
    world.start("newest")
    assert world.store.prune(ALL).runs == 1
    world.commit(
        turn(child.run, first=2, claim=1, closes=True, state=closed(2),
             posts=[Post(b"ended", execution=parent.execution, is_control=True)])
    )  # fmt: skip
    assert world.row(child.run).status is Status.COMPLETED
    assert world.row(child.run).parent_execution == parent.execution


def test_a_watch_of_a_deleted_execution_finds_nothing(world: World, newer: Started):
    old = ended(world, "old")
    world.start("later")
    world.store.prune(ALL)
    world.store.keep_mailboxes(["@box"], 99_999)
    assert world.store.watch([Watch("watch", execution=old.execution, mailbox="@box")], 5) == [
        "not_found"
    ]


WEEK = 7 * 86_400 * 1_000_000


def test_senders_that_are_silent_for_a_week_are_forgotten(world: World):
    world.start("order-1")
    for sender in ("a", "b", "c"):
        assert world.post(sender=sender, seq=1).outcome == "delivered"
    later = world.now + WEEK
    world.store.post([Post(b"x", "order-1", sender="b", seq=2)], later)
    place = world.store.forget(later, limit=2)
    assert place == "b"
    assert count(world, "perdure_sender", "true") == 3
    later += 1
    assert world.store.forget(later, after="") is None
    assert count(world, "perdure_sender", "true") == 1
    assert world.post(sender="b", seq=2).outcome == "duplicate"


def test_what_else_is_over_is_forgotten(world: World):
    world.store.keep_mailboxes(["@box"], 50)
    world.start("order-1")
    world.store.watch([Watch("watch", "order-1", mailbox="@box")], 5)
    world.store.leave(world.worker.id, world.worker.epoch, world.now)
    assert world.store.forget(world.now) is None
    assert count(world, "perdure_mailbox", "true") == 0
    assert count(world, "perdure_watch", "true") == 0
