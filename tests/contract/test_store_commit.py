"""The commit: what a turn writes, what is dropped, and that a dropped turn leaves no trace."""

import pytest
from tests.contract.store_contract import (
    World,
    closing,
    kinds,
    request,
    running,
    snapshot,
    turn,
    waiting,
)

from perdure.errors import LeaseLost, StoreRefused
from perdure.store.port import Beat, Post, StateWrite
from perdure.values.states import Status


def test_a_turn_appends_its_row_and_leaves_the_state_alone(world: World):
    run = world.owned().run
    before = world.row(run)
    result = world.commit(turn(run, count=2, time=42, payload=b"\x00\xff"))
    assert (result.lost, result.reopened) == (frozenset(), frozenset())
    last = world.store.last_turn(run)
    assert last is not None
    assert (last.first, last.count, last.time, last.payload) == (3, 2, 42, b"\x00\xff")
    assert (last.applied, last.worker) == (True, world.worker.id)
    after = world.row(run)
    assert after.length == 4
    assert (after.status, after.owner, after.since) == (before.status, before.owner, before.since)


def test_a_state_is_written_field_by_field(world: World):
    run = world.owned().run
    state = StateWrite(
        Status.PARKED,
        owned=False,
        length=3,
        wake_at=5,
        reason="why",
        detail="what",
        unblock="how",
        waits="[]",
        since=6,
    )
    world.commit(turn(run, applied=False, state=state, progress='{"done":2}'))
    row = world.row(run)
    assert (row.status, row.owner, row.length, row.wake_at) == (Status.PARKED, None, 3, 5)
    assert (row.reason, row.detail, row.unblock) == ("why", "what", "how")
    assert (row.waits, row.since, row.progress) == ("[]", 6, '{"done":2}')


def test_progress_alone_is_written_without_touching_the_rest(world: World):
    run = world.owned().run
    world.commit(turn(run, progress='{"done":5}'))
    row = world.row(run)
    assert (row.progress, row.status, row.owner) == ('{"done":5}', Status.RUNNING, world.worker.id)
    world.commit(turn(run, first=4, state=running(4)))
    assert world.row(run).progress == '{"done":5}'


def test_a_claim_takes_a_waiting_run(world: World):
    run = world.asleep().run
    result = world.commit(turn(run, claim=2, state=running(3)))
    assert result.lost == frozenset()
    assert world.row(run).owner == world.worker.id


def test_a_claim_without_a_new_state_takes_the_run_as_well(world: World):
    run = world.asleep().run
    world.commit(turn(run, claim=2))
    assert world.row(run).owner == world.worker.id
    assert world.row(run).length == 3


@pytest.mark.parametrize("case", ["length", "owner", "closed", "unknown"])
def test_a_claim_that_does_not_hold_is_lost_and_its_neighbours_commit(world: World, case: str):
    neighbour = world.owned("neighbour").run
    run, claim = world.asleep().run, 2
    if case == "length":
        claim = 1
    elif case == "owner":
        world.commit(turn(run, claim=2, state=running(3)), worker=world.join("other"))
        claim = 3
    elif case == "closed":
        world.commit(closing(run, claim=2))
        claim = 3
    else:
        run = 999
    result = world.commit(
        turn(run, first=9, claim=claim, state=running(9)), turn(neighbour, payload=b"fine")
    )
    assert result.lost == {run}
    assert world.payloads(neighbour)[-1] == b"fine"
    assert b"turn at 9" not in world.payloads(run)


def test_a_state_of_a_run_that_another_worker_owns_is_lost(world: World):
    run = world.owned().run
    result = world.commit(turn(run, state=waiting(3)), worker=world.join("other"))
    assert result.lost == {run}
    assert world.row(run).owner == world.worker.id


def test_a_lost_turn_takes_everything_with_it(world: World):
    target = world.owned("target")
    run = world.asleep()
    world.post()
    [message] = world.load(run.run).inbox
    before = snapshot(world.store, [target.run, run.run])
    result = world.commit(
        turn(
            run.run,
            claim=1,
            state=waiting(3, wake_at=8),
            consumed=(message.id,),
            posts=[Post(b"to target", "target"), Post(b"nowhere", "nowhere", refusal=b"no")],
            children=[request("child", parent=(run.execution, 3))],
            opens=((3, 1),),
            memo={"a": 1},
            search={"a": 1},
            progress="{}",
        )
    )
    assert result.lost == {run.run}
    assert (result.fed, result.children) == ([], [])
    assert snapshot(world.store, [target.run, run.run]) == before
    assert world.store.find("child") is None


def test_a_worker_whose_lease_was_taken_over_writes_nothing(world: World):
    run = world.owned().run
    other = world.join("other")
    assert world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    before = snapshot(world.store, [run])
    with pytest.raises(LeaseLost):
        world.commit(turn(run), starts=[request("new")], posts=[Post(b"x", "order-1")])
    assert snapshot(world.store, [run]) == before
    assert world.store.find("new") is None
    assert world.commit(turn(run, claim=2, state=running(3)), worker=other).lost == frozenset()


def test_a_batch_leaves_its_number_and_extends_the_lease(world: World):
    worker = world.worker
    assert world.store.resolve(worker.id, worker.epoch) == 0
    batch = world.batch()
    world.store.commit(batch)
    assert world.store.resolve(worker.id, worker.epoch) == batch.number
    [row] = world.store.workers()
    assert row.last_batch == batch.number
    assert row.lease_until > world.worker.lease_until


def test_resolve_refuses_a_worker_that_lost_its_lease(world: World):
    world.store.take_over(world.worker.id, world.worker.epoch, world.now)
    with pytest.raises(LeaseLost):
        world.store.resolve(world.worker.id, world.worker.epoch)


def test_a_row_that_is_there_already_refuses_the_whole_batch(world: World):
    one, two = world.owned("one").run, world.owned("two").run
    with pytest.raises(StoreRefused):
        world.commit(turn(one), turn(two, first=1))
    assert len(world.payloads(one)) == 1
    assert world.store.resolve(world.worker.id, 1) == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a\0b", "NUL"),
        ("\ud800", "cannot be stored"),
        (2**63, "'k' = 9223372036854775808 has over 64 bits"),
        (float("nan"), "'k' is nan"),
        ({"x": 1}, "'k' is dict"),
        ([1], "'k' is int"),
    ],
)
def test_data_that_cannot_be_stored_refuses_the_batch(world: World, value: object, says: str):
    run = world.owned().run
    with pytest.raises(StoreRefused, match=says):
        world.commit(turn(run, search={"k": value}))
    assert len(world.payloads(run)) == 1
    world.commit(turn(run))


def test_a_closing_turn_is_dropped_while_the_inbox_holds_what_it_has_not_read(world: World):
    run = world.owned()
    world.post(event=b"late")
    result = world.commit(closing(run.run, memo={"a": 1}))
    assert result.reopened == {run.run}
    assert world.row(run.run).status is Status.RUNNING
    assert world.row(run.run).memo is None
    [message] = world.load(run.run).inbox
    result = world.commit(closing(run.run, consumed=(message.id,)))
    assert result.reopened == frozenset()
    assert world.row(run.run).status is Status.COMPLETED
    assert world.row(run.run).closed_at == 9


def test_a_forced_close_goes_through_and_empties_the_inbox(world: World):
    run = world.owned()
    world.post(event=b"late")
    assert world.commit(closing(run.run, force_close=True)).reopened == frozenset()
    assert world.inbox(run.run) == []


def test_a_message_to_a_run_that_closes_in_the_same_batch_meets_a_closed_run(world: World):
    sender, target = world.owned("sender"), world.owned("target")
    result = world.commit(
        turn(sender.run, posts=[Post(b"hello", "target", refusal=b"closed")]),
        closing(target.run),
        posts=[Post(b"from outside", "target")],
    )
    assert result.reopened == frozenset()
    assert [answer.outcome for answer in result.posted] == ["closed"]
    assert world.inbox(sender.run) == [b"closed"]
    assert world.inbox(target.run) == []


def test_consumed_rows_are_gone_and_cannot_be_consumed_twice(world: World):
    run = world.owned().run
    world.post(event=b"one")
    [message] = world.load(run).inbox
    world.commit(turn(run, consumed=(message.id,)))
    assert world.inbox(run) == []
    with pytest.raises(StoreRefused, match="read before"):
        world.commit(turn(run, first=4, consumed=(message.id,)))
    assert len(world.payloads(run)) == 2


def test_a_deciding_row_is_settled_once(world: World):
    run = world.owned().run
    world.commit(turn(run, opens=((3, 1), (4, 1))))
    assert world.commit(turn(run, first=4, settles=(3,))).reopened == frozenset()
    result = world.commit(turn(run, first=5, settles=(3,), opens=((5, 1),)))
    assert result.reopened == {run}
    assert len(world.payloads(run)) == 3
    assert world.commit(turn(run, first=5, settles=(4,))).reopened == frozenset()


def test_closing_takes_deciding_rows_away(world: World):
    run = world.owned().run
    world.commit(turn(run, opens=((3, 1),)))
    world.commit(closing(run, first=4))
    assert world.commit(turn(run, first=5, settles=(3,))).reopened == {run}


def test_closing_takes_heartbeats_away(world: World):
    worker, run = world.worker, world.owned().run
    beats = [Beat(run, 3, b"10%")]
    world.store.extend(worker.id, worker.epoch, now=5, lease_until=99, beats=beats)
    assert world.load(run).beats == beats
    world.commit(closing(run))
    assert world.load(run).beats == []


def test_children_hear_of_their_parents_end_as_they_were_started(world: World):
    parent = world.owned("parent")
    policies = ("terminate", "request_cancel", "abandon")
    turn_with_children = turn(
        parent.run,
        children=[
            request(policy, parent=(parent.execution, 3), parent_close=policy)
            for policy in policies
        ],
    )
    children = world.commit(turn_with_children).children
    ended = world.owned("ended", parent=(parent.execution, 4))
    world.commit(closing(ended.run))
    result = world.commit(closing(parent.run, first=4))
    heard = [[kinds(event) for event in world.inbox(child.run)] for child in children]
    assert heard == [[["run_terminated"]], [["cancel_requested"]], []]
    assert world.inbox(ended.run) == []
    assert [fed.run for fed in result.fed] == [children[0].run, children[1].run]
    assert all(fed.id for fed in result.fed)


def test_children_pass_to_the_next_run_of_an_execution(world: World):
    parent = world.owned("parent")
    child = world.owned("child", parent=(parent.execution, 2))
    result = world.commit(
        closing(
            parent.run,
            status=Status.CONTINUED_AS_NEW,
            continued=request("parent", run_id="second", execution=parent.execution),
        )
    )
    assert world.inbox(child.run) == []
    second = result.children[0]
    world.commit(turn(second.run, execution=second.execution, first=2, claim=1, state=running(2)))
    world.commit(closing(second.run, execution=second.execution))
    assert [kinds(event) for event in world.inbox(child.run)] == [["run_terminated"]]


def test_unread_messages_pass_to_the_next_run_of_an_execution(world: World):
    run = world.owned()
    world.post(event=b"unread")
    result = world.commit(
        closing(
            run.run,
            status=Status.CONTINUED_AS_NEW,
            force_close=True,
            continued=request(run_id="second", execution=run.execution),
        )
    )
    assert world.inbox(result.children[0].run) == [b"unread"]
    [row] = world.store.inbox(["order"], ["default"], world.worker.id, limit=9)
    assert row.run == result.children[0].run


def test_memo_and_search_attributes_are_merged_key_by_key(world: World):
    run = world.owned(memo=b'{"keep":{"x":null,"y":1},"drop":1}', search={"keep": 1, "drop": "x"})
    world.commit(
        turn(
            run.run,
            memo={"drop": None, "new": [1, None]},
            search={"drop": None, "list": ["b", "a", "b"], "yes": True, "float": 1.5},
        )
    )
    assert world.row(run.run).memo == b'{"keep":{"x":null,"y":1},"new":[1,null]}'
    attributes = world.store.attributes(run.run)
    assert attributes == {"keep": 1, "list": ["b", "a"], "yes": True, "float": 1.5}
    assert attributes["yes"] is True
    world.commit(turn(run.run, first=4, memo={"keep": None, "new": None}, search={"list": ["c"]}))
    assert world.row(run.run).memo is None
    assert world.store.attributes(run.run)["list"] == ["c"]


def test_a_batch_of_many_runs_keeps_each_to_itself(world: World):
    runs = [world.asleep(f"order-{n}").run for n in range(230)]
    result = world.commit(
        *[turn(run, claim=2, state=waiting(3), payload=str(run).encode()) for run in runs]
    )
    assert result.lost == frozenset()
    assert [world.payloads(run)[-1] for run in runs] == [str(run).encode() for run in runs]
