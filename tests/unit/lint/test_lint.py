"""What the check finds in workflow code, and what it lets be. The code is in `subjects.py`."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.unit.lint import subjects

from perdure import lint, workflow
from perdure.definition import Workflow
from perdure.lint import functions, rules

FILE = subjects.__file__
LINES = Path(FILE).read_text().splitlines()
WORKFLOWS = [found for found in vars(subjects).values() if isinstance(found, Workflow)]
EXPECTED = {
    (number, code)
    for number, line in enumerate(LINES, 1)
    for code in re.findall(r"# finds: (\w+)", line)
}


def found_in(*definitions: Any) -> set[tuple[int, str]]:
    return {(finding.line, finding.code) for finding in lint.check_all(definitions)}


@pytest.fixture(scope="module")
def everything() -> set[tuple[int, str]]:
    return found_in(*WORKFLOWS)


@pytest.mark.parametrize("code", sorted(rules.ADVICE))
def test_what_is_marked_is_found_and_nothing_else(code: str, everything: set[tuple[int, str]]):
    expected = {line for line, its_code in EXPECTED if its_code == code}
    assert expected, "there is code with this mistake"
    found = {line for line, its_code in everything if its_code == code}
    assert {line: LINES[line - 1] for line in expected - found} == {}, "missed"
    assert {line: LINES[line - 1] for line in found - expected} == {}, "false alarms"


def test_a_finding_names_file_line_kind_and_what_to_do():
    first = lint.check(subjects.reads_the_clock)[0]
    assert first.file == FILE
    assert "time.time()" in LINES[first.line - 1]
    assert first.message.startswith("time.time() reads the clock")
    assert "workflow.now()" in first.message
    assert str(first) == f"{FILE}:{first.line}: clock: {first.message}"


def test_every_kind_says_what_to_do_in_one_line():
    for advice in rules.ADVICE.values():
        assert "\n" not in advice
        assert ": " in advice


def test_a_function_that_two_workflows_use_is_reported_once():
    @workflow.define
    async def other() -> None:
        subjects.first([])

    other.fn.__globals__  # noqa: B018 - of this module: `first` is not followed from here
    assert found_in(other) == set()
    found = lint.check_all([subjects.calls_functions, subjects.calls_functions])
    assert len(found) == len(set(found)) == 2


def test_activities_and_other_workflows_are_not_followed():
    assert found_in(subjects.calls_a_workflow) == set()


def test_how_deep_functions_are_followed_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(functions, "_DEPTH", 1)
    assert {code for _, code in found_in(subjects.calls_functions)} == {"random"}


def test_lines_of_inner_functions_are_those_of_the_file():
    assert {code for _, code in found_in(subjects.made)} == {"clock", "global"}
    for finding in lint.check(subjects.made):
        assert f"# finds: {finding.code}" in LINES[finding.line - 1]


def test_code_without_source_has_no_findings():
    space: dict[str, Any] = {"workflow": workflow, "time": __import__("time")}
    exec("async def typed():\n    time.time()\nwf = workflow.define(typed)", space)
    assert lint.check(space["wf"]) == []


def test_names_that_are_bound_to_several_things_are_let_be():
    @workflow.define
    async def either() -> None:
        if sys.argv:
            import time
        else:
            time = subjects.clock
        time.time()

    assert lint.check(either) == []


def test_objects_that_raise_when_they_are_looked_at_are_let_be():
    assert lint.check(uses_a_proxy) == []


class Proxy:
    """An object that may not be touched outside of a request."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("outside of a request")


proxy: Any = Proxy()


@workflow.define
async def uses_a_proxy() -> None:
    proxy.append(1)
    proxy["a"] = 1
    proxy.value = 1
    for _ in proxy:
        proxy(proxy)


# -- at registration -------------------------------------------------------------------------------


def test_findings_are_logged_once_per_definition(caplog: pytest.LogCaptureFixture):
    @workflow.define
    async def late() -> None:
        subjects.time.time()

    with caplog.at_level(logging.WARNING, "perdure.lint"):
        lint.warn(late)
        lint.warn(late)
    assert [record.name for record in caplog.records] == ["perdure.lint"]
    text = caplog.records[0].getMessage()
    assert re.match(r".*test_lint\.py:\d+: clock: subjects\.time\.time\(\) reads the clock", text)


def test_a_check_that_breaks_keeps_no_worker_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(_definition: Any) -> Any:
        raise RuntimeError("a bug")

    @workflow.define
    async def fine() -> None: ...

    monkeypatch.setattr(lint, "check", broken)
    with caplog.at_level(logging.WARNING, "perdure.lint"):
        lint.warn(fine)
    assert caplog.records == []


def test_modules_of_other_names_are_not_taken_for_the_ones_meant():
    assert isinstance(subjects.time, ModuleType)
    assert rules.rule_for("mytime.time") is None
    assert rules.rule_for("randomness.choice") is None
    assert rules.rule_for("time.time") == "clock"
