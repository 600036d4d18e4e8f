"""Policies: every key by itself, what is always checked, and what happens when they change."""

from pathlib import Path
from typing import Any

import pytest

from perdure.errors import ConcurrencyLimit, Invalid, RateLimited, UsageError
from perdure.policy import (
    OPERATIONS,
    Policies,
    PolicyDenied,
    PolicyGuard,
    Request,
    Schedule,
    Verdict,
    counted,
    hook,
)
from perdure.policy.keys import KEYS, Kind
from perdure.values.meters import Spent

W, S = "policy.workflow.", "policy.schedule."
RUN = Request(
    service="app.billing",
    claims={"role": "operator"},
    workflow_id="user.onboarding.v1",
    input={"name": "Ada"},
)
SIGNAL = Request(
    service="app.billing",
    instance_id="7c1f1c1e-3a60-4f0e-9a5c-2f6f2b6c6f11",
    instance={"id": "order-7", "status": "waiting"},
    workflow_id="user.onboarding.v1",
    signal="approved",
)
CANCEL = SIGNAL
QUERY = Request(service="app.billing")
TRIGGER = Request(
    service="app.billing", workflow_id="user.onboarding", schedule=Schedule(cron="0 9 * * *")
)


def but(request: Request, **fields: Any) -> Request:
    given = {name: getattr(request, name) for name in request.__struct_fields__}
    return Request(**{**given, **fields})


def judged(mapping: dict[str, Any], operation: str, request: Request, **rest: Any) -> Verdict:
    return Policies(mapping, **rest).check(operation, request)


DENIED = "POLICY_DENIED"
REFUSALS: list[tuple[dict[str, Any], str, Request, str, str]] = [
    # Always checked.
    ({}, "run", but(RUN, workflow_id="onboarding.v1"), "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, "run", but(RUN, workflow_id="user.onboarding"), "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, "run", but(RUN, workflow_id="user..x.v1"), "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, "run", but(RUN, workflow_id="user.x y.v1"), "INVALID_WORKFLOW_ID", "workflow_id"),
    ({}, "run", but(RUN, caller="user.onboarding.v2"), "SELF_RUN", "self_run"),
    ({}, "trigger", but(TRIGGER, caller="user.onboarding@1.0.0"), "SELF_RUN", "self_run"),
    ({}, "run", but(RUN, input_size=1_048_577), "INPUT_TOO_LARGE", "input_size"),
    ({}, "run", but(RUN, input="x" * 1_048_576), "INPUT_TOO_LARGE", "input_size"),
    ({}, "run", but(RUN, input=object()), "POLICY_ERROR", "input_size"),
    ({}, "signal", but(SIGNAL, input="x" * 1_048_576), "INPUT_TOO_LARGE", "input_size"),
    ({}, "signal", but(SIGNAL, signal="not a name"), "INVALID_SIGNAL", "signal_name"),
    ({}, "signal", but(SIGNAL, signal=""), "INVALID_SIGNAL", "signal_name"),
    ({}, "signal", but(SIGNAL, signal="so\n"), "INVALID_SIGNAL", "signal_name"),
    ({}, "signal", but(SIGNAL, instance_id="a b"), "INVALID_INSTANCE_ID", "instance_id"),
    ({}, "cancel", but(CANCEL, instance_id=""), "INVALID_INSTANCE_ID", "instance_id"),
    ({}, "get_status", but(CANCEL, instance_id="x" * 300), "INVALID_INSTANCE_ID", "instance_id"),
    ({}, "query", but(QUERY, limit=0), "INVALID_LIMIT", "query_limit"),
    ({}, "fly", RUN, DENIED, "operation"),
    # Workflow execution permissions.
    ({W + "run.allowed": ["order.processing"]}, "run", RUN, DENIED, W + "run.allowed"),
    ({W + "run.allowed": []}, "run", RUN, DENIED, W + "run.allowed"),
    ({W + "run.allowed": ["user"]}, "run", RUN, DENIED, W + "run.allowed"),
    ({W + "run.blocked": ["user.*"]}, "run", RUN, DENIED, W + "run.blocked"),
    (
        {W + "run.allowed": ["user.onboarding"], W + "run.blocked": ["user.onboarding"]},
        "run",
        RUN,
        DENIED,
        W + "run.blocked",
    ),
    ({W + "run.allowed": []}, "trigger", TRIGGER, DENIED, W + "run.allowed"),
    # Conditional execution.
    ({W + "run.condition": "false"}, "run", RUN, DENIED, W + "run.condition"),
    ({W + "run.condition": ["true", "false"]}, "run", RUN, DENIED, W + "run.condition"),
    (
        {W + "run.condition": "request.auth.claims.team == 'a'"},
        "run",
        RUN,
        "POLICY_ERROR",
        W + "run.condition",
    ),
    (
        {W + "run.condition": "request.auth.claims.role"},
        "run",
        RUN,
        "POLICY_ERROR",
        W + "run.condition",
    ),
    (
        {W + "run.condition": "request.auth.claims.role == 'x'"},
        "run",
        but(RUN, claims={"role": {1, 2}}),
        "POLICY_ERROR",
        W + "run.condition",
    ),
    # Signal permissions.
    ({W + "signal.allowed": False}, "signal", SIGNAL, DENIED, W + "signal.allowed"),
    (
        {W + "signal.allowedSignals": ["rejected"]},
        "signal",
        SIGNAL,
        DENIED,
        W + "signal.allowedSignals",
    ),
    (
        {W + "signal.condition": "instance.status == 'running'"},
        "signal",
        SIGNAL,
        DENIED,
        W + "signal.condition",
    ),
    # Query restrictions.
    (
        {W + "query.allowedStatuses": ["completed"]},
        "query",
        but(QUERY, statuses=("completed", "failed")),
        DENIED,
        W + "query.allowedStatuses",
    ),
    ({W + "query.allowedStatuses": []}, "query", QUERY, DENIED, W + "query.allowedStatuses"),
    ({W + "query.condition": "false"}, "query", QUERY, DENIED, W + "query.condition"),
    # Environment-specific policies.
    *(
        ({W + "condition": "false"}, operation, request, DENIED, W + "condition")
        for operation, request in [
            ("run", RUN),
            ("signal", SIGNAL),
            ("query", QUERY),
            ("cancel", CANCEL),
            ("get_status", CANCEL),
            ("list", QUERY),
            ("explain", QUERY),
            ("trigger", TRIGGER),
        ]
    ),
    # Input validation.
    (
        {W + "run.maxInputSizeKb": 1},
        "run",
        but(RUN, input_size=1_025),
        DENIED,
        W + "run.maxInputSizeKb",
    ),
    (
        {W + "run.requiredInputFields": {"user.*": ["name", "email"]}},
        "run",
        RUN,
        DENIED,
        W + "run.requiredInputFields",
    ),
    (
        {W + "run.requiredInputFields": {"user.onboarding": ["name"]}},
        "run",
        but(RUN, input=None),
        DENIED,
        W + "run.requiredInputFields",
    ),
    # Cancellation policies.
    ({W + "cancel.allowed": False}, "cancel", CANCEL, DENIED, W + "cancel.allowed"),
    ({W + "cancel.condition": "false"}, "cancel", CANCEL, DENIED, W + "cancel.condition"),
    (
        {W + "cancel.requireReason": True},
        "cancel",
        but(CANCEL, reason=" "),
        DENIED,
        W + "cancel.requireReason",
    ),
    # Cross-service restrictions.
    ({W + "run.crossNamespace": False}, "run", RUN, DENIED, W + "run.crossNamespace"),
    (
        {W + "run.crossNamespace": False, W + "run.allowedNamespaces": ["common"]},
        "run",
        RUN,
        DENIED,
        W + "run.crossNamespace",
    ),
    ({W + "run.allowedNamespaces": ["common"]}, "run", RUN, DENIED, W + "run.allowedNamespaces"),
    # Schedules.
    ({S + "allowed": False}, "trigger", TRIGGER, DENIED, S + "allowed"),
    ({S + "condition": "false"}, "trigger", TRIGGER, DENIED, S + "condition"),
    ({S + "workflow.allowed": False}, "trigger", TRIGGER, DENIED, S + "workflow.allowed"),
    (
        {S + "workflow.allowedWorkflows": ["report.*"]},
        "trigger",
        TRIGGER,
        DENIED,
        S + "workflow.allowedWorkflows",
    ),
    (
        {S + "allowedCronPatterns": ["0 0 * * *"]},
        "trigger",
        TRIGGER,
        DENIED,
        S + "allowedCronPatterns",
    ),
    (
        {S + "maxFrequencySeconds": 60},
        "trigger",
        but(TRIGGER, schedule=Schedule(every=30)),
        DENIED,
        S + "maxFrequencySeconds",
    ),
    ({S + "maxExecutions": 5}, "trigger", TRIGGER, DENIED, S + "maxExecutions"),
    ({S + "maxDurationDays": 5}, "trigger", TRIGGER, DENIED, S + "maxDurationDays"),
    ({S + "requiredEndTime": True}, "trigger", TRIGGER, DENIED, S + "requiredEndTime"),
    (
        {S + "maxInputSizeKb": 1},
        "trigger",
        but(TRIGGER, input="x" * 2_000),
        DENIED,
        S + "maxInputSizeKb",
    ),
]


@pytest.mark.parametrize(("mapping", "operation", "request_", "code", "rule"), REFUSALS)
def test_what_is_refused_says_by_which_rule(
    mapping: dict[str, Any], operation: str, request_: Request, code: str, rule: str
):
    verdict = judged(mapping, operation, request_)
    assert (verdict.allowed, verdict.code, verdict.rule) == (False, code, rule)
    assert verdict.reason


ALLOWED: list[tuple[dict[str, Any], str, Request]] = [
    ({}, "run", RUN),
    ({}, "run", but(RUN, workflow_id="user.onboarding.v1.2.0")),
    ({}, "run", but(RUN, workflow_id="user.onboarding@1.2.0")),
    ({}, "run", but(RUN, workflow_id="user.onboarding@v2")),
    ({}, "run", but(RUN, caller="user.other.v1")),
    ({}, "run", but(RUN, input_size=1_048_576)),
    ({}, "signal", but(SIGNAL, signal="So_ist-1")),
    ({}, "get_status", but(CANCEL, instance_id="order-7")),
    ({}, "trigger", TRIGGER),
    ({W + "run.allowed": ["user.onboarding"]}, "run", RUN),
    ({W + "run.allowed": ["user.*"]}, "run", but(RUN, workflow_id="user.deep.one.v1")),
    ({W + "run.allowed": ["*"]}, "run", RUN),
    ({W + "run.blocked": ["legacy.*"]}, "run", RUN),
    ({W + "run.condition": "request.auth.claims.role in ['admin', 'operator']"}, "run", RUN),
    ({W + "run.condition": "!has(request.auth.claims.team)"}, "run", RUN),
    ({W + "signal.allowedSignals": ["approved"]}, "signal", SIGNAL),
    ({W + "signal.condition": "instance.status == 'waiting'"}, "signal", SIGNAL),
    ({W + "query.allowedStatuses": ["failed"]}, "query", but(QUERY, statuses=("failed",))),
    ({W + "run.maxInputSizeKb": 1}, "run", but(RUN, input_size=1_024)),
    ({W + "run.requiredInputFields": {"order.*": ["id"]}}, "run", RUN),
    ({W + "run.requiredInputFields": {"user.*": ["name"]}}, "run", RUN),
    ({W + "cancel.requireReason": True}, "cancel", but(CANCEL, reason="no longer wanted")),
    ({W + "run.crossNamespace": False}, "run", but(RUN, workflow_id="app.invoice.v1")),
    (
        {W + "run.crossNamespace": False, W + "run.allowedNamespaces": ["user"]},
        "run",
        RUN,
    ),
    ({W + "run.allowedNamespaces": ["common"]}, "run", but(RUN, workflow_id="app.invoice.v1")),
    ({S + "allowedCronPatterns": ["0 ** * * *"]}, "trigger", TRIGGER),
    ({S + "maxExecutions": 5}, "trigger", but(TRIGGER, schedule=Schedule(executions=5))),
]


@pytest.mark.parametrize(("mapping", "operation", "request_"), ALLOWED)
def test_what_no_rule_refuses_is_allowed(
    mapping: dict[str, Any], operation: str, request_: Request
):
    verdict = judged(mapping, operation, request_)
    assert verdict.allowed, verdict


def test_every_key_that_refuses_is_in_the_table_of_refusals():
    told = {rule for *_, rule in REFUSALS}
    limits = {
        *(W + name for name in ("query.maxResults", "maxConcurrentInstances", "condition")),
        *(W + name for name in ("maxInstancesPerWorkflow", "audit", "auditLevel")),
        *(W + name for name in ("alertOnFailure", "maxDurationMinutes", "defaultTimeoutMs")),
        W + "timeoutAction",
    }
    rates = {name for name, key in KEYS.items() if key.kind is Kind.RATE}
    assert set(KEYS) - limits - rates <= told


def test_an_input_that_does_not_fit_the_schema_is_refused_with_the_reason():
    def validate(value: Any) -> None:
        raise Invalid("input.name: expected text")

    verdict = judged({}, "run", but(RUN, validate=validate))
    assert (verdict.code, verdict.reason) == ("INVALID_INPUT", "input.name: expected text")


def test_a_validator_that_breaks_denies():
    def validate(value: Any) -> None:
        raise ZeroDivisionError("oops")

    verdict = judged({}, "run", but(RUN, validate=validate))
    assert (verdict.code, verdict.reason) == ("POLICY_ERROR", "ZeroDivisionError: oops")


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "asked", "given"),
    [(5_000, 1_000, 1_000), (100, 1_000, 100), (100, 20, 20), (None, 5_000, 1_000)],
)
def test_a_query_gives_no_more_than_the_ceiling(policy: int | None, asked: int, given: int):
    mapping = {} if policy is None else {W + "query.maxResults": policy}
    assert judged(mapping, "query", but(QUERY, limit=asked)).limits.max_results == given


def test_no_policy_allows_a_larger_input_than_one_megabyte():
    mapping = {W + "run.maxInputSizeKb": 4_096}
    assert judged(mapping, "run", but(RUN, input_size=1_048_577)).code == "INPUT_TOO_LARGE"
    larger = but(RUN, input_size=1_048_577)
    assert not judged({}, "run", larger, max_input_size="8MiB").allowed


def test_a_query_that_names_no_status_gets_those_that_are_allowed():
    mapping = {W + "query.allowedStatuses": ["failed", "completed"]}
    assert judged(mapping, "query", QUERY).limits.statuses == ("completed", "failed")
    asked = but(QUERY, statuses=("failed",))
    assert judged(mapping, "query", asked).limits.statuses == ("failed",)


def test_rates_count_per_service_and_places_per_service_and_per_workflow():
    mapping = {
        W + "run.rateLimit": "100/minute",
        W + "maxConcurrentInstances": 50,
        W + "maxInstancesPerWorkflow": {"user.onboarding": 100, "user.*": 10},
    }
    limits = judged(mapping, "run", RUN).limits
    assert [(it.key, it.rate.burst) for it in limits.meters] == [
        ("run:app.billing:600000:100", 100)
    ]
    assert limits.places == (("service:app.billing", 50), ("workflow:user.onboarding", 100))
    other = judged(mapping, "run", but(RUN, workflow_id="user.leaving.v1")).limits
    assert other.places[1] == ("workflow:user.leaving", 10)


def test_what_the_caller_has_to_see_to_is_in_the_limits():
    mapping = {
        W + "maxDurationMinutes": 60,
        W + "defaultTimeoutMs": 300_000,
        W + "timeoutAction": "cancel",
        W + "auditLevel": "full",
        W + "alertOnFailure": ["user.*"],
    }
    limits = judged(mapping, "run", RUN).limits
    assert (limits.max_duration, limits.step_timeout, limits.timeout_action) == (
        3_600,
        300,
        "cancel",
    )
    assert (limits.audit, limits.alerts) == ("full", True)
    assert judged({**mapping, W + "audit": False}, "run", RUN).limits.audit == "none"
    assert judged({}, "run", RUN).limits.audit == "summary"


# -- changes ---------------------------------------------------------------------------------------


def test_a_bad_new_file_leaves_the_old_one_in_force(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text(f"{W}run.blocked: [user.*]")
    policies = Policies.load(path)
    before = policies.version
    path.write_text(f"{W}run.blocked: user.*")
    with pytest.raises(Invalid):
        policies.reload()
    assert policies.version == before
    assert not policies.check("run", RUN).allowed
    path.write_text(f"{W}run.blocked: [order.*]")
    assert policies.reload() == policies.version != before
    assert policies.check("run", RUN).allowed


def test_an_update_replaces_the_keys_that_it_names():
    policies = Policies({W + "run.blocked": ["user.*"], W + "cancel.allowed": False})
    policies.update({W + "run.blocked": ["order.*"]})
    assert policies.check("run", RUN).allowed
    assert not policies.check("cancel", CANCEL).allowed
    policies.update({W + "cancel.allowed": None})
    assert policies.check("cancel", CANCEL).allowed
    with pytest.raises(Invalid, match="there is no such key"):
        policies.update({W + "cancel.alowed": None})


def test_policies_without_a_file_cannot_be_reloaded():
    with pytest.raises(UsageError, match="not loaded from a file"):
        Policies({}).reload()


def test_the_version_is_of_what_is_said_and_counts_the_changes():
    one = Policies({W + "run.blocked": ["a.*"], W + "audit": True})
    same = Policies({W + "audit": True, W + "run.blocked": ["a.*"]})
    assert one.version == same.version
    assert one.version.endswith("-1")
    other = one.update({W + "audit": False})
    assert other.endswith("-2")
    assert other[:16] != same.version[:16]
    assert one.check("run", RUN).version == other


# -- explain, guards -------------------------------------------------------------------------------


def test_explain_tells_what_every_rule_says_in_order():
    policies = Policies(
        {
            W + "run.blocked": ["user.*"],
            W + "run.condition": ["true", "request.auth.claims.x == 1"],
            W + "condition": "service.name == 'app.billing'",
        }
    )
    told = [(it.rule, it.allowed, it.code) for it in policies.explain("run", RUN)]
    assert told == [
        ("workflow_id", True, ""),
        ("self_run", True, ""),
        ("input_size", True, ""),
        ("input_schema", True, ""),
        (W + "run.blocked", False, "POLICY_DENIED"),
        (W + "condition", True, ""),
        (W + "run.condition", True, ""),
        (W + "run.condition", False, "POLICY_ERROR"),
    ]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_first_refusal_of_explain_is_the_verdict(operation: str):
    policies = Policies({W + "condition": "false", W + "run.blocked": ["*"]})
    first = next(it for it in policies.explain(operation, SIGNAL) if not it.allowed)
    verdict = policies.check(operation, SIGNAL)
    assert (verdict.rule, verdict.code, verdict.reason) == (first.rule, first.code, first.reason)


def test_a_refusal_is_raised_with_code_reason_and_rule():
    verdict = judged({W + "run.blocked": ["*"]}, "run", RUN)
    with pytest.raises(PolicyDenied) as denied:
        verdict.require()
    error = denied.value
    assert (error.code, error.rule, error.kind) == (
        "POLICY_DENIED",
        W + "run.blocked",
        "PermissionDenied",
    )
    assert (error.reason, error.version) == (
        "workflow 'user.onboarding' is blocked",
        verdict.version,
    )
    assert judged({}, "run", RUN).require().max_results == 1_000


async def _asked(policies: Policies) -> Verdict:
    return await PolicyGuard(policies).check("run", RUN)


def test_a_guard_asks_policies():
    import asyncio

    policies = Policies({W + "run.blocked": ["*"]})
    assert asyncio.run(_asked(policies)) == policies.check("run", RUN)


def test_a_refusal_by_a_rate_or_a_place_names_its_key():
    mapping = {W + "run.rateLimit": "2/minute", W + "maxConcurrentInstances": 1}
    verdict = judged(mapping, "run", RUN)
    spent = Spent("run:app.billing:30000000:2", retry_at=31_000_000)
    late = counted.refused_by_rate(verdict, spent, 1_000_000)
    assert (late.code, late.rule) == ("RATE_LIMITED", W + "run.rateLimit")
    assert late.reason == "more than 2/minute; the next may come in 30s"
    assert isinstance(hook.error_of(late, retry_after=30), RateLimited)
    assert counted.refused_by_rate(verdict, Spent(), 0) is verdict
    full = ConcurrencyLimit("1 are open", details={"key": "service:app.billing"})
    none = counted.refused_by_place(verdict, full)
    assert (none.code, none.rule) == ("CONCURRENCY_LIMIT", W + "maxConcurrentInstances")


def test_the_environment_is_what_was_given_and_nothing_else():
    mapping = {W + "condition": "env.STAGE == 'test'"}
    assert judged(mapping, "run", RUN, env={"STAGE": "test"}).allowed
    assert not judged(mapping, "run", RUN, env={"STAGE": "live"}).allowed
    policies = Policies(mapping)
    assert policies.check("run", RUN).code == "POLICY_ERROR"
    [doubt] = policies.warnings
    assert "env has no 'STAGE'" in str(doubt)
