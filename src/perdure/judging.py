"""What every door does before it acts: it asks a guard, spends what the verdict says, tells the
audit, and acts by a client that is bound by what was granted.

The host API, the operations API and whatever comes after them differ in what they call things and
in how they answer; the judging is this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec

from perdure import activity, errors, views
from perdure.client import Client
from perdure.policy import Guard, Policies, PolicyGuard, Request, Schedule, Verdict
from perdure.policy.counted import refused_by_place, refused_by_rate
from perdure.policy.hook import error_of, with_checks
from perdure.policy.statuses import status_of
from perdure.policy.verdict import DENIED as DENIED_CODE
from perdure.policy.verdict import Limits
from perdure.store.port import RunRow
from perdure.values import payload
from perdure.values.audit import Level
from perdure.values.duration import SECOND, microseconds
from perdure.values.granted import Granted
from perdure.values.limits import LABEL
from perdure.values.meters import Spend
from perdure.values.principals import Principal
from perdure.values.schedules import DAY, Spec, least_gap

T = TypeVar("T")

DENIED: Final = "denied"
ALLOWED: Final = "allowed"
ACTIONS: Final = {
    "run": "start",
    "signal": "send",
    "cancel": "cancel",
    "trigger": "schedule.create",
}
"""What the audit calls operations that do something; others only look."""


class Sight:
    """What of an allowed look may be seen, thing by thing, if a rule is about each."""

    def __init__(self, judge: Judge, operation: str, request: Request, verdict: Verdict) -> None:
        self._judge = judge
        self._operation = operation
        self._request = request
        self._is_asked = verdict.limits.by_row
        self._broken: Verdict | None = None

    async def shows(self, about: Callable[[], Request]) -> bool:
        """Tell whether a thing may be seen; ``about`` returns what is asked of it."""
        if not self._is_asked:
            return True
        judged = await self._judge.guard.check(self._operation, about())
        if not judged.allowed and judged.code != DENIED_CODE:
            self._broken = self._broken or judged
        return judged.allowed

    async def check(self, found: Sequence[Any]) -> None:
        """Make sure that what was ``found`` is all there is.

        Raises:
            PolicyDenied: it is nothing, since something could not be judged: a claim is missing,
                say.
        """
        if self._broken is not None and not found:
            raise await self._judge.refuse(self._operation, self._request, self._broken)


class Judge:
    """Judges what goes through a door.

    Args:
        client: what the door acts by.
        guard: who judges, after the checks that are always made.
        service: for whom the door is.
        claims: of who calls.
        is_audited: whether the verdict's level of audit is heeded.
    """

    def __init__(
        self,
        client: Client,
        guard: Guard,
        *,
        service: str,
        claims: Mapping[str, Any],
        is_audited: bool = True,
    ) -> None:
        self.client = client
        self.guard = with_checks(guard)
        self.service = service
        self._claims = _claims(claims)
        self._is_audited = is_audited
        self._view = client

    # -- what is asked -----------------------------------------------------------------------

    def request(self, claims: Mapping[str, Any] | None = None, **asked: Any) -> Request:
        """Return a request of the one who calls; ``claims``: if they are others."""
        said = self._claims if claims is None else _claims(claims)
        return Request(service=self.service, claims=said, **asked)

    def about(self, row: RunRow, claims: Mapping[str, Any] | None = None, **asked: Any) -> Request:
        """Return a request about an instance."""
        return self.request(
            claims,
            name=row.workflow,
            version=row.version,
            instance_id=row.workflow_id,
            instance=facts_of(row),
            **asked,
        )

    # -- what is answered --------------------------------------------------------------------

    async def allow(
        self, operation: str, request: Request, *, action: str = "", target: str = ""
    ) -> Verdict:
        """Judge an operation.

        Args:
            operation: one of ``OPERATIONS``.
            request: what is asked for.
            action: what the audit calls it, if not as usual.
            target: what it is done to, if not the request's instance or workflow.

        Raises:
            PolicyDenied: it may not be done.
        """
        verdict = await self.guard.check(operation, request)
        if not verdict.allowed:
            raise await self.refuse(operation, request, verdict, action=action, target=target)
        if operation not in ACTIONS and self._level(verdict) is Level.FULL:
            await self._note(operation, request, verdict, action or operation, target)
        return verdict

    async def admit(
        self,
        operation: str,
        request: Request,
        verdict: Verdict,
        *,
        action: str = "",
        is_spent: bool = True,
    ) -> Client:
        """Spend what an allowed operation costs of rates (unless it is none that counts, and not
        ``is_spent``); return what to do it by.

        Raises:
            RateLimited: too many came lately; ``details["retry_after"]`` in seconds.
        """
        limits = verdict.limits
        if limits.meters and is_spent:
            now = self.client.door.now()
            spend = Spend(meters=limits.meters)
            spent = await self.client.door.write(lambda store: store.spend(spend, now))
            judged = refused_by_rate(verdict, spent, now)
            if not judged.allowed:
                # As many as come, so they are told where everything is.
                if self._level(verdict) is Level.FULL:
                    await self._note(operation, request, judged, action, "")
                raise error_of(judged, retry_after=max(0, spent.retry_at - now) / SECOND)
        granted = self._granted(request, verdict)
        if self._view.granted != granted:
            self._view = self.client.under(granted)
        return self._view

    async def no_place(
        self, operation: str, request: Request, verdict: Verdict, error: errors.ConcurrencyLimit
    ) -> errors.PerdureError:
        """Return what to raise for a start that found no place, or that another limit refused."""
        details: dict[str, Any] = error.details or {}
        if "key" not in details:
            return error
        return await self.refuse(operation, request, refused_by_place(verdict, error))

    async def refuse(
        self,
        operation: str,
        request: Request,
        verdict: Verdict,
        *,
        action: str = "",
        target: str = "",
    ) -> errors.PerdureError:
        """Tell the audit of a refusal; return what to raise."""
        if self._level(verdict) is not Level.NONE:
            await self._note(operation, request, verdict, action, target)
        return error_of(verdict)

    async def shown(
        self,
        rows: Iterable[T],
        verdict: Verdict,
        request: Request,
        named: Callable[[T], tuple[str, str]],
    ) -> list[T]:
        """Return what of an allowed list may be seen; ``named``: name and version of a workflow.

        Raises:
            PolicyDenied: not one could be judged: a claim is missing, say.
        """
        sight = Sight(self, "list", request, verdict)

        def about(row: T) -> Request:
            name, version = named(row)
            return msgspec.structs.replace(request, name=name, version=version)

        found = [row for row in rows if await sight.shows(lambda row=row: about(row))]
        await sight.check(found)
        return found

    # -- inside ------------------------------------------------------------------------------

    def _level(self, verdict: Verdict) -> Level:
        return Level(verdict.limits.audit) if self._is_audited else Level.NONE

    def _granted(self, request: Request, verdict: Verdict) -> Granted:
        limits, level = verdict.limits, self._level(verdict)
        told = self._told(request, verdict, level) if self._is_audited else {}
        return Granted(
            policy=verdict.version,
            places=limits.places,
            meters=limits.later,
            max_duration=microseconds(limits.max_duration, what="max_duration"),
            step_timeout=microseconds(limits.step_timeout, what="step_timeout"),
            timeout_action=limits.timeout_action,
            alerts=limits.alerts,
            audit=level,
            service=self.service,
            told=told,
        )

    def _told(self, request: Request, verdict: Verdict, level: Level) -> dict[str, Any]:
        told: dict[str, Any] = {"service": self.service, "policy": verdict.version}
        if level is Level.FULL:
            told["claims"] = dict(request.claims)
        if verdict.allowed:
            return told
        told |= {"code": verdict.code, "reason": verdict.reason}
        if level is Level.FULL and request.input is not None:
            told["input"] = msgspec.Raw(_encoded(request.input))
        return told

    async def _note(
        self, operation: str, request: Request, verdict: Verdict, action: str, target: str
    ) -> None:
        client = self.client
        asked = target or request.instance_id or request.name or request.workflow_id
        await client.audit.note(
            action or ACTIONS.get(operation, operation),
            asked[:LABEL].replace("\0", "\ufffd"),  # it may be nonsense, as was refused
            run_id=request.instance.get("runId", ""),  # so that it is erased with the run
            decision=ALLOWED if verdict.allowed else DENIED,
            rule=verdict.rule,
            by=client.acts_for or Principal(self.service),
            facts=self._told(request, verdict, self._level(verdict)),
        )


def guard_of(policies: Policies | None, guard: Guard | None) -> Guard | None:
    """Return who judges.

    Raises:
        UsageError: there are two, or ``policies`` are not made yet.
    """
    if policies is not None and guard is not None:
        raise errors.UsageError("give policies=, or guard=, and not both")
    if policies is not None and not isinstance(cast("Any", policies), Policies):
        raise errors.UsageError("policies: give Policies({…}), or Policies.load(…)")
    return guard if policies is None else PolicyGuard(policies)


def claims_of(principal: Principal) -> dict[str, Any]:
    """Return what conditions see of a principal: what a token said, and over it who it is.

    ``scopes`` are missing where it may do everything.
    """
    known: dict[str, Any] = {
        "id": principal.id,
        "kind": str(principal.kind),
        "roles": [grant.role for grant in principal.grants],
        "tenant": principal.tenant,
    }
    if principal.scopes is not None:
        known["scopes"] = list(principal.scopes)
    if principal.initiated_by:
        known["initiated_by"] = principal.initiated_by
    said = {name: value for name, value in principal.claims.items() if name != "scopes"}
    return {**said, **known}


def facts_of(row: RunRow) -> dict[str, Any]:
    """Return what conditions see of an instance; what is not known is left out."""
    shown = views.execution(row)
    status = status_of(row.status)
    known: dict[str, Any] = {
        "id": row.workflow_id,
        "runId": row.run_id,
        "status": str(status),
        "workflowId": row.workflow,
        "version": row.version,
        "startTime": shown.started_at.isoformat(),
        "tags": {name: value for name, _, value in (tag.partition("=") for tag in row.tags)},
    }
    more = {
        "currentStep": shown.current_step,
        "endTime": shown.completed_at.isoformat() if shown.completed_at is not None else None,
        "correlationId": row.correlation_id,
        "error": row.detail if status == "failed" else None,
        "createdBy": row.created_by,
        "tenant": row.tenant,
    }
    return {**known, **{name: value for name, value in more.items() if value is not None}}


def asked_schedule(spec: Spec, now: int) -> Schedule:
    """Return what policies are asked of a schedule."""
    executions = 1 if spec.at else spec.max_executions
    end = spec.at or spec.end
    return Schedule(
        cron=spec.cron,
        every=least_gap(spec, now) // SECOND,
        executions=executions,
        days=max(end - max(now, spec.start), 1) / DAY if end else 0,
        has_end=bool(end),
    )


def own_caller(said: str = "") -> str:
    """Return the workflow whose activity this is, if it is one; else the one that was ``said``."""
    attempt = activity.running.get(None)
    return payload.text(said, what="caller") if attempt is None else attempt.info.workflow


def sized(value: Any, what: str) -> dict[str, Any]:
    """Return what is asked about something that is given: the value, and its encoded bytes.

    Raises:
        Invalid: it cannot be encoded.
    """
    return {"input": value, "input_size": len(payload.encode(value, what=what))}


def narrowed(verdict: Verdict, **limits: Any) -> Verdict:
    """Return a verdict with other limits, as a door's own settings want it."""
    made: Limits = msgspec.structs.replace(verdict.limits, **limits)
    return msgspec.structs.replace(verdict, limits=made)


def _claims(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(cast("Any", given), Mapping):
        raise errors.Invalid(f"claims: {given!r} is no mapping")
    return dict(given)


def _encoded(value: Any) -> bytes:
    try:
        return payload.encode(value, what="input")
    except errors.Invalid as error:
        return payload.encode(error.message)
