"""Steps that are no :class:`~perdure.graph.BaseStep`: anything with the methods of ``Step``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from perdure import errors
from perdure.graph.people import BaseHumanStep
from perdure.graph.states import StepType
from perdure.graph.steps import BaseMachineStep, BaseStep, Step, unawaitable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.graph.context import WorkflowContext


class AdaptedStep(BaseMachineStep):
    """Does what an object does that follows the protocol; ``step`` is the object."""

    def __init__(self, step: Any) -> None:
        super().__init__(step.name, getattr(step, "description", ""))
        self.step = step
        self.step_type = StepType(getattr(step, "step_type", StepType.MACHINE))  # pyright: ignore[reportAttributeAccessIssue] - of this object, not of the class
        for option in ("retry", "timeout", "join"):
            if hasattr(step, option):
                setattr(self, option, getattr(step, option))

    async def execute(self, context: WorkflowContext) -> Any:
        return await self.step.execute(context)

    async def can_execute(self, context: WorkflowContext) -> bool:
        return await self.step.can_execute(context)

    async def on_success(self, context: WorkflowContext, result: Any) -> None:
        await self.step.on_success(context, result)

    async def on_failure(self, context: WorkflowContext, error: Exception) -> None:
        await self.step.on_failure(context, error)

    def shape(self) -> list[Any]:
        return [type(self.step).__name__, *super().shape()[1:]]


def _asking(step: Any) -> BaseHumanStep:
    """Return the step that asks a person what an object says of itself."""
    names = (
        "title",
        "form_schema",
        "assignee_key",
        "assignee",
        "role",
        "group",
        "due",
        "expires",
        "remind",
    )
    said = {name: getattr(step, name) for name in names if getattr(step, name, None) is not None}
    return BaseHumanStep(step.name, description=step.description, **said)


def adapted(given: Mapping[str, Any] | Iterable[Any]) -> dict[str, BaseStep]:
    """Return steps by name, made of what a definition was given: objects or classes, named by the
    mapping or by themselves.

    Raises:
        DefinitionError: something is no step.
    """
    if not isinstance(given, Mapping):
        steps = [as_step(step) for step in given]
        return {step.name: step for step in steps}
    named = cast("Mapping[str, Any]", given)
    found = {name: as_step(step) for name, step in named.items()}
    for name, step in found.items():
        if not step.is_named:
            step.name = name
    return found


def as_step(given: Any) -> BaseStep:
    """Return a step as it is, or what makes one of an object that follows the protocol.

    Raises:
        DefinitionError: it is none, or methods that are awaited are not async.
    """
    step = given() if inspect.isclass(given) else given
    is_machine = isinstance(step, BaseMachineStep) or not isinstance(step, BaseStep)
    if is_machine and (wrong := unawaitable(step)):
        name: Any = getattr(step, "name", type(step).__name__)
        raise errors.DefinitionError(f"step {name!r}: {'; '.join(wrong)}")
    if isinstance(step, BaseStep):
        # What has its place in one definition stays there: another one gets its own.
        return step if step.policy is None else step.copied()
    if isinstance(step, Step):
        if getattr(step, "step_type", "") == StepType.HUMAN:
            return _asking(step)
        return AdaptedStep(step)
    missing = [
        name
        for name in ("name", "description", "execute", "can_execute", "on_success", "on_failure")
        if not hasattr(step, name)
    ]
    raise errors.DefinitionError(f"{given!r} is no step: it has no {', '.join(missing)}")
