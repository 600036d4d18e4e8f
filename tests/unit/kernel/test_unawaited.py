"""A forgotten `await` is told by a line in the run's log."""

import gc
import logging
import warnings

import pytest
from tests.unit.drive import Run

from perdure import activity, workflow
from perdure.values import events as ev


@activity.define
async def charge(order: str) -> None:
    """Never runs here."""


async def helper() -> None:
    """Never runs here."""


def told(run: Run) -> list[str]:
    assert all(
        name == "log" and line.level == logging.WARNING for name, line in run.instance.effects
    )
    return [line.message for _, line in run.instance.effects]


FORGOTTEN = [
    (lambda: charge("A-1"), "activity 'charge' was called without `await`"),
    (lambda: workflow.call("charge"), "activity 'charge' was called without `await`"),
    (lambda: workflow.sleep("1h"), "sleep was called without `await`"),
    (lambda: workflow.continue_as_new(), "continue_as_new was called without `await`"),
    (lambda: workflow.start("other"), "start was called without `await`"),
    (lambda: helper(), "helper was called without `await`"),
]


@pytest.mark.parametrize(("call", "says"), FORGOTTEN)
def test_a_call_without_await_is_told_with_its_name_and_place(call, says):
    @workflow.define
    async def wf():
        call()

    run = Run(wf)
    assert run.closed == ev.RunCompleted(result=b"null")
    [text] = told(run)
    assert text.startswith(says)
    assert f"dropped at {__file__}:" in text


def test_what_is_kept_and_never_awaited_is_told_when_the_run_ends():
    @workflow.define
    async def wf():
        pending = charge("A-1")
        await workflow.sleep("1s")
        return pending is None

    run = Run(wf)
    assert told(run) == []
    run.fire()
    assert len(told(run)) == 1


def test_a_replay_tells_nothing():
    @workflow.define
    async def wf():
        charge("A-1")
        await workflow.sleep("1h")

    assert Run(wf).replayed().effects == []


def test_outside_a_workflow_python_warns_as_ever():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        helper()
        gc.collect()
    assert "coroutine 'helper' was never awaited" in str(caught[0].message)
