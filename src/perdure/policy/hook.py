"""The hook that every door asks before it does anything: the host API, the operations API, a
server, the command line against a server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from perdure.errors import PolicyDenied, RateLimited
from perdure.policy.counted import RATE_LIMITED
from perdure.policy.policies import Policies
from perdure.policy.verdict import ERROR, Finding, Request, Verdict


class Guard(Protocol):
    """Who says whether an operation may be done. It never raises for one that may not."""

    async def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation, one of ``OPERATIONS``."""
        ...


class PolicyGuard:
    """A guard that asks policies, in process.

    ``told``: is called with each operation, its request and the verdict, to record them
    (:func:`perdure.policy.record`), say. If it raises, nothing is done.
    """

    def __init__(
        self,
        policies: Policies,
        *,
        told: Callable[[str, Request, Verdict], object] | None = None,
    ) -> None:
        policies.log_warnings()
        self.policies = policies
        self._told = told

    async def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation."""
        verdict = self.policies.check(operation, request)
        if self._told is not None:
            self._told(operation, request, verdict)
        return verdict

    async def explain(self, operation: str, request: Request) -> list[Finding]:
        """Return what every rule says."""
        return self.policies.explain(operation, request)


class CheckedGuard:
    """A guard of the user's own, behind the checks that are always made.

    What it raises denies. What it lets a query give is narrowed to what was asked for.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._checks = Policies()

    async def check(self, operation: str, request: Request) -> Verdict:
        """Judge an operation."""
        checked = self._checks.check(operation, request)
        return await self._own(operation, request, checked) if checked.allowed else checked

    async def explain(self, operation: str, request: Request) -> list[Finding]:
        """Return what every check says, and what the guard does, as the rule ``guard``."""
        own = self._guard if isinstance(self._guard, PolicyGuard) else None
        found = (own.policies if own is not None else self._checks).explain(operation, request)
        if all(it.allowed for it in found):
            said = await self._own(operation, request, self._checks.check(operation, request))
            found.append(Finding("guard", said.allowed, said.rule, said.code, said.reason))
        return found

    async def _own(self, operation: str, request: Request, checked: Verdict) -> Verdict:
        try:
            verdict = await self._guard.check(operation, request)
            if not isinstance(cast("object", verdict), Verdict):
                raise TypeError(f"it gave {verdict!r}, which is no Verdict")
        except Exception as exc:  # noqa: BLE001 - whatever cannot be judged is denied
            return Verdict(False, ERROR, f"{type(exc).__name__}: {exc}", "guard")
        if operation != "query":
            return verdict
        asked, given = checked.limits, verdict.limits
        limits = msgspec.structs.replace(
            given,
            max_results=min(asked.max_results, given.max_results),
            statuses=tuple(one for one in asked.statuses if one in given.statuses),
        )
        return msgspec.structs.replace(verdict, limits=limits)


def with_checks(guard: Guard) -> PolicyGuard | CheckedGuard:
    """Return a guard that makes the checks which are always made, too."""
    if isinstance(guard, PolicyGuard) and type(guard).check is PolicyGuard.check:
        return guard
    return guard if isinstance(guard, CheckedGuard) else CheckedGuard(guard)


def error_of(verdict: Verdict, *, retry_after: float | None = None) -> PolicyDenied | RateLimited:
    """Return what to raise for a refusal; one of a rate says in how many seconds to try again."""
    if verdict.code == RATE_LIMITED and retry_after is not None:
        details = {"retry_after": retry_after, "rule": verdict.rule, "version": verdict.version}
        return RateLimited(verdict.reason, details=details)
    return PolicyDenied(verdict.code, verdict.reason, verdict.rule, version=verdict.version)
