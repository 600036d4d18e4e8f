"""`perdure policies`: a file is checked, explained, and tried on recorded decisions."""

from __future__ import annotations

import json

import pytest
from tests.cli.shell import Shell

from perdure.policy import Policies, Request, record

W = "policy.workflow."
GOOD = f"""
{W}run.blocked: [legacy.*]
{W}run.condition: request.auth.claims.role == 'operator'
{W}condition: env.STAGE == 'live'
"""
ENV = ("--env", "STAGE=live")
RUN = {
    "operation": "run",
    "request": {
        "service": "app.billing",
        "workflow_id": "user.onboarding.v1",
        "claims": {"role": "operator"},
    },
}


@pytest.fixture
def file(shell: Shell) -> Shell:
    (shell.folder / "good.yaml").write_text(GOOD)
    return shell


def test_a_good_file_has_a_version_and_exit_code_0(file: Shell):
    done = file("policies", "check", "good.yaml", *ENV, "-o", "json")
    assert done.code == 0
    assert done.json["warnings"] == []
    assert done.json["version"].endswith("-1")


def test_a_mistake_is_told_with_its_place_and_exit_code_2(file: Shell):
    (file.folder / "bad.yaml").write_text(f"{W}run.blockt: []\n")
    done = file("policies", "check", "bad.yaml")
    assert (done.code, done.out) == (2, "")
    assert "bad.yaml:1:29" in done.err
    assert f"did you mean '{W}run.blocked'" in done.err


def test_a_mistake_in_a_condition_has_a_caret_under_it(file: Shell):
    condition = "request.auth.claims.level >= 3 &&\n    workflow.idd == 'x'"
    (file.folder / "bad.json").write_text(json.dumps({W + "condition": condition}))
    done = file("policies", "check", "bad.json")
    assert done.code == 2
    told, line, caret = done.err.rstrip("\n").split("\n")
    assert "line 2, column 5: workflow has no 'idd'" in told
    assert line[caret.index("^") :] == "workflow.idd == 'x'"


def test_a_rule_of_several_lines_is_told_in_one(file: Shell):
    (file.folder / "two.json").write_text(json.dumps({W + "condition": "false ||\ntrue"}))
    done = file("policies", "explain", "two.json", "--request", json.dumps(RUN))
    assert done.lines[-1] == f"passes {W}condition = false || true"


def test_what_is_hardly_meant_is_a_line_each_and_exit_code_1(file: Shell):
    (file.folder / "odd.json").write_text(json.dumps({W + "condition": "workflow.id != 'test.*'"}))
    done = file("policies", "check", "odd.json")
    assert done.code == 1
    [line] = done.lines
    assert "line 1, column 16" in line
    assert "write !glob(workflow.id, 'test.*')" in line


def test_explain_tells_every_rule_and_the_verdict_is_the_exit_code(file: Shell):
    done = file("policies", "explain", "good.yaml", *ENV, "--request", json.dumps(RUN))
    assert done.code == 0
    assert done.lines[4:] == [
        f"passes {W}run.blocked = ['legacy.*']",
        f"passes {W}condition = env.STAGE == 'live'",
        f"passes {W}run.condition = request.auth.claims.role == 'operator'",
    ]
    asked = json.dumps({**RUN, "request": {**RUN["request"], "claims": {}}})
    done = file(
        "policies", "explain", "good.yaml", *ENV, "--request", "-", "-o", "json", stdin=asked
    )
    assert (done.code, done.json["code"]) == (1, "POLICY_ERROR")
    assert [it["allowed"] for it in done.json["rules"]][-2:] == [True, False]


def test_a_request_that_is_none_is_told(file: Shell):
    done = file("policies", "explain", "good.yaml", "--request", '{"operation": "fly"}')
    assert done.code == 2
    assert "operation: 'fly' is none of run, signal" in done.err


def test_what_would_change_under_a_new_file_is_told_and_exit_code_1(file: Shell):
    asked = [Request("app.billing", workflow_id=f"{name}.x.v1") for name in ("user", "legacy")]
    policies = Policies({})
    lines = [record("run", one, policies.check("run", one)) for one in asked]
    (file.folder / "recorded.jsonl").write_bytes(b"".join(lines))
    (file.folder / "new.yaml").write_text(f"{W}run.blocked: [legacy.*]\n")
    done = file("policies", "test", "new.yaml", "--against", "recorded.jsonl")
    assert done.code == 1
    [line] = done.lines
    assert line.startswith("line 2: run legacy.x.v1: was allowed, would be denied")
    (file.folder / "same.yaml").write_text(f"{W}run.blocked: [other.*]\n")
    done = file("policies", "test", "same.yaml", "--against", "recorded.jsonl", "-o", "json")
    assert (done.code, done.json) == (0, {"decisions": 2, "changes": []})


def test_recorded_decisions_that_cannot_be_read_are_told_with_file_and_line(file: Shell):
    (file.folder / "recorded.jsonl").write_text("\nnonsense\n")
    done = file("policies", "test", "good.yaml", "--against", "recorded.jsonl")
    assert done.code == 2
    assert "recorded.jsonl: line 2: this is no recorded decision" in done.err
    assert file("policies", "test", "good.yaml", "--against", "nowhere").code == 2
