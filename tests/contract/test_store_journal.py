"""The journal: the history rows of all runs in the order of their commits."""

from __future__ import annotations

import time
from typing import Any

from tests.contract.store_contract import World, closing, request, turn

from perdure.store.port import Journal, JournalRow, TurnRow
from perdure.values.states import Status


def journal(world: World, limit: int = 100, **of: Any) -> Journal:
    """Read once all that was committed is settled: transactions of other databases may be open."""
    sql = "SELECT coalesce(max(id), 0) FROM perdure_history"
    newest = world.store.database.ask(sql, []).fetchone()[0]  # type: ignore[attr-defined]
    for _ in range(2_000):
        found = world.store.journal(limit=limit, **of)
        if found.last >= newest:
            return found
        time.sleep(0.005)  # sleep: nothing tells when somebody else's transaction ends
    raise AssertionError("a transaction stays open")


def read(world: World, **of: Any) -> list[JournalRow]:
    return journal(world, **of).rows


def payloads(rows: list[JournalRow]) -> list[bytes]:
    return [row.payload for row in rows]


def test_rows_of_all_runs_come_in_the_order_of_their_commits(world: World):
    one, two = world.owned("one", namespace="here"), world.start("two", event=b"begun")
    world.commit(turn(two.run, first=2, claim=1, time=7), turn(one.run, first=3, time=8))
    rows = read(world)
    assert payloads(rows) == [b"first", b"begun", b"turn at 2", b"turn at 3"]
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    last = rows[-1]
    assert (last.run, last.run_id, last.namespace, last.workflow_id) == (
        one.run,
        one.run_id,
        "here",
        "one",
    )
    assert (last.workflow, last.first, last.count, last.time) == ("order", 3, 1, 8)
    assert journal(world, limit=0).last == last.id


def test_a_reader_goes_on_behind_a_row_and_meets_each_once(world: World):
    run = world.owned().run
    world.commit(*[turn(run, first=3)])
    met: list[JournalRow] = []
    while page := read(world, after=met[-1].id if met else 0, limit=1):
        met += page
    assert met == read(world)
    world.commit(turn(run, first=4))
    assert payloads(read(world, after=met[-1].id)) == [b"turn at 4"]


def test_what_was_dropped_or_refused_leaves_no_row(world: World):
    run = world.owned().run
    before = read(world)
    other = world.join("other")
    assert world.commit(turn(run, first=3, claim=1), worker=other).lost == {run}
    assert world.start(run_id="another", conflict="fail").refused
    assert read(world) == before


def test_one_execution_is_read_with_all_its_runs_and_nothing_else(world: World):
    one = world.owned("one")
    world.owned("two")
    world.commit(
        closing(
            one.run,
            status=Status.CONTINUED_AS_NEW,
            continued=request("one", run_id="next", execution=one.execution, event=b"goes on"),
        )
    )
    rows = read(world, workflow_id="one")
    assert payloads(rows) == [b"first", b"goes on", b"turn at 3"] or payloads(rows) == [
        b"first",
        b"turn at 3",
        b"goes on",
    ]
    assert payloads(read(world, after=rows[0].id, workflow_id="one")) == payloads(rows[1:])
    assert read(world, workflow_id="one", namespace="elsewhere") == []
    assert read(world, workflow_id="nobody") == []


def copied(*texts: bytes) -> list[TurnRow]:
    return [TurnRow(0, 1 + n, 1, 10, False, 7, text) for n, text in enumerate(texts)]


def test_what_a_run_has_copied_is_left_out_and_what_is_its_own_is_not(world: World):
    fork = world.start("fork", copied=copied(b"theirs", b"theirs too", b"mine"), own=1)
    world.start("import", copied=copied(b"all theirs"))
    assert payloads(read(world)) == [b"mine"]
    world.commit(turn(fork.run, first=4, claim=3))
    assert payloads(read(world)) == [b"mine", b"turn at 4"]
    assert payloads(read(world, workflow_id="fork")) == [b"mine", b"turn at 4"]
    assert payloads(read(world, workflow_id="import")) == []


def test_copies_are_counted_in_what_the_last_row_is(world: World):
    world.start("import", copied=copied(b"all theirs"))
    found = journal(world)
    assert found.rows == []
    assert found.last > 0


def test_a_journal_of_nothing_is_empty(world: World):
    found = journal(world)
    assert (found.rows, found.last, found.deleted_to) == ([], 0, 0)
