"""Commands that change something: they reach live workers through the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import CHANGING, PROGRAMS
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder whose database a worker serves."""
    shell = Shell(tmp_path_factory.mktemp("served"))
    with shell.worker(PROGRAMS):
        yield shell


def waiting(shell: Shell, id: str) -> str:
    """Start an execution that waits for a message, and wait until it does."""
    shell.ok("start", "wait", "--id", id)
    shell.until(lambda: shell.status(id) == "waiting")
    return id


# -- start ---------------------------------------------------------------------------------------


def test_start_prints_the_id_and_nothing_else(served: Shell):
    done = served.ok("start", "hello", "Ada", "--id", "s-1")
    assert done.out == "s-1\n"
    assert served.ok("result", "s-1").json == "Hello, Ada!"


def test_start_without_an_id_makes_one(served: Shell):
    id = served.ok("start", "hello").out.strip()
    assert served.ok("result", id).json == "Hello, World!"


def test_start_as_json_tells_id_run_and_workflow(served: Shell):
    started = served.ok("start", "hello", "--id", "s-2", "-o", "json").json
    assert set(started) == {"id", "run_id", "workflow"}
    assert started["run_id"] == served.ok("show", "s-2", "-o", "json").json["run_id"]


@pytest.mark.parametrize(
    ("given", "input"),
    [
        ([], None),
        (["text"], "text"),
        (["42"], 42),
        (['{"id": "A-1", "total": 4200}'], {"id": "A-1", "total": 4200}),
        (["id=A-1", "total=4200"], {"id": "A-1", "total": 4200}),
        (['{"id": "A-1"}', "total=1", "id=B"], {"id": "B", "total": 1}),
        (["a=true", "b=null", "c=[1, 2]", "d=007", "e=x=y"],
         {"a": True, "b": None, "c": [1, 2], "d": "007", "e": "x=y"}),
        (["--input", "[1, 2]"], [1, 2]),
        (["@in.json"], {"from": "file"}),
        (["-"], {"from": "stdin"}),
    ],
    ids=["nothing", "text", "number", "json", "fields", "both", "types", "option", "file", "stdin"],
)  # fmt: skip
def test_input_is_read_as_it_is_written(served: Shell, given: list[str], input: object):
    (served.folder / "in.json").write_text('{"from": "file"}')
    id = served.ok("start", "echo", *given, stdin='{"from": "stdin"}').out.strip()
    assert served.ok("result", id).json == input


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["{id: 1}"], "not JSON"),
        (["@nowhere.json"], "nowhere.json"),
        (["-"], "stdin"),
        (["1", "2"], "give one value"),
        (["[1]", "k=v"], "no object"),
    ],
    ids=["json", "file", "stdin", "two", "list"],
)
def test_input_that_cannot_be_read_is_bad_usage(served: Shell, given: list[str], says: str):
    done = served("start", "echo", *given)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


def test_an_unknown_workflow_is_not_found_and_the_nearest_is_named(served: Shell):
    done = served("start", "helo")
    assert done.code == 3
    assert "did you mean 'hello'" in done.err


def test_start_with_a_module_checks_the_input_before_anything_is_stored(served: Shell):
    target = f"{PROGRAMS}:total"
    done = served("start", target, "id=2", "total=3", "--id", "typed")
    assert done.code == 2
    assert "Expected `str`, got `int`" in done.err
    assert """K=V is read as JSON; text is written id='"…"'""" in done.err
    done = served("start", target, "id=A", "totl=3", "--id", "typed")
    assert done.err == "error: total: no field 'totl'; did you mean 'total'? (it has: id, total)\n"
    assert served("show", "typed").code == 3
    assert served.ok("start", target, 'id="2"', "total=3", "--id", "typed").out == "typed\n"
    assert served.ok("result", "typed").json == 3


def test_an_unknown_version_is_not_found_and_those_there_are_are_named(served: Shell):
    done = served("start", "hello", "--version", "9")
    assert done.code == 3
    assert done.err == "error: workflow 'hello' has no version '9' (registered: 1.0.0)\n"


def test_an_open_execution_with_the_id_is_used_again(served: Shell):
    id = waiting(served, "twice")
    run_id = served.ok("show", id, "-o", "json").json["run_id"]
    again = served.ok("start", "wait", "--id", id, "-o", "json").json
    assert again["run_id"] == run_id


def test_an_open_execution_with_the_id_is_a_conflict_if_asked(served: Shell):
    id = waiting(served, "taken")
    done = served("start", "wait", "--id", id, "--conflict", "fail")
    assert done.code == 4
    assert "taken" in done.err


def test_starting_what_no_worker_serves_says_so(filled: Shell, tmp_path: Path):
    for file in filled.folder.glob("perdure.db*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    done = Shell(tmp_path).ok("start", "hello", "--id", "later")
    assert done.out == "later\n"
    assert "no worker serves 'hello' now" in done.err


def test_start_without_a_database_creates_none(shell: Shell):
    done = shell("start", "hello")
    assert done.code == 6
    assert not (shell.folder / "perdure.db").exists()


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "received"),
    [([], None), (["yes"], "yes"), (["by=Ada", "ok=true"], {"by": "Ada", "ok": True})],
    ids=["nothing", "text", "fields"],
)
def test_a_message_is_received(
    served: Shell, given: list[str], received: object, request: pytest.FixtureRequest
):
    id = waiting(served, f"m-{request.node.callspec.id}")
    done = served.ok("send", id, "go", *given)
    assert done.out == ""
    assert served.ok("result", id).json == received


def test_a_message_to_what_has_ended_is_a_conflict(served: Shell):
    served.ok("start", "hello", "--id", "over")
    served.ok("result", "over")
    done = served("send", "over", "go")
    assert done.code == 4
    assert "ended" in done.err


def test_a_message_to_nobody_is_not_found(served: Shell):
    assert served("send", "nobody", "go").code == 3


# -- queries and updates -------------------------------------------------------------------------


def test_a_query_is_answered_by_the_worker(served: Shell):
    id = waiting(served, "asked")
    assert served.ok("query", id, "state").json == "waiting"
    assert served.ok("query", id, "state", "!").json == "waiting!"


def test_an_update_changes_the_state_and_answers(served: Shell):
    id = waiting(served, "updated")
    assert served.ok("update", id, "set_state", "new").json == "waiting"
    assert served.ok("query", id, "state").json == "new"


def test_an_update_with_an_id_happens_once(served: Shell):
    id = waiting(served, "updated-once")
    for _ in range(2):
        done = served.ok("update", id, "set_state", "new", "--update-id", "u1")
        assert done.json == "waiting"


def test_an_update_id_belongs_to_one_execution(served: Shell):
    for id in (waiting(served, "mine"), waiting(served, "yours")):
        done = served.ok("update", id, "set_state", "new", "--update-id", "same")
        assert done.json == "waiting"


def test_an_update_that_is_refused_fails(served: Shell):
    id = waiting(served, "refusing")
    done = served("update", id, "set_state", '""')
    assert done.code == 1
    assert "an empty state" in done.err


def test_an_unknown_handler_is_not_found(served: Shell):
    id = waiting(served, "handlerless")
    assert served("query", id, "nothing").code == 3
    assert served("update", id, "nothing").code == 3


def test_a_query_that_nobody_can_answer_says_so_at_once(filled: Shell):
    done = filled("query", "wait-1", "state", "--timeout", "1h")
    assert done.code == 6
    assert "no worker serves 'wait' now" in done.err


# -- ending --------------------------------------------------------------------------------------


def test_cancel_ends_a_run_and_keeps_the_reason(served: Shell):
    id = waiting(served, "to-cancel")
    served.ok("cancel", id, "--reason", "not wanted", "--deadline", "5s")
    assert served("result", id).code == 5
    assert "not wanted" in served.ok("history", id).out


def test_terminate_ends_a_run_at_once(served: Shell):
    id = waiting(served, "to-end")
    served.ok("terminate", id, "--reason", "now")
    assert served("result", id).code == 5
    assert served.status(id) == "terminated"


def test_a_cancelled_run_shows_which_compensations_failed(served: Shell):
    served.ok("start", "undoing", "--id", "undo")
    served.until(lambda: served.status("undo") == "waiting")
    served.ok("cancel", "undo")
    done = served("result", "undo")
    assert done.code == 5
    told = "1 compensation(s) failed: activity 'give_back' failed: nobody is there"
    assert done.err.splitlines()[-1] == f"error: workflow 'undo' was cancelled: {told}"
    shown = served.ok("show", "undo").out
    assert "status      cancelled" in shown
    assert told in shown
    assert "OSError: nobody is there (programs.py:" in shown


@pytest.mark.parametrize("command", ["cancel", "terminate"])
def test_an_end_without_a_reason_is_told_without_a_dangling_colon(served: Shell, command: str):
    id = waiting(served, f"no-reason-{command}")
    served.ok(command, id)
    last = served("result", id).err.splitlines()[-1]
    assert last.endswith(("was cancelled", "was terminated"))


@pytest.mark.parametrize("command", ["cancel", "terminate", "unpark"])
def test_what_changes_nothing_is_a_conflict(served: Shell, command: str):
    id = f"done-{command}"
    served.ok("start", "hello", "--id", id)
    served.ok("result", id)
    done = served(command, id)
    assert done.code == 4
    assert "nothing was changed" in done.err
    assert served.status(id) == "completed"


# -- parked runs ---------------------------------------------------------------------------------


def test_a_parked_run_goes_on_when_its_code_is_back(shell: Shell):
    program = shell.folder / "changing.py"
    program.write_text(CHANGING)
    with shell.worker("changing.py") as worker:
        shell.ok("start", "changing", "--id", "p")
        shell.until(lambda: shell.status("p") == "waiting")
        worker.interrupt()
    program.write_text(CHANGING.replace("await first()", "await other()"))
    with shell.worker("changing.py") as worker:
        shell.ok("send", "p", "go")
        shell.until(lambda: shell.status("p") == "parked")
        assert "first" in shell.ok("why", "p").out
        shell.ok("unpark", "p")
        worker.interrupt()
    program.write_text(CHANGING)
    with shell.worker("changing.py"):
        assert shell.ok("result", "p", "--timeout", "10s").json == "first"
    kinds = [json.loads(line)["kind"] for line in shell.ok("history", "p", "-o", "jsonl").lines]
    assert "run_parked" in kinds
    assert "run_unparked" in kinds
