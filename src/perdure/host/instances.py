"""Instances as services see them: in the page's words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from perdure.policy.statuses import SHOWN, InstanceStatus, status_of
from perdure.values.states import Status
from perdure.views import Execution


class WorkflowInstance(msgspec.Struct, frozen=True):
    """An instance. ``workflow_id``: the definition's name. ``current_step``: the step, or what a
    function waits for. ``variables``: what the instance has set for all to see: the memo of a
    function, the metadata of a graph. ``error``: why it failed, or the reason of its end. Queries
    leave out input, output and metadata. Times are aware UTC datetimes.
    """

    instance_id: str
    workflow_id: str
    version: str
    status: InstanceStatus
    start_time: datetime
    end_time: datetime | None = None
    current_step: str | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    variables: dict[str, Any] = {}
    correlation_id: str | None = None
    tags: dict[str, str] = {}


class Instances(msgspec.Struct, frozen=True):
    """A page of a query; ``cursor``: of the next one, or ``None``."""

    instances: list[WorkflowInstance]
    cursor: str | None = None


class WorkflowInfo(msgspec.Struct, frozen=True):
    """A workflow that services may run. ``workflow_id``: its name, without the version."""

    workflow_id: str
    version: str
    triggers: tuple[str, ...] = ()


_ENDED_BADLY = (Status.FAILED, Status.TIMED_OUT, Status.CANCELLED, Status.TERMINATED)


def stored(statuses: Iterable[InstanceStatus]) -> list[Status]:
    """Return the statuses that are shown as these."""
    wanted = set(statuses)
    return [status for status, shown in SHOWN.items() if shown in wanted]


def shown(found: Execution) -> WorkflowInstance:
    """Show an execution."""
    error = found.error
    if error is None and found.status in _ENDED_BADLY:
        error = found.detail or found.status.replace("_", " ")  # of a list
    text = error.get("message") if isinstance(error, dict) else error  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    memo = found.memo if isinstance(found.memo, dict) else {}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return WorkflowInstance(
        instance_id=found.id,
        workflow_id=found.workflow,
        version=found.version,
        status=status_of(found.status),
        start_time=found.started_at,
        end_time=found.completed_at,
        current_step=found.current_step,
        input=found.input,
        output=found.output,
        error=None if text is None else str(text),  # pyright: ignore[reportUnknownArgumentType]
        variables={**memo, **found.metadata},
        correlation_id=found.correlation_id,
        tags=dict(tag.split("=", 1) for tag in found.tags if "=" in tag),
    )
