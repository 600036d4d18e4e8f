"""`perdure run` and `perdure dev`: workers of one execution, and of many."""

from __future__ import annotations

import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from tests.cli.conftest import CHANGING, PROGRAMS
from tests.cli.shell import Shell
from tests.cli.terminal import on_terminal

# -- run -----------------------------------------------------------------------------------------


def test_run_puts_the_result_and_nothing_else_on_stdout(shell: Shell):
    done = shell.ok("run", f"{PROGRAMS}:hello", "Ada")
    assert done.json == "Hello, Ada!"
    assert "a line of the user's own" in done.err


def test_run_prints_a_result_of_any_length(shell: Shell):
    name = "x" * 1000
    assert shell.ok("run", f"{PROGRAMS}:hello", name).json == f"Hello, {name}!"


@pytest.mark.parametrize(
    ("given", "stdin", "result"),
    [
        (["id=A-1", "total=7"], "", 7),
        (["--input", '{"id": "A-1", "total": 8}'], "", 8),
        (["--input", "-"], '{"id": "A-1", "total": 9}', 9),
        (["--input", "@order.json"], "", 10),
        (["--input", '{"id": "A-1"}', "total=11"], "", 11),
    ],
    ids=["fields", "option", "stdin", "file", "both"],
)
def test_run_takes_its_input_in_every_form(shell: Shell, given: list[str], stdin: str, result: int):
    (shell.folder / "order.json").write_text('{"id": "A-1", "total": 10}')
    assert shell.ok("run", f"{PROGRAMS}:total", *given, stdin=stdin).json == result


def test_a_run_that_fails_is_exit_code_1_with_the_reason(shell: Shell):
    done = shell("run", f"{PROGRAMS}:boom", "broken")
    assert (done.code, done.out) == (1, "")
    assert "broken (CardDeclined)" in done.err


def test_a_run_that_is_cancelled_is_exit_code_5(shell: Shell):
    with shell.spawn("run", f"{PROGRAMS}:wait", "--id", "w") as running:
        running.until_says("wait w on perdure.db")
        shell.ok("cancel", "w")
        assert running.wait() == 5


def test_run_gives_up_waiting_after_the_timeout_and_keeps_the_run(shell: Shell):
    done = shell("run", f"{PROGRAMS}:wait", "--id", "w", "--timeout", "200ms")
    assert (done.code, done.out) == (124, "")
    assert "--id w" in done.err
    assert shell.status("w") == "waiting"


def test_ctrl_c_ends_the_command_and_not_the_run(shell: Shell):
    with shell.spawn("run", f"{PROGRAMS}:wait", "--id", "w") as running:
        running.until_says("wait w on perdure.db")
        shell.until(lambda: shell.status("w") == "waiting")
        assert running.interrupt() == 130
        assert "Traceback" not in running.said
        assert "the run is kept" in running.said
    with shell.spawn("run", f"{PROGRAMS}:wait", "--id", "w") as running:
        running.until_says("wait w on perdure.db")
        shell.ok("send", "w", "go", "on")
        assert running.wait() == 0
        assert running.out == '"on"\n'


@pytest.mark.parametrize("command", ["run", "start"])
def test_an_id_that_is_open_is_said_to_keep_its_input(shell: Shell, command: str):
    first = shell("run", f"{PROGRAMS}:wait", "1", "--id", "w", "--timeout", "200ms")
    assert "already open" not in first.err
    shell.ok("send", "w", "go", "on")
    done = shell.ok(command, f"{PROGRAMS}:wait", "2", "--id", "w")
    assert re.search(r"'w' is already open since \d{4}-.*Z; it keeps its input\n", done.err)
    assert shell.ok("show", "w", "-o", "json").json["input"] == 1


def test_a_killed_run_goes_on_under_its_id(shell: Shell):
    with shell.spawn("run", f"{PROGRAMS}:wait", "--id", "w") as running:
        running.until_says("wait w on perdure.db")
        shell.until(lambda: shell.status("w") == "waiting")
        running.kill()
    shell.ok("send", "w", "go", "anyway")
    assert shell.ok("run", f"{PROGRAMS}:wait", "--id", "w").json == "anyway"
    kinds = [event["kind"] for event in shell.ok("history", "w", "-o", "json").json]
    assert kinds.count("run_started") == 1


def test_a_run_whose_code_does_not_fit_is_given_up_and_kept(shell: Shell):
    program = shell.folder / "changing.py"
    program.write_text(CHANGING)
    command = ["run", "changing.py:changing", "--id", "c"]
    assert shell(*command, "--timeout", "300ms").code == 124
    shell.ok("send", "c", "go")
    program.write_text(CHANGING.replace("await first()", "await other()"))
    done = shell(*command)
    assert (done.code, done.out) == (1, "")
    assert "error: parked" in done.err
    program.write_text(CHANGING)
    assert shell.ok(*command).json == "first"


def test_an_attempt_that_fails_on_the_way_is_told(shell: Shell):
    (shell.folder / "flaky.py").write_text(
        "from perdure import Retry, activity, workflow\n\n"
        "@activity.define(retry=Retry(interval='10ms'))\n"
        "async def shaky() -> int:\n"
        "    if activity.info().attempt == 1:\n        raise OSError('disk full')\n"
        "    return activity.info().attempt\n\n"
        "@workflow.define\nasync def flaky() -> int:\n    return await shaky()\n"
    )
    done = shell.ok("run", "flaky.py:flaky")
    assert done.json == 2
    assert "attempt_failed: shaky" in done.err
    assert "disk full" in done.err


def test_run_finds_a_workflow_by_dotted_name(shell: Shell):
    shutil.copy(PROGRAMS, shell.folder / "mine.py")
    assert shell.ok("run", "mine:hello").json == "Hello, World!"


def test_run_finds_a_module_inside_a_package(shell: Shell):
    package = shell.folder / "app" / "flows"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("NAME = 'package'")
    (package / "orders.py").write_text(
        "from perdure import workflow\nfrom . import NAME\n\n"
        "@workflow.define\nasync def name() -> str:\n    return NAME\n"
    )
    assert shell.ok("run", "app/flows/orders.py:name").json == "package"
    assert shell.ok("run", "app.flows.orders:name").json == "package"


def test_a_module_with_one_workflow_needs_no_name(shell: Shell):
    (shell.folder / "json.py").write_text(  # and may be called like a module of the library
        "from perdure import workflow\n\n@workflow.define\nasync def only() -> int:\n    return 1\n"
    )
    assert shell.ok("run", "./json.py").json == 1


def test_a_result_that_does_not_fit_its_annotation_is_printed_all_the_same(shell: Shell):
    (shell.folder / "odd.py").write_text(
        "from perdure import workflow\n\n"
        "@workflow.define\nasync def odd() -> str:\n    return 1  # type: ignore\n"
    )
    assert shell.ok("run", "odd.py:odd").json == 1


BROKEN = {
    "a name that is not there": ("x = 1\ny = nothing\n", "line 2: NameError"),
    "a syntax error": ("def f(:\n", "line 1: SyntaxError"),
    "a missing import": ("import no_such_module\n", "line 1: ModuleNotFoundError"),
    "a bad definition": (
        "from perdure import workflow\n\n@workflow.define\ndef f() -> int:\n    return 1\n",
        "async",
    ),
    "a module that exits": ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
    "a module that runs an event loop": (
        "import asyncio\nasync def main(): ...\nasyncio.run(main())\n",
        "line 3: the module runs an event loop while it is imported; put that under `if __name__",
    ),
    "a module without definitions": ("x = 1\n", "no workflow"),
}


@pytest.mark.parametrize("command", ["run", "dev"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_module_is_one_line_and_bad_usage(shell: Shell, case: str, command: str):
    text, says = BROKEN[case]
    (shell.folder / "broken.py").write_text(text)
    done = shell(command, "broken.py:f" if command == "run" else "broken.py")
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert not (shell.folder / "perdure.db").exists()


def test_a_folder_is_no_module(shell: Shell):
    done = shell("dev", ".")
    assert (done.code, done.err) == (
        2,
        "error: . is a folder; name a module in it, or a .py file\n",
    )
    assert "'a-b' is neither a dotted module name nor a .py file" in shell("dev", "a-b").err


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere.py:f", "no file nowhere.py"),
        ("nowhere:f", "no module 'nowhere'"),
        ("mine:helo", "did you mean 'hello'"),
        ("mine", "which workflow"),
        ("folder/mine", "did you mean"),
    ],
)
def test_a_target_that_is_not_there_is_bad_usage(shell: Shell, target: str, says: str):
    shutil.copy(PROGRAMS, shell.folder / "mine.py")
    (shell.folder / "folder").mkdir()
    shutil.copy(PROGRAMS, shell.folder / "folder" / "mine.py")
    done = shell("run", target)
    assert done.code == 2
    assert says in done.err


def test_input_that_does_not_fit_names_the_field(shell: Shell):
    done = shell("run", f"{PROGRAMS}:total", "total=1")
    assert done.code == 2
    assert "id" in done.err
    assert shell("list").out == ""


def test_a_terminal_shows_how_the_run_is_doing(shell: Shell):
    (shell.folder / "slow.py").write_text(
        "from perdure import workflow\n\n"
        "@workflow.define\nasync def slow() -> str:\n"
        "    await workflow.sleep('500ms')\n    return 'done'\n"
    )
    code, shown = on_terminal(shell, "run", "slow.py:slow")
    assert code == 0
    assert "waiting  timer" in shown
    assert shown.endswith('"done"\r\n')


def test_a_terminal_without_colour_gets_plain_text(shell: Shell):
    code, shown = on_terminal(shell, "run", f"{PROGRAMS}:hello", variables={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b" not in shown


# -- dev -----------------------------------------------------------------------------------------


def test_dev_says_what_it_serves_and_where(shell: Shell):
    with shell.worker(PROGRAMS) as worker:
        for part in (f"pid {worker.pid}", "perdure.db", "hello 1.0.0", "greet"):
            assert part in worker.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_stops_dev_gracefully(shell: Shell, number: signal.Signals):
    with shell.worker(PROGRAMS) as worker:
        worker.process.send_signal(number)
        assert worker.wait() == 0
        assert worker.said.endswith("stopped\n")
        assert shell.ok("workers", "-o", "json").json == []


BUSY = """
import asyncio
from pathlib import Path
from perdure import activity, workflow

@activity.define
async def busy() -> int:
    Path("mark").touch()
    while not Path("release").exists():
        await asyncio.sleep(0.01)  # sleep: the activity is busy until the test lets it go
    return 1

@workflow.define
async def main() -> int:
    return await busy()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_that_comes_twice_at_once_stops_dev_as_gracefully(
    shell: Shell, number: signal.Signals
):
    (shell.folder / "busy.py").write_text(BUSY)
    with shell.worker("busy.py") as worker:
        shell.ok("start", "main", "--id", "a")
        shell.until((shell.folder / "mark").exists)
        worker.process.send_signal(number)
        worker.until_says("stopping")
        worker.process.send_signal(number)
        (shell.folder / "release").touch()
        assert worker.wait() == 0
        assert worker.said.endswith("stopped\n")
    assert shell.ok("result", "a", "--timeout", "20s").json == 1


def test_a_second_signal_after_a_while_ends_dev_at_once(shell: Shell):
    (shell.folder / "busy.py").write_text(BUSY)
    with shell.worker("busy.py") as worker:
        shell.ok("start", "main", "--id", "a")
        shell.until((shell.folder / "mark").exists)
        worker.process.send_signal(signal.SIGTERM)
        worker.until_says("stopping")
        time.sleep(0.7)  # sleep: the second signal must come later than the same one twice
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == -signal.SIGTERM


def test_dev_gives_activities_the_grace_that_was_asked_for(shell: Shell):
    (shell.folder / "busy.py").write_text(BUSY)
    with shell.worker("busy.py", "--grace", "100ms") as worker:
        assert "running activities get 100ms (--grace)" in worker.said
        shell.ok("start", "main", "--id", "a")
        shell.until((shell.folder / "mark").exists)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "get 100ms (Ctrl-C again" in worker.said
    (lost,) = (
        e for e in shell.ok("history", "a", "-o", "json").json if e["kind"] == "attempt_lost"
    )
    assert lost["data"]["by_stop"]


def test_a_grace_that_is_no_duration_is_bad_usage(shell: Shell):
    done = shell("dev", PROGRAMS, "--grace", "soon")
    assert done.code == 2
    assert "--grace" in done.err


def test_dev_tells_what_goes_wrong_once_it_is_recorded_and_not_again_in_a_replay(shell: Shell):
    with shell.worker(PROGRAMS) as worker:
        shell.ok("start", "unlucky", "--id", "u")
        shell("result", "u", "--timeout", "10s")
        for id in ("w", "k"):
            shell.ok("start", "wait", "--id", id)
            shell.until(lambda one=id: shell.status(one) == "waiting")
        shell.ok("cancel", "w", "--reason", "enough")
        shell.ok("terminate", "k")
        worker.until_says("[w]")
        worker.until_says("[k]")
        worker.interrupt()
    said = worker.said
    place = r"OSError: the line is dead \(programs\.py:\d+\)"
    attempt = r"WARNING perdure\.runs: \[u\] activity 'flaky', attempt"
    assert len(re.findall(rf"{attempt} 1 failed: {place}; tried again in \dms\n", said)) == 1
    assert len(re.findall(rf"{attempt} 2 failed: {place}; not tried again\n", said)) == 1
    ended = rf"ERROR perdure\.runs: \[u\] workflow 'unlucky' failed: {place}(?:\n    .*)+programs"
    assert len(re.findall(ended, said)) == 1
    assert "INFO perdure.runs: [w] workflow 'wait' was cancelled: enough\n" in said
    assert "WARNING perdure.runs: [k] workflow 'wait' was terminated\n" in said
    with shell.worker(PROGRAMS) as again:
        again.interrupt()
    assert "perdure.runs" not in again.said


def test_dev_serves_several_modules_on_a_named_database(shell: Shell):
    (shell.folder / "more.py").write_text(
        "from perdure import workflow\n\n@workflow.define\nasync def more() -> int:\n    return 2\n"
    )
    with shell.worker(PROGRAMS, "more.py", "--db", "data.db"):
        for name, result in (("hello", "Hello, World!"), ("more", 2)):
            id = shell.ok("start", name, "--db", "data.db").out.strip()
            assert shell.ok("result", id, "--db", "data.db").json == result
    assert not (shell.folder / "perdure.db").exists()


def test_what_a_killed_dev_left_is_taken_up_by_the_next(shell: Shell):
    mark = shell.folder / "mark"
    with shell.worker(PROGRAMS) as worker:
        shell.ok("start", "wait", "--id", "w")
        shell.ok("start", "hanging", str(mark), "--id", "h")
        shell.until(mark.exists)
        worker.kill()
    mark.unlink()
    with shell.worker(PROGRAMS) as worker:
        assert "unfinished" in worker.said
        shell.until(mark.exists)
        shell.ok("send", "w", "go", "1")
        assert shell.ok("result", "w").json == 1
        lost = [
            e for e in shell.ok("history", "h", "-o", "json").json if e["kind"] == "attempt_lost"
        ]
        assert len(lost) == 1
        worker.kill()


def test_the_step_of_a_run_that_waits_for_a_child_is_the_child(shell: Shell):
    with shell.worker(PROGRAMS) as worker:
        shell.ok("start", "parenting", "--id", "p")
        shell.until(lambda: shell.status("p") == "waiting")
        assert "child the-child" in shell.ok("list", "--id", "p").out
        worker.kill()


def test_a_lost_worker_is_told_once(shell: Shell):
    shell.ok("run", f"{PROGRAMS}:hello")
    shell.ok("start", f"{PROGRAMS}:lingering", str(shell.folder), "--id", "l")
    with shell.worker(PROGRAMS, "--grace", "0s") as worker:
        shell.until((shell.folder / "mark").exists)
        worker.interrupt()
    with shell.worker(PROGRAMS):
        shell("result", "l", "--timeout", "10s")
    for command in ("history", "show"):
        text = shell.ok(command, "l").out
        assert "WorkerLost: attempt 1 of 1" in text
        assert not re.search(r"WorkerLost: WorkerLost|\(WorkerLost\)", text)


def test_dev_says_which_parked_runs_it_will_try(shell: Shell):
    program = shell.folder / "changing.py"
    program.write_text(CHANGING)
    assert shell("run", "changing.py:changing", "--id", "c", "--timeout", "300ms").code == 124
    program.write_text(CHANGING.replace("await first()", "await other()"))
    assert shell("run", "changing.py:changing", "--id", "c").code == 1
    with shell.worker(PROGRAMS) as other:
        assert "1 cannot go on by themselves; see" in other.said
        other.interrupt()
    program.write_text(CHANGING)
    with shell.worker("changing.py") as worker:
        # It may have gone on before it could be counted.
        assert "parked      1 will be tried" in worker.said or "parked  " not in worker.said
        assert "cannot go on" not in worker.said
        shell.until(lambda: shell.status("c") == "waiting")


def test_dev_in_a_folder_that_does_not_exist_is_bad_usage(shell: Shell):
    done = shell("dev", PROGRAMS, "--db", "nowhere/perdure.db")
    assert done.code == 2
    assert "nowhere" in done.err
    assert not Path(shell.folder / "nowhere").exists()
