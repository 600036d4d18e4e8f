"""``schedule.*`` of a service: workflows that begin by the clock, under the same policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.definition import Workflow
from perdure.host.reading import moment
from perdure.judging import asked_schedule
from perdure.policy.globs import read_name
from perdure.timetable import read_spec
from perdure.values import ids
from perdure.values.schedules import to_time

if TYPE_CHECKING:
    from perdure.host.host import WorkflowHost


class HostSchedule:
    """See the module's text."""

    def __init__(self, host: WorkflowHost) -> None:
        self._host = host

    async def trigger_workflow(
        self,
        workflow_id: str | Workflow[Any, Any],
        input: Any = None,
        *,
        cron_expression: str | None = None,
        at: datetime | str | None = None,
        timezone: str | None = None,
        end: datetime | str | None = None,
        max_executions: int = 0,
        claims: Mapping[str, Any] | None = None,
        caller: str = "",
    ) -> str:
        """Let a workflow begin at times; return the trigger's id.

        What begins then counts as what the service runs: for its open instances, and for its rate.
        A time at which there is no place for it, or at which it comes too soon, is passed over.

        Args:
            workflow_id: as for ``run``. Without a version it is the highest active one at each
                time; with one it is the highest of those that there are now.
            input: of each instance.
            cron_expression: five fields, or ``@daily`` and the like.
            at: once, at an aware datetime, or one as text of ISO 8601.
            timezone: of the cron text; UTC if left out.
            end: nothing begins from then on.
            max_executions: how many begin; 0 is no limit.
            claims: of who is behind the call.
            caller: as for ``run``: no workflow lets itself begin.

        Raises:
            PolicyDenied: a check or a policy says no.
            RateLimited: too many were made lately; ``details["retry_after"]`` in seconds.
            NotFound: there is no such workflow, or not in this version.
            Invalid: neither or both of ``cron_expression`` and ``at``; a bad one.
        """
        host, client = self._host, self._host.client
        if (cron_expression is None) == (at is None):
            raise errors.Invalid("trigger_workflow: give one of cron_expression= and at=")
        times = {"at": moment("at", at), "end": moment("end", end)}
        when: dict[str, Any] = {
            "cron": cron_expression,
            "timezone": timezone,
            "max_executions": max_executions or None,
            **{name: None if time is None else to_time(time) for name, time in times.items()},
        }
        when = {name: value for name, value in when.items() if value is not None}
        asked = asked_schedule(read_spec(dict(when)), client.door.now())
        found, request, verdict = await host.judge_start(
            "trigger", workflow_id, input, claims, caller=caller, schedule=asked
        )
        if (keep := host.config.retention) is not None:
            when["retention"] = keep
        bound = await host.judge.admit("trigger", request, verdict)
        id = f"{host.service}-{ids.uuid7(client.door.now() // 1000, client.door.chance(10))}"
        named = read_name(request.workflow_id)
        version = found.version if named is not None and named.version else None
        made = await bound.schedules.create(
            id, found.name, input, version=version, created_by=host.service, **when
        )
        return made.id
