"""Policy files: what is read of them, and how a mistake in one is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import Invalid
from perdure.policy import Policies, Request

W = "policy.workflow."
RUN = Request(service="app.billing", workflow_id="user.onboarding.v1", input={"name": "Ada"})
SIGNAL = Request(service="app.billing", instance_id="order-7", signal="approved")
CANCEL = SIGNAL

TWICE = {
    "a.json": f'{{"{W}run.condition": "%s",\n "{W}run.condition": "%s"}}',
    "a.yaml": f"{W}run.condition: %s\n{W}run.condition: %s\n",
}


@pytest.mark.parametrize("name", list(TWICE))
@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [("true", "true", True), ("false", "true", False), ("true", "false", False)],
)
def test_a_key_that_is_given_twice_in_a_file_counts_twice(
    tmp_path: Path, name: str, first: str, second: str, allowed: bool
):
    text = TWICE[name] % (first, second)
    if name.endswith("yaml"):
        text = TWICE[name] % (f'"{first}"', f'"{second}"')
    (tmp_path / name).write_text(text)
    assert Policies.load(tmp_path / name).check("run", RUN).allowed is allowed


@pytest.mark.parametrize(
    ("key", "first", "second", "request_", "operation"),
    [
        ("run.allowed", ["user.*"], ["order.*"], RUN, "run"),
        ("run.blocked", ["user.*"], [], RUN, "run"),
        ("signal.allowed", True, False, SIGNAL, "signal"),
        ("cancel.requireReason", True, False, CANCEL, "cancel"),
        ("run.maxInputSizeKb", 0, 10, RUN, "run"),
    ],
)
def test_the_stricter_of_two_values_wins(
    tmp_path: Path, key: str, first: Any, second: Any, request_: Request, operation: str
):
    for one, other in ((first, second), (second, first)):
        text = f'{{"{W}{key}": {json.dumps(one)}, "{W}{key}": {json.dumps(other)}}}'
        (tmp_path / "a.json").write_text(text)
        assert not Policies.load(tmp_path / "a.json").check(operation, request_).allowed


def test_keys_may_lie_within_each_other():
    nested = {"policy": {"workflow": {"run": {"allowed": ["order.*"]}, "run.blocked": ["x.*"]}}}
    assert Policies(nested).check("run", RUN).rule == W + "run.allowed"


WRONG: list[tuple[str, str, str]] = [
    ("a.yaml", f"{W}run.alowed: []", f"a.yaml:1:29: {W}run.alowed: there is no such key"),
    ("a.json", f'{{"{W}run.alowed": []}}', f"did you mean '{W}run.allowed'"),
    ("a.yaml", f"{W}run.allowed: user.*", "'user.*' is not a list of names"),
    ("a.json", f'{{\n  "{W}run.allowed": ["a", 5]}}', f"a.json:2:40: {W}run.allowed[1]: 5 is not"),
    ("a.yaml", f"{W}audit: maybe", "a.yaml:1:24: policy.workflow.audit: 'maybe' is not true"),
    ("a.yaml", f"{W}maxConcurrentInstances: -1", "-1 is not a whole number"),
    ("a.yaml", f"{W}maxConcurrentInstances: true", "True is not a whole number"),
    ("a.yaml", f"{W}maxDurationMinutes: 0", "leave the key out for no limit"),
    ("a.yaml", f"{W}run.rateLimit: often", "'often' is not a rate"),
    ("a.yaml", f"{W}run.rateLimit: 5", "5 is not a rate"),
    ("a.yaml", f"{W}query.allowedStatuses: [complete]", "did you mean 'completed'"),
    ("a.yaml", f"{W}timeoutAction: stop", "'stop' is not one of fail, cancel, continue"),
    (
        "a.yaml",
        f"{W}timeoutAction: fail\n{W}timeoutAction: cancel",
        "it is given as 'fail' and 'cancel'; say it once",
    ),
    (
        "a.yaml",
        f"{W}run.requiredInputFields: {{a.b: name}}",
        f"{W}run.requiredInputFields.a.b: 'name' is not a list",
    ),
    ("a.yaml", f"{W}run.condition: 'workflow.id =='", "a.yaml:1:32: policy.workflow.run.condition"),
    ("a.yaml", f"{W}run.condition: 'workflow.id =='", "line 1, column 15: Syntax error"),
    ("a.yaml", f"{W}run.condition: workflow.name == 'x'", "workflow has no 'name' (it has: id"),
    (
        "a.yaml",
        f"{W}run.condition: request.auth.claim.role == 'x'",
        "column 1: request.auth has no 'claim' (it has: claims)",
    ),
    ("a.yaml", f"{W}maxDurationMinutes: 999999999", "a.yaml:1:37: policy.workflow.maxDurationM"),
    ("a.yaml", f"{W}maxDurationMinutes: 999999999", "is over 100 years; leave the key out"),
    ("a.yaml", f"{W}maxConcurrentInstances: 9999999999", "is not at most 1,000,000,000; leave"),
    ("a.yaml", f"{W}run.condition: workflow.id", "it gives string, and a condition gives true"),
    ("a.yaml", f"{W}run.condition: workflow.id == 5", "found no matching overload"),
    ("a.yaml", f"{W}run.condition: claims.role == 'x'", "undeclared reference to 'claims.role'"),
    ("a.yaml", f"{W}run.condition: {'true && ' * 2000} true", "too many for a condition"),
    ("a.yaml", "- a", "policies are a mapping of keys, not a list"),
    ("a.yaml", "a: [", "a.yaml:1:5: "),
    ("a.json", '{"a": 1} x', "a.json:1:10: something follows"),
    ("a.json", '{\n"a": tru}', "a.json:2:6: this is no JSON value"),
    ("a.json", '{"a": 1,}', "a name in double quotes is missing"),
    ("a.json", '{"a": 1} // no', "JSON has no comments"),
    ("a.json", '{"a": "x', "a.json:1:7: Unterminated string"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_a_mistake_in_a_file_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, said: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(Invalid) as refused:
        Policies.load(tmp_path / name)
    assert said in str(refused.value)


def test_an_empty_file_allows_what_is_always_allowed(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert Policies.load(tmp_path / "a.yaml").check("run", RUN).allowed


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(Invalid, match="nowhere.yaml: the policies cannot be read"):
        Policies.load("nowhere.yaml")
