"""What has ended goes on: a retry of an instance, now or after a time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from perdure import errors, workflow
from perdure.activity import Activity
from perdure.executing.state import shown
from perdure.graph.exceptions import InvalidTransitionError, WorkflowInstanceNotFoundError
from perdure.graph.naming import all_names
from perdure.graph.states import WorkflowStatus
from perdure.handle import Handle
from perdure.values.retry import Retry

if TYPE_CHECKING:
    from perdure.executing.carrier import Carrier

_BEGAN = "step.started"
_WORKFLOW = "perdure.schedule_step"
_ACTIVITY = "perdure.retry_from_step"


class Plan(msgspec.Struct):
    """Which instance goes on, at which step, and after how many seconds."""

    instance_id: str
    step_name: str
    delay_seconds: float


@workflow.define(name=_WORKFLOW)
async def schedule_step(plan: Plan) -> None:
    """Wait, and let the instance go on."""
    await workflow.sleep(timedelta(seconds=plan.delay_seconds))
    await workflow.call(_ACTIVITY, plan.instance_id, plan.step_name)


def retrying(carrier: Carrier) -> Activity[Any, Any]:
    """Return the activity that lets an instance of a carrier go on."""

    async def retry_from_step(instance_id: str, step_name: str) -> None:
        await retry(carrier, UUID(instance_id), step_name)

    return Activity(retry_from_step, name=_ACTIVITY, retry=Retry(max_attempts=1).resolve())


async def retry(carrier: Carrier, instance_id: UUID, from_step: str | None) -> None:
    """Let an instance that has ended go on.

    Raises:
        InvalidTransitionError: it has not ended; or it completed and no step is named; or it never
            came to the step.
        WorkflowInstanceNotFoundError: there is no such instance.
        NotFound: its definition has no such step.
    """
    handle = carrier.client.get(instance_id)
    try:
        status = await handle.status()
    except errors.NotFound:
        raise carrier.not_found(instance_id) from None
    if not status.is_terminal:
        said = "only what has ended can be tried again"
        raise InvalidTransitionError(shown(status), WorkflowStatus.RUNNING, said)
    if from_step is not None:
        await _check_begun(carrier, handle, from_step)
    try:
        await handle.retry(from_step=from_step)
    except errors.Invalid as exc:
        before = shown(status)
        raise InvalidTransitionError(before, WorkflowStatus.RUNNING, exc.message) from exc


async def retry_later(
    carrier: Carrier, instance_id: UUID, step_name: str, delay: timedelta
) -> None:
    """Let an instance go on at a step after a time; it is durable when this returns.

    Raises:
        InvalidTransitionError, WorkflowInstanceNotFoundError, NotFound: as :func:`retry`, of what
            is known now.
    """
    handle = carrier.client.get(instance_id)
    try:
        await _check_begun(carrier, handle, step_name)
    except WorkflowInstanceNotFoundError:
        raise carrier.not_found(instance_id) from None
    plan = Plan(str(instance_id), step_name, delay.total_seconds())
    await carrier.client.start(schedule_step, plan)


async def _check_begun(carrier: Carrier, handle: Handle[Any], step: str) -> None:
    """Refuse a step that the definition does not have, or to which the instance never came."""
    try:
        execution = await handle.describe()
    except errors.NotFound:
        raise carrier.not_found(handle.id) from None
    definition = carrier.definition(execution.workflow, execution.version)
    if definition is not None and step not in (names := [*all_names(definition.steps.values())]):
        known = ", ".join(names)
        raise errors.NotFound(f"'{definition.name}' has no step '{step}' (it has: {known})")
    for event in await handle.history():
        told = event.data
        if event.kind == "emitted" and (told.get("name"), told.get("step")) == (_BEGAN, step):
            return
    said = f"nothing is recorded of step '{step}' from which it could go on"
    raise InvalidTransitionError(shown(execution.status), WorkflowStatus.RUNNING, said)
