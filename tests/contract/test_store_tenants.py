"""Starts of a principal that sees one tenant only: ids of others are taken, nothing is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.store_contract import World, closing, request, turn

from perdure.store.port import Started, Watch
from perdure.values import events as ev
from perdure.values.states import Status

MESSAGE = ev.encode_turn([ev.MessageReceived(message=ev.Message(topic="t", payload=b"1"))])
OTHERS = ["globex", None]
"""Whose the execution is: another tenant's, or nobody's."""


def asked(workflow_id: str = "order-1", **rest: Any) -> Any:
    given: dict[str, Any] = {"run_id": "mine", "tenant": "acme", "sees": "acme"}
    return request(workflow_id, **(given | {"conflict": "use_existing"} | rest))


def told_nothing(answer: Started) -> bool:
    told = (answer.run, answer.execution, answer.run_id, answer.created, answer.workflow)
    return answer.refused == "taken" and told == (0, 0, "", False, "order")


@pytest.mark.parametrize("whose", OTHERS)
@pytest.mark.parametrize("conflict", ["use_existing", "terminate_existing", "fail"])
def test_an_open_execution_of_others_is_neither_used_nor_ended(
    world: World, whose: str | None, conflict: str
):
    run = world.asleep(tenant=whose)
    watch = Watch("monitor", mailbox="@mailbox/1")
    wish = asked(conflict=conflict, messages=(MESSAGE,), watches=(watch,))
    [answer] = world.store.start([wish], world.now)
    assert told_nothing(answer)
    assert world.inbox(run.run) == []
    row = world.row(run.run)
    assert (row.status, row.run_id) == (Status.WAITING, "run-of-order-1")
    world.commit(closing(run.run, claim=2))
    assert world.store.mail(["@mailbox/1"], limit=9) == []


@pytest.mark.parametrize("whose", OTHERS)
@pytest.mark.parametrize("reuse", ["allow_duplicate", "allow_duplicate_failed_only"])
def test_an_id_of_others_is_not_taken_over_when_they_have_ended(
    world: World, whose: str | None, reuse: str
):
    run = world.owned(tenant=whose)
    world.commit(closing(run.run, status=Status.FAILED))
    [answer] = world.store.start([asked(reuse=reuse)], world.now)
    assert told_nothing(answer)


def test_of_many_starts_only_those_of_others_are_refused(world: World):
    world.asleep("theirs", tenant="globex")
    mine = world.asleep("mine", tenant="acme")
    names = ["theirs", "mine", "new", "new"]
    answers = world.store.start(
        [asked(name, run_id=f"r{n}", messages=(MESSAGE,)) for n, name in enumerate(names)],
        world.now,
    )
    assert told_nothing(answers[0])
    assert [answer.refused for answer in answers[1:]] == [""] * 3
    assert (answers[1].run, answers[1].created) == (mine.run, False)
    assert [answer.created for answer in answers[2:]] == [True, False]
    assert world.inbox(mine.run) == [MESSAGE]


def test_starts_of_one_batch_see_whose_the_ones_before_are(world: World):
    answers = world.store.start(
        [
            request(run_id="theirs", tenant="globex"),
            asked(messages=(MESSAGE,)),
        ],
        world.now,
    )
    assert told_nothing(answers[1])
    assert world.inbox(answers[0].run) == []


def test_who_sees_all_uses_what_is_there(world: World):
    run = world.asleep(tenant="globex")
    wish = asked(sees="", messages=(MESSAGE,))
    [answer] = world.store.start([wish], world.now)
    assert (answer.refused, answer.run, answer.created) == ("", run.run, False)
    assert world.inbox(run.run) == [MESSAGE]


def test_an_execution_that_goes_on_in_another_run_is_still_its_tenants(world: World):
    first = world.owned(tenant="acme")
    state = closing(first.run, status=Status.CONTINUED_AS_NEW)
    state.continued = request(run_id="second", execution=first.execution, event=b"goes on")
    state.force_close = True
    world.commit(state)
    [answer] = world.store.start([asked()], world.now)
    assert (answer.refused, answer.run_id) == ("", "second")
    [answer] = world.store.start([asked(run_id="x", tenant="globex", sees="globex")], world.now)
    assert told_nothing(answer)


@pytest.mark.parametrize("conflict", ["use_existing", "terminate_existing"])
def test_a_child_does_not_reach_an_execution_of_others(world: World, conflict: str):
    other = world.asleep("theirs", tenant="globex")
    parent = world.owned("parent", tenant="acme")
    refusal = ev.encode_turn([ev.ChildClosed(child=3, status="refused")])
    child = asked(
        "theirs",
        conflict=conflict,
        parent=(parent.execution, 3),
        refusal=refusal,
        messages=(MESSAGE,),
        watches=(Watch("child", ref=3, asked_by="p"),),
    )
    committed = world.commit(turn(parent.run, children=[child]))
    assert [it.refused for it in committed.children] == ["taken"]
    assert world.inbox(parent.run) == [refusal]
    assert world.inbox(other.run) == []
    world.commit(closing(other.run, claim=2))
    assert world.inbox(parent.run) == [refusal]
