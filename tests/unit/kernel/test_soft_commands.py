"""What code tells of itself is recorded, and holds no replay to it."""

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.workflow import call


def program(body):
    return workflow.define(name="telling")(body)


@program
async def silent():
    await call("a")
    child = await workflow.start("other", id="child")
    await call("b")
    return child.id


@program
async def telling():
    await workflow.emit("began")
    await call("a")
    await workflow.progress(1, 2, "half")
    await workflow.emit("half", {"of": "it"})
    child = await workflow.start("other", id="child")
    await workflow.emit("last")
    await call("b")
    await workflow.emit("over")
    return child.id


@program
async def telling_otherwise():
    await call("a")
    await workflow.emit("half", {"of": "something else"})
    child = await workflow.start("other", id="child")
    await workflow.progress(1)
    await call("b")
    await workflow.emit("done at last")
    return child.id


ALL = [silent, telling, telling_otherwise]


def half_way(definition) -> Run:
    run = Run(definition)
    run.complete("a")
    return run


@pytest.mark.parametrize("after", ALL, ids=["silent", "telling", "otherwise"])
@pytest.mark.parametrize("before", ALL, ids=["silent", "telling", "otherwise"])
def test_a_run_goes_on_whatever_its_code_tells_now(before, after):
    run = half_way(before)
    instance = run.replayed(after)
    [(number, pending)] = instance.activities.items()
    assert pending.event.name == "b"
    assert number == run.open("b")[0]
    turn = instance.apply([ev.ActivityCompleted(activity=number)], run.time)
    assert [command for command in turn.commands if type(command) not in ev.SOFT] == [
        ev.RunCompleted(result=b'"child"')
    ]


def test_what_is_new_in_a_turn_of_the_past_is_not_told_and_what_comes_later_is():
    run = half_way(silent)
    instance = run.replayed(telling)
    [number] = instance.activities
    turn = instance.apply([ev.ActivityCompleted(activity=number)], run.time)
    assert turn.commands[0] == ev.Emitted(event="over")


def test_a_replay_makes_no_soft_commands():
    run = half_way(telling)
    instance, facts = Instance(telling), list[ev.Event]()
    for turn in run.stored():
        count = ev.split(turn.events)
        facts = list(turn.events[:count])
        again = instance.apply(facts, turn.time, turn.events[count:])
        assert not [it for it in again.commands if type(it) in ev.SOFT]


def test_numbers_of_children_and_calls_are_those_of_the_history():
    @program
    async def anonymous():
        await workflow.emit("one")
        child = await workflow.start("other")
        await workflow.emit("two")
        await call("a")
        return child.id

    @program
    async def anonymous_and_silent():
        child = await workflow.start("other")
        await call("a")
        return child.id

    run = Run(anonymous)
    instance = run.replayed(anonymous_and_silent)
    [child] = instance.children.values()
    [scheduled] = [it for it in run.commands if isinstance(it, ev.ChildScheduled)]
    assert child.event.workflow_id == scheduled.workflow_id


def test_hard_commands_between_soft_ones_are_still_compared():
    @program
    async def other():
        await workflow.emit("began")
        await call("c")

    with pytest.raises(errors.NondeterminismError, match="'a'.*'c'"):
        Run(telling).replayed(other)
