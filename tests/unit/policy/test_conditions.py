"""What conditions of policies mean: CEL as policies write it, and what is warned of."""

from typing import Any

import pytest

from perdure.errors import Invalid
from perdure.policy import Policies, Request

KEY = "policy.workflow.run.condition"
ENV = {"DEPLOYMENT_ENV": "production", "REGION": "eu-1"}
ASKED = Request(
    service="app.billing",
    claims={
        "role": "operator",
        "canSignal": True,
        "level": 5,
        "score": 0.5,
        "groups": ["finance", "ops"],
        "org": {"id": "o-1", "plan": None},
        "odd name": "x",
        "since": "2026-01-02T00:00:00Z",
    },
    workflow_id="payment.process.v1.2.0",
    instance={"id": "order-7", "status": "waiting", "tags": {"team": "a"}},
    input={},
    metadata={"environment": "prod", "attempt": 2},
)

CONFORMANCE: list[tuple[str, bool | str]] = [
    # Operators.
    ("true", True),
    ("false", False),
    ("workflow.id == 'payment.process'", True),
    ("workflow.id != 'payment.process' || request.auth.claims.role == 'payment_admin'", False),
    ("workflow.id == 'payment.process' && workflow.version == '1.2.0'", True),
    ("!(workflow.namespace == 'payment')", False),
    ("request.auth.claims.role in ['admin', 'operator']", True),
    ("'finance' in request.auth.claims.groups", True),
    ("'org' in request.auth.claims", True),
    ("env.DEPLOYMENT_ENV == 'production' ? workflow.id != 'x.y' : true", True),
    ("request.auth.claims.level >= 5 && request.auth.claims.level < 6", True),
    ("request.auth.claims.level >= 4.5", True),
    ("request.auth.claims.level + 1 == 6", True),
    ("request.auth.claims.level % 2 == 1", True),
    ("request.auth.claims.score > 0.25", True),
    ("request.auth.claims.canSignal", True),
    ("request.auth.claims['odd name'] == 'x'", True),
    ("request.auth.claims.org.id == 'o-1'", True),
    ("request.auth.claims.org.plan == null", True),
    ("request.auth.claims.groups[0] == 'finance'", True),
    # Variables.
    ("service.name == 'app.billing' && service.namespace == 'app'", True),
    ("workflow.namespace == service.namespace || workflow.namespace == 'common'", False),
    ("instance.status == 'waiting' && request.auth.claims.canSignal", True),
    ("instance.status in ['pending', 'running']", False),
    ("instance.tags.team == 'a'", True),
    ("request.method == 'workflow.run'", True),
    ("request.metadata.environment == 'prod'", True),
    # Functions.
    ("has(request.auth.claims.role)", True),
    ("has(request.auth.claims.nobody)", False),
    ("has(request.auth.claims.nobody) && request.auth.claims.nobody == 1", False),
    ("request.auth.claims.?nobody.orValue('none') == 'none'", True),
    ("workflow.id.startsWith('payment.')", True),
    ("workflow.id.endsWith('.process')", True),
    ("workflow.id.contains('.pro')", True),
    ("workflow.id.matches('^payment[.][a-z]+$')", True),
    ("glob(workflow.id, 'payment.*')", True),
    ("glob(workflow.id, 'pay*process')", True),
    ("glob(workflow.id, 'test.*')", False),
    ("glob('a.b.c', 'a.*')", True),
    ("glob('abc', 'a.c')", False),
    ("size(request.auth.claims.groups) == 2", True),
    ("size('héllo') == 5", True),
    ("request.auth.claims.groups.exists(g, g == 'ops')", True),
    ("request.auth.claims.groups.all(g, g.size() > 2)", True),
    ("['Admin', 'OPS'].exists(g, g.lowerAscii() in request.auth.claims.groups)", True),
    ("timestamp(request.auth.claims.since) < timestamp('2026-06-01T00:00:00Z')", True),
    ("int('5') == request.auth.claims.level", True),
    # What cannot be told denies, and says why.
    ("request.auth.claims.nobody == 1", 'Key not found in map: "nobody"'),
    ("instance.startTime == 'x'", 'Key not found in map: "startTime"'),
    ("request.auth.claims.role > 5", "No matching overloads"),
    ("request.auth.claims.role", "it gives str, which is neither true nor false"),
    ("workflow.id.matches(request.auth.claims.bad)", "Key not found"),
    ("workflow.id.matches('(')", "invalid regular expression"),
    ("1 / (request.auth.claims.level - 5) == 1", "divide by zero"),
    # Half of an answer is enough where it decides.
    ("request.auth.claims.nobody == 1 || true", True),
    ("false && request.auth.claims.nobody == 1", False),
]


@pytest.mark.parametrize(("text", "expected"), CONFORMANCE)
def test_a_condition_gives_what_cel_says(text: str, expected: bool | str):
    verdict = Policies({KEY: text}, env=ENV).check("run", ASKED)
    if isinstance(expected, bool):
        assert (verdict.allowed, verdict.code) == (expected, "" if expected else "POLICY_DENIED")
    else:
        assert verdict.code == "POLICY_ERROR"
        assert expected in verdict.reason


@pytest.mark.parametrize("value", [{"geheim"}, ("geheim",), {"a": {"geheim"}}])
def test_a_claim_that_is_no_value_of_cel_is_named_by_its_type_and_not_shown(value: object):
    asked = Request(service="a.b", claims={"v": value}, workflow_id="c.d.v1")
    verdict = Policies({KEY: "request.auth.claims.v == 'a' || has(request.auth.claims.v.a.b)"})
    judged = verdict.check("run", asked)
    assert judged.code == "POLICY_ERROR"
    assert "geheim" not in judged.reason
    assert judged.reason.endswith((": set", ": tuple"))


def test_a_condition_that_would_run_for_ever_is_ended_and_denies():
    many = list(range(1_000))
    text = "request.auth.claims.l.all(x, request.auth.claims.l.all(y, y >= 0))"
    asked = Request(service="a.b", claims={"l": many}, workflow_id="c.d.v1")
    verdict = Policies({KEY: text}).check("run", asked)
    assert (verdict.code, "Iteration budget" in verdict.reason) == ("POLICY_ERROR", True)


def test_a_condition_sees_the_claims_that_it_reads_and_no_others():
    class Touchy(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            assert key == "role"
            return super().__getitem__(key)

        def items(self) -> Any:
            raise AssertionError("all claims were read")

    asked = Request(service="a.b", claims=Touchy(role="x", secret=object()), workflow_id="c.d.v1")
    assert Policies({KEY: "request.auth.claims.role == 'x'"}).check("run", asked).allowed


@pytest.mark.parametrize(
    ("text", "fix", "column"),
    [
        ("workflow.id != 'test.*'", "!glob(workflow.id, 'test.*')", 16),
        ("workflow.id == 'test.*'", "glob(workflow.id, 'test.*')", 16),
        ("'test.*' != workflow.id", "!glob(workflow.id, 'test.*')", 1),
        ('service.name == "app.*"', 'glob(service.name, "app.*")', 17),
        ("!workflow.id.startsWith('test.*')", "glob(workflow.id, 'test.*')", 25),
        ("workflow.id in ['a.b', 'test.*']", "glob(workflow.id, 'test.*')", 24),
        (
            "env.REGION == 'eu' ? workflow.id != 'test.*' : true",
            "!glob(workflow.id, 'test.*')",
            37,
        ),
    ],
)
def test_a_pattern_that_is_compared_letter_by_letter_is_warned_of(text: str, fix: str, column: int):
    [doubt] = Policies({KEY: text}, env=ENV).warnings
    assert (doubt.key, doubt.line, doubt.column, doubt.fix) == (KEY, 1, column, fix)


@pytest.mark.parametrize(
    "text",
    [
        "glob(workflow.id, 'test.*')",
        "workflow.id.matches('^test.*')",
        "workflow.id == 'a.b' // or 'test.*'",
        "request.auth.claims.level * 2 == 4",
    ],
)
def test_a_star_where_it_belongs_is_not_warned_of(text: str):
    assert Policies({KEY: text}, env=ENV).warnings == ()


def test_a_mistake_on_a_later_line_is_shown_there():
    with pytest.raises(Invalid) as refused:
        Policies({KEY: "workflow.id == 'a'\n  && service.nam == 'b'"})
    assert "line 2, column 6: service has no 'nam'" in str(refused.value)
    assert "\n           ^" in str(refused.value)
