"""The policies of the page as it writes them: each group by itself, and all of them in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.policy import Policies, Request

P = "policy.workflow."
GROUPS: dict[str, str] = {
    "permissions": """
        "policy.workflow.run.allowed": ["user.onboarding", "order.processing", "report.*"],
        "policy.workflow.run.blocked": ["admin.dangerous", "legacy.*"]""",
    "condition": """
        "policy.workflow.run.condition":
            "workflow.id != 'payment.process' || request.auth.claims.role == 'payment_admin'\"""",
    "signals": """
        "policy.workflow.signal.allowed": true,
        "policy.workflow.signal.allowedSignals": ["approved", "rejected", "timeout"],
        "policy.workflow.signal.condition":
            "instance.status == 'waiting' && request.auth.claims.canSignal\"""",
    "queries": """
        "policy.workflow.query.maxResults": 100,
        "policy.workflow.query.allowedStatuses": ["completed", "failed"],
        "policy.workflow.query.condition": "request.auth.claims.role in ['admin', 'operator']\"""",
    "rates": """
        "policy.workflow.run.rateLimit": "100/minute",
        "policy.workflow.signal.rateLimit": "1000/minute",
        "policy.workflow.query.rateLimit": "100/minute\"""",
    "instances": """
        "policy.workflow.maxConcurrentInstances": 50,
        "policy.workflow.maxInstancesPerWorkflow": {
            "user.onboarding": 100, "report.generation": 10}""",
    "environment": """
        "policy.workflow.condition":
            "env.DEPLOYMENT_ENV == 'production' ? workflow.id != 'test.*' : true\"""",
    "input": """
        "policy.workflow.run.maxInputSizeKb": 100,
        "policy.workflow.run.requiredInputFields": {
            "payment.process": ["amount", "currency", "customerId"]}""",
    "cancel": """
        "policy.workflow.cancel.allowed": true,
        "policy.workflow.cancel.condition":
         "instance.status in ['pending', 'running'] && request.auth.claims.role == 'admin'",
        "policy.workflow.cancel.requireReason": true""",
    "audit": """
        "policy.workflow.audit": true,
        "policy.workflow.auditLevel": "full",
        "policy.workflow.alertOnFailure": ["payment.*", "compliance.*"]""",
    "cross": """
        "policy.workflow.run.crossNamespace": false,
        "policy.workflow.run.allowedNamespaces": ["app", "common"],
        "policy.workflow.run.condition":
            "workflow.namespace == service.namespace || workflow.namespace == 'common'\"""",
    "timeouts": """
        "policy.workflow.maxDurationMinutes": 60,
        "policy.workflow.defaultTimeoutMs": 300000,
        "policy.workflow.timeoutAction": "fail\"""",
}


def read(folder: Path, *groups: str) -> Policies:
    """Read groups as one file: a key that two of them have stands twice in it."""
    path = folder / "policies.json"
    path.write_text("{" + ",".join(GROUPS[group] for group in groups) + "}", encoding="utf-8")
    return Policies.load(path, env={"DEPLOYMENT_ENV": "production"})


def run(name: str, input: Any = None, service: str = "app.billing", **claims: Any) -> Request:
    return Request(service, claims, f"{name}.v1", input=input)


def about(status: str, **asked: Any) -> Request:
    claims = asked.pop("claims", {})
    instance = {"id": "i", "status": status}
    return Request("app.billing", claims, name="a.b", instance_id="i", instance=instance, **asked)


ADMIN = {"role": "admin"}
ALL_FIELDS = {"amount": 1, "currency": "EUR", "customerId": 7}
JUDGED: list[tuple[str, str, Request, str]] = [
    # group, operation, request, the rule that refuses it
    ("permissions", "run", run("user.onboarding"), ""),
    ("permissions", "run", run("report.monthly"), ""),
    ("permissions", "run", run("payment.process"), P + "run.allowed"),
    ("permissions", "run", run("admin.dangerous"), P + "run.blocked"),
    ("condition", "run", run("payment.process", role="payment_admin"), ""),
    ("condition", "run", run("payment.process", role="clerk"), P + "run.condition"),
    ("condition", "run", run("payment.process"), P + "run.condition"),
    ("condition", "run", run("user.onboarding"), ""),
    ("signals", "signal", about("waiting", signal="approved", claims={"canSignal": True}), ""),
    (
        "signals",
        "signal",
        about("running", signal="approved", claims={"canSignal": True}),
        P + "signal.condition",
    ),
    ("signals", "signal", about("waiting", signal="paid"), P + "signal.allowedSignals"),
    ("queries", "query", Request("app.billing", ADMIN), ""),
    ("queries", "query", Request("app.billing", {"role": "clerk"}), P + "query.condition"),
    (
        "queries",
        "query",
        Request("app.billing", ADMIN, statuses=("running",)),
        P + "query.allowedStatuses",
    ),
    ("environment", "run", run("user.onboarding"), ""),
    ("input", "run", run("payment.process", ALL_FIELDS), ""),
    ("input", "run", run("payment.process", {"amount": 1}), P + "run.requiredInputFields"),
    ("input", "run", run("user.onboarding", "x" * 102_400), P + "run.maxInputSizeKb"),
    ("cancel", "cancel", about("running", reason="so", claims=ADMIN), ""),
    ("cancel", "cancel", about("running", claims=ADMIN), P + "cancel.requireReason"),
    ("cancel", "cancel", about("waiting", reason="so", claims=ADMIN), P + "cancel.condition"),
    ("cross", "run", run("app.order"), ""),
    ("cross", "run", run("common.mail"), ""),
    ("cross", "run", run("hr.payroll"), P + "run.crossNamespace"),
    ("cross", "run", run("app.order", service="common.mail"), P + "run.condition"),
    ("audit", "run", run("payment.process"), ""),
    ("timeouts", "run", run("user.onboarding"), ""),
    ("rates", "run", run("user.onboarding"), ""),
    ("instances", "run", run("user.onboarding"), ""),
]


@pytest.mark.parametrize(("group", "operation", "asked", "rule"), JUDGED)
def test_each_group_of_the_page_judges(
    tmp_path: Path, group: str, operation: str, asked: Request, rule: str
):
    verdict = read(tmp_path, group).check(operation, asked)
    assert (verdict.allowed, verdict.rule) == (not rule, rule), verdict.reason


def test_the_limits_of_the_page_are_in_the_verdict(tmp_path: Path):
    policies = read(tmp_path, "rates", "instances", "audit", "timeouts")
    limits = policies.check("run", run("user.onboarding")).limits
    assert [meter.rate.text for meter in limits.meters] == ["100/minute"]
    assert limits.places == (("service:app.billing", 50), ("workflow:user.onboarding", 100))
    assert (limits.audit, limits.max_duration, limits.step_timeout) == ("full", 3_600, 300)
    assert (limits.timeout_action, limits.alerts) == ("fail", False)
    assert policies.check("run", run("payment.process")).limits.alerts
    signal = about("waiting", signal="approved")
    assert policies.check("signal", signal).limits.meters[0].rate.text == "1000/minute"


def test_all_groups_hold_together_and_both_conditions_of_a_start_count(tmp_path: Path):
    policies = read(tmp_path, *GROUPS)
    allowed = run("report.monthly", service="report.host")
    assert policies.check("run", allowed).allowed
    refused = policies.check("run", run("report.monthly"))
    assert refused.rule == P + "run.crossNamespace"
    found = [it.rule for it in policies.explain("run", allowed)]
    assert found.count(P + "run.condition") == 2


def test_the_comparison_with_a_pattern_is_warned_of(tmp_path: Path):
    [caution] = read(tmp_path, "environment").warnings
    assert "!glob(workflow.id, 'test.*')" in str(caution)
