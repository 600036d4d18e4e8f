"""Every example runs as its own text says."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.shell import Shell

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder with a copy of the examples, as the repository's root has them."""
    (tmp_path / "examples").mkdir()
    for file in EXAMPLES.glob("*.py"):
        (tmp_path / "examples" / file.name).write_text(file.read_text())
    return Shell(tmp_path)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_says_how_to_run_it(file: Path):
    text = file.read_text()
    assert re.search(rf"^    perdure (dev|run) examples/{file.name}", text, re.MULTILINE)
    assert len(text.splitlines()) <= 110


def test_hello_runs_by_itself_and_by_the_command(shell: Shell):
    done = subprocess.run(
        [sys.executable, "examples/hello.py"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "Hello, World!\n"
    assert shell.ok("run", "examples/hello.py:hello", "Ada").json == "Hello, Ada!"


@pytest.mark.parametrize("name", ["survey", "careful"])
def test_fanout(shell: Shell, name: str):
    names = '["ada", "grace", "barbara"]'
    result = shell.ok("run", f"examples/fanout.py:{name}", names).json
    assert result == {"ada": 3, "grace": 5, "barbara": 7}


def test_a_saga_books_everything(shell: Shell):
    result = shell.ok("run", "examples/saga.py:trip", "traveller=Ada").json
    assert result == ["flight for Ada", "hotel for Ada", "car for Ada"]


def test_a_saga_undoes_newest_first_what_was_booked(shell: Shell):
    done = shell("run", "examples/saga.py:trip", "traveller=Ada", "car_sold_out=true")
    assert done.code == 1
    assert "no car is left (SoldOut)" in done.err
    cancelled = re.findall(r"cancelled: (\w+)", done.err)
    assert cancelled == ["hotel", "flight"]


def test_a_transfer_moves_money_once(shell: Shell):
    transfer = ["run", "examples/transactional.py:transfer", "source=ada", "target=grace"]
    assert shell.ok(*transfer, "amount=30").json == {"ada": 70, "grace": 130}
    assert shell.ok(*transfer, "amount=30").json == {"ada": 40, "grace": 160}
    done = shell(*transfer, "amount=41")
    assert done.code == 1
    assert "ada is short of money (Short)" in done.err
    assert shell.ok(*transfer, "amount=0").json == {"ada": 40, "grace": 160}


def test_an_approval_shows_its_state_and_takes_the_decision(shell: Shell):
    with shell.worker("examples/approval.py"):
        shell.ok("start", "expense", "id=E-7", "who=Ada", "amount=120", "--id", "E-7")
        shell.until(lambda: shell.status("E-7") == "waiting")
        assert shell.ok("query", "E-7", "state").json == "with the manager"
        shell.ok("send", "E-7", "decision", "by=Grace", "ok=true")
        assert shell.ok("result", "E-7").json == "approved"


def test_an_approval_nobody_gives_is_escalated(shell: Shell):
    with shell.worker("examples/approval.py") as worker:
        shell.ok("start", "expense", "id=E", "who=Ada", "amount=1", "patience=50ms", "--id", "E")
        shell.until(lambda: "to director" in worker.out)
        shell.until(lambda: shell.status("E") == "waiting")
        assert shell.ok("query", "E", "state").json == "escalated"
        shell.ok("send", "E", "decision", "by=Boss", "ok=false")
        assert shell.ok("result", "E").json == "refused"


def test_people_are_asked_by_a_function_and_by_a_graph(shell: Shell):
    with shell.worker("examples/people.py"):
        shell.ok("start", "refund", "order=A-1", "amount=120", "--id", "R-1")
        shell.ok("start", "onboarding", "name=Ada", "--id", "O-1")
        shell.ok("start", "refund", "order=A-2", "amount=1", "patience=50ms", "--id", "R-2")
        assert shell.ok("result", "R-2").json == "nobody answered"
        shell.until(lambda: shell.status("R-1") == shell.status("O-1") == "waiting")
        [refund] = shell.ok("people", "list", "--role", "finance", "-o", "ids").lines
        [desk] = shell.ok("people", "list", "--role", "office", "-o", "ids").lines
        shell.ok("people", "complete", refund, "ok=true", "limit=100", "--by", "grace")
        assert shell.ok("result", "R-1").json == "100 for A-1, says grace"
        assert shell("people", "complete", desk, "desk=7").code == 2
        shell.ok("people", "reject", desk, "--reason", "all are taken", "--by", "grace")
        assert shell.ok("result", "O-1").json == "no desk for Ada: all are taken"


def test_runs_under_way_keep_their_way_when_the_code_changes(shell: Shell):
    """A run is begun by the code as it was before the two changes that `versions.py` shows."""
    program = shell.folder / "examples" / "versions.py"
    now = program.read_text()
    before = re.sub(r"    if workflow\.patched.*?\n.*?\n", "", now)
    before = re.sub(r"    match workflow\.version.*?(?=    done\.append)", '    plan = "basic"\n',
                    before, flags=re.DOTALL)  # fmt: skip
    assert "patched" not in before.split("@workflow.define")[1]
    program.write_text(before)
    with shell.worker("examples/versions.py") as worker:
        shell.ok("start", "onboarding", "Ada", "--id", "old")
        shell.until(lambda: shell.status("old") == "waiting")
        worker.interrupt()
    program.write_text(now)
    with shell.worker("examples/versions.py"):
        shell.ok("start", "onboarding", "Ada", "--id", "new")
        for id in ("old", "new"):
            shell.until(lambda key=id: shell.status(key) == "waiting")
            shell.ok("send", id, "confirmed")
        assert shell.ok("result", "old").json == ["account of Ada", "trial plan for Ada"]
        assert shell.ok("result", "new").json == [
            "account of Ada",
            "welcome mail to Ada",
            "trial plan for Ada",
        ]


def test_a_new_start_takes_the_highest_version(shell: Shell):
    result = shell.ok("run", "examples/versions.py:invoice", "Ada").json
    assert result == "electronic invoice plan for Ada"
    assert shell.ok("run", "examples/versions.py:invoice_1", "Ada").json == (
        "paper invoice plan for Ada"
    )


def python(shell: Shell, name: str) -> list[str]:
    """Run an example by itself and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_counter_answers_and_refuses(shell: Shell):
    assert python(shell, "counter.py") == [
        "3, then 6",
        "refused: would be negative",
        "exit with 6",
    ]


def test_a_counter_takes_messages_from_the_command_line(shell: Shell):
    with shell.worker("examples/counter.py"):
        shell.ok("start", "counter", '{"initial": 2}', "--id", "my-counter")
        shell.ok("send", "my-counter", "increment", "amount=3")
        shell.ok("send", "my-counter", "finish")
        assert shell.ok("result", "my-counter").json == 5


def test_a_crew_shares_the_jobs_that_come(shell: Shell):
    with shell.worker("examples/jobs.py"):
        shell.ok("start", "crew", "workers=3", "--id", "crew")
        for job in ("7", "8"):
            shell.ok("send", "crew", "add_job", job)
        shell.ok("send", "crew", "exit")
        assert shell.ok("result", "crew").json == {"7": 14, "8": 16}


def test_a_crew_goes_home_when_nothing_comes(shell: Shell):
    assert shell.ok("run", "examples/jobs.py:crew", "patience=50ms").json == {}


def test_children_are_asked_and_one_is_away(shell: Shell):
    assert shell.ok("run", "examples/children.py:household", '["ada", "nobody"]').json == {
        "asked": 2,
        "home": {"ada": "ada (household asked)"},
        "away": {"nobody": "NotFound"},
    }


def test_watching_hears_of_every_end(shell: Shell):
    *monitored, trapped, raised = python(shell, "watching.py")
    assert sorted(monitored) == [
        "deaf: Canceled, now terminated",
        "obedient: Canceled, now cancelled",
        "short: done, now completed",
    ]
    assert (trapped, raised) == ("link_down", "the block ended: Canceled")
    assert shell.ok("run", "examples/watching.py:long_work", "seconds=0.1").json == "done"


def test_a_web_server_accepts_an_order_once(shell: Shell):
    server = subprocess.Popen(
        [sys.executable, "examples/web.py", "web.db", "0"],
        cwd=shell.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split()[-1]

        def post(body: str) -> tuple[int, dict[str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
            with closing(connection):
                connection.request("POST", "/", body, {"X-Request-ID": "r-1"})
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())

        order = '{"id": 7, "item": "book"}'
        assert post(order) == (202, {"workflow_id": "order-7", "status": "started"})
        code, answer = post(order)
        assert (code, "'order-7' exists" in answer["error"]) == (409, True)
        assert [post(bad)[0] for bad in ("no json", "[]", '{"id": 8, "thing": 1}')] == [400] * 3
        with shell.worker("examples/web.py", "--db", "web.db"):
            shell.ok("send", "order-7", "ship", "--db", "web.db")
            result = shell.ok("result", "order-7", "--db", "web.db").json
            assert result == {"shipped": "book", "request": "r-1"}
    finally:
        server.kill()
        server.communicate()
