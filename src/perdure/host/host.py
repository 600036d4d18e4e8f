"""``workflow.*`` for a service: every call is judged by policies before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure import activity, errors
from perdure.client import Client
from perdure.definition import Workflow, highest_active
from perdure.handle import Handle
from perdure.host import instances
from perdure.host.config import HostConfig
from perdure.host.instances import Instances, WorkflowInfo, WorkflowInstance
from perdure.host.schedule import HostSchedule
from perdure.policy import Finding, Guard, Policies, PolicyGuard, Request, Verdict, checks
from perdure.policy.globs import Name, read_name
from perdure.policy.hook import error_of, refused_by_place, refused_by_rate
from perdure.store.port import Definition, RunRow
from perdure.values import payload
from perdure.values.granted import Granted
from perdure.values.meters import Spend
from perdure.values.sizes import parse_size

_SECOND = 1_000_000
_MANUAL = "manual"


class WorkflowHost:
    """What a service does with workflows.

    Args:
        client: whose executions they are.
        service: who asks: ``app.billing``; its namespace is the text before the last dot.
        policies: what it may do; none is everything that the checks of the code allow.
        config: of its deployment.
        claims: of who is behind its calls, unless a call says so itself.
        guard: who judges, instead of ``policies``.
    """

    def __init__(
        self,
        client: Client,
        *,
        service: str,
        policies: Policies | None = None,
        config: HostConfig | None = None,
        claims: Mapping[str, Any] | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.client = client
        self.service = payload.text(service, what="service")
        self.config = config or HostConfig()
        self._claims = dict(claims or {})
        self._policies = policies
        self._most = parse_size(self.config.max_input_size)
        judged = policies if policies is not None else Policies()
        self._guard: Guard = guard if guard is not None else PolicyGuard(judged)

    def as_(self, claims: Mapping[str, Any]) -> WorkflowHost:
        """Return the same for somebody with these claims."""
        return WorkflowHost(
            self.client,
            service=self.service,
            policies=self._policies,
            config=self.config,
            claims=claims,
            guard=self._guard,
        )

    @property
    def schedule(self) -> HostSchedule:
        """Workflows that begin by the clock."""
        return HostSchedule(self)

    # -- the page's calls --------------------------------------------------------------------

    async def run(
        self,
        workflow: str | Workflow[Any, Any],
        input: Any = None,
        *,
        correlation_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        claims: Mapping[str, Any] | None = None,
        caller: str = "",
    ) -> str:
        """Run a workflow; return the instance's id.

        Args:
            workflow: ``user.onboarding.v1`` (the highest 1.x.y), ``user.onboarding@1.2.0``, or a
                definition.
            input: must fit the workflow's input.
            correlation_id: what instances that belong together share.
            tags: what queries find it by.
            claims: of who is behind the call.
            caller: the workflow whose instance asks; an activity knows its own.

        Raises:
            PolicyDenied: a check or a policy says no; nothing was started.
            RateLimited: too many were run lately; ``details["retry_after"]`` in seconds.
            NotFound: there is no such workflow, or not in this version.
        """
        asked = _asked(workflow)
        found, verdict = await self.judge_start(
            "run", asked, input, claims, caller=caller or _own_caller()
        )
        self._check_manual(found, verdict)
        granted = await self.spend(verdict)
        try:
            handle = await self.client.under(granted).start(
                found.name,
                input,
                version=found.version,
                correlation_id=correlation_id,
                tags=instances.tag_texts(dict(tags or {})),
                run_timeout=_shortest(self.config.duration, verdict.limits.max_duration),
                activity_timeout=_shortest(self.config.step_timeout, verdict.limits.step_timeout),
            )
        except errors.ConcurrencyLimit as error:
            raise error_of(refused_by_place(verdict, error)) from error
        return handle.id

    async def signal(
        self,
        instance_id: str,
        signal: str,
        payload: Any = None,
        *,
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a signal; it is received once, also if nobody waits for it yet.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such instance, or it has ended.
        """
        row = await self._found(instance_id)
        request = self._about(row, claims, signal=signal)
        await self.spend(await self._judge("signal", request))
        await self._handle(row).send(signal, payload)

    async def get_status(
        self, instance_id: str, *, claims: Mapping[str, Any] | None = None
    ) -> WorkflowInstance:
        """Return an instance.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such instance.
        """
        row = await self._found(instance_id)
        await self._judge("get_status", self._about(row, claims))
        return instances.shown(await self._handle(row).describe())

    async def query(
        self,
        *,
        workflow_id: str | None = None,
        status: Any = None,
        tags: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> Instances:
        """Return instances, newest first; more than 1000, or than a policy says, are not given.

        Args:
            workflow_id: with a version or without. A page may then be short and have a cursor.
            status: one of the six, or several.
            tags: all of them.
            correlation_id: what they share.
            started_after: an aware datetime.
            started_before: the same.
            limit: how many.
            cursor: of the page before.
            claims: of who is behind the call.
        """
        wanted = instances.read_statuses(status)
        name = read_name(workflow_id) if workflow_id else None
        if workflow_id and name is None:
            raise errors.Invalid(f"workflow_id: {workflow_id!r} is no name of a workflow")
        request = self._request(
            claims, workflow_id=workflow_id or "", statuses=tuple(wanted), limit=limit
        )
        verdict = await self._judge("query", request)
        await self.spend(verdict)
        limits = verdict.limits
        filters: dict[str, Any] = {
            "workflow": name.name if name is not None else None,
            "status": instances.stored(instances.read_statuses(limits.statuses)),
            "tags": instances.tag_texts(dict(tags or {})) or None,
            "correlation_id": correlation_id,
            "started_after": started_after,
            "started_before": started_before,
        }
        given = {key: value for key, value in filters.items() if value is not None}
        page = await self.client.list(limit=limits.max_results, cursor=cursor, **given)
        items = [instances.shown(item) for item in page.items]
        if name is not None and name.version:
            items = [item for item in items if _is_of(item.version, name.version)]
        return Instances(items, page.cursor)

    async def cancel(
        self,
        instance_id: str,
        reason: str = "",
        *,
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        """Cancel an instance: its code can clean up, then it ends.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such instance.
            Conflict: it has ended.
        """
        row = await self._found(instance_id)
        await self.spend(await self._judge("cancel", self._about(row, claims, reason=reason)))
        if not await self._handle(row).cancel(reason=reason):
            raise errors.Conflict(f"instance {instance_id!r} has ended: nothing is left to cancel")

    async def list_workflows(
        self, *, claims: Mapping[str, Any] | None = None
    ) -> list[WorkflowInfo]:
        """Return the workflows that there are, by name and version."""
        await self._judge("list", self._request(claims))
        known = await self.client.door.read(lambda store: store.definitions())
        found = [
            WorkflowInfo(one.name, one.version, one.triggers)
            for one in known
            if one.is_active and not one.name.startswith("perdure.")
        ]
        return sorted(found, key=lambda one: (one.workflow_id, one.version))

    async def explain(
        self, operation: str, *, claims: Mapping[str, Any] | None = None, **asked: Any
    ) -> list[Finding]:
        """Say what each rule says of an operation, without doing it.

        Args:
            operation: ``run``, ``signal``, ``query``, ``cancel``, ``get_status``, ``list`` or
                ``trigger``.
            claims: of who would be behind it.
            **asked: what the operation is about: fields of :class:`perdure.policy.Request`; of an
                instance its ``instance_id`` alone.
        """
        await self._judge("explain", self._request(claims))
        if "instance_id" in asked:
            row = await self._found(asked.pop("instance_id"))
            request = self._about(row, claims, **asked)
        else:
            request = self._request(claims, **asked)
        return self._policies.explain(operation, request) if self._policies is not None else []

    # -- what a start goes through -------------------------------------------------------------

    async def judge_start(
        self,
        operation: str,
        workflow_id: str,
        input: Any,
        claims: Mapping[str, Any] | None,
        **asked: Any,
    ) -> tuple[Definition, Verdict]:
        """Judge what would start a workflow, now or later; return its version, and the verdict.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such workflow, or not in this version.
        """
        size = len(payload.encode(input, what="input"))
        if wrong := checks.check_input_size(size, self._most):
            raise errors.PolicyDenied(checks.CODES["input_size"], wrong, "input_size")
        known = read_name(workflow_id) is not None
        found = await self._resolve(workflow_id) if known else None
        request = self._request(
            claims,
            workflow_id=workflow_id,
            input=input,
            input_size=size,
            validate=self._validator(found),
            **asked,
        )
        verdict = await self._judge(operation, request)
        if found is None:
            raise errors.NotFound(f"there is no workflow {workflow_id!r}")
        return found, verdict

    # -- inside ------------------------------------------------------------------------------

    def _request(self, claims: Mapping[str, Any] | None, **asked: Any) -> Request:
        said = self._claims if claims is None else dict(claims)
        return Request(service=self.service, claims=said, **asked)

    def _about(self, row: RunRow, claims: Mapping[str, Any] | None, **asked: Any) -> Request:
        return self._request(
            claims,
            workflow_id=row.workflow,
            instance_id=row.workflow_id,
            instance=instances.facts(row),
            **asked,
        )

    async def _judge(self, operation: str, request: Request) -> Verdict:
        verdict = await self._guard.check(operation, request)
        if not verdict.allowed:
            raise error_of(verdict)
        return verdict

    async def spend(self, verdict: Verdict) -> Granted:
        """Spend what the operation costs; return what a start is granted."""
        limits = verdict.limits
        if limits.meters:
            now = self.client.door.now()
            spend = Spend(meters=limits.meters)
            spent = await self.client.door.write(lambda store: store.spend(spend, now))
            judged = refused_by_rate(verdict, spent, now)
            if not judged.allowed:
                raise error_of(judged, retry_after=max(0, spent.retry_at - now) / _SECOND)
        places = dict(limits.places)
        if most := self.config.max_concurrent_instances:
            key = f"service:{self.service}"
            places[key] = min(most, places.get(key, most))
        return Granted(policy=verdict.version, places=tuple(places.items()))

    async def _resolve(self, asked: str) -> Definition | None:
        name = read_name(asked)
        assert name is not None
        known = await self.client.door.read(lambda store: store.definitions())
        return _chosen(known, name)

    def _validator(self, found: Definition | None) -> Any:
        if found is None:
            return None
        own = self.client.door.definition(found.name, found.version)
        if own is None:
            return None  # its schema is known where it is registered; its worker checks it again

        def validate(value: Any) -> None:
            own.check_input(payload.encode(value, what=f"input of {own.name}"), value)

        return validate

    def _check_manual(self, found: Definition, verdict: Verdict) -> None:
        if self.config.enable_manual_triggers or _MANUAL in found.triggers:
            return
        raise errors.PolicyDenied(
            "MANUAL_TRIGGERS_DISABLED",
            f"{found.name!r} has no trigger 'manual', and this service runs nothing else by hand",
            "enable_manual_triggers",
            version=verdict.version,
        )

    async def _found(self, instance_id: str) -> RunRow:
        home, key = self.client.namespace, payload.text(instance_id, what="instance_id")
        row = await self.client.door.read(lambda store: store.find(key, namespace=home))
        if row is None:
            raise errors.NotFound(f"there is no instance {instance_id!r}")
        return row

    def _handle(self, row: RunRow) -> Handle[Any]:
        return self.client.get(row.workflow_id, namespace=row.namespace)


def _asked(workflow: str | Workflow[Any, Any]) -> str:
    if isinstance(workflow, Workflow):
        return f"{workflow.name}@{workflow.version}"
    return payload.text(workflow, what="workflow")


def _own_caller() -> str:
    """Return the workflow whose activity this is, if it is one."""
    attempt = activity.running.get(None)
    return "" if attempt is None else attempt.info.workflow


def _chosen(known: list[Definition], name: Name) -> Definition | None:
    """Return the version that a name means: an exact one, or the highest that begins so."""
    fitting = {
        one.version: one
        for one in known
        if one.name == name.name and one.is_active and _is_of(one.version, name.version)
    }
    highest = highest_active(name.name, list(fitting), [])
    return None if highest is None else fitting[highest]


def _is_of(version: str, asked: str) -> bool:
    """Tell whether a version is ``asked``, or one of its: 1.2.0 is of 1 and of 1.2."""
    return not asked or version == asked or version.startswith(f"{asked}.")


def _shortest(micros: int, seconds: float) -> float | None:
    """Return the shorter of two limits in seconds; ``None``: there is none."""
    found = [one for one in (micros / _SECOND, seconds) if one]
    return min(found, default=None)
