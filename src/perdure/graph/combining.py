"""Steps made of others: branches side by side, blocks, child workflows, groups."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from perdure import errors, workflow
from perdure.graph.adapting import as_step
from perdure.graph.alone import perform
from perdure.graph.calls import StepCall
from perdure.graph.codecs import (
    CONDITION_OR_FUNCTION,
    GRAPH,
    GRAPHS,
    INPUT,
    STEP,
    STEPS,
    TEXT,
    WORKFLOW,
)
from perdure.graph.conditions import is_expression, refusal, text_of, value_of
from perdure.graph.forms import Form
from perdure.graph.states import StepType
from perdure.graph.steps import BaseStep, Input, Left
from perdure.values.retry import RetryPolicy

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit
    from perdure.graph.outline import Outline


class ParallelStep(BaseStep):
    """Branches side by side; the output is each branch's, by its name."""

    step_type: ClassVar[StepType] = StepType.GATEWAY
    told_as: ClassVar[str] = "parallel"
    form = Form("parallel", branches=GRAPHS, on_error=TEXT)

    def __init__(
        self,
        name: str,
        branches: Sequence[Outline],
        *,
        on_error: str = "fail-fast",
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.branches, self.on_error = list(branches), on_error

    def copied(self) -> Self:
        made = super().copied()
        made.branches = [branch.copied() for branch in self.branches]
        return made

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        for branch in self.branches:
            branch.settle(f"{path}.{branch.name}", default)

    async def visit(self, visit: Visit) -> Left:
        calls = [visit.play(branch) for branch in self.branches]
        found = await together(calls, fail_fast=self.on_error == "fail-fast")
        failed = [exc for exc in found if isinstance(exc, Exception)]
        if failed:
            raise errors.ApplicationError(
                "Parallel branches failed: " + ", ".join(str(exc) for exc in failed),
                kind=getattr(failed[0], "kind", "Internal"),
                cause=failed[0],
            )
        names = [branch.name for branch in self.branches]
        return Left(dict(zip(names, found, strict=True)))

    def inner(self) -> list[Outline]:
        return self.branches

    def problems(self) -> list[str]:
        found = [] if self.branches else ["a parallel step needs branches"]
        if self.on_error not in ("fail-fast", "wait-all"):
            found.append(f"on_error={self.on_error!r}: use 'fail-fast' or 'wait-all'")
        names = [branch.name for branch in self.branches]
        found += ["a branch needs a name"] if "" in names else []
        found += [f"two branches are named {it!r}" for it in {*names} if names.count(it) > 1]
        return found


class BlockStep(BaseStep):
    """A graph as one step of another: what a ``section`` or a cancel is about as a whole."""

    told_as: ClassVar[str] = "block"
    form = Form("block", branch=GRAPH)

    def __init__(self, name: str, branch: Outline, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.branch = branch

    def copied(self) -> Self:
        made = super().copied()
        made.branch = self.branch.copied()
        return made

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        self.branch.settle(path, default)

    async def visit(self, visit: Visit) -> Left:
        return Left(await visit.play(self.branch))

    def inner(self) -> list[Outline]:
        return [self.branch]


class SubflowStep(BaseStep):
    """Runs another workflow as a child and waits for its result."""

    told_as: ClassVar[str] = "subflow"
    form = Form("subflow", workflow=("definition", WORKFLOW), input=INPUT)

    def __init__(self, name: str, definition: Any, *, input: Any = None, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.definition = definition
        self.input = Input(name, input)

    async def visit(self, visit: Visit) -> Left:
        return Left(await workflow.execute(self.definition, self.input.of(visit)))

    def functions(self) -> list[object]:
        return self.input.functions()

    def problems(self) -> list[str]:
        name: Any = getattr(self.definition, "name", self.definition)
        is_named = isinstance(name, str) and bool(name)
        found = [] if is_named else [f"{self.definition!r} is no workflow, and no name of one"]
        return [*found, *self.input.problems()]

    def shape(self) -> list[Any]:
        return [*super().shape(), getattr(self.definition, "name", self.definition)]


class StepGroup(BaseStep):
    """Steps that are one step of the graph (seed 4).

    ``await group.execute(context)`` tries one by itself.
    """

    steps: tuple[BaseStep, ...] = ()

    def __init__(self, *steps: Any, name: str = "", **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.steps = tuple(as_step(step) for step in steps or self.steps)

    def copied(self) -> Self:
        made = super().copied()
        made.steps = tuple(step.copied() for step in self.steps)
        return made

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        for step in self.steps:
            step.belong(f"{path}.{step.name}", default)

    def calls(self) -> list[StepCall]:
        return [call for step in self.steps for call in step.calls()]

    def parts(self) -> list[BaseStep]:
        return [*self.steps]

    def functions(self) -> list[object]:
        return [fn for step in self.parts() for fn in step.functions()]

    def problems(self) -> list[str]:
        return [f"part '{step.name}': {it}" for step in self.parts() for it in step.problems()]

    def shape(self) -> list[Any]:
        return [*super().shape(), [step.shape() for step in self.steps]]


class SequentialGroup(StepGroup):
    """One after the other; each gets the output of the one before as ``prev``."""

    form = Form("sequential-group", steps=STEPS)

    async def execute(self, context: WorkflowContext, engine: Any = None) -> Any:
        result = context.prev
        for step in self.steps:
            result = await perform(step, context, result)
        return result

    async def visit(self, visit: Visit) -> Left:
        for step in self.steps:
            await visit.within(step)
        return Left(visit.value)


class ParallelGroup(StepGroup):
    """All at once; the output is their outputs, in order, or what ``callback`` makes of them."""

    form = Form("parallel-group", steps=STEPS, callback=STEP)
    callback: BaseStep | None = None

    def __init__(
        self, *steps: Any, callback: Any = None, name: str = "", **attributes: Any
    ) -> None:
        super().__init__(*steps, name=name, **attributes)
        given = self.callback if callback is None else callback
        self.callback = None if given is None else as_step(given)

    def copied(self) -> Self:
        made = super().copied()
        made.callback = None if self.callback is None else self.callback.copied()
        return made

    async def execute(self, context: WorkflowContext, engine: Any = None) -> Any:
        before = context.prev
        calls = [perform(step, context.with_step(step.name), before) for step in self.steps]
        outputs: Any = await together(calls, fail_fast=True)
        return outputs if self.callback is None else await perform(self.callback, context, outputs)

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        if self.callback is not None:
            self.callback.belong(f"{path}.{self.callback.name}", default)

    def calls(self) -> list[StepCall]:
        return [*super().calls(), *(self.callback.calls() if self.callback is not None else ())]

    def parts(self) -> list[BaseStep]:
        return [*self.steps, *([] if self.callback is None else [self.callback])]

    async def visit(self, visit: Visit) -> Left:
        outputs = await together([visit.beside(step) for step in self.steps], fail_fast=True)
        visit.value = outputs
        if self.callback is not None:
            await visit.within(self.callback)
        return Left(visit.value)


class ConditionalGroup(StepGroup):
    """The step that a condition names; none, and no output, if it names none.

    ``condition``: a function of the context, or CEL: what it gives is a key of ``branches``.
    """

    form = Form("conditional-group", condition=CONDITION_OR_FUNCTION, branches=STEPS)
    condition: Any = None
    branches: Mapping[Any, Any] = MappingProxyType({})

    def __init__(
        self,
        condition: str | Callable[[WorkflowContext], Any] | None = None,
        branches: Mapping[Any, Any] | None = None,
        *,
        name: str = "",
        **attributes: Any,
    ) -> None:
        given = self.branches if branches is None else branches
        super().__init__(*given.values(), name=name, **attributes)
        if condition is not None:
            self.condition = condition
        self.branches = dict(zip(given, self.steps, strict=True))

    def copied(self) -> Self:
        made = super().copied()
        made.branches = dict(zip(self.branches, made.steps, strict=True))
        return made

    async def execute(self, context: WorkflowContext, engine: Any = None) -> Any:
        step = await self._chosen(context)
        return None if step is None else await perform(step, context, context.prev)

    async def _chosen(self, context: WorkflowContext) -> BaseStep | None:
        if isinstance(self.condition, str):
            return self.branches.get(value_of(self.condition, context, kinds=(str, bool, int)))
        key: Any = self.asking("condition")(context)
        return self.branches.get(await key if inspect.isawaitable(key) else key)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.condition is None:
            return ["it has no condition to choose a branch by", *found]
        if not isinstance(self.condition, str):
            return found
        if not is_expression(self.condition):
            return [f"condition {self.condition!r} names no context: it decides nothing", *found]
        said = refusal(self.condition, gives=("STRING", "BOOL", "INT"))
        return [said, *found] if said else found

    async def visit(self, visit: Visit) -> Left:
        step = await self._chosen(visit.ctx)
        name = None if step is None else step.name
        visit.pass_over(*(it for it in self.steps if it.name != name))
        if step is None:
            return Left(None)
        await visit.within(step)
        return Left(visit.value)

    def functions(self) -> list[object]:
        own = [self.condition] if callable(self.condition) else []
        return [*own, *super().functions()]

    def shape(self) -> list[Any]:
        return [*super().shape(), text_of(self.condition), [str(key) for key in self.branches]]


async def together(calls: Sequence[Any], *, fail_fast: bool) -> list[Any]:
    """Run coroutines side by side and return their outputs or exceptions, in their order.

    ``fail_fast``: the first exception cancels the rest, and is raised.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    waiting = {*tasks}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in (it for it in tasks if it in done):
                if fail_fast and (exc := task.exception()) is not None:
                    raise exc
    finally:
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
    return [task.exception() or task.result() for task in tasks]
