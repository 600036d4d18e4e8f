"""``workflow.*`` for a service: every call is judged by policies before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from perdure import errors, views
from perdure.client import Client
from perdure.definition import Workflow
from perdure.filters import read_filter
from perdure.handle import Handle
from perdure.host import instances
from perdure.host.config import HostConfig
from perdure.host.instances import Instances, WorkflowInfo, WorkflowInstance
from perdure.host.naming import chosen, is_of, named
from perdure.host.querying import find
from perdure.host.reading import check_count, moment, read_statuses, tag_texts
from perdure.host.schedule import HostSchedule
from perdure.judging import Judge, Sight, guard_of, narrowed, own_caller, sized
from perdure.policy import Finding, Guard, Policies, PolicyGuard, Request, Verdict, checks
from perdure.policy.counted import counted_by
from perdure.policy.globs import read_name
from perdure.store.port import Definition, RunRow
from perdure.values import payload
from perdure.values.duration import SECOND
from perdure.values.payload import text
from perdure.values.principals import sees
from perdure.values.sizes import parse_size

_MANUAL = "manual"
_ASKED = frozenset(Request.__struct_fields__) - {"service", "claims", "instance", "validate"}
"""What ``explain`` can be asked about."""
_STARTS = ("run", "trigger")


class WorkflowHost:
    """What a service does with workflows.

    Args:
        client: whose executions they are. If it acts for a principal of a tenant
            (``client.as_(…)``), there are no others than that tenant's.
        service: who asks: ``app.billing``; its namespace is the text before the last dot.
        policies: what it may do; none is everything that the checks of the code allow.
        config: of its deployment.
        claims: of who is behind its calls, unless a call says so itself.
        guard: who judges, instead of ``policies``.
        definitions: of workflows whose inputs are checked before they are run, beside those that
            the client's engine knows. A client without an engine knows none.

    Raises:
        UsageError: ``policies`` and ``guard`` are given, or one of them is of another kind.
        Invalid: no name of a service; claims that are no mapping.
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
        definitions: Iterable[Workflow[Any, Any]] = (),
    ) -> None:
        self.client = client
        self.service = payload.text(service, what="service")
        if not self.service.strip():
            raise errors.Invalid("service: it is empty; who asks, such as 'app.billing'")
        self.config = HostConfig() if config is None else config
        if not isinstance(cast("Any", self.config), HostConfig):
            raise errors.UsageError("config: give HostConfig(…)")
        self._guard = guard_of(policies, guard)
        self._definitions = {(one.name, one.version): one for one in definitions}
        self._most = parse_size(self.config.max_input_size)
        self.judge = Judge(
            client,
            self._guard or PolicyGuard(Policies()),
            service=self.service,
            claims=claims if claims is not None else {},
            is_audited=self._guard is not None,
        )

    def as_(self, claims: Mapping[str, Any]) -> WorkflowHost:
        """Return the same for somebody with these claims."""
        return WorkflowHost(
            self.client,
            service=self.service,
            config=self.config,
            claims=claims,
            guard=self._guard,
            definitions=self._definitions.values(),
        )

    @property
    def schedule(self) -> HostSchedule:
        """Workflows that begin by the clock."""
        return HostSchedule(self)

    # -- the page's calls --------------------------------------------------------------------

    async def run(
        self,
        workflow_id: str | Workflow[Any, Any],
        input: Any = None,
        *,
        correlation_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        claims: Mapping[str, Any] | None = None,
        caller: str = "",
    ) -> str:
        """Run a workflow; return the instance's id.

        Args:
            workflow_id: ``user.onboarding.v1`` (the highest 1.x.y), ``user.onboarding@1.2.0``, or a
                definition.
            input: must fit the workflow's input.
            correlation_id: what instances that belong together share.
            tags: what queries find it by; a key has no ``=``.
            claims: of who is behind the call.
            caller: the workflow whose instance asks; not read in an activity, whose own is known.

        Raises:
            PolicyDenied: a check or a policy says no; nothing was started.
            RateLimited: too many were run lately; ``details["retry_after"]`` in seconds.
            NotFound: there is no such workflow, or not in this version.
            Invalid: an argument cannot be meant.
        """
        judge, texts = self.judge, tag_texts(tags)
        found, request, verdict = await self.judge_start(
            "run", workflow_id, input, claims, caller=caller
        )
        client = await judge.admit("run", request, verdict)
        try:
            handle = await client.start(
                found.name,
                input,
                version=found.version,
                correlation_id=correlation_id,
                tags=texts,
                retention=self.config.retention,
            )
        except errors.ConcurrencyLimit as error:
            raise await judge.no_place("run", request, verdict, error) from error
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
            Invalid: an argument cannot be meant.
        """
        name = text(signal, what="signal")
        row = await self._found("signal", instance_id, claims, signal=name)
        request = self.judge.about(row, claims, signal=name, **sized(payload, "payload"))
        verdict = await self.judge.allow("signal", request)
        client = await self.judge.admit("signal", request, verdict)
        await _handle(client, row).send(name, payload)

    async def get_status(
        self, instance_id: str, *, claims: Mapping[str, Any] | None = None
    ) -> WorkflowInstance:
        """Return an instance.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such instance, or it has ended too long ago
                (``retention_days``).
        """
        row = await self._found("get_status", instance_id, claims)
        await self.judge.allow("get_status", self.judge.about(row, claims))
        return instances.shown(await _handle(self.client, row).describe())

    async def query(
        self,
        *,
        workflow_id: str | Workflow[Any, Any] | None = None,
        status: str | Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        started_after: datetime | str | None = None,
        started_before: datetime | str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> Instances:
        """Return instances, newest first; more than 1000, or than a policy says, are not given.

        What the policies say of workflows and instances is asked of each one that is found, and
        those that may not be seen are left out.

        Args:
            workflow_id: with a version or without; or a definition.
            status: one of the six, or several.
            tags: all of them.
            correlation_id: what they share.
            started_after: an aware datetime, or text of ISO 8601 with a time zone; itself included.
            started_before: the same; itself not included.
            limit: how many.
            cursor: of the page before. A short page may have one, too: go on until there is none.
            claims: of who is behind the call.

        Raises:
            PolicyDenied: a check or a policy says no.
            RateLimited: too many came lately; ``details["retry_after"]`` in seconds.
            Invalid: an argument cannot be meant.
        """
        wanted = read_statuses(status)
        asked = named(workflow_id) if workflow_id is not None else ""
        name = read_name(asked) if asked else None
        filters: dict[str, Any] = {
            "workflow": name.name if name is not None else None,
            "tags": tag_texts(tags) or None,
            "correlation_id": correlation_id,
            "started_after": moment("started_after", started_after),
            "started_before": moment("started_before", started_before),
            "tenant": self._tenant,
        }
        place = text(cursor, what="cursor") if cursor is not None else None
        judge = self.judge
        request = judge.request(claims, workflow_id=asked, statuses=wanted, limit=limit)
        verdict = await judge.allow("query", request)
        await judge.admit("query", request, verdict)
        limits = verdict.limits
        filters["status"] = instances.stored(read_statuses(limits.statuses))
        where = read_filter(filters, self.client.namespace)
        if not limits.max_results or not where.status:
            return Instances([], None)
        sight = Sight(judge, "query", request, verdict)

        async def shows(row: RunRow) -> bool:
            if self._is_forgotten(row):
                return False
            if name is not None and not is_of(row.version, name.version):
                return False
            return await sight.shows(lambda: judge.about(row, claims))

        page = await find(
            self.client.door, where, limit=limits.max_results, cursor=place, shows=shows
        )
        await sight.check(page.rows)
        items = [instances.shown(views.execution(row)) for row in page.rows]
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
        reason = text(reason, what="reason")
        row = await self._found("cancel", instance_id, claims, reason=reason)
        request = self.judge.about(row, claims, reason=reason)
        verdict = await self.judge.allow("cancel", request)
        client = await self.judge.admit("cancel", request, verdict)
        if not await _handle(client, row).cancel(reason=reason):
            raise errors.Conflict(f"instance {instance_id!r} has ended: nothing is left to cancel")

    async def list_workflows(
        self, *, claims: Mapping[str, Any] | None = None
    ) -> list[WorkflowInfo]:
        """Return the workflows that there are and that the policies show, by name and version.

        Raises:
            PolicyDenied: a policy says no, or not one workflow can be judged.
        """
        request = self.judge.request(claims)
        verdict = await self.judge.allow("list", request)
        known = await self.client.door.read(lambda store: store.definitions())
        found = [
            WorkflowInfo(one.name, one.version, one.triggers)
            for one in known
            if one.is_active and not one.name.startswith("perdure.")
        ]
        shown = await self.judge.shown(
            found, verdict, request, lambda one: (one.workflow_id, one.version)
        )
        return sorted(shown, key=lambda one: (one.workflow_id, one.version))

    async def explain(
        self, operation: str, *, claims: Mapping[str, Any] | None = None, **asked: Any
    ) -> list[Finding]:
        """Say what each rule says of an operation, without doing it.

        Args:
            operation: ``run``, ``signal``, ``query``, ``cancel``, ``get_status``, ``list`` or
                ``trigger``.
            claims: of who would be behind it.
            **asked: what the operation is about: fields of :class:`perdure.policy.Request`; of an
                instance its ``instance_id`` alone. An input is held against the workflow that
                ``workflow_id`` names, as for ``run``; whether there is one is no rule.

        Raises:
            PolicyDenied: a policy says no to explaining.
            NotFound: there is no such instance.
            Invalid: ``asked`` has what is no field of a request, or a size that is none.
        """
        if unknown := sorted(set(asked) - _ASKED):
            raise errors.Invalid(
                f"explain: {unknown[0]!r} is not among {', '.join(sorted(_ASKED))}"
            )
        if "input_size" in asked:
            check_count("input_size", asked["input_size"])
        judge = self.judge
        await judge.allow("explain", judge.request(claims))
        found: Definition | None = None
        if operation in _STARTS:
            given: dict[str, Any] = {"workflow_id": "", "input": None, "caller": "", **asked}
            found, request = await self._of_start(claims=claims, **given)
        elif "instance_id" in asked and not checks.check_instance_id(
            key := text(asked["instance_id"], what="instance_id")
        ):
            del asked["instance_id"]
            row = await self._found(operation, key, claims)
            request = judge.about(row, claims, **asked)
        else:
            request = judge.request(claims, **asked)
        told = await judge.guard.explain(operation, request)
        if operation not in _STARTS:
            return told
        limits = self._limited(Verdict(True)).limits
        return [*told, *self._own_rules(operation, found, request), *counted_by(limits)]

    # -- what a start goes through -------------------------------------------------------------

    async def judge_start(
        self,
        operation: str,
        workflow_id: str | Workflow[Any, Any],
        input: Any,
        claims: Mapping[str, Any] | None,
        **asked: Any,
    ) -> tuple[Definition, Request, Verdict]:
        """Judge what would start a workflow, now or later; return its version, what was asked, and
        the verdict with the limits of the deployment.

        Raises:
            PolicyDenied: a check or a policy says no.
            NotFound: there is no such workflow, or not in this version.
        """
        found, request = await self._of_start(workflow_id, input, claims=claims, **asked)
        verdict = await self.judge.allow(operation, request)
        for one in self._own_rules(operation, found, request):
            if not one.allowed:
                of = verdict.version, verdict.limits
                no = Verdict(False, one.code, one.reason, one.rule, *of)
                raise await self.judge.refuse(operation, request, no)
        if found is None:
            raise errors.NotFound(f"there is no workflow {request.workflow_id!r}")
        return found, request, self._limited(verdict)

    async def _of_start(
        self,
        workflow_id: str | Workflow[Any, Any],
        input: Any,
        *,
        claims: Mapping[str, Any] | None,
        caller: str,
        **asked: Any,
    ) -> tuple[Definition | None, Request]:
        """Return the version that would start, if there is one, and what policies are asked."""
        name = named(workflow_id)
        found = await self._resolve(name) if read_name(name) is not None else None
        validate = self._validator(found, workflow_id)
        known = {"validate": validate, "caller": own_caller(caller), **asked}
        known = {**sized(input, "input"), **known}
        return found, self.judge.request(claims, workflow_id=name, **known)

    def _own_rules(
        self, operation: str, found: Definition | None, request: Request
    ) -> Iterator[Finding]:
        """Yield what the deployment says of a start, behind what policies say."""
        wrong = checks.check_input_size(request.input_size, self._most)
        code, most = checks.CODES["input_size"] if wrong else "", f"{self._most:,} bytes"
        yield Finding("max_input_size", not wrong, most, code, wrong)
        if self.config.enable_manual_triggers or operation != "run" or found is None:
            return
        rule, code = "enable_manual_triggers", "MANUAL_TRIGGERS_DISABLED"
        if _MANUAL in found.triggers:
            yield Finding(rule, True, "False")
            return
        said = f"{found.name!r} has no trigger 'manual', and this service runs nothing else by hand"
        yield Finding(rule, False, "False", code, said)

    # -- inside ------------------------------------------------------------------------------

    def _limited(self, verdict: Verdict) -> Verdict:
        """Return a verdict with the limits of the deployment, where they are the stricter ones."""
        config, limits = self.config, verdict.limits
        places = dict(limits.places)
        if most := config.max_concurrent_instances:
            key = f"service:{self.service}"
            places[key] = min(most, places.get(key, most))
        return narrowed(
            verdict,
            places=tuple(places.items()),
            max_duration=_shorter(config.duration / SECOND, limits.max_duration),
            step_timeout=_shorter(config.step_timeout / SECOND, limits.step_timeout),
        )

    async def _resolve(self, asked: str) -> Definition | None:
        name = read_name(asked)
        assert name is not None
        known = await self.client.door.read(lambda store: store.definitions())
        return chosen(known, name)

    def _validator(self, found: Definition | None, given: str | Workflow[Any, Any]) -> Any:
        if found is None:
            return None
        own = given if isinstance(given, Workflow) else None
        own = own or self._definitions.get((found.name, found.version))
        own = own or self.client.door.definition(found.name, found.version)
        if own is None:
            return None  # its schema is known where it is registered; its worker checks it again

        def validate(value: Any) -> None:
            own.check_input(payload.encode(value, what=f"input of {own.name}"), value)

        return validate

    async def _found(
        self, operation: str, instance_id: str, claims: Mapping[str, Any] | None, **asked: Any
    ) -> RunRow:
        """Return an instance; what can be none's id is refused before anything is read.

        Raises:
            PolicyDenied: it is no id.
            NotFound: there is no such instance.
        """
        home, key = self.client.namespace, text(instance_id, what="instance_id")
        if checks.check_instance_id(key):
            await self.judge.allow(operation, self.judge.request(claims, instance_id=key, **asked))
        row = await self.client.door.read(lambda store: store.find(key, namespace=home))
        hidden = row is not None and not sees(self.client.acts_for, row.tenant)
        if row is None or hidden or self._is_forgotten(row):
            raise errors.NotFound(f"there is no instance {instance_id!r}")
        return row

    @property
    def _tenant(self) -> str | None:
        """Whose instances alone are seen; ``None``: those of all."""
        who = self.client.acts_for
        return (who.tenant or None) if who is not None else None

    def _is_forgotten(self, row: RunRow) -> bool:
        """Tell whether an instance has ended longer ago than the service is shown any."""
        keep = self.config.retention
        if keep is None or row.closed_at is None:
            return False
        return row.closed_at + keep * SECOND < self.client.door.now()


def _handle(client: Client, row: RunRow) -> Handle[Any]:
    return client.get(row.workflow_id, namespace=row.namespace)


def _shorter(one: float, other: float) -> float:
    """Return the shorter of two limits; 0: there is none."""
    return min(filter(None, (one, other)), default=0)
