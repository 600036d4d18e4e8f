"""What policies do with what nobody means: names that fit nothing, requests that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from perdure.errors import Invalid
from perdure.policy import Policies, PolicyGuard, Request, Verdict

W, S = "policy.workflow.", "policy.schedule."
DOUBTS: list[tuple[str, Any, str]] = [
    # key, what it holds, what to write
    (W + "run.blocked", ["admin.purge.v1"], "'admin.purge'"),
    (W + "run.blocked", ["admin.purge@1.2.0"], "'admin.purge'"),
    (W + "run.blocked", ["admin.purge "], "only * is special"),
    (W + "run.blocked", ["admin.purge?"], "only * is special"),
    (W + "run.blocked", [r"admin\..*"], "only * is special"),
    (W + "run.allowed", ["[a-z]*"], "only * is special"),
    (W + "alertOnFailure", ["payment."], "only * is special"),
    (W + "run.allowedNamespaces", [".app"], "only * is special"),
    (W + "maxInstancesPerWorkflow", {"report.all.v2": 1}, "'report.all'"),
    (W + "run.requiredInputFields", {"report.all.v2": ["a"]}, "'report.all'"),
    (W + "signal.allowedSignals", ["all done"], "letters, digits, _ and -"),
    (S + "workflow.allowedWorkflows", ["a.b.v1"], "'a.b'"),
    (S + "allowedCronPatterns", ["every day"], "'@daily'"),
]


@pytest.mark.parametrize(("key", "value", "fix"), DOUBTS)
def test_a_name_that_fits_nothing_is_warned_of(key: str, value: Any, fix: str):
    [doubt] = Policies({key: value}).warnings
    assert doubt.key == key
    assert "fits no" in str(doubt)
    assert fix in str(doubt)
    assert "line 0" not in str(doubt)


def test_names_and_patterns_as_they_are_meant_are_not_warned_of():
    policies = Policies(
        {
            W + "run.allowed": ["user.onboarding", "report.*", "*", "reviewContent", "a.*.b"],
            W + "run.allowedNamespaces": ["app", "app.*"],
            W + "signal.allowedSignals": ["approved", "paid_*"],
            W + "maxInstancesPerWorkflow": {"user.*": 1},
            S + "allowedCronPatterns": ["@daily", "0 * * * *", "0 ** 1 *", "** * * *"],
        }
    )
    assert policies.warnings == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"workflow_id": 7},
        {"workflow_id": ["a.b.v1"]},
        {"workflow_id": None},
        {"name": 7},
        {"service": None},
        {"claims": None},
        {"caller": 7},
        {"input": object()},
        {"instance": None},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_request_that_is_none_denies_and_raises_nothing(wrong: dict[str, Any]):
    policies = Policies(
        {
            W + "run.allowed": ["a.*"],
            W + "alertOnFailure": ["a.*"],
            W + "maxInstancesPerWorkflow": {"a.*": 5},
            W + "condition": "request.auth.claims.role == 'x' && !has(instance.id)",
        }
    )
    asked = {"service": "a.b", "claims": {"role": "x"}, "workflow_id": "a.b.v1", **wrong}
    verdict = policies.check("run", Request(**asked))
    assert not verdict.allowed
    first = next(it for it in policies.explain("run", Request(**asked)) if not it.allowed)
    assert (first.rule, first.code) == (verdict.rule, verdict.code)


@dataclass
class Payment:
    amount: int

    def currency(self) -> str:
        return "EUR"


@pytest.mark.parametrize(
    ("given", "field", "has"),
    [
        (Payment(5), "amount", True),
        (Payment(5), "currency", False),
        ({"amount": None}, "amount", True),
        ("text", "count", False),
        ([1], "index", False),
        (5, "real", False),
        (None, "amount", False),
    ],
)
def test_the_fields_of_an_input_are_those_that_it_is_sent_with(given: Any, field: str, has: bool):
    policies = Policies({W + "run.requiredInputFields": {"a.*": [field]}})
    verdict = policies.check("run", Request("a.b", workflow_id="a.b.v1", input=given))
    assert (verdict.allowed, verdict.rule) == (has, "" if has else W + "run.requiredInputFields")


def test_no_conditions_are_no_condition_and_an_update_may_take_them_away():
    policies = Policies({W + "run.condition": "false"})
    asked = Request("a.b", workflow_id="a.b.v1")
    assert not policies.check("run", asked).allowed
    policies.update({W + "run.condition": []})
    assert policies.check("run", asked).allowed


def test_what_is_no_mapping_of_keys_is_refused():
    with pytest.raises(Invalid, match="no mapping of keys"):
        Policies().update([1])  # type: ignore[arg-type]


def test_an_audit_that_is_given_twice_is_the_fuller_one():
    twice = {W + "audit": False, "policy": {"workflow": {"audit": True}}}
    assert Policies(twice).check("list", Request("a.b")).limits.audit == "summary"


def test_explain_tells_behind_the_rules_what_is_counted():
    policies = Policies(
        {
            W + "run.rateLimit": "100/minute",
            W + "maxConcurrentInstances": 50,
            W + "maxInstancesPerWorkflow": {"a.*": 2},
        }
    )
    told = policies.explain("run", Request("a.b", workflow_id="a.b.v1"))
    assert [(it.rule, it.value, it.allowed) for it in told if it.reason] == [
        (W + "run.rateLimit", "100/minute", True),
        (W + "maxConcurrentInstances", "50", True),
        (W + "maxInstancesPerWorkflow", "2", True),
    ]


async def test_a_guard_tells_what_it_has_judged():
    told: list[tuple[str, str, bool]] = []

    def keep(operation: str, request: Request, verdict: Verdict) -> None:
        told.append((operation, request.workflow_id, verdict.allowed))

    guard = PolicyGuard(Policies({W + "run.blocked": ["a.b"]}), told=keep)
    for name in ("a.b.v1", "a.c.v1"):
        await guard.check("run", Request("a.b", workflow_id=name))
    assert told == [("run", "a.b.v1", False), ("run", "a.c.v1", True)]


def test_what_is_hardly_meant_is_logged_once_by_a_door_and_by_a_change(
    caplog: pytest.LogCaptureFixture,
):
    policies = Policies({W + "run.blocked": ["a.b.v1"]})
    assert caplog.records == []
    for _ in range(2):
        PolicyGuard(policies)
    [record] = caplog.records
    assert (record.name, "names in a policy have no version" in record.message) == (
        "perdure.policy",
        True,
    )
    policies.update({W + "run.blocked": ["a.?"]})
    assert "'a.?' fits no workflow" in caplog.records[-1].message
