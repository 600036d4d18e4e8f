"""Starts that bring their history along: forks, retries, imports."""

import pytest
from tests.contract.store_contract import World, closed, closing, request, snapshot

from perdure.store.port import StateWrite, TurnRow
from perdure.values.states import Status


def rows(*payloads: bytes) -> list[TurnRow]:
    """Rows of two events each; the first one is applied."""
    return [
        TurnRow(0, 1 + 2 * n, 2, 10 * n, n == 0, 7, payload) for n, payload in enumerate(payloads)
    ]


def test_copied_rows_are_written_as_they_are_and_the_run_waits_to_be_claimed(world: World):
    copied = rows(b"\x00one", b"two")
    started = world.start(copied=copied)
    assert started.created
    assert [(row.first, row.count, row.time, row.applied, row.worker, row.payload)
            for row in world.store.history(started.run)] == [
        (1, 2, 0, True, 7, b"\x00one"), (3, 2, 10, False, 7, b"two")]  # fmt: skip
    assert world.row(started.run).length == 4
    assert world.store.claimable(["order"], ["default"], limit=9) == [started.run]
    assert world.load(started.run).broken == ""


def test_more_rows_than_one_statement_takes_are_all_there(world: World):
    started = world.start(copied=rows(*[b"%d" % n for n in range(350)]))
    assert world.payloads(started.run) == [b"%d" % n for n in range(350)]
    assert world.load(started.run).broken == ""


def test_a_copy_may_be_delayed_or_have_ended(world: World):
    later = world.start("later", copied=rows(b"a"), not_before=world.now + 50)
    assert later.status is Status.PENDING
    over = world.start("over", copied=rows(b"a", b"b"), state=closed(4))
    assert over.status is Status.COMPLETED
    row = world.row(over.run)
    assert (row.status, row.closed_at, row.length) == (Status.COMPLETED, 9, 4)
    paused = StateWrite(status=Status.PAUSED, owned=False, length=2, reason="paused")
    stopped = world.start("stopped", copied=rows(b"a"), state=paused)
    assert world.row(stopped.run).reason == "paused"
    assert world.store.claimable(["order"], ["default"], limit=9) == []


def test_origin_and_copy_are_found_from_each_other(world: World):
    origin = world.owned("origin")
    first = world.start("first", copied=rows(b"a"), origin=(origin.run, 2, "fork"))
    second = world.start("second", copied=rows(b"a"), origin=(first.run, 1, "retry"))
    [told] = world.store.forks(origin.run)
    assert (told.run, told.workflow_id, told.run_id) == (first.run, "first", first.run_id)
    assert (told.origin_workflow_id, told.origin_run_id) == ("origin", origin.run_id)
    assert (told.event, told.how) == (2, "fork")
    assert [fork.run for fork in world.store.forks(first.run)] == [first.run, second.run]
    assert world.store.forks(99) == []


def test_a_refused_copy_leaves_no_trace(world: World):
    origin = world.owned("origin")
    before = snapshot(world.store, [origin.run])
    refused = world.start(
        "origin",
        run_id="other",
        copied=rows(b"a"),
        origin=(origin.run, 1, "fork"),
        reuse="reject_duplicate",
    )
    assert refused.refused == "already_exists"
    assert snapshot(world.store, [origin.run]) == before
    assert world.store.forks(origin.run) == []


def test_a_copy_repeated_after_a_lost_answer_is_one_copy(world: World):
    origin = world.owned("origin")
    asked = {"run_id": "copy", "conflict": "none", "copied": rows(b"a"),
             "origin": (origin.run, 1, "fork")}  # fmt: skip
    first = world.start("copy", **asked)
    again = world.start("copy", **asked)
    assert (again.run, again.created) == (first.run, True)
    assert len(world.store.forks(origin.run)) == 1


def test_a_retry_is_the_next_run_of_its_execution_with_its_attributes(world: World):
    first = world.owned(memo=b'{"a":1}', search={"k": "v"}, tags=("t",))
    world.commit(closing(first.run, status=Status.FAILED))
    retry = world.start(
        run_id="r2", execution=first.execution, retries=first.run, copied=rows(b"a", b"b")
    )
    assert (retry.created, retry.execution) == (True, first.execution)
    row = world.store.find("order-1")
    assert row is not None
    assert (row.run, row.memo, row.tags, row.length) == (retry.run, b'{"a":1}', ("t",), 4)
    assert world.store.attributes(retry.run) == {"k": "v"}
    world.post()
    assert world.inbox(retry.run) == [b"hello"]


@pytest.mark.parametrize("case", ["open", "not the latest", "unknown"])
def test_a_retry_of_a_run_that_is_not_the_ended_last_one_is_refused(world: World, case: str):
    first = world.owned()
    execution, retried = first.execution, first.run
    if case == "not the latest":
        world.commit(closing(first.run))
        world.start(run_id="r2", conflict="none")
    workflow_id = "order-9" if case == "unknown" else "order-1"
    refused = world.store.start(
        [request(workflow_id, run_id="r3", execution=execution, retries=retried,
                 copied=rows(b"a"))], world.now)[0]  # fmt: skip
    assert (refused.created, refused.refused) == (False, "already_exists")
    assert world.store.find("", run_id="r3") is None
