"""Sagas: what was done is undone, newest first, each once."""

import logging

from tests.unit.drive import Run

from perdure import ApplicationError, activity, errors, workflow
from perdure.values import events as ev
from perdure.values.lines import Line
from perdure.workflow import call


@activity.define
async def cancel(name: str, fee: int = 0) -> None:
    """Undo a booking."""


@workflow.define
async def booking() -> str:
    async with workflow.saga() as saga:
        for name in ("hotel", "car"):
            await call(name)
            saga.add(cancel, name)
        await call("pay")
    return "booked"


CANCEL_HOTEL = ev.ActivityScheduled(name="cancel", args=b'["hotel"]')
CANCEL_CAR = ev.ActivityScheduled(name="cancel", args=b'["car"]')


def booked(program=booking) -> Run:
    run = Run(program)
    run.complete("hotel")
    run.complete("car")
    return run


def test_on_success_nothing_is_undone():
    run = booked()
    assert run.complete("pay") == [ev.RunCompleted(result=b'"booked"')]


def test_on_failure_what_was_done_is_undone_newest_first():
    run = booked()
    assert run.fail("pay", "declined", kind="Declined") == [CANCEL_CAR]
    assert run.complete("cancel") == [CANCEL_HOTEL]
    run.complete("cancel")
    assert run.failure.root.kind == "Declined"


def test_only_what_was_done_is_undone():
    run = Run(booking)
    run.complete("hotel")
    assert run.fail("car") == [CANCEL_HOTEL]


def test_a_compensation_that_fails_does_not_stop_the_others_and_is_told():
    run = booked()
    run.fail("pay", "declined")
    assert run.fail("cancel", "no answer") == [CANCEL_HOTEL]
    run.complete("cancel")
    assert run.failure.root.message == "declined"
    told = "1 compensation(s) failed: activity 'cancel' failed: no answer"
    assert told in run.failure.trace
    assert isinstance(run.closed, ev.RunFailed)
    assert run.closed.text.endswith(f"declined; {told}")
    assert run.instance.effects == [("log", Line(logging.ERROR, told))]


def test_a_cancelled_run_says_which_compensations_failed():
    run = booked()
    assert run.cancel("enough")[-1] == CANCEL_CAR
    assert run.fail("cancel", "no answer") == [CANCEL_HOTEL]
    [ended] = run.complete("cancel")
    told = "1 compensation(s) failed: activity 'cancel' failed: no answer"
    assert isinstance(ended, ev.RunCancelled)
    assert (ended.reason, ended.failure.text) == ("enough", told)
    assert ended.text == f"enough; {told}"
    assert run.instance.effects == [("log", Line(logging.ERROR, told))]


def test_a_compensation_that_is_no_activity_is_named_when_it_fails():
    async def put_back() -> None:
        raise KeyError("shelf")

    @workflow.define
    async def wf():
        async with workflow.saga() as saga:
            saga.add(put_back)
            raise ApplicationError("declined")

    assert "1 compensation(s) failed: put_back: KeyError: 'shelf'" in Run(wf).failure.trace


def test_compensations_can_be_asked_for_and_run_once():
    @workflow.define
    async def wf():
        async with workflow.saga() as saga:
            saga.add(cancel, "hotel", fee=5)
            await saga.compensate()
            await saga.compensate()
            raise ApplicationError("after all")

    run = Run(wf)
    assert run.commands == [ev.ActivityScheduled(name="cancel", args=b'["hotel",5]')]
    run.complete("cancel")
    assert run.failure.message == "after all"


def test_compensating_raises_one_error_that_names_all():
    @workflow.define
    async def wf():
        saga = workflow.saga()
        saga.add(cancel, "hotel")
        saga.add(cancel, "car")
        try:
            await saga.compensate()
        except ApplicationError as exc:
            return [str(exc), exc.kind, exc.retryable, exc.details, type(exc.cause).__name__]

    run = Run(wf)
    run.fail("cancel", "first")
    run.fail("cancel", "second")
    failed = "activity 'cancel' failed:"
    assert run.result == [
        f"2 compensation(s) failed: {failed} first; {failed} second",
        "CompensationFailed",
        False,
        ["activity 'cancel' failed: first", "activity 'cancel' failed: second"],
        "ActivityFailed",
    ]


def test_continuing_as_new_undoes_nothing():
    @workflow.define
    async def wf():
        async with workflow.saga() as saga:
            saga.add(cancel, "hotel")
            await workflow.continue_as_new()

    assert Run(wf).asked == ["run_continued"]


def test_an_error_of_perdure_is_let_through_with_its_compensations_done():
    @workflow.define
    async def wf():
        try:
            async with workflow.saga() as saga:
                saga.add(cancel, "hotel")
                raise ApplicationError("inside")
        except errors.ApplicationError as exc:
            return str(exc)

    run = Run(wf)
    run.complete("cancel")
    assert run.result == "inside"
