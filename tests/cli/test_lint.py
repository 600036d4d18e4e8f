"""`perdure lint`: findings on stdout, and as the exit code."""

from __future__ import annotations

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell

CARELESS = """
import random
from datetime import datetime
from perdure import activity, workflow

print("loading")

@activity.define
async def roll() -> float:
    return random.random()

def today() -> str:
    return datetime.now().isoformat()

@workflow.define
async def careless() -> str:
    await roll()
    print(random.random())  # perdure: allow random
    return today() + str(random.random())
"""
CAREFUL = """
from perdure import workflow

@workflow.define
async def careful() -> str:
    return str(workflow.now())
"""


@pytest.fixture
def code(shell: Shell) -> Shell:
    (shell.folder / "careless.py").write_text(CARELESS)
    (shell.folder / "careful.py").write_text(CAREFUL)
    (shell.folder / "empty.py").write_text("x = 1\n")
    return shell


@pytest.mark.parametrize("module", ["careless.py", "careless"])
def test_findings_are_lines_on_stdout_and_exit_code_1(code: Shell, module: str):
    done = code("lint", module)
    assert done.code == 1
    clock, chance = done.lines
    assert clock.startswith("careless.py:13: clock: datetime.now() ")
    assert chance.startswith("careless.py:19: random: random.random() ")
    assert "2 findings in 1 workflow" in done.err
    assert "loading" in done.err


def test_nothing_found_is_exit_code_0(code: Shell):
    done = code("lint", "careful.py", PROGRAMS)
    assert (done.code, done.out) == (0, "")
    assert "no findings in " in done.err


def test_several_modules_are_checked_together(code: Shell):
    done = code("lint", "careless.py", "careful.py", "empty.py")
    assert done.code == 1
    assert "2 findings in 2 workflows" in done.err


def test_json_is_a_list_of_findings(code: Shell):
    done = code("lint", "careless.py", "-o", "json")
    assert done.code == 1
    assert [(found["file"], found["line"], found["code"]) for found in done.json] == [
        ("careless.py", 13, "clock"),
        ("careless.py", 19, "random"),
    ]
    assert all(found["message"] for found in done.json)
    assert code.ok("lint", "careful.py", "-o", "json").json == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "missing argument 'MODULE...'"),
        (("nowhere.py",), "there is no file nowhere.py"),
        (("empty.py",), "no workflow is defined in empty.py"),
        (("careful.py", "-o", "xml"), "xml"),
    ],
    ids=str,
)
def test_what_cannot_be_checked_is_exit_code_2(code: Shell, args: tuple[str, ...], says: str):
    done = code("lint", *args)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_a_worker_says_the_same_when_it_starts(code: Shell):
    with code.worker("careless.py") as worker:
        assert "perdure.lint: " in worker.said
        assert "careless.py:13: clock: datetime.now() " in worker.said


def test_a_query_that_does_io_is_refused_with_exit_code_1(shell: Shell):
    (shell.folder / "reading.py").write_text(
        "from pathlib import Path\n"
        "from perdure import workflow\n"
        "@workflow.define\n"
        "async def reading() -> None:\n"
        "    @workflow.query('text')\n"
        "    def text() -> str:\n"
        "        return Path('reading.py').read_text()\n"
        "    await workflow.listen('go').receive()\n"
    )
    with shell.worker("reading.py"):
        shell.ok("start", "reading", "--id", "r")
        done = shell("query", "r", "text")
    assert done.code == 1
    assert "reading.py:7 in reading.<locals>.text" in done.err
    assert "activity" in done.err


GRAPH = """
import random
import time
from perdure.graph import BaseGateway, WorkflowDefinition, flow

def handle(value, ctx):
    return time.time()  # a handler is no workflow code

def is_late(ctx):
    return time.time() > 4

class Coin(BaseGateway):
    async def evaluate(self, context):
        return random.choice(["a", "b"])

late = (
    flow("late")
    .task("a", handle, input=lambda prev, _: [time.monotonic(), prev])
    .choice("b", [(is_late, "c"), (lambda c: True, "c"), (lambda c: time.time() > c.prev, "c")])
    .pass_("c", transform=lambda c: random.random())
    .build()
)
tossed = WorkflowDefinition("tossed", steps=[Coin("coin")])
"""


def test_conditions_mappers_and_gateways_of_graphs_are_workflow_code(code: Shell):
    (code.folder / "late.py").write_text(GRAPH)
    done = code("lint", "late.py")
    assert done.code == 1
    assert [line.split(" ")[0] for line in done.lines] == [
        "late.py:10:",
        "late.py:14:",
        "late.py:18:",
        "late.py:19:",
        "late.py:20:",
    ]
    assert [line.split(" ")[1] for line in done.lines] == [
        "clock:",
        "random:",
        "clock:",
        "clock:",
        "random:",
    ]
    assert "5 findings in 2 workflows" in done.err
