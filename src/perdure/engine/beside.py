"""Runs of Perdure's own that begin in the commit that ends another: so none is lost or doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.definition import Workflow
from perdure.store.port import StartRequest
from perdure.values import events as ev
from perdure.values import ids

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run


def begin(
    core: Core,
    run: Run,
    definition: Workflow[Any, Any],
    workflow_id: str,
    input: bytes,
    now: int,
    *,
    context: bytes | None = None,
) -> StartRequest:
    """Return the start of a run beside ``run``: in its namespace, on its queue, nobody's child."""
    run_id = ids.uuid7(now // 1000, core.chance(10))
    started = ev.RunStarted(
        workflow=definition.name,
        version=definition.version,
        workflow_id=workflow_id,
        run_id=run_id,
        seed=core.chance(16),
        input=input,
        code=definition.code,
        flavour=core.flavour,
        queue=run.queue,
        namespace=run.namespace,
        context=context,
        started_at=now,
        first_started_at=now,
    )
    return StartRequest(
        workflow=started.workflow,
        workflow_id=workflow_id,
        run_id=run_id,
        event=ev.encode_turn([started]),
        version=started.version,
        namespace=started.namespace,
        queue=started.queue,
    )


def inherit(run: Run, request: StartRequest) -> None:
    """Let a start be for whom ``run`` is, and belong to what it belongs to."""
    labels = run.labels
    request.created_by, request.correlation_id = labels.created_by, labels.correlation_id
    request.tenant, request.tags = run.tenant, labels.tags
