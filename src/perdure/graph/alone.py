"""A single step, done here and now: for trying steps by themselves. Nothing of it is durable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.graph.exceptions import StepExecutionError

if TYPE_CHECKING:
    from perdure.graph.context import WorkflowContext

PREVIOUS = "_previous_result"
"""Where seed 4 keeps the output of the step before, in ``data``."""


async def perform(step: Any, context: WorkflowContext, previous: Any = None) -> Any:
    """Do a step with its guard and its hooks; return its output, ``None`` if it is skipped.

    Args:
        step: a step, a group, or anything that follows the ``Step`` protocol.
        context: what it sees, and writes to.
        previous: the output before it: ``context.prev``, and in ``data`` as ``_previous_result``.

    Raises:
        StepExecutionError: it failed; ``cause`` is what it raised.
    """
    if previous is not None:
        context.set(PREVIOUS, previous)
        context.prev = previous
    context.current_step = step.name
    try:
        if not await step.can_execute(context):
            return None
        result = await step.execute(context)
        await step.on_success(context, result)
    except Exception as exc:
        await step.on_failure(context, exc)
        if isinstance(exc, StepExecutionError):  # of a step within a group
            raise
        raise StepExecutionError(step.name, exc) from exc
    return result
