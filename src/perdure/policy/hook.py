"""The hook that every door asks before it does anything: the host API, the operations API, a
server, the command line against a server.
"""

from __future__ import annotations

from typing import Any, Protocol

from perdure.errors import ConcurrencyLimit, PolicyDenied, RateLimited
from perdure.policy.policies import Policies
from perdure.policy.verdict import Request, Verdict
from perdure.values.meters import Spent

RATE_LIMITED, NO_PLACE = "RATE_LIMITED", "CONCURRENCY_LIMIT"


class Guard(Protocol):
    """Who says whether an operation may be done. It never raises for one that may not."""

    async def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation, one of ``OPERATIONS``."""
        ...


class PolicyGuard:
    """A guard that asks policies, in process."""

    def __init__(self, policies: Policies) -> None:
        self.policies = policies

    async def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation."""
        return self.policies.check(operation, request)


def refused_by_rate(verdict: Verdict, spent: Spent, now: int) -> Verdict:
    """Return the verdict when its meters were asked: as it was, or a refusal. ``now`` as for
    ``store.spend``.
    """
    if not spent.refused:
        return verdict
    rate = next(meter.rate for meter in verdict.limits.meters if meter.key == spent.refused)
    operation = spent.refused.partition(":")[0]
    seconds = max(0, spent.retry_at - now) / 1_000_000
    key = "policy.schedule.create" if operation == "trigger" else f"policy.workflow.{operation}"
    reason = f"more than {rate.text}; the next may come in {seconds:.3g} s"
    rule = f"{key}.rateLimit"
    return Verdict(False, RATE_LIMITED, reason, rule, verdict.version, verdict.limits)


def refused_by_place(verdict: Verdict, error: ConcurrencyLimit) -> Verdict:
    """Return the verdict on a start for which there was no place."""
    details: dict[str, Any] = error.details or {}
    key = str(details.get("key", ""))
    rule = "maxConcurrentInstances" if key.startswith("service:") else "maxInstancesPerWorkflow"
    rule = f"policy.workflow.{rule}"
    return Verdict(False, NO_PLACE, error.message, rule, verdict.version, verdict.limits)


def error_of(verdict: Verdict, *, retry_after: float | None = None) -> PolicyDenied | RateLimited:
    """Return what to raise for a refusal; one of a rate says in how many seconds to try again."""
    if verdict.code == RATE_LIMITED and retry_after is not None:
        details = {"retry_after": retry_after, "rule": verdict.rule, "version": verdict.version}
        return RateLimited(verdict.reason, details=details)
    return PolicyDenied(verdict.code, verdict.reason, verdict.rule, version=verdict.version)
