"""`perdure run` on a database in which others have runs too, and in a loop that somebody holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.conftest import PROGRAMS
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
