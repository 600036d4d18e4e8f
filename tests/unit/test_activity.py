"""Activities: defined once, durable inside a workflow, plain calls outside."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.drive import Run

from perdure import Retry, activity, errors, workflow
from perdure.activity import Attempt, Info
from perdure.values import events as ev
from perdure.values.retry import RetryPolicy


@activity.define
async def double(number: int, times: int = 1) -> int:
    """Double it."""
    return number * 2**times


untyped: Any = double
untyped_name: Any = 5


@activity.define
def where(name: str) -> list[str]:
    return [name, threading.current_thread().name]


def test_outside_a_workflow_a_call_is_a_plain_call():
    assert asyncio.run(double(4)) == 8
    assert asyncio.run(double.fn(4, times=2)) == 16


def test_a_plain_function_runs_in_a_thread_also_outside():
    name, thread = asyncio.run(where("a"))
    assert name == "a"
    assert thread != threading.current_thread().name


def test_inside_a_workflow_a_call_is_a_command():
    @workflow.define
    async def wf():
        return await double(4, times=2)

    run = Run(wf)
    assert run.commands == [ev.ActivityScheduled(name="double", args=b"[4,2]")]
    run.complete("double", 5)
    assert run.result == 5


def test_the_command_is_made_when_the_call_is_awaited():
    @workflow.define
    async def wf():
        later = double(4)
        await where("first")
        await later

    run = Run(wf)
    assert run.asked == ["activity_scheduled 'where'"]
    run.complete("where", [])
    assert run.asked == ["activity_scheduled 'double'"]


def test_options_of_the_definition_go_into_the_command():
    @activity.define(
        name="bank.charge",
        retry=Retry(max_attempts=3, interval="2s"),
        timeout="30s",
        queue_timeout="1m",
        schedule_timeout="1h",
        heartbeat_timeout="5s",
        task_queue="payments",
    )
    async def charge():
        """Never run."""

    @workflow.define
    async def wf():
        await charge()

    assert Run(wf).commands == [
        ev.ActivityScheduled(
            name="bank.charge",
            retry=RetryPolicy(max_attempts=3, interval=2_000_000),
            timeout=30_000_000,
            queue_timeout=60_000_000,
            schedule_timeout=3_600_000_000,
            heartbeat_timeout=5_000_000,
            queue="payments",
        )
    ]


def test_options_of_a_call_replace_those_of_the_definition():
    base = activity.define(timeout="30s", retry=Retry(max_attempts=3, backoff=4))(lone)

    @workflow.define
    async def wf():
        one = base.options(timeout="5s", retry=Retry(max_attempts=9), task_queue="slow")
        await asyncio.gather(one(), base())

    first, second = Run(wf).commands
    assert (first.timeout, first.queue) == (5_000_000, "slow")
    assert first.retry == RetryPolicy(max_attempts=9, backoff=4.0)
    assert (second.timeout, second.queue) == (30_000_000, "")
    assert second.retry == RetryPolicy(max_attempts=3, backoff=4.0)


async def lone() -> None:
    """An activity's function."""


def test_a_call_by_name_takes_plain_arguments():
    @workflow.define
    async def wf():
        return await workflow.call("bank.charge", 1, {"a": None})

    run = Run(wf)
    assert run.commands == [ev.ActivityScheduled(name="bank.charge", args=b'[1,{"a":null}]')]
    run.complete("bank.charge", {"x": [1]})
    assert run.result == {"x": [1]}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: untyped(), "double: missing a required argument: 'number'"),
        (lambda: untyped(1, 2, 3), "double: too many positional arguments"),
        (lambda: untyped(object()), "double: arguments cannot be encoded"),
        (
            lambda: untyped("x" * 3_000_000),
            "arguments of double: 3,000,004 bytes are over the limit",
        ),
        (lambda: workflow.call(untyped_name), "activity: 5 is not text"),
        (lambda: workflow.call("a", object()), "arguments of a: cannot be encoded"),
    ],
)
def test_a_bad_call_is_refused_before_it_is_a_command(make: Callable[[], Any], why: str):
    @workflow.define
    async def wf():
        with pytest.raises(errors.Invalid, match=why):
            await make()

    assert Run(wf).asked == ["run_completed"]


def test_a_definition_looks_like_its_function():
    assert double.name == double.__name__ == "double"
    assert double.__doc__ == "Double it."
    assert double.__wrapped__ is double.fn
    assert repr(double) == "<activity 'double'>"
    assert [double.is_async, double.isolation] == [True, "inline"]
    assert [where.is_async, where.isolation] == [False, "thread"]


@pytest.mark.parametrize(
    ("fn", "options", "why"),
    [
        (lone, {"isolation": "cloud"}, "isolation 'cloud'; use 'inline'"),
        (lone, {"transactional": True}, "a transactional activity is a plain function"),
        (where.fn, {"isolation": "inline"}, "a plain function cannot run inline"),
    ],
)
def test_options_that_cannot_work_together_are_refused(fn, options, why):
    with pytest.raises(errors.DefinitionError, match=why):
        activity.define(**options)(fn)


@pytest.mark.parametrize(
    "options", [{"timeout": "soon"}, {"heartbeat_timeout": -1}, {"schedule_timeout": float("inf")}]
)
def test_bad_durations_are_refused_where_they_are_written(options):
    with pytest.raises(errors.Invalid):
        activity.define(**options)(lone)


# -- what an attempt knows ------------------------------------------------------------------------

INFO = Info(
    workflow_id="order-7",
    run_id="r",
    workflow="fulfil",
    activity_id=2,
    activity="charge",
    attempt=1,
    idempotency_key="k",
)


@pytest.fixture
def attempt():
    beats: list[Any] = []
    made: list[int] = []

    def make_info() -> Info:
        made.append(1)
        return INFO

    running = Attempt(make_info, beat=beats.append, context=b'{"tenant": "t"}')
    token = activity.running.set(running)
    yield beats, made
    activity.running.reset(token)


def test_an_attempt_knows_itself_and_its_info_is_made_once_when_asked_for(attempt):
    _, made = attempt
    assert made == []
    assert activity.info() is INFO
    assert activity.info().idempotency_key == "k"
    assert made == [1]


def test_an_attempt_sees_the_context_and_beats(attempt):
    beats, _ = attempt
    activity.heartbeat({"done": 3})
    assert beats == [{"done": 3}]
    context = activity.context
    assert [context["tenant"], len(context), list(context), repr(context)] == [
        "t",
        1,
        ["tenant"],
        "{'tenant': 't'}",
    ]


def test_only_a_transactional_activity_has_a_connection(attempt):
    with pytest.raises(errors.UsageError, match="transactional=True"):
        activity.connection()


@pytest.mark.parametrize(
    "ask", [activity.info, activity.heartbeat, activity.connection, lambda: activity.context["a"]]
)
def test_outside_an_activity_these_say_so(ask):
    with pytest.raises(errors.UsageError, match="inside a running activity"):
        ask()
