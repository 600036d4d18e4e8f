"""`perdure logs`: what a run has logged, for people and for programs."""

from __future__ import annotations

import json

from tests.cli.shell import Shell

PROGRAM = """
from perdure import Retry, activity, workflow, ApplicationError

@activity.define(retry=Retry(max_attempts=2, interval="1ms"))
async def pay(total: int) -> int:
    activity.logger.info("paying", {"total": total})
    if activity.info().attempt == 1:
        raise ApplicationError("not yet")
    return total

@workflow.define
async def order(total: int) -> int:
    workflow.logger.warning("two\\nlines")
    return await pay(total)
"""


def test_logs_shows_lines_with_their_step_attempt_and_data(shell: Shell):
    (shell.folder / "shop.py").write_text(PROGRAM)
    shell.ok("run", "shop.py:order", "5", "--id", "o")
    lines = shell.ok("logs", "o").lines
    assert lines[0].split() == ["#", "TIME", "LEVEL", "STEP", "MESSAGE"]
    rows = [line.split(maxsplit=3) for line in lines[1:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [" ".join(row[3].split()) for row in rows] == [
        "warning two lines",
        'info pay paying {"total":5}',
        'info pay (attempt 2) paying {"total":5}',
    ]
    found = shell.ok("logs", "o", "-o", "json").json
    assert [json.loads(line) for line in shell.ok("logs", "o", "-o", "jsonl").lines] == found
    assert found[0]["message"] == "two\nlines"
    assert [it["number"] for it in shell.ok("logs", "o", "--after", "2", "-o", "json").json] == [3]


def test_logs_of_a_run_that_logged_nothing_says_so_beside_the_data(filled: Shell):
    done = filled.ok("logs", "hello-1")
    assert done.out == ""
    assert "it has logged nothing" in done.err
