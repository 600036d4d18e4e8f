"""Recorded decisions, judged again."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure.errors import Invalid
from perdure.policy import Policies, Request, Schedule, record, replay
from perdure.policy.trial import read_decision

W = "policy.workflow."
ASKED = [
    ("run", Request("a.b", {"role": "x"}, "user.onboarding.v1", input={"name": "Ada", "n": 1})),
    ("run", Request("a.b", {}, "legacy.old.v1", input=None)),
    ("signal", Request("a.b", signal="approved", instance_id="order-7", input=[1])),
    ("query", Request("a.b", statuses=("failed",), limit=5)),
    ("cancel", Request("a.b", instance_id="order-7", reason="why not", metadata={"m": 1})),
    ("trigger", Request("a.b", workflow_id="r.m", schedule=Schedule(cron="* * * * *", every=60))),
    ("list", Request("a.b")),
]


def recorded(policies: Policies) -> list[bytes]:
    return [record(it, asked, policies.check(it, asked)) for it, asked in ASKED]


def test_under_the_same_policies_nothing_changes():
    policies = Policies(
        {
            W + "run.blocked": ["legacy.*"],
            W + "run.requiredInputFields": {"user.*": ["name"]},
            W + "run.condition": "request.auth.claims.role == 'x'",
            W + "query.allowedStatuses": ["failed"],
            W + "cancel.requireReason": True,
        }
    )
    assert list(replay(policies, recorded(policies))) == [None] * len(ASKED)


def test_what_would_change_is_told_with_its_line():
    lines = recorded(Policies({}))
    changes = [it for it in replay(Policies({W + "run.blocked": ["legacy.*"]}), lines) if it]
    [told] = [str(it) for it in changes]
    assert told == (
        "line 2: run legacy.old.v1: was allowed, would be denied (POLICY_DENIED by "
        "policy.workflow.run.blocked)"
    )


def test_an_input_is_recorded_by_the_names_of_its_fields():
    told = json.loads(record("run", ASKED[0][1], Policies({}).check(*ASKED[0])))
    assert told["request"]["input"] == {"name": None, "n": None}
    assert told["request"]["input_size"] == len('{"name":"Ada","n":1}')


def test_a_refusal_by_the_schema_is_none_that_changes():
    def validate(_: object) -> None:
        raise Invalid("name: it is missing")

    asked = Request("a.b", {}, "user.onboarding.v1", input={"n": 1}, validate=validate)
    policies = Policies()
    verdict = policies.check("run", asked)
    assert verdict.code == "INVALID_INPUT"
    assert list(replay(policies, [record("run", asked, verdict)])) == [None]


def test_an_input_that_is_an_object_is_recorded_by_the_names_of_its_fields():
    policies = Policies({W + "run.requiredInputFields": {"user.*": ["cron"]}})
    asked = Request("a.b", {}, "user.onboarding.v1", input=Schedule(cron="@daily"))
    verdict = policies.check("run", asked)
    assert verdict.allowed
    assert list(replay(policies, [record("run", asked, verdict)])) == [None]


def test_a_decision_is_read_as_it_was_recorded():
    policies = Policies({W + "cancel.allowed": False})
    for operation, asked in ASKED:
        verdict = policies.check(operation, asked)
        at = datetime(2026, 1, 2, tzinfo=UTC)
        read = read_decision(record(operation, asked, verdict, at), "line 1")
        assert (read.operation, read.verdict.allowed) == (operation, verdict.allowed)
        assert (read.request.claims, read.request.schedule) == (asked.claims, asked.schedule)
        assert policies.check(operation, read.request).code == verdict.code


@pytest.mark.parametrize("limit", ["many", None, True, 1.5, 10**30])
def test_a_limit_that_is_none_is_recorded_and_judged_again(limit: Any):
    asked = Request("a.b", limit=limit)
    policies = Policies()
    verdict = policies.check("query", asked)
    assert verdict.code == ("" if limit == 10**30 else "INVALID_LIMIT")
    assert list(replay(policies, [record("query", asked, verdict)])) == [None]
    rules = {it.rule: it.allowed for it in policies.explain("query", asked)}
    assert rules["query_limit"] == verdict.allowed


def test_a_refusal_that_was_a_matter_of_the_moment_is_passed_over():
    line = json.dumps(
        {
            "operation": "run",
            "request": {"workflow_id": "a.b.v1"},
            "verdict": {"allowed": False, "code": "RATE_LIMITED", "version": "x-1"},
        }
    )
    assert list(replay(Policies({}), [line.encode(), b"\n"])) == [None]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", "line 1: this is no recorded decision"),
        (b"{}", "line 1: this is no recorded decision"),
        (b'{"verdict": {"allowed": true}, "operation": "fly"}', "operation: 'fly' is none of"),
        (
            b'{"verdict": {"allowed": true}, "operation": "run", "request": {"clams": {}}}',
            "request: it has no field 'clams'",
        ),
        (
            b'{"verdict": {"allowed": true}, "operation": "run", "request": {"claims": []}}',
            "request.claims: [] does not fit",
        ),
        (
            b'{"verdict": {"allowed": true}, "operation": "run", "request": {"input_size": true}}',
            "request.input_size: True does not fit",
        ),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(line: bytes, said: str):
    with pytest.raises(Invalid) as refused:
        list(replay(Policies({}), [line]))
    assert said in str(refused.value)
