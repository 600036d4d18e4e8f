"""Starting runs: who may, what an id that is taken does, and what a first turn adds."""

from typing import Any

import pytest
from tests.contract.store_contract import (
    World,
    closed,
    closing,
    kinds,
    request,
    running,
    snapshot,
    turn,
    waiting,
)

from perdure.errors import StoreRefused, UsageError
from perdure.store.port import Filter, Post, StateWrite
from perdure.values import events as ev
from perdure.values.states import Status


def test_a_start_writes_event_1_as_a_blind_row_and_leaves_the_run_to_be_claimed(world: World):
    started = world.start()
    assert (started.created, started.refused, started.status) == (True, "", Status.RUNNING)
    assert started.execution == started.run
    [row] = world.store.history(started.run)
    assert (row.first, row.count, row.applied, row.payload) == (1, 1, False, b"started")
    assert world.store.claimable(["order"], ["default"], limit=9) == [started.run]
    assert world.row(started.run).length == 1


def test_the_facts_of_a_start_come_back_in_its_row(world: World):
    started = world.start(
        version="7",
        queue="slow",
        created_by="ann",
        correlation_id="c-1",
        tenant="acme",
        tags=("a", "b"),
        memo=b'{"note":"x\\u0000y"}',
        parent=(41, 3),
        parent_close="abandon",
    )
    row = world.row(started.run)
    assert (row.version, row.queue, row.created_by, row.tenant) == ("7", "slow", "ann", "acme")
    assert (row.correlation_id, row.tags, row.memo) == ("c-1", ("a", "b"), b'{"note":"x\\u0000y"}')
    assert (row.parent_execution, row.parent_event, row.parent_close) == (41, 3, "abandon")
    assert row.created_at == world.now


def test_an_open_execution_is_reused_or_refused_as_asked(world: World):
    first = world.start()
    again = world.start(run_id="other", conflict="use_existing")
    assert (again.run, again.created, again.refused) == (first.run, False, "")
    refused = world.start(run_id="other", conflict="fail")
    assert (refused.run, refused.created, refused.refused) == (first.run, False, "already_exists")
    assert world.store.find("", run_id="other") is None


@pytest.mark.parametrize(
    ("reuse", "status", "refused"),
    [
        ("allow_duplicate", Status.COMPLETED, ""),
        ("allow_duplicate_failed_only", Status.COMPLETED, "already_exists"),
        ("allow_duplicate_failed_only", Status.FAILED, ""),
        ("reject_duplicate", Status.FAILED, "already_exists"),
    ],
)
def test_a_closed_execution_frees_its_id_as_asked(
    world: World, reuse: str, status: Status, refused: str
):
    first = world.owned()
    world.commit(closing(first.run, status=status))
    again = world.start(run_id="again", reuse=reuse)
    assert again.refused == refused
    assert again.created is (not refused)
    assert (again.run == first.run) is bool(refused)


def test_an_open_execution_of_another_workflow_is_never_taken_for_the_one_asked_for(world: World):
    first = world.start()
    other = world.start(workflow="invoice", run_id="other", conflict="use_existing")
    assert (other.created, other.refused, other.workflow) == (False, "already_exists", "order")
    assert world.store.find("", run_id="other") is None
    world.commit(closing(first.run, claim=1))
    assert world.start(workflow="invoice", run_id="other", conflict="use_existing").created


def test_an_execution_is_of_the_workflow_that_it_began_as(world: World):
    first = world.owned()
    following = request(run_id="next", workflow="invoice", execution=first.execution)
    world.commit(closing(first.run, status=Status.CONTINUED_AS_NEW, continued=following))
    again = world.start(run_id="again", conflict="use_existing")
    assert (again.created, again.refused, again.run_id) == (False, "", "next")


def test_two_starts_of_one_id_in_a_batch_behave_as_if_one_after_the_other(world: World):
    first, second, third = world.commit(
        starts=[
            request(run_id="a", first=turn(0, first=1, state=running(1))),
            request(run_id="b", conflict="use_existing"),
            request(run_id="c", conflict="fail", first=turn(0, first=1, payload=b"never")),
        ]
    ).started
    assert first.created
    assert (second.run, second.created, second.status) == (first.run, False, Status.RUNNING)
    assert third.refused == "already_exists"
    assert world.payloads(first.run) == [b"turn at 1"]


def test_a_generated_id_is_not_looked_up(world: World):
    first = world.start(conflict="none")
    second = world.start(conflict="none", run_id="second")
    assert second.created
    assert second.run != first.run


def test_a_start_repeated_after_a_lost_answer_is_answered_again_and_changes_nothing(world: World):
    first = world.start(run_id="mine", conflict="fail")
    before = snapshot(world.store, [first.run])
    again = world.start(run_id="mine", conflict="fail")
    assert (again.run, again.created, again.refused) == (first.run, True, "")
    assert snapshot(world.store, [first.run]) == before


def test_a_run_id_that_is_taken_is_refused_in_a_batch_and_nothing_of_it_is_written(world: World):
    world.start("one", run_id="taken")
    with pytest.raises(StoreRefused):
        world.commit(
            starts=[request("two", run_id="fresh"), request("three", run_id="taken")],
        )
    assert world.store.find("two") is None


def test_a_first_turn_is_written_instead_of_the_bare_start_and_knows_its_own_execution(
    world: World,
):
    first = turn(
        0,
        first=1,
        count=3,
        payload=b"first turn",
        state=StateWrite(Status.RUNNING, owned=True, length=3, waits='{"x":1}'),
        children=[request("child", parent=(0, 2))],
        progress='{"done":1}',
    )
    result = world.commit(starts=[request(first=first, search={"k": "v"})])
    [started], [child] = result.started, result.children
    [row] = world.store.history(started.run)
    assert (row.first, row.count, row.applied, row.payload) == (1, 3, True, b"first turn")
    state = world.row(started.run)
    assert (state.owner, state.waits, state.length) == (world.worker.id, '{"x":1}', 3)
    assert state.progress == '{"done":1}'
    assert world.row(child.run).parent_execution == started.run
    assert world.row(child.run).parent_event == 2
    assert world.store.attributes(started.run) == {"k": "v"}


def test_a_first_turn_without_a_worker_is_refused(world: World):
    with pytest.raises(UsageError, match="worker's commit"):
        world.start(first=turn(0, first=1))


def test_the_first_turn_of_a_refused_start_leaves_no_trace(world: World):
    parent = world.owned("parent")
    taken = world.asleep("taken")
    before = snapshot(world.store, [taken.run])
    first = turn(
        0,
        first=1,
        state=running(1),
        children=[request("grandchild", parent=(0, 1))],
        posts=[Post(b"from the refused one", "taken")],
    )
    result = world.commit(
        starts=[
            request(
                "taken", run_id="x", first=first, parent=(parent.execution, 4), refusal=b"refused"
            )
        ]
    )
    assert result.started[0].refused == "already_exists"
    assert world.store.find("grandchild") is None
    assert snapshot(world.store, [taken.run]) == before
    assert world.inbox(parent.run) == [b"refused"]
    assert [(fed.run, fed.event) for fed in result.fed] == [(parent.run, b"refused")]


def test_a_later_run_of_an_execution_keeps_its_id_and_its_parent(world: World):
    parent = world.owned("parent")
    run = world.owned("child", parent=(parent.execution, 7), parent_close="request_cancel")
    result = world.commit(
        closing(
            run.run,
            status=Status.CONTINUED_AS_NEW,
            continued=request("child", run_id="second", execution=run.execution),
        )
    )
    [second] = result.children
    row = world.row(second.run)
    assert second.execution == run.execution
    assert (row.parent_execution, row.parent_event) == (parent.execution, 7)
    assert row.parent_close == "request_cancel"
    found = world.store.find("child")
    assert found is not None
    assert found.run == second.run


def test_a_first_turn_that_continues_as_new_goes_on_in_its_own_execution(world: World):
    first = turn(
        0,
        first=1,
        closes=True,
        state=closed(1, Status.CONTINUED_AS_NEW),
        continued=request(run_id="second", execution=0),
    )
    who = {"tenant": "acme", "created_by": "ann", "correlation_id": "c", "tags": ("t",)}
    result = world.commit(starts=[request(run_id="one", first=first, priority=5, **who)])
    [started], [second] = result.started, result.children
    assert second.execution == started.execution == started.run
    row = world.row(second.run)
    assert (row.tenant, row.created_by, row.correlation_id, row.tags) == tuple(who.values())
    tagged = world.store.list(Filter(tags=("t",)), limit=10).rows
    assert [one.run for one in tagged] == [second.run, started.run]
    database: Any = world.store.database  # type: ignore[attr-defined]
    assert database.ask("SELECT lane, priority FROM perdure_state", []).fetchall() == [
        ("acme", 5),
        ("acme", 5),
    ]
    found = world.store.find("one")
    assert found is not None
    assert found.run == second.run


def test_terminate_existing_ends_a_waiting_run_and_takes_its_place(world: World):
    parent = world.owned("parent")
    old = world.asleep(wake_at=77, parent=(parent.execution, 2))
    child = world.asleep("child", parent=(old.execution, 2), run_id="child-run")
    letter = ev.MessageReceived(message=ev.Message("topic", b"1"))
    world.post(event=ev.encode_turn([letter]))
    world.post(event=b"a cancel, say", is_control=True)
    new = world.start(run_id="new", conflict="terminate_existing")
    assert new.created
    assert new.run != old.run
    row = world.row(old.run)
    assert (row.status, row.length, row.wake_at) == (Status.TERMINATED, 4, None)
    # What it had not read is in its history: it was acknowledged.
    assert kinds(world.payloads(old.run)[-1]) == ["message_received", "run_terminated"]
    assert [kinds(event) for event in world.inbox(child.run)] == [["run_terminated"]]
    assert [kinds(event) for event in world.inbox(parent.run)] == [["child_closed"]]
    assert world.inbox(old.run) == []
    assert world.load(old.run).broken == ""


def test_terminate_existing_takes_a_busy_run_from_its_owner_and_ends_it(world: World):
    old = world.owned()
    answer = world.start(run_id="new", conflict="terminate_existing")
    assert (answer.created, answer.refused, answer.replaced) == (True, "", old.run)
    row = world.row(old.run)
    assert (row.status, row.owner) == (Status.TERMINATED, None)
    assert kinds(world.store.history(old.run)[-1].payload) == ["run_terminated"]
    # Its owner finds out with its next turn, which leaves no trace.
    assert world.commit(turn(old.run)).lost == {old.run}
    assert world.row(old.run).length == row.length


def test_terminate_existing_leaves_a_run_alone_that_moves_in_the_same_batch(world: World):
    old = world.asleep()
    result = world.commit(
        turn(old.run, claim=2, state=waiting(3)),
        starts=[request(run_id="new", conflict="terminate_existing")],
    )
    assert result.started[0].refused == "busy"
    assert world.row(old.run).length == 3


def test_a_start_may_be_paused_and_is_looked_at_when_its_time_is_over(world: World):
    state = StateWrite(Status.PAUSED, owned=False, length=1, wake_at=50, reason="paused", since=7)
    state.detail, state.unblock = "it was started paused", "`perdure resume`"
    started = world.start(state=state)
    assert (started.created, started.status) == (True, Status.PAUSED)
    row = world.row(started.run)
    assert (row.status, row.length, row.owner, row.since) == (Status.PAUSED, 1, None, 7)
    assert (row.reason, row.detail, row.unblock) == ("paused", state.detail, state.unblock)
    assert world.payloads(started.run) == [b"started"]
    assert world.store.claimable(["order"], ["default"], limit=9) == []
    assert world.store.due(49, ["order"], ["default"], limit=9) == []
    # By any worker: no code has to run.
    assert world.store.due(50, ["other"], ["elsewhere"], limit=9) == [(started.run, 50)]
    again = world.start(run_id="other", conflict="use_existing")
    assert (again.run, again.status) == (started.run, Status.PAUSED)
