"""What the patterns work with: steps that leave a trace outside the run, and how they are tried."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from perdure import activity
from perdure.graph import BaseMachineStep, WorkflowContext, WorkflowDefinition
from perdure.testing import Exploration, Explored, explore_crashes
from perdure.values.states import Status


class Effects:
    """What was done outside, by a callee who heeds idempotency keys: each step's effect once."""

    def __init__(self) -> None:
        self._spans: dict[str, tuple[str, float, float]] = {}

    def clear(self) -> None:
        self._spans.clear()

    def note(self, name: str, began: float) -> None:
        key = activity.info().idempotency_key
        self._spans.setdefault(key, (name, began, asyncio.get_running_loop().time()))

    @property
    def names(self) -> list[str]:
        """The steps, in the order in which they ended."""
        return [name for name, _, _ in self._spans.values()]

    @property
    def overlap(self) -> bool:
        """Whether two steps were under way at the same time."""
        spans = sorted((began, ended) for _, began, ended in self._spans.values())
        return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))

    async def until(self, name: str) -> None:
        """Wait until a step has ended."""
        while name not in self.names:
            await asyncio.sleep(0.1)  # sleep: virtual time


effects = Effects()


@activity.define
async def work(name: str, seconds: float = 0) -> str:
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)  # sleep: virtual time
    effects.note(name, began)
    return name


class Work(BaseMachineStep):
    seconds: float = 0

    async def execute(self, context: WorkflowContext) -> str:
        return await work.fn(self.name, self.seconds)


async def each(item: list[Any]) -> str:
    return await work.fn(*item)


def times(context: WorkflowContext, step: str) -> int:
    return sum(it.step_name == step for it in context.step_history)


@dataclass(frozen=True)
class Pattern:
    """One pattern, written twice, and what must hold of the steps done, in their order."""

    number: int
    function: Any
    graph: WorkflowDefinition
    holds: Callable[[list[str]], object]
    input: Any = None
    result: Any = ...
    status: Status = Status.COMPLETED
    script: Callable[[Any], Awaitable[object]] | None = None

    def explore(self, program: Any, **options: Any) -> Exploration:
        return explore_crashes(
            program,
            self.input,
            invariant=self._hold,
            prepare=effects.clear,
            script=self.script,
            **options,
        )

    def _hold(self, run: Explored) -> None:
        assert run.status is self.status, run.end
        assert self.holds(effects.names), effects.names
        assert self.result is ... or run.result == self.result


def programs(patterns: list[Pattern]) -> pytest.MarkDecorator:
    """Try both ways to write each pattern."""
    return pytest.mark.parametrize(
        ("pattern", "program"),
        [
            pytest.param(pattern, program, id=f"{pattern.number}-{way}")
            for pattern in patterns
            for way, program in (("function", pattern.function), ("graph", pattern.graph))
        ],
    )


def runs_as_it_says(pattern: Pattern, program: Any) -> None:
    """The pattern's claim holds in a run in which nothing goes wrong."""
    pattern.explore(program, faults=())
    if program is pattern.graph:
        assert program.validate() == []
        assert program.to_mermaid().startswith("graph TD")


def survives_crashes(pattern: Pattern, program: Any) -> None:
    """The claim holds, and no recorded step runs again, whichever commit the worker dies at."""
    found = pattern.explore(program)
    assert found.runs > 2 * found.commits >= 4
