"""``schedule.*`` of a service: workflows that begin by the clock, under the same policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure.policy import Schedule
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
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Let a workflow begin at times; return the trigger's id.

        Raises:
            PolicyDenied: a check or a policy says no.
            Invalid: neither or both of ``cron_expression`` and ``at``; a bad one.
        """
        host = self._host
        asked = Schedule(
            cron=cron_expression or "",
            executions=1 if at is not None else 0,
            has_end=at is not None,
        )
        found, verdict = await host.judge_start(
            "trigger", workflow_id, input, claims, schedule=asked
        )
        await host.spend(verdict)
        client = host.client
        id = f"{host.service}-{ids.uuid7(client.door.now() // 1000, client.door.chance(10))}"
        spec: dict[str, Any] = {"cron": cron_expression, "at": at}
        if cron_expression is not None:
            spec["timezone"] = timezone
        made = await client.schedules.create(
            id, found.name, input, version=found.version, created_by=host.service, **spec
        )
        return made.id
