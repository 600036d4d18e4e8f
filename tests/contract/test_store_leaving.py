"""Children whose parent has ended, and which are about to: nobody joins them any more."""

from typing import Any

import pytest
from tests.contract.store_contract import World, closing, kinds, request, running, turn

from perdure.store.port import Watch
from perdure.values import events as ev
from perdure.values.states import Status


def leaving(world: World, **rest: Any) -> tuple[int, int]:
    """Return a parent that has ended and its child, which has not heard of it."""
    parent = world.owned("parent")
    child = world.owned("child", parent=(parent.execution, 2), **rest)
    world.commit(closing(parent.run))
    assert not world.row(child.run).status.is_terminal
    return parent.run, child.run


def parent_of(world: World, run: int) -> tuple[int | None, int | None]:
    row = world.row(run)
    return row.parent_execution, row.parent_event


def test_a_start_takes_the_place_of_a_child_that_ends_with_its_parent(world: World):
    _, old = leaving(world)
    new = world.start("child", run_id="new", conflict="use_existing")
    assert (new.created, new.refused, new.replaced) == (True, "", old)
    assert world.row(old).status is Status.TERMINATED
    # The next one finds a child of nobody, which stays.
    again = world.start("child", run_id="again", conflict="use_existing")
    assert (again.run, again.created, again.refused) == (new.run, False, "")


def test_a_turn_starts_a_child_in_the_place_of_one_that_is_leaving(world: World):
    _, old = leaving(world)
    parent = world.owned("another")
    child = request("child", run_id="new", conflict="use_existing", parent=(parent.execution, 3))
    [started] = world.commit(turn(parent.run, children=[child])).children
    assert (started.created, started.refused) == (True, "")
    assert world.row(old).status is Status.TERMINATED
    assert (world.row(started.run).parent_execution, world.row(started.run).parent_event) == (
        parent.execution,
        3,
    )


@pytest.mark.parametrize("policy", ["request_cancel", "abandon"])
def test_a_child_that_its_parents_end_does_not_terminate_is_used(world: World, policy: str):
    _, old = leaving(world, parent_close=policy)
    again = world.start("child", run_id="new", conflict="use_existing")
    assert (again.run, again.created, again.refused) == (old, False, "")


def test_a_child_whose_parent_is_open_is_used_whatever_its_inbox_holds(world: World):
    parent = world.owned("parent")
    child = world.owned("child", parent=(parent.execution, 2))
    told = [ev.RunTerminated(reason="parent closed", by="ann"), ev.RunPaused(by="parent")]
    for fact in told:
        world.post("child", ev.encode_turn([fact]), is_control=True)
    world.post("child", b"what nobody can read", is_control=True)
    again = world.start("child", run_id="new", conflict="use_existing")
    assert (again.run, again.created, again.refused) == (child.run, False, "")


def test_a_new_parent_in_the_place_of_the_old_one_has_children_of_its_own_at_once(world: World):
    parent = world.asleep("parent")
    old = world.owned("child", parent=(parent.execution, 2))
    child = request("child", run_id="own", conflict="use_existing", parent=(0, 2))
    first = turn(0, first=1, count=2, state=running(2), children=[child])
    again = request("parent", run_id="new", conflict="terminate_existing", first=first)
    result = world.commit(starts=[again])
    assert [one.created for one in (*result.started, *result.children)] == [True, True]
    assert world.row(old.run).status is Status.TERMINATED
    [started] = result.children
    assert (world.row(started.run).parent_execution, world.row(started.run).parent_event) == (
        result.started[0].execution,
        2,
    )
    assert world.inbox(started.run) == []


def test_a_new_parent_waits_for_the_next_batch_if_the_old_ones_child_moves_in_this_one(
    world: World,
):
    parent = world.asleep("parent")
    old = world.owned("child", parent=(parent.execution, 2))
    child = request("child", run_id="own", conflict="use_existing", parent=(0, 2))
    first = turn(0, first=1, count=2, state=running(2), children=[child])
    again = request("parent", run_id="new", conflict="terminate_existing", first=first)
    other = request("other", first=turn(0, first=1, state=running(1)))
    result = world.commit(turn(old.run), starts=[again, other])
    assert [(one.created, one.refused) for one in result.started] == [(False, "busy"), (True, "")]
    assert (list(result.children), list(result.reopened)) == ([], [])
    assert not world.row(parent.run).status.is_terminal
    assert world.row(old.run).length == 3
    assert world.inbox(old.run) == []
    result = world.commit(starts=[again])
    assert [one.created for one in (*result.started, *result.children)] == [True, True]
    assert world.row(old.run).status is Status.TERMINATED


def test_a_parent_that_ends_in_the_same_batch_leaves_no_child_to_be_joined(world: World):
    parent = world.owned("parent")
    old = world.owned("child", parent=(parent.execution, 2))
    result = world.commit(
        closing(parent.run),
        starts=[request("child", run_id="new", conflict="use_existing")],
    )
    assert [one.created for one in result.started] == [True]
    assert world.row(old.run).status is Status.TERMINATED


def test_the_next_run_of_a_parent_that_is_tried_again_has_children_of_its_own(world: World):
    parent = world.owned("parent")
    old = world.owned("child", parent=(parent.execution, 2))
    following = request("parent", run_id="second", execution=parent.execution)
    failed = closing(parent.run, continued=following, closes_children=True)
    world.commit(failed)
    second = world.store.find("parent")
    assert second is not None
    child = request("child", run_id="own", conflict="use_existing", parent=(parent.execution, 2))
    state = running(2)
    claim = turn(second.run, first=2, execution=parent.execution, claim=1, state=state)
    claim.children = [child]
    [started] = world.commit(claim).children
    assert (started.created, started.refused) == (True, "")
    assert world.row(old.run).status is Status.TERMINATED


def test_a_parent_hears_of_a_replaced_child_as_the_run_that_started_it(world: World):
    parent = world.owned("parent", run_id="first")
    world.commit(turn(parent.run, children=[request("child", run_id="c", parent=(parent.run, 3))]))
    following = request("parent", run_id="second", execution=parent.execution)
    world.commit(closing(parent.run, first=4, status=Status.CONTINUED_AS_NEW, continued=following))
    world.start("child", run_id="d", conflict="terminate_existing")
    second = world.store.find("parent")
    assert second is not None
    [event] = [ev.decode_fact(row.event) for row in world.load(second.run).inbox]
    assert isinstance(event, ev.ChildClosed)
    assert (event.child, event.asked_by, event.run_id) == (3, "first", "c")
    assert event.at == world.now


def test_a_parent_hears_as_itself_of_a_child_that_it_replaces_in_the_turn_that_started_it(
    world: World,
):
    parent = world.owned("parent", run_id="first")

    def child(run_id: str, number: int, conflict: str) -> Any:
        watch = Watch("child", ref=number, asked_by="first")
        place = (parent.execution, number)
        return request("child", run_id=run_id, conflict=conflict, parent=place, watches=(watch,))

    children = [child("a", 3, "use_existing"), child("b", 4, "terminate_existing")]
    world.commit(turn(parent.run, count=2, children=children))
    [row] = world.load(parent.run).inbox
    assert kinds(row.event) == ["child_closed"]
    event = ev.decode_fact(row.event)
    assert isinstance(event, ev.ChildClosed)
    assert (event.child, event.asked_by) == (3, "first")
