"""Code that no longer fits a history says what, where and why; harmless edits strand nothing."""

import pytest
from tests.unit.drive import Run

from perdure import ApplicationError, activity, errors, workflow
from perdure.values import events as ev
from perdure.workflow import call


def program(body):
    """Make workflows of one name, as one name has several versions of its code."""
    return workflow.define(name="changing")(body)


@program
async def original():
    await call("a")
    await workflow.sleep("1h")
    await call("b")
    return "end"


def history() -> Run:
    run = Run(original)
    run.complete("a")
    run.fire()
    run.complete("b")
    return run


def divergence(code, run: Run | None = None) -> errors.NondeterminismError:
    with pytest.raises(errors.NondeterminismError) as caught:
        (run or history()).replayed(code)
    return caught.value


def line_of(code, text: str) -> str:
    """Return ``file:line`` of the line of ``code`` that holds ``text``."""
    lines = code.source.splitlines()
    first = code.fn.__code__.co_firstlineno
    return f"{__file__}:{first + next(n for n, line in enumerate(lines) if text in line)}"


def test_the_same_code_fits():
    assert history().replayed(original).closed == ev.RunCompleted(result=b'"end"')


def test_a_step_that_was_added():
    @program
    async def code():
        await call("a")
        await call("new")
        await workflow.sleep("1h")
        await call("b")

    error = divergence(code)
    assert error.details["event"] == 4
    assert error.details["expected"] == "timer_started"
    assert error.details["actual"] == "activity_scheduled 'new'"
    assert error.details["where"].startswith(line_of(code, '"new"'))
    assert str(error).startswith(
        "event 4: history has timer_started, the code asked for activity_scheduled 'new' at "
    )
    assert "workflow.patched()" in str(error)


def test_a_step_that_was_added_beside_the_last_one_of_a_turn():
    @program
    async def code():
        await call("a")
        workflow.spawn(call("new"))
        await workflow.sleep("1h")

    error = divergence(code)
    assert error.details["expected"] == "nothing more in this turn"
    assert error.details["actual"] == "activity_scheduled 'new'"
    assert "Usually a step was added" in str(error)


def test_a_step_that_was_removed():
    @program
    async def code():
        await workflow.sleep("1h")
        await call("b")

    error = divergence(code)
    assert (error.details["event"], error.details["expected"]) == (2, "activity_scheduled 'a'")
    assert error.details["actual"] == "timer_started"
    assert error.details["where"].startswith(line_of(code, "sleep"))


def test_a_step_that_was_removed_where_the_code_now_waits_for_something_else():
    @program
    async def code():
        await call("a")
        await workflow.listen("go").receive()

    error = divergence(code)
    assert (error.details["expected"], error.details["actual"]) == ("timer_started", "nothing")
    assert error.details["where"].startswith(line_of(code, "listen"))
    assert "Usually a step was removed, or a branch depends on something" in str(error)


def test_a_last_step_that_was_removed():
    @program
    async def code():
        await call("a")
        await workflow.sleep("1h")
        return "early"

    error = divergence(code)
    assert (error.details["event"], error.details["expected"]) == (6, "activity_scheduled 'b'")
    assert error.details["actual"] == "run_completed"
    assert error.details["where"].startswith(f"{__file__}:{code.fn.__code__.co_firstlineno} in ")


def test_steps_that_were_reordered():
    @program
    async def code():
        await call("b")
        await workflow.sleep("1h")
        await call("a")

    error = divergence(code)
    assert error.details["expected"] == "activity_scheduled 'a'"
    assert error.details["actual"] == "activity_scheduled 'b'"
    assert error.details["where"].startswith(line_of(code, '"b"'))
    assert "reordered, renamed or replaced" in str(error)


def test_a_step_that_was_renamed():
    @program
    async def code():
        await call("a2")

    error = divergence(code)
    assert "history has activity_scheduled 'a', the code asked for activity_scheduled 'a2'" in str(
        error
    )


def test_a_run_that_goes_on_after_its_recorded_end():
    @program
    async def code():
        await call("a")
        await workflow.sleep("1h")
        await call("b")
        await call("c")

    error = divergence(code)
    assert (error.details["expected"], error.details["actual"]) == (
        "run_completed",
        "activity_scheduled 'c'",
    )


@pytest.mark.parametrize("exc", [KeyError("gone"), ApplicationError("gone")])
def test_an_exception_in_a_replay_names_where_it_was_raised(exc):
    @program
    async def code():
        await call("a")
        raise exc

    error = divergence(code)
    assert error.details["expected"] == "timer_started"
    assert error.details["actual"].startswith("run_failed: ")
    assert error.details["where"].startswith(line_of(code, "raise exc"))


def test_the_place_is_that_of_the_innermost_user_code():
    async def helper():
        await call("other")

    @program
    async def code():
        await helper()

    where = divergence(code).details["where"]
    assert where.endswith("test_the_place_is_that_of_the_innermost_user_code.<locals>.helper")


def test_code_that_catches_the_error_does_not_hide_it():
    @program
    async def code():
        try:
            await call("other")
        except Exception:
            await call("a")

    assert divergence(code).details["actual"] == "activity_scheduled 'other'"


def test_a_spawned_task_that_catches_it_does_not_hide_it_either():
    @program
    async def code():
        async def beside():
            try:
                await call("other")
            except Exception:
                return

        workflow.spawn(beside())
        await workflow.sleep(0)
        await call("a")

    assert divergence(code).details["actual"] == "activity_scheduled 'other'"


def test_a_cancelled_activity_that_is_another_one_diverges():
    import asyncio

    def code(first: str):
        @program
        async def wf():
            one = {name: asyncio.create_task(call(name)) for name in "ab"}
            await workflow.sleep(0)
            one[first].cancel()
            await workflow.sleep("1h")

        return wf

    error = divergence(code("b"), Run(code("a")))
    assert error.details["expected"] == "activity_cancelled #2"
    assert error.details["actual"] == "activity_cancelled #3"


def test_a_message_to_somebody_else_diverges():
    def code(target: str):
        @program
        async def wf():
            await workflow.send(target, "go")

        return wf

    error = divergence(code("other"), Run(code("order-1")))
    assert "message_sent 'go' to 'order-1'" in str(error)
    assert "message_sent 'go' to 'other'" in str(error)


def test_another_child_diverges():
    def code(name: str):
        @program
        async def wf():
            await workflow.execute("child", id=name)

        return wf

    error = divergence(code("c2"), Run(code("c1")))
    assert "child_scheduled 'child' 'c1'" in str(error)


# -- harmless edits ------------------------------------------------------------------------------


@activity.define(timeout="5s")
async def a(*_args: int) -> None:
    """The activity of the history, with options of its own."""


@program
async def changed_arguments():
    await call("a", 1, 2)
    await workflow.sleep("1h")
    await call("b", {"more": True})
    return "end"


@program
async def changed_durations():
    await call("a")
    await workflow.sleep("5s")
    await call("b")
    return "end"


@program
async def changed_options():
    await a.options(timeout="9s", task_queue="fast")(1)
    await workflow.sleep("1h")
    await call("b")
    return "end"


@program
async def comments_logs_and_locals():
    """A docstring and a comment are new."""
    steps = 0  # counted
    await call("a")
    workflow.logger.info("half way")
    await workflow.emit("half")
    steps += 1
    await workflow.sleep("1h")
    await call("b")
    return f"end after {steps}"


@program
async def refactored():
    async def first_half():
        await call("a")
        await workflow.sleep("1h")

    await first_half()
    return await second_half()


async def second_half():
    await call("b")
    return "end"


@program
async def another_draw():
    workflow.random()
    await call("a")
    await workflow.sleep("1h")
    await call("b")


@program
async def another_query():
    workflow.query("q")(lambda: 1)
    workflow.update("u")(lambda: 1)
    await call("a")
    await workflow.sleep("1h")
    await call("b")


HARMLESS = [
    changed_arguments,
    changed_durations,
    changed_options,
    comments_logs_and_locals,
    refactored,
    another_draw,
    another_query,
]


@pytest.mark.parametrize("code", HARMLESS, ids=lambda code: code.fn.__name__)
def test_a_harmless_edit_strands_nobody(code):
    run = history()
    for turns in range(len(run.rows) + 1):
        part = Run(original, start=False)
        part.is_checked = False
        part.rows = run.rows[:turns]
        part.replayed(code)


def test_after_a_harmless_edit_the_live_run_goes_on():
    run = Run(original)
    run.complete("a")
    run.instance = run.replayed(changed_durations)
    assert run.instance.next_due() == run.time + 5_000_000
    run.fire()
    run.complete("b")
    assert run.result == "end"
    run.is_checked = False


def test_an_input_that_no_longer_fits_is_told_without_a_place_that_there_is_not():
    @workflow.define
    async def taking_text(value: str) -> str:
        return await call("a")

    @workflow.define
    async def taking_numbers(value: int) -> str:
        return await call("a")

    error = divergence(taking_numbers, Run(taking_text, "text"))
    assert "Expected `int`, got `str`. Usually" in str(error)
    assert " at ." not in str(error)
