"""What goes along when a run continues as new: notices nobody read, and children."""

from tests.unit.drive import NOON, Run

from perdure import errors, workflow
from perdure.values import events as ev
from perdure.values import failures

BEFORE = ev.OpenChild("ship-1", "the-run-before", 4)


@workflow.define
async def reading():
    event = await workflow.events().receive()
    return [event.kind, event.sender, event.result, event.error and event.error.kind]


def ended(**fields) -> ev.ChildClosed:
    return ev.ChildClosed(child=4, asked_by="the-run-before", at=NOON, **fields)


def test_notices_nobody_received_go_along():
    @workflow.define
    async def wf():
        workflow.trap_cancel(True)
        await workflow.start("ship", id="ship-1")
        await workflow.events().receive()
        await workflow.sleep("1s")
        await workflow.continue_as_new()

    run = Run(wf)
    info = failures.from_exception(errors.ApplicationError("it broke", kind="Broken"))
    run.turn(
        run.child_closed(result="read"),
        ev.ExecutionEnded(
            watch=0,
            way="monitor",
            workflow_id="w",
            run_id="r",
            status="failed",
            failure=info,
            at=NOON,
        ),
        ev.CancelRequested(reason="enough", by="me"),
    )
    run.fire()
    assert run.closed.notices == (
        ev.UnreadNotice("exit", "w", NOON, failure=info),
        ev.UnreadNotice("cancel_requested", "me", NOON, reason="enough"),
    )


def test_notices_of_the_run_before_are_the_first_ones():
    run = Run(
        reading,
        notices=(ev.UnreadNotice("exit", "ship-0", NOON, result=b"7"),),
        children=(BEFORE,),
    )
    assert run.result == ["exit", "ship-0", 7, None]


def test_started_children_whose_end_was_not_told_yet_go_along():
    @workflow.define
    async def wf():
        await workflow.start("ship", id="told")
        await workflow.start("ship", id="open")
        await workflow.unmonitor(await workflow.start("ship", id="quiet"))
        workflow.spawn(workflow.execute("ship", id="executed"))
        await workflow.sleep("1s")
        await workflow.continue_as_new()

    run = Run(wf, children=(BEFORE,))
    run.turn(run.child_closed(result=1))
    run.fire()
    assert run.closed.children == (BEFORE, ev.OpenChild("open", run.started.run_id, 3))


def test_the_end_of_a_child_of_the_run_before_is_a_notice():
    run = Run(reading, children=(BEFORE,))
    assert run.instance.waits().children == ["ship-1"]
    run.turn(ended(status="completed", result=b'"sent"'))
    assert run.result == ["exit", "ship-1", "sent", None]


def test_the_end_of_a_child_that_did_not_go_along_is_none():
    run = Run(reading)
    assert run.turn(ended(status="completed", result=b'"sent"')) == []
    assert run.closed is None


def test_a_fork_is_not_told_of_children_of_the_run_before():
    run = Run(reading, children=(BEFORE,))
    run.turn(ev.Forked(seed=b"s" * 16, origin="o", workflow_id="f", run_id="fork"))
    run.turn(ended(status="completed", result=b'"sent"'))
    assert run.closed is None


def test_a_child_of_the_run_before_can_be_unmonitored():
    @workflow.define
    async def wf():
        await workflow.unmonitor("ship-1")
        await workflow.events().receive()

    run = Run(wf, children=(BEFORE,))
    run.turn(ended(status="completed", result=b'"sent"'))
    assert run.closed is None
