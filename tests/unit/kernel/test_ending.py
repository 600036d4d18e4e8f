"""How a run ends: results, failures, and what no turn survives."""

import asyncio

import pytest
from tests.unit.drive import NOON, Run

from perdure import ApplicationError, errors, workflow
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.workflow import call


def test_the_result_is_encoded():
    @workflow.define
    async def wf(number: int):
        return {"doubled": number * 2}

    assert Run(wf, 4).closed == ev.RunCompleted(result=b'{"doubled":8}')


def test_input_that_does_not_fit_fails_the_run_with_the_path():
    @workflow.define
    async def wf(number: int):
        return number

    run = Run(wf, "four")
    assert (run.failure.kind, run.unexpected) == ("Invalid", None)
    assert run.failure.message == "wf(number): Expected `int`, got `str`"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "result of wf: cannot be encoded"),
        ("x" * 3_000_000, "result of wf: 3,000,002 bytes"),
    ],
)
def test_a_result_that_cannot_be_recorded_fails_the_run(value, why):
    @workflow.define
    async def wf():
        return value

    run = Run(wf)
    assert run.failure.message.startswith(why)
    assert run.unexpected is None


def test_an_application_error_fails_the_run_and_is_expected():
    @workflow.define
    async def wf():
        raise ApplicationError("sold out", kind="SoldOut", details={"left": 0})

    run = Run(wf)
    assert (run.failure.kind, run.failure.details, run.unexpected) == (
        "SoldOut",
        b'{"left":0}',
        None,
    )


def test_an_activitys_failure_fails_the_run_and_is_expected():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf)
    run.fail("a", "declined", kind="Declined")
    assert run.failure.type == "ActivityFailed"
    assert run.failure.root.kind == "Declined"
    assert run.unexpected is None


def test_any_other_exception_is_unexpected_and_keeps_its_traceback():
    @workflow.define
    async def wf():
        await call("a")
        return {}["missing"]

    run = Run(wf)
    run.complete("a")
    assert isinstance(run.unexpected, KeyError)
    assert run.failure.type == "KeyError"
    assert "test_ending.py" in run.failure.trace


@pytest.mark.parametrize("cls", [errors.UsageError, errors.DefinitionError])
def test_a_wrong_use_of_perdure_is_unexpected(cls):
    @workflow.define
    async def wf():
        raise cls("wrong")

    assert isinstance(Run(wf).unexpected, cls)


def test_an_exception_in_a_spawned_task_fails_the_run_at_once():
    @workflow.define
    async def wf():
        async def beside():
            await call("a")
            raise ApplicationError("beside")

        workflow.spawn(beside())
        await workflow.sleep("1h")

    run = Run(wf)
    run.complete("a")
    assert run.failure.message == "beside"


def test_an_exception_in_a_callback_fails_the_run():
    @workflow.define
    async def wf():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await workflow.sleep("1h")

    assert isinstance(Run(wf).unexpected, ZeroDivisionError)


def test_a_cancelled_error_in_a_callback_fails_the_run_and_leaves_no_activation():
    @workflow.define
    async def wf():
        task = asyncio.create_task(call("a"))
        task.add_done_callback(lambda done: done.result())
        await workflow.sleep(0)
        task.cancel()
        await workflow.sleep("1h")

    assert Run(wf).failure.kind == "Canceled"


def test_an_exception_nobody_awaits_is_nobodys():
    @workflow.define
    async def wf():
        async def beside():
            raise ValueError("lost")

        asyncio.create_task(beside())
        await call("a")
        return "done"

    run = Run(wf)
    run.complete("a")
    assert run.result == "done"


def test_a_group_of_failures_that_are_data_is_expected():
    @workflow.define
    async def wf():
        async with asyncio.TaskGroup() as group:
            group.create_task(call("a"))
            group.create_task(call("b"))

    run = Run(wf)
    run.turn(run.failed("a", "first", kind="One"), run.failed("b", "second", kind="Two"))
    assert run.unexpected is None
    assert run.failure.kind == "One"


def test_a_group_with_a_bug_in_it_is_unexpected():
    @workflow.define
    async def wf():
        raise ExceptionGroup("two", [ApplicationError("a"), KeyError("b")])

    assert isinstance(Run(wf).unexpected, ExceptionGroup)


def test_continue_as_new_ends_the_run_with_the_next_input():
    @workflow.define
    async def wf(number: int):
        await workflow.continue_as_new(number + 1)

    run = Run(wf, 4)
    assert isinstance(run.closed, ev.RunContinued)
    assert (run.closed.workflow, run.closed.input) == ("wf", b"5")
    assert run.closed.run_id != run.started.run_id


def test_continue_as_new_may_go_on_as_another_workflow():
    @workflow.define
    async def other():
        """Never run."""

    @workflow.define
    async def wf(by: str):
        await workflow.continue_as_new(workflow=other if by == "object" else "other")

    assert Run(wf, "object").closed.workflow == Run(wf, "name").closed.workflow == "other"


@pytest.mark.parametrize("where", ["task group", "gather", "spawned", "task"])
def test_continue_as_new_can_be_called_in_a_task(where):
    @workflow.define
    async def wf():
        if where == "task group":
            async with asyncio.TaskGroup() as group:
                group.create_task(workflow.continue_as_new(1))
        elif where == "gather":
            await asyncio.gather(workflow.continue_as_new(1))
        elif where == "spawned":
            workflow.spawn(workflow.continue_as_new(1))
            await workflow.sleep("1h")
        else:
            await asyncio.create_task(workflow.continue_as_new(1))

    assert isinstance(Run(wf).closed, ev.RunContinued)


def test_user_code_cannot_catch_continue_as_new_as_an_exception():
    @workflow.define
    async def wf():
        try:
            await workflow.continue_as_new(1)
        except Exception:
            return "caught"

    assert isinstance(Run(wf).closed, ev.RunContinued)


def test_other_tasks_may_still_ask_in_the_turn_the_main_one_returns():
    @workflow.define
    async def wf():
        async def beside():
            await call("last")

        asyncio.create_task(beside())
        return 1

    run = Run(wf)
    assert run.asked == ["activity_scheduled 'last'", "run_completed"]


@pytest.mark.parametrize(
    "exc", [KeyboardInterrupt, SystemExit, MemoryError, RecursionError, errors.TurnTimeout]
)
@pytest.mark.parametrize("where", ["main", "later", "task", "group", "spawned", "callback"])
def test_what_no_turn_survives_leaves_the_activation(exc, where):
    def boom():
        raise exc

    async def beside():
        boom()

    @workflow.define
    async def wf():
        if where == "later":
            await call("a")
        if where in ("main", "later"):
            boom()
        if where == "task":
            await asyncio.create_task(beside())
        if where == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(beside())
        if where == "spawned":
            workflow.spawn(beside())
        if where == "callback":
            asyncio.get_running_loop().call_soon(boom)
        await workflow.sleep("1h")

    run = Run(wf, start=False)
    with pytest.raises(exc):
        run.turn(run.started)
        run.complete("a")
    assert run.closed is None
    assert asyncio._get_running_loop() is None


def test_recursion_without_end_stops_the_turn():
    @workflow.define
    async def wf():
        def deeper():
            return deeper()

        return deeper()

    with pytest.raises(RecursionError):
        Run(wf)


def test_a_closed_instance_takes_no_turns():
    @workflow.define
    async def wf():
        return 1

    run = Run(wf)
    with pytest.raises(AssertionError, match="takes no turns"):
        run.turn(ev.RunTaken())


def test_time_never_goes_back():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf)
    with pytest.raises(AssertionError, match="never goes back"):
        run.turn(ev.RunTaken(), after=-1)


def test_facts_about_what_nobody_waits_for_change_nothing():
    @workflow.define
    async def wf():
        await call("a")

    run = Run(wf)
    facts = [
        ev.ActivityCompleted(activity=99),
        ev.TimerFired(timer=99),
        ev.SendResolved(send=99),
        ev.ChildClosed(child=99, status="completed"),
        ev.AttemptFailed(activity=2, attempt=1, failure=run_failure(), retry_at=NOON),
        ev.AttemptLost(activity=2, attempt=1),
        ev.RunTaken(),
        ev.RunParked(reason="x"),
        ev.RunUnparked(),
        ev.RunPaused(),
        ev.RunResumed(),
    ]
    assert run.turn(*facts) == []
    assert run.instance.length == 2 + len(facts)


def run_failure():
    from perdure.values.failures import from_exception

    return from_exception(ValueError("x"))


def test_the_first_outcome_of_an_activity_is_final():
    @workflow.define
    async def wf():
        return await call("a")

    run = Run(wf)
    run.turn(run.completed("a", 1), run.failed("a"))
    assert run.result == 1


def test_a_result_that_does_not_fit_its_annotation_is_a_failure_of_the_activity():
    from perdure import activity

    @activity.define
    async def count() -> int:
        return 1

    @workflow.define
    async def wf():
        try:
            await count()
        except errors.ActivityFailed as exc:
            return [exc.kind, str(exc)]

    run = Run(wf)
    run.complete("count", "many")
    assert run.result == [
        "Invalid",
        "count: the result does not fit: count -> result: Expected `int`, got `str`",
    ]


def test_blind_rows_join_the_next_applied_turn():
    @workflow.define
    async def wf():
        return [await call("a"), workflow.now().timestamp()]

    run = Run(wf)
    run.blind(run.completed("a", 5))
    assert Instance(wf).replay(run.stored()) == [run.completed("a", 5)]
    run.turn(ev.RunUnparked(), after=60)
    assert run.result == [5, NOON / 1_000_000 + 60]
