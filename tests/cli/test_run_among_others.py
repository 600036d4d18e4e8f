"""`perdure run` on a database in which others have runs too, and in a loop that somebody holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cli.conftest import CHANGING, PROGRAMS
from tests.cli.shell import Background, Shell


@contextmanager
def run_beside_another(shell: Shell) -> Iterator[Background]:
    """Run `wait` as w, let it end, and leave the command with an attempt of `other` under way."""
    shell.ok("run", f"{PROGRAMS}:hello")
    shell.ok("start", f"{PROGRAMS}:lingering", str(shell.folder), "--id", "other")
    with shell.spawn("run", f"{PROGRAMS}:wait", "--id", "w") as running:
        shell.until((shell.folder / "mark").exists)
        shell.ok("send", "w", "go", "on")
        running.until_says("waiting for 1 activity of other runs to end")
        yield running


def kinds(shell: Shell, id: str) -> list[str]:
    return [event["kind"] for event in shell.ok("history", id, "-o", "json").json]


def test_run_lets_the_activities_of_other_runs_end_and_begins_nothing_new(shell: Shell):
    with run_beside_another(shell) as running:
        (shell.folder / "release").touch()
        assert running.wait() == 0
        assert running.out == '"on"\n'
    recorded = kinds(shell, "other")
    assert recorded.count("activity_completed") == 1
    assert not {"attempt_lost", "run_failed"} & set(recorded)
    assert shell.ok("run", f"{PROGRAMS}:lingering", "x", "--id", "other").json == ["done", "done"]


def test_ctrl_c_cuts_off_the_activities_of_other_runs(shell: Shell):
    with run_beside_another(shell) as running:
        assert running.interrupt() == 0
        assert running.out == '"on"\n'
    assert "attempt_lost" in kinds(shell, "other")


def test_run_says_nothing_of_other_runs_if_none_is_busy(shell: Shell):
    assert "other runs" not in shell.ok("run", f"{PROGRAMS}:hello").err


HOLDING = """
import time
from perdure import activity, workflow

@activity.define
async def block() -> None:
    time.sleep(60)  # sleep: the activity holds the loop

@workflow.define
async def blocked() -> None:
    await block()

@workflow.define
async def spinning() -> None:
    while True:
        pass
"""


@pytest.mark.parametrize("name", ["blocked", "spinning"])
def test_the_timeout_holds_also_while_the_loop_is_held(shell: Shell, name: str):
    (shell.folder / "holding.py").write_text(HOLDING)
    command = ("run", f"holding.py:{name}", "--id", "h", "--timeout", "500ms")
    with shell.spawn(*command) as running:
        assert running.wait() == 124  # a turn that is interrupted, after 10 s, ends otherwise
        assert (running.out, "Traceback" in running.said) == ("", False)
        assert re.search(r"500ms are over, and holding\.py:1?\d holds the event", running.said)
        assert running.said.endswith((" why h\n", " list\n"))


def test_the_advice_for_a_parked_run_is_to_ask_why(shell: Shell):
    program = shell.folder / "changing.py"
    program.write_text(CHANGING)
    command = ["run", "changing.py:changing", "--id", "c"]
    assert shell(*command, "--timeout", "300ms").code == 124
    shell.ok("send", "c", "go")
    program.write_text(CHANGING.replace("await first()", "await other()"))
    for timeout in ("10s", "900ms"):
        done = shell(*command, "--timeout", timeout)
        assert done.code in (1, 124)
        assert done.err.endswith(" why c\n"), done


def test_run_warns_of_the_code_of_its_own_workflow_only(shell: Shell):
    (shell.folder / "odd.py").write_text(
        "import time\nfrom perdure import workflow\n\n"
        "@workflow.define\nasync def clean() -> int:\n    return 1\n\n"
        "@workflow.define\nasync def odd() -> float:\n    return time.time()\n"
    )
    assert "perdure.lint" not in shell.ok("run", "odd.py:clean").err
    assert "perdure.lint: " in shell("run", "odd.py:odd").err
