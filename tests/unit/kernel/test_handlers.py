"""Queries and validators read; updates run inside the workflow and are answered once."""

import asyncio
import gc
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.drive import Run

from perdure import ApplicationError, errors, workflow
from perdure.values import events as ev
from perdure.values import payload
from perdure.workflow import call


@dataclass
class Change:
    amount: int


@workflow.define
async def account() -> int:
    balance = 0

    @workflow.query("balance")
    def read() -> int:
        return balance

    def positive(change: Change) -> None:
        if change.amount <= 0:
            raise ApplicationError("must be positive", kind="Refused")

    @workflow.update("deposit", validator=positive)
    async def deposit(change: Change) -> int:
        nonlocal balance
        await call("check", change.amount)
        balance += change.amount
        return balance

    @workflow.update("close")
    def close() -> str:
        nonlocal balance
        balance = -1
        return "closed"

    await workflow.wait_condition(lambda: balance < 0)
    return balance


def validate(run: Run, name: str, *args) -> None:
    data = payload.encode(args)
    run.instance.validate_update(name, lambda handler: handler.validate(data))


# -- queries -------------------------------------------------------------------------------------


def test_a_query_reads_live_state():
    run = Run(account)
    assert run.query("balance") == 0
    run.update("deposit", {"amount": 5})
    run.complete("check")
    assert run.query("balance") == 5


def test_an_unknown_query_names_those_there_are():
    with pytest.raises(errors.NotFound, match=r"query 'x' is not defined .*it has: balance\)"):
        Run(account).query("x")


def test_a_query_gets_decoded_arguments():
    @workflow.define
    async def wf():
        @workflow.query("add")
        def add(change: Change, more: int = 1) -> int:
            return change.amount + more

        await call("a")

    run = Run(wf)
    assert run.query("add", {"amount": 2}) == 3
    with pytest.raises(errors.Invalid, match=r"query add\(more\): Expected `int`"):
        run.query("add", {"amount": 2}, "x")


def test_a_query_of_an_ended_run_is_answered():
    run = Run(account)
    run.update("close")
    assert run.closed is not None
    assert run.query("balance") == -1


def test_a_query_is_a_plain_function():
    @workflow.define
    async def wf():
        @workflow.query("q")
        async def q():
            """Never called."""

    run = Run(wf)
    assert isinstance(run.unexpected, errors.DefinitionError)
    assert "a query is a plain function" in run.failure.message


async def nothing():
    """Stand in for a coroutine."""


WRITING = {
    "random": lambda: workflow.random(),
    "random_bytes": lambda: workflow.random_bytes(3),
    "uuid4": lambda: workflow.uuid4(),
    "version": lambda: workflow.version("new", 1, 2),
    "patched": lambda: workflow.patched("new"),
    "spawn": lambda: closing(workflow.spawn, nothing()),
    "create_task": lambda: asyncio.get_running_loop().create_task(nothing()),
    "ensure_future": lambda: asyncio.ensure_future(nothing()),
    "activity": lambda: call("a").send(None),
    "sleep": lambda: workflow.sleep(5).send(None),
    "call_later": lambda: asyncio.get_running_loop().call_later(5, print),
    "send": lambda: workflow.send("order-1", "topic").send(None),
    "start": lambda: workflow.start("child").send(None),
    "execute": lambda: workflow.execute("child").send(None),
    "continue_as_new": lambda: workflow.continue_as_new().send(None),
    "attrs": lambda: workflow.attrs(memo={"a": 1}).send(None),
    "progress": lambda: workflow.progress(1).send(None),
    "emit": lambda: workflow.emit("e").send(None),
    "cancel": lambda: workflow.handle("order-1").cancel().send(None),
}


def closing(function, coro):
    try:
        function(coro)
    finally:
        coro.close()


@pytest.mark.parametrize("role", ["query", "validator"])
@pytest.mark.parametrize("name", WRITING)
def test_a_query_or_validator_may_not(name, role):
    @workflow.define
    async def wf():
        @workflow.query("q")
        def q():
            WRITING[name]()

        @workflow.update("u", validator=lambda: WRITING[name]())
        def u():
            """Never called."""

        await call("a")

    run = Run(wf)
    with pytest.raises(errors.UsageError, match=r"query handler or validator|may only read"):
        if role == "query":
            run.query("q")
        else:
            validate(run, "u")
    gc.collect()
    assert not run.instance.is_spoilt
    assert run.complete("a") == [ev.RunCompleted()]


def test_a_query_may_read_time_info_version_and_context():
    @workflow.define
    async def wf():
        workflow.patched("new")

        @workflow.query("q")
        def q():
            return [
                workflow.now().year,
                workflow.info().workflow_id,
                workflow.patched("new"),
                dict(workflow.context),
                workflow.history_length(),
            ]

        await call("a")

    run = Run(wf, context=b'{"tenant":"t"}')
    assert run.query("q") == [2025, "order-7", True, {"tenant": "t"}, 3]


def test_a_query_that_wakes_something_says_so_and_marks_the_instance():
    @workflow.define
    async def wf():
        event = asyncio.Event()

        @workflow.query("q")
        def q():
            event.set()

        await event.wait()

    run = Run(wf)
    with pytest.raises(errors.UsageError, match="woke something"):
        run.query("q")
    assert run.instance.is_spoilt
    run.is_checked = False


def test_a_version_out_of_range_in_a_query_does_not_harm_the_run():
    @workflow.define
    async def wf():
        workflow.version("new", 1, 2)

        @workflow.query("q")
        def q():
            workflow.version("new", 3, 4)

        await call("a")

    run = Run(wf)
    with pytest.raises(errors.NondeterminismError, match="supports 3 to 4"):
        run.query("q")
    assert run.complete("a") == [ev.RunCompleted()]


def test_a_query_may_log(caplog):
    @workflow.define
    async def wf():
        @workflow.query("q")
        def q():
            workflow.logger.warning("asked for %s", "it")

        await call("a")

    run = Run(wf)
    run.query("q")
    assert "asked for it" in caplog.text
    assert run.instance.effects == []


# -- updates -------------------------------------------------------------------------------------


def test_an_update_runs_in_the_workflow_and_is_answered():
    run = Run(account)
    run.update("deposit", {"amount": 5})
    assert run.commands == [ev.ActivityScheduled(name="check", args=b"[5]")]
    assert run.instance.waits().updates == 1
    assert run.complete("check") == [ev.UpdateCompleted(update="u1", result=b"5")]
    assert run.instance.answered["u1"].result == b"5"


def test_an_update_that_ends_at_once_is_answered_in_its_turn():
    run = Run(account)
    assert run.update("close") == [
        ev.UpdateCompleted(update="u1", result=b'"closed"'),
        ev.RunCompleted(result=b"-1"),
    ]


def test_an_update_of_the_first_turn_finds_the_handlers_that_turn_defines():
    run = Run(account, start=False)
    run.turn(run.started, ev.UpdateAccepted(update="u1", name="close"))
    assert run.asked == ["update_completed", "run_completed"]


def test_a_validator_refuses_by_raising():
    with pytest.raises(ApplicationError, match="must be positive"):
        validate(Run(account), "deposit", {"amount": 0})


def test_arguments_are_checked_before_the_validator_runs():
    with pytest.raises(errors.Invalid, match=r"update deposit\(change\): Expected `int`"):
        validate(Run(account), "deposit", {"amount": "x"})


def test_an_unknown_update_names_those_there_are():
    with pytest.raises(
        errors.NotFound, match=r"update 'x' is not defined .*it has: close, deposit"
    ):
        validate(Run(account), "x")


def test_an_accepted_update_without_handler_is_answered_with_not_found():
    (answer,) = Run(account).update("x")
    assert answer.failure.kind == "NotFound"


def test_a_failing_update_is_answered_with_its_failure_and_fails_no_run():
    @workflow.define
    async def wf():
        @workflow.update("u")
        def u():
            raise ApplicationError("not now", kind="Busy")

        await call("a")

    run = Run(wf)
    (answer,) = run.update("u")
    assert (answer.failure.kind, answer.failure.message) == ("Busy", "not now")
    assert run.closed is None


def test_an_update_that_is_pending_when_the_run_ends_is_answered_with_closed():
    @workflow.define
    async def wf():
        @workflow.update("u")
        async def u():
            await call("never")

        await call("a")

    run = Run(wf)
    run.update("u")
    answer, closing = run.complete("a")
    assert (answer.failure.type, answer.failure.message) == ("Closed", "the workflow ended first")
    assert closing == ev.RunCompleted()


def test_a_cancel_reaches_an_update_under_way():
    @workflow.define
    async def wf():
        @workflow.update("u")
        async def u():
            await call("slow")

        try:
            await workflow.sleep("1h")
        except asyncio.CancelledError:
            await workflow.sleep("1h")

    run = Run(wf)
    run.update("u")
    run.cancel("enough")
    answer: Any = next(c for c in run.commands if isinstance(c, ev.UpdateCompleted))
    assert (answer.failure.kind, answer.failure.message) == ("Canceled", "enough")


def test_updates_run_beside_each_other():
    run = Run(account)
    run.update("deposit", {"amount": 1}, id="u1")
    run.update("deposit", {"amount": 2}, id="u2")
    (answer,) = run.turn(run.completed("check", nth=1))
    assert (answer.update, answer.result) == ("u2", b"2")
    (answer,) = run.complete("check")
    assert (answer.update, answer.result) == ("u1", b"3")


def test_an_update_may_let_the_run_continue_as_new():
    @workflow.define
    async def wf():
        @workflow.update("again")
        async def again():
            await workflow.continue_as_new("anew")

        await workflow.sleep("1h")

    run = Run(wf)
    run.update("again")
    assert run.asked == ["update_completed", "run_continued"]
    assert run.closed.input == b'"anew"'


def test_an_answer_without_json_form_fails_the_update():
    @workflow.define
    async def wf():
        @workflow.update("u")
        def u():
            return object()

        await call("a")

    (answer,) = Run(wf).update("u")
    assert answer.failure.kind == "Invalid"


def test_an_update_that_runs_out_of_stack_stops_the_turn():
    @workflow.define
    async def wf():
        @workflow.update("u")
        def u():
            return u()

        await call("a")

    run = Run(wf)
    with pytest.raises(RecursionError):
        run.update("u")
    assert len(run.rows) == 1
    run.is_checked = False
