"""``version`` and ``patched``: code that changes under runs that are under way."""

import pytest
from tests.unit.drive import Run

from perdure import errors, workflow
from perdure.values import events as ev
from perdure.workflow import call


def program(body):
    """Make workflows of one name, as one name has several versions of its code."""
    return workflow.define(name="changing")(body)


@program
async def first():
    await call("a")
    await call("b")


@program
async def patched():
    await call("a")
    if workflow.patched("better b"):
        await call("better-b")
    else:
        await call("b")


@program
async def versioned():
    await call("a")
    if workflow.version("b", 1, 3) >= 3:
        return await call("third-b")
    return await call("b")


def test_a_new_run_goes_by_the_new_code_and_records_it():
    run = Run(patched)
    assert run.complete("a") == [
        ev.VersionMarked(change="better b", version=2),
        ev.ActivityScheduled(name="better-b"),
    ]


def test_version_records_the_highest():
    run = Run(versioned)
    assert run.complete("a")[0] == ev.VersionMarked(change="b", version=3)


def test_the_mark_is_recorded_once():
    @workflow.define
    async def wf():
        answers = [workflow.patched("x"), workflow.patched("x")]
        await call("a")
        return [*answers, workflow.patched("x"), workflow.version("x", 1, 5)]

    run = Run(wf)
    assert run.asked == ["version_marked 'x' = 2", "activity_scheduled 'a'"]
    run.complete("a")
    assert run.result == [True, True, True, 2]


@pytest.mark.parametrize("code", [patched, versioned])
def test_a_history_that_passed_the_place_before_the_call_existed_is_version_1(code):
    run = Run(first)
    run.complete("a")
    run.instance = run.replayed(code)
    run.program = code
    assert run.complete("b") == [ev.RunCompleted()]


def test_a_history_that_has_not_yet_come_to_the_place_goes_by_the_new_code():
    run = Run(first)
    run.instance = run.replayed(patched)
    run.program = patched
    run.complete("a")
    assert run.asked == ["version_marked 'better b' = 2", "activity_scheduled 'better-b'"]


def test_the_first_answer_stays_also_where_code_asks_again_later():
    @program
    async def asks_twice():
        await call("a")
        first = workflow.patched("better b")
        await call("better-b" if first else "b")
        await call("end", workflow.patched("better b"))

    run = Run(first)
    run.complete("a")
    run.instance = run.replayed(asks_twice)
    run.program = asks_twice
    run.complete("b")
    assert run.commands == [ev.ActivityScheduled(name="end", args=b"[false]")]


def test_a_mark_may_be_anywhere_in_its_turn():
    @program
    async def before():
        await call("a")
        task = workflow.spawn(call("b"))
        workflow.patched("x")
        await call("c")
        await task

    @program
    async def after():
        await call("a")
        task = workflow.spawn(call("b"))
        await workflow.sleep(0)
        await call("c2" if not workflow.patched("x") else "c")
        await task

    run = Run(before)
    run.complete("a")
    assert run.asked[0] == "version_marked 'x' = 2"
    with pytest.raises(errors.NondeterminismError):
        run.replayed(after)
    same = run.replayed(before)
    assert len(same.activities) == 2


def test_a_mark_that_the_code_no_longer_asks_for_is_passed_over():
    @program
    async def cleaned_up():
        await call("a")
        await call("better-b")

    run = Run(patched)
    run.complete("a")
    number = run.open("better-b")[0]
    run.instance = run.replayed(cleaned_up)
    run.program = cleaned_up
    assert run.open("better-b") == [number]
    assert run.complete("better-b") == [ev.RunCompleted()]


def test_a_mark_at_the_end_of_a_turn_is_passed_over_too():
    @program
    async def before():
        workflow.spawn(call("a"))
        await workflow.sleep(0)
        workflow.patched("x")
        await workflow.listen("go").receive()

    @program
    async def after():
        workflow.spawn(call("a"))
        await workflow.listen("go").receive()

    run = Run(before)
    assert run.asked[-1] == "version_marked 'x' = 2"
    run.replayed(after)


def test_a_mark_made_in_an_earlier_turn_is_known_where_the_call_has_moved_to():
    @program
    async def before():
        workflow.patched("x")
        await call("a")
        await call("b")

    @program
    async def moved():
        await call("a")
        await call("b" if workflow.patched("x") else "old-b")
        await call("c" if workflow.patched("x") else "old-c")

    run = Run(before)
    live = run.replayed(moved)
    run.complete("a")
    run.instance = run.replayed(moved)
    run.program = moved
    assert run.complete("b") == [ev.ActivityScheduled(name="c")]
    turn = live.apply([ev.ActivityCompleted(activity=3)], run.time)
    assert turn.commands == [ev.ActivityScheduled(name="b")]


def test_a_version_the_code_no_longer_supports_stops_the_run():
    @program
    async def without_first():
        await call("a")
        workflow.version("b", 2, 3)
        await call("b")

    run = Run(first)
    run.complete("a")
    with pytest.raises(errors.NondeterminismError) as caught:
        run.replayed(without_first)
    message = str(caught.value)
    assert message.startswith("change 'b': this run goes by version 1, the code at ")
    assert "test_versions.py:" in message
    assert "supports 2 to 3. Keep the old branch" in message


def test_code_that_catches_the_error_does_not_hide_it():
    @workflow.define
    async def wf():
        workflow.version("x", 1, 1)
        try:
            workflow.version("x", 2, 3)
        except errors.NondeterminismError:
            return "hidden"

    with pytest.raises(errors.NondeterminismError, match="supports 2 to 3"):
        Run(wf)


@pytest.mark.parametrize(
    "args", [("", 1, 2), ("x", 3, 2), ("x", 1, 2.0), ("x", "1", 2), ("x", True, 2)]
)
def test_version_needs_an_id_and_a_range(args):
    @workflow.define
    async def wf():
        workflow.version(*args)

    assert "needs an id and min <= max" in Run(wf).failure.message
