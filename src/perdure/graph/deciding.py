"""Steps that decide where to go. What they decide is no output: ``prev`` stays what it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast

from perdure import errors, workflow
from perdure.graph.codecs import CHOICES, CONDITION, DURATION, JSON_OR_FUNCTION, NAMES, TEXT
from perdure.graph.conditions import is_expression, is_true, refusal, text_of, value_of
from perdure.graph.forms import Form
from perdure.graph.joins import Threads
from perdure.graph.outline import Condition, name_of
from perdure.graph.spans import no_count, no_limit
from perdure.graph.states import StepType
from perdure.graph.steps import BaseStep, Left
from perdure.values.duration import Duration, optional_microseconds

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext
    from perdure.graph.interpret import Visit


class BaseGateway(BaseStep):
    """Decides where to go: subclass it and write ``evaluate``. Its decision is no output."""

    step_type: ClassVar[StepType] = StepType.GATEWAY

    async def evaluate(self, context: WorkflowContext) -> str | list[str]:
        """Return the name of the next step, or several."""
        raise NotImplementedError(f"{type(self).__name__}.evaluate")

    async def execute(self, context: WorkflowContext) -> Any:
        """Return the decision (for a gateway that is tried by itself)."""
        return await self.evaluate(context)

    async def visit(self, visit: Visit) -> Left:
        chosen: Any = self.evaluate(visit.ctx)
        if inspect.isawaitable(chosen):
            chosen = await chosen
        if not isinstance(chosen, (str, type, Sequence)):
            text = f"it decided for {chosen!r}; a gateway gives the name of a step, or several"
            raise errors.ApplicationError(text, kind="Invalid", retryable=False)
        is_one = isinstance(chosen, (str, type))
        names = [name_of(it) for it in ([chosen] if is_one else cast("Sequence[Any]", chosen))]
        return Left({"chosen": names[0] if is_one else names}, is_output=False, to=names)

    def functions(self) -> list[object]:
        return [type(self).evaluate]


class ExclusiveGateway(BaseGateway):
    """One way on: the one that ``condition`` names, or the first edge that holds."""

    form = Form("exclusive-gateway", condition=CONDITION)
    condition: Any = None

    def __init__(
        self,
        name: str = "",
        condition: str | Callable[[WorkflowContext], str] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        if condition is not None:
            self.condition = condition

    async def visit(self, visit: Visit) -> Left:
        if self.condition is None and type(self).evaluate is ExclusiveGateway.evaluate:
            return Left(None, is_output=False, to=visit.ways_on()[:1])
        return await super().visit(visit)

    async def evaluate(self, context: WorkflowContext) -> str | list[str]:
        assert self.condition is not None
        if isinstance(self.condition, str):
            return value_of(self.condition, context, kinds=(str, list))
        chosen = self.asking("condition")(context)
        return await chosen if inspect.isawaitable(chosen) else chosen

    def functions(self) -> list[object]:
        if type(self).evaluate is not ExclusiveGateway.evaluate:
            return super().functions()
        return [self.condition] if callable(self.condition) else []

    def problems(self) -> list[str]:
        if not isinstance(self.condition, str):
            return []
        if not is_expression(self.condition):
            return [f"condition {self.condition!r} names no context: it decides nothing"]
        said = refusal(self.condition, gives=("STRING", "LIST<STRING>"))
        return [said] if said else []

    def shape(self) -> list[Any]:
        found = super().shape()
        return found if self.condition is None else [*found, text_of(self.condition)]


class ParallelGateway(BaseGateway):
    """All ways on at once: ``branches``, or all edges whatever their conditions."""

    form = Form("parallel-gateway", branches=NAMES)
    branches: Sequence[Any] = ()

    def __init__(
        self, name: str = "", branches: Iterable[str | type] = (), **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.branches = [name_of(it) for it in [*branches] or self.branches]

    async def evaluate(self, context: WorkflowContext) -> str | list[str]:
        """Return ``branches``."""
        return [*self.branches]

    async def visit(self, visit: Visit) -> Left:
        return Left(None, is_output=False, to=self.branches or visit.ways_on(all=True))

    def jumps(self) -> dict[str, str]:
        return dict.fromkeys(self.branches, "")

    def shape(self) -> list[Any]:
        return [*super().shape(), [*self.branches]] if self.branches else super().shape()


class InclusiveGateway(BaseGateway):
    """Every way on whose edge holds; at least one must."""

    form = Form("inclusive-gateway")

    async def visit(self, visit: Visit) -> Left:
        ways = visit.ways_on()
        if not ways:
            raise errors.ApplicationError("No condition matched", kind="NoChoice", retryable=False)
        return Left(None, is_output=False, to=ways)


class ThreadSplit(BaseStep):
    """So many tokens on each way on: a number, or what a function makes of the context."""

    step_type: ClassVar[StepType] = StepType.GATEWAY
    form = Form("thread-split", count=JSON_OR_FUNCTION)

    def __init__(
        self, name: str, count: int | Callable[[WorkflowContext], int], **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.count = count

    async def visit(self, visit: Visit) -> Left:
        count = self.count if isinstance(self.count, int) else self.count(visit.ctx)
        return Left(None, is_output=False, to=visit.ways_on() * count)

    def functions(self) -> list[object]:
        return [self.count] if callable(self.count) else []

    def shape(self) -> list[Any]:
        return [*super().shape(), _number(self.count)]

    def problems(self) -> list[str]:
        return _no_count(self.count)


class ThreadMerge(BaseStep):
    """One token of so many, whichever way they come; the output is the list of theirs."""

    step_type: ClassVar[StepType] = StepType.GATEWAY
    form = Form("thread-merge", count=JSON_OR_FUNCTION)

    def __init__(
        self, name: str, count: int | Callable[[WorkflowContext], int], **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.join = Threads(count)
        self.count = count

    async def visit(self, visit: Visit) -> Left:
        return Left(visit.value)

    def functions(self) -> list[object]:
        return [self.count] if callable(self.count) else []

    def shape(self) -> list[Any]:
        name, _, *more = super().shape()
        return [name, "threads", *more, _number(self.count)]

    def problems(self) -> list[str]:
        return _no_count(self.count)


class ChoiceStep(BaseStep):
    """The first condition that holds decides; else ``default`` (the builder's ``choice``)."""

    step_type: ClassVar[StepType] = StepType.GATEWAY
    told_as: ClassVar[str] = "choice"
    form = Form("choice", choices=CHOICES, default=TEXT)

    def __init__(
        self,
        name: str,
        choices: Sequence[tuple[str | Condition, str]],
        *,
        default: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.choices = list(choices)
        self.default = default

    async def visit(self, visit: Visit) -> Left:
        ctx = visit.ctx
        for condition, target in self.choices:
            if is_true(condition, ctx, target):
                return Left({"chosen": target}, is_output=False, to=[target])
        if self.default is None:
            raise errors.ApplicationError(
                "No choice condition matched and no default specified",
                kind="NoChoice",
                retryable=False,
            )
        return Left({"chosen": self.default}, is_output=False, to=[self.default])

    def jumps(self) -> dict[str, str]:
        found = {it: c if isinstance(c, str) else "conditional" for c, it in self.choices}
        return found if self.default is None else {**found, self.default: "default"}

    def functions(self) -> list[object]:
        return [condition for condition, _ in self.choices if callable(condition)]

    def conditions(self) -> list[str | Condition]:
        return [condition for condition, _ in self.choices]

    def problems(self) -> list[str]:
        if not self.choices and not self.default:
            return ["it has neither choices nor a default"]
        return [said for condition, _ in self.choices if (said := refusal(condition))]

    def shape(self) -> list[Any]:
        ways = [[text_of(condition), target] for condition, target in self.choices]
        return [*super().shape(), ways, self.default]


class LoopStep(BaseStep):
    """Jumps back to ``target`` while a condition holds (the builder's ``loop``)."""

    step_type: ClassVar[StepType] = StepType.GATEWAY
    told_as: ClassVar[str] = "loop"
    form = Form("loop", condition=CONDITION, target=TEXT, interval=DURATION)

    def __init__(
        self,
        name: str,
        condition: str | Condition,
        target: str,
        *,
        interval: Duration | None = None,
        max_iterations: int | None = None,
        timeout: Duration | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, **attributes)
        self.condition, self.target = condition, target
        self.interval = optional_microseconds(interval, what=f"interval of loop {name!r}")
        self.max_iterations = max_iterations
        self.limit = optional_microseconds(timeout, what=f"timeout of loop {name!r}")

    async def visit(self, visit: Visit) -> Left:
        count, since = visit.loop_state()
        if self.limit is not None and visit.now() - since >= self.limit:
            raise errors.ApplicationError(
                f'Loop step "{self.name}" timed out', kind="Timeout", retryable=False
            )
        if not is_true(self.condition, visit.ctx, self.target):
            visit.end_loop()
            return Left(None, is_output=False)
        if self.max_iterations is not None and count >= self.max_iterations:
            raise errors.ApplicationError(
                f'Loop step "{self.name}" exceeded maxIterations ({self.max_iterations})',
                kind="LoopLimit",
                retryable=False,
            )
        visit.count_loop()
        visit.tell("loop", {"loop_count": count + 1, "target": self.target})
        if self.interval:
            await workflow.sleep(timedelta(microseconds=self.interval))
        return Left(None, is_output=False, to=[self.target])

    def jumps(self) -> dict[str, str]:
        return {self.target: "again"}

    def functions(self) -> list[object]:
        return [self.condition] if callable(self.condition) else []

    def conditions(self) -> list[str | Condition]:
        return [self.condition]

    def problems(self) -> list[str]:
        said = refusal(self.condition)
        found = [said] if said else []
        if self.condition is None:
            found.append("a loop needs a condition")
        if self.limit == 0:
            found += no_limit("timeout", 0)
        if self.max_iterations is not None:
            found += no_count("max_iterations", self.max_iterations, least=0)
        elif self.limit is None:
            found.append("a loop needs a bound: max_iterations= or timeout=")
        return found

    def shape(self) -> list[Any]:
        return [*super().shape(), text_of(self.condition), self.target]


def _number(count: int | Callable[[WorkflowContext], int]) -> int | None:
    return count if isinstance(count, int) else None


def _no_count(count: int | Callable[[WorkflowContext], int]) -> list[str]:
    if isinstance(count, int) and count < 1:
        return [f"count={count}: threads are counted from 1"]
    return []
