"""``schedule.*`` of a service: workflows that begin by the clock, under the same policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure.judging import asked_schedule, own_caller
from perdure.timetable import read_spec
from perdure.values import ids

if TYPE_CHECKING:
    from perdure.host.host import WorkflowHost


class HostSchedule:
    """See the module's text."""

    def __init__(self, host: WorkflowHost) -> None:
        self._host = host

    async def trigger_workflow(
        self,
        workflow_id: str,
        input: Any = None,
        *,
        cron_expression: str | None = None,
        at: datetime | None = None,
        timezone: str = "UTC",
        end: datetime | None = None,
        max_executions: int = 0,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Let a workflow begin at times; return the trigger's id.

        What begins then counts as what the service runs: for its open instances, and for its rate.
        A time at which there is no place for it, or at which it comes too soon, is passed over.

        Args:
            workflow_id: as for ``run``, with or without a version.
            input: of each instance.
            cron_expression: five fields, or ``@daily`` and the like.
            at: once, at an aware datetime.
            timezone: of the cron text.
            end: nothing begins from then on.
            max_executions: how many begin; 0 is no limit.
            claims: of who is behind the call.

        Raises:
            PolicyDenied: a check or a policy says no.
            RateLimited: too many were made lately; ``details["retry_after"]`` in seconds.
            Invalid: neither or both of ``cron_expression`` and ``at``; a bad one.
        """
        host, client = self._host, self._host.client
        when: dict[str, Any] = {"cron": cron_expression, "at": at, "end": end}
        if cron_expression is not None:
            when["timezone"] = timezone
        if max_executions:
            when["max_executions"] = max_executions
        when = {name: value for name, value in when.items() if value is not None}
        asked = asked_schedule(read_spec(dict(when)), client.door.now())
        found, request, verdict = await host.judge_start(
            "trigger", workflow_id, input, claims, schedule=asked, caller=own_caller()
        )
        if (keep := host.config.retention) is not None:
            when["retention"] = keep
        bound = await host.judge.admit("trigger", request, verdict)
        id = f"{host.service}-{ids.uuid7(client.door.now() // 1000, client.door.chance(10))}"
        made = await bound.schedules.create(
            id, found.name, input, version=found.version, created_by=host.service, **when
        )
        return made.id
