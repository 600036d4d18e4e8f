"""`pause`, `resume`, `unpark` and `move`: several runs at once, and exit codes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cli.shell import Shell

CODE = """
from perdure import activity, workflow

@activity.define
async def one() -> int:
    return 1

@activity.define
async def two() -> int:
    return 2

@workflow.define(name="order", version="1.0.0")
async def order_1() -> str:
    await one()
    await workflow.listen("go").receive()
    return "old"

@workflow.define(name="order", version="2.0.0")
async def order_2() -> str:
    await one()
    await workflow.listen("go").receive()
    return "new"

@workflow.define(name="order", version="3.0.0")
async def order_3() -> str:
    await two()
    return "other"

@workflow.define
async def changing() -> int:
    found = await one()
    await workflow.listen("go").receive()
    return found
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("served"))
    (shell.folder / "flows.py").write_text(CODE)
    with shell.worker("flows.py"):
        yield shell


def waiting(shell: Shell, id: str, version: str = "1.0.0", workflow: str = "order") -> str:
    args = ["--version", version] if workflow == "order" else []
    shell.ok("start", workflow, "--id", id, *args)
    shell.until(lambda: shell.status(id) == "waiting")
    return id


def test_runs_pause_and_resume(served: Shell):
    ids = [waiting(served, f"p-{n}") for n in range(2)]
    served.ok("pause", *ids)
    for id in ids:
        served.until(lambda key=id: served.status(key) == "paused")
    assert served("pause", ids[0]).code == 4
    served.ok("resume", *ids)
    served.ok("send", ids[0], "go")
    assert served.ok("result", ids[0], "--timeout", "10s").json == "old"
    assert served("resume", ids[1]).code == 4


def test_runs_move_to_a_version_that_fits(served: Shell):
    ids = [waiting(served, f"m-{n}") for n in range(2)]
    done = served.ok("move", *ids, "--to", "2.0.0")
    assert done.err.splitlines() == ["m-0: moved", "m-1: moved"]
    served.ok("send", "m-0", "go")
    assert served.ok("result", "m-0", "--timeout", "10s").json == "new"
    again = served("move", "m-1", "--to", "2.0.0")
    assert again.code == 4
    assert "version 2.0.0; nothing was changed" in again.err


def test_a_version_that_does_not_fit_is_refused_with_the_event_and_the_place(served: Shell):
    id = waiting(served, "r-1")
    done = served("move", id, "--code")
    assert done.code == 1
    for part in ("version 3.0.0 does not fit", "activity_scheduled 'two'", "flows.py:"):
        assert part in done.err
    assert served.status(id) == "waiting"


def test_one_id_that_is_unknown_does_not_keep_the_others_from_moving(served: Shell):
    done = served("move", "nobody", waiting(served, "u-1"), "--to", "2.0.0")
    assert done.code == 3
    assert "error: nobody: there is no execution" in done.err
    assert "u-1: moved" in done.err


@pytest.mark.parametrize(
    "args",
    [
        ["move", "x"],
        ["move", "x", "--to", "2.0.0", "--code"],
        ["unpark"],
        ["unpark", "x", "--all"],
        ["unpark", "x", "--workflow", "order"],
        ["unpark", "--all", "--reason", "boredom"],
    ],
)
def test_commands_that_say_too_little_or_too_much_are_usage_errors(served: Shell, args: list[str]):
    assert served(*args).code == 2


def test_all_parked_runs_of_a_workflow_or_reason_are_unparked(shell: Shell):
    program = shell.folder / "flows.py"
    program.write_text(CODE)
    with shell.worker("flows.py") as worker:
        for n in range(3):
            waiting(shell, f"c-{n}", workflow="changing")
        worker.interrupt()
    program.write_text(CODE.replace("found = await one()", "found = await two()"))
    with shell.worker("flows.py") as worker:
        for n in range(3):
            shell.until(lambda n=n: shell.status(f"c-{n}") == "parked")
        worker.interrupt()
    assert "c-0: resumed" in shell.ok("resume", "c-0").err
    assert "0 runs unparked" in shell.ok("unpark", "--all", "--workflow", "order").err
    assert "0 runs unparked" in shell.ok("unpark", "--all", "--reason", "io_refused").err
    done = shell.ok("unpark", "--all", "-w", "changing", "--reason", "nondeterminism")
    assert "3 runs unparked" in done.err


def test_what_was_started_paused_begins_when_it_is_resumed(served: Shell):
    started = served.ok("start", "changing", "--id", "held", "--paused", "--resume-within", "1h")
    assert "it is paused; let it go on: " in started.err
    assert "perdure resume held" in started.err
    assert "ends unless somebody resumes it within 1h" in served.ok("why", "held").out
    served.ok("resume", "held")
    served.until(lambda: served.status("held") == "waiting")


def test_what_was_started_paused_ends_if_nobody_resumes_it(served: Shell):
    served.ok("start", "changing", "--id", "gone", "--paused", "--resume-within", "300ms")
    served.until(lambda: served.status("gone") == "terminated")
    assert "nobody resumed it within 300ms" in served.ok("why", "gone").out
    refused = served("start", "changing", "--resume-within", "1s")
    assert "--resume-within goes with --paused" in refused.err
