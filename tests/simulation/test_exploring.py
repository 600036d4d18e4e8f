"""``explore_crashes``: it finds what does not survive a crash, and says where."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from perdure import Retry, activity, workflow
from perdure.engine.activities import Runner
from perdure.errors import UsageError
from perdure.testing import Explored, explore_crashes
from perdure.testing.faults import Fault
from perdure.values.states import Status

seen: list[str] = []


@activity.define
async def step(name: str) -> str:
    await asyncio.sleep(1)  # sleep: virtual time
    seen.append(name)
    return name


@workflow.define
async def two_steps() -> list[str]:
    return [await step("a"), await step("b")]


def test_every_commit_fails_before_and_after_it():
    runs: list[tuple[int, Fault]] = []
    found = explore_crashes(two_steps, invariant=lambda run: runs.append((run.commit, run.fault)))
    assert (found.commits, found.first.result) == (3, ["a", "b"])
    tried = {(number, fault) for number in range(1, 4) for fault in Fault if "die" in fault.value}
    assert tried | {(0, Fault.NONE)} <= set(runs)


def test_an_effect_without_its_key_is_seen_to_happen_twice():
    def once(run: Explored) -> bool:
        return seen == ["a", "b"]

    with pytest.raises(AssertionError) as found:
        explore_crashes(two_steps, invariant=once, prepare=seen.clear)
    text = str(found.value)
    assert text.startswith("commit 2, die before:\n  - the invariant does not hold; it ended as")
    assert "activity_scheduled 'step'" in text


def test_a_run_that_ends_otherwise_after_a_crash_is_found():
    fragile = step.options(retry=Retry(max_attempts=1))

    @workflow.define
    async def careless() -> str:
        return await fragile("a")

    with pytest.raises(AssertionError, match=r"it ended as failed: .*lost with its worker"):
        explore_crashes(careless)


def test_code_that_does_not_replay_is_found():
    began: list[int] = []

    @workflow.define
    async def forgetful() -> str:
        began.append(1)
        return await step("a" if len(began) == 1 else "b")

    with pytest.raises(AssertionError, match="replays with other commands"):
        explore_crashes(forgetful, prepare=began.clear)


@pytest.mark.parametrize(
    ("seconds", "problem"), [(0, "an attempt runs twice"), (3, "a recorded step runs again")]
)
def test_an_engine_that_runs_a_step_again_is_found(
    monkeypatch: pytest.MonkeyPatch, seconds: float, problem: str
):
    dispatch = Runner.dispatch

    def twice(self: Runner, *args: Any) -> None:
        dispatch(self, *args)
        asyncio.get_running_loop().call_later(seconds, lambda: dispatch(self, *args))

    @workflow.define
    async def one_step() -> None:
        await step("a")
        await workflow.sleep("9s")

    monkeypatch.setattr(Runner, "dispatch", twice)
    with pytest.raises(AssertionError, match=rf"{problem}: step of 'explored' \(attempt 1\)"):
        explore_crashes(one_step)


def test_a_run_that_waits_for_ever_is_named():
    @workflow.define
    async def waits() -> None:
        await workflow.listen("never").receive()

    with pytest.raises(AssertionError, match=r"it does not end: the run is waiting"):
        explore_crashes(waits, limit_seconds=60)


def test_a_long_workflow_is_sampled_and_failed_otherwise_when_asked():
    @workflow.define
    async def long() -> None:
        for number in range(9):
            await step(str(number))

    found = explore_crashes(long, limit=3, faults=[Fault.ERROR, Fault.LOST_ACK])
    assert (found.commits, found.runs) == (10, 7)


def test_a_script_may_steer_the_run():
    @workflow.define
    async def waits() -> None:
        await workflow.listen("never").receive()

    async def give_up(handle: Any) -> None:
        await handle.cancel()

    found = explore_crashes(waits, script=give_up)
    assert found.first.status is Status.CANCELLED


async def test_it_is_not_called_within_a_loop():
    with pytest.raises(UsageError, match="to_thread"):
        explore_crashes(two_steps)


def test_the_example_of_the_page_holds():
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code) == 1
    space: dict[str, Any] = {"__name__": "page"}
    exec(compile(code[0], "docs/testing.md", "exec"), space)
    space["test_fulfil_survives_crashes"]()
    assert len(space["paid"]) == 1
