"""What a verdict leaves to who has the database: rates and places. By which key each of them is,
and what a refusal by one says.
"""

from __future__ import annotations

from typing import Any

from perdure.errors import ConcurrencyLimit
from perdure.policy.verdict import Finding, Limits, Verdict
from perdure.values.duration import SECOND, to_text
from perdure.values.meters import Spent

RATE_LIMITED, NO_PLACE = "RATE_LIMITED", "CONCURRENCY_LIMIT"
IS_COUNTED = "counted when it is done"
"""What ``explain`` says of a rate and of a place."""


def counted_by(limits: Limits) -> list[Finding]:
    """Return what ``explain`` tells of an operation's rates and places."""
    rates = [(rate_rule(meter.key), meter.rate.text) for meter in limits.meters]
    places = [(place_rule(key), f"{most:,}") for key, most in limits.places]
    return [Finding(rule, True, value, reason=IS_COUNTED) for rule, value in (*rates, *places)]


def rate_rule(key: str) -> str:
    """Return the key of a policy that a meter is for."""
    operation = key.partition(":")[0]
    group = "policy.schedule.create" if operation == "trigger" else f"policy.workflow.{operation}"
    return f"{group}.rateLimit"


def place_rule(key: str) -> str:
    """Return the key of a policy that a place is for."""
    name = "maxConcurrentInstances" if key.startswith("service:") else "maxInstancesPerWorkflow"
    return f"policy.workflow.{name}"


def refused_by_rate(verdict: Verdict, spent: Spent, now: int) -> Verdict:
    """Return the verdict when its meters were asked: as it was, or a refusal. ``now`` as for
    ``store.spend``.
    """
    if not spent.refused:
        return verdict
    rate = next(meter.rate for meter in verdict.limits.meters if meter.key == spent.refused)
    wait = max(0, spent.retry_at - now)
    unit = SECOND if wait >= 10 * SECOND else SECOND // 1_000
    reason = f"more than {rate.text}; the next may come in {to_text(-(-wait // unit) * unit)}"
    rule = rate_rule(spent.refused)
    return Verdict(False, RATE_LIMITED, reason, rule, verdict.version, verdict.limits)


def refused_by_place(verdict: Verdict, error: ConcurrencyLimit) -> Verdict:
    """Return the verdict on a start for which there was no place."""
    details: dict[str, Any] = error.details or {}
    key = str(details.get("key", ""))
    of, _, name = key.partition(":")
    reason = f"{of} {name!r}: {error.message}" if name else error.message
    return Verdict(False, NO_PLACE, reason, place_rule(key), verdict.version, verdict.limits)
