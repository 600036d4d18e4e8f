"""Steps made of others: branches side by side, one per item, child workflows, groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from perdure import errors, workflow
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
        found += [f"two branches are named {it!r}" for it in {*names} if names.count(it) > 1]
        return found


class MapStep(BaseStep):
    """One branch per item; the output is a list in the items' order.

    ``items``: what makes the list of the context; else ``prev`` is it. ``enough``: a function of
    the list of outputs so far (in the order in which they came); once it is true, the branches that
    still run are cancelled, and their places hold ``None``.
    """

    step_type: ClassVar[StepType] = StepType.GATEWAY
    told_as: ClassVar[str] = "map"

    def __init__(
        self,
        name: str,
        branch: Outline,
        *,
        items: Callable[[WorkflowContext], Sequence[Any]] | None = None,
        max_concurrent: int = 0,
        on_error: str = "fail-fast",
        enough: Callable[[list[Any]], Any] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.branch, self.items = branch, items
        self.max_concurrent, self.on_error, self.enough = max_concurrent, on_error, enough

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        self.branch.settle(path, default)

    async def visit(self, visit: Visit) -> Left:
        items = visit.value if self.items is None else self.items(visit.ctx)
        if not isinstance(items, (list, tuple)):
            raise errors.ApplicationError(
                f"a map needs a list of items, got {type(items).__name__}",
                kind="Invalid",
                retryable=False,
            )
        calls = [visit.play(self.branch, prev=item) for item in cast("Sequence[Any]", items)]
        found = await together(
            calls,
            fail_fast=self.on_error == "fail-fast",
            at_once=self.max_concurrent,
            enough=self.enough,
        )
        failed = [(n, exc) for n, exc in enumerate(found) if isinstance(exc, Exception)]
        if failed:
            raise errors.ApplicationError(
                "Items failed: " + ", ".join(f"{n}: {exc}" for n, exc in failed),
                kind=getattr(failed[0][1], "kind", "Internal"),
                cause=failed[0][1],
            )
        return Left(found)

    def inner(self) -> list[Outline]:
        return [self.branch]

    def functions(self) -> list[object]:
        return [fn for fn in (self.items, self.enough) if fn is not None]


class SubflowStep(BaseStep):
    """Runs another workflow as a child and waits for its result."""

    def __init__(self, name: str, definition: Any, *, input: Any = None, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.definition = definition
        self.input = Input(name, input)

    async def visit(self, visit: Visit) -> Left:
        return Left(await workflow.execute(self.definition, self.input.of(visit)))

    def functions(self) -> list[object]:
        return self.input.functions()

    def shape(self) -> list[Any]:
        return [*super().shape(), getattr(self.definition, "name", self.definition)]


class StepGroup(BaseStep):
    """Steps that are one step of the graph (seed 4)."""

    steps: tuple[BaseStep, ...] = ()

    def __init__(self, *steps: BaseStep, name: str = "", **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.steps = steps or self.steps

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        for step in self.steps:
            step.belong(f"{path}.{step.name}", default)

    def functions(self) -> list[object]:
        return [fn for step in self.steps for fn in step.functions()]

    def shape(self) -> list[Any]:
        return [*super().shape(), [step.shape() for step in self.steps]]


class SequentialGroup(StepGroup):
    """One after the other; each gets the output of the one before as ``prev``."""

    async def visit(self, visit: Visit) -> Left:
        for step in self.steps:
            await visit.within(step)
        return Left(visit.value)


class ParallelGroup(StepGroup):
    """All at once; the output is their outputs, in order, or what ``callback`` makes of them."""

    callback: BaseStep | None = None

    def belong(self, path: str, default: RetryPolicy) -> None:
        super().belong(path, default)
        if self.callback is not None:
            self.callback.belong(f"{path}.{self.callback.name}", default)

    async def visit(self, visit: Visit) -> Left:
        outputs = await together([visit.beside(step) for step in self.steps], fail_fast=True)
        visit.value = outputs
        if self.callback is not None:
            await visit.within(self.callback)
        return Left(visit.value)


class ConditionalGroup(StepGroup):
    """The step that a condition names; none, and no output, if it names none."""

    def __init__(
        self,
        condition: Callable[[WorkflowContext], Any],
        branches: Mapping[str, BaseStep],
        *,
        name: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(*branches.values(), name=name, **attributes)
        self.condition, self.branches = condition, dict(branches)

    async def visit(self, visit: Visit) -> Left:
        step = self.branches.get(self.condition(visit.ctx))
        if step is None:
            return Left(None)
        await visit.within(step)
        return Left(visit.value)

    def functions(self) -> list[object]:
        return [self.condition, *super().functions()]


async def together(
    calls: Sequence[Any],
    *,
    fail_fast: bool,
    at_once: int = 0,
    enough: Callable[[list[Any]], Any] | None = None,
) -> list[Any]:
    """Run coroutines side by side and return their outputs or exceptions, in their order.

    ``fail_fast``: the first exception cancels the rest, and is raised. ``at_once``: how many may
    run at the same time; 0 is all.
    """
    gate = asyncio.Semaphore(at_once) if at_once else None
    outputs: list[Any] = []

    async def one(call: Any) -> Any:
        if gate is None:
            return await call
        async with gate:
            return await call

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    waiting = {*tasks}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in (it for it in tasks if it in done):
                if (exc := task.exception()) is not None:
                    if fail_fast:
                        raise exc
                else:
                    outputs.append(task.result())
            if enough is not None and enough(outputs):
                break
    finally:
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for call in calls:
            call.close()  # of those that never began
    return [None if task.cancelled() else task.exception() or task.result() for task in tasks]
