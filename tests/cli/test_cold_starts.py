"""Each command imports what it needs; elsewhere it is forked from a process that has much of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell

from perdure import cli

LINES = {
    "audit": "audit list",
    "cancel": "cancel wait-1",
    "check": f"check {PROGRAMS}",
    "db": "db status",
    "erase": "erase hello-1 --yes",
    "events": "events",
    "export": "export hello-1",
    "fork": "fork hello-1 --after-event 1",
    "graph": "graph flow.py",
    "history": "history wait-1",
    "import": "import exported.json --id another",
    "lint": f"lint {PROGRAMS}",
    "list": "list",
    "logs": "logs hello-1",
    "pause": "pause wait-1",
    "people": "people list",
    "policies": "policies check policies.yaml",
    "prune": "prune --older-than 1d",
    "result": "result hello-1",
    "resume": "resume wait-1",
    "retry": "retry boom-1",
    "run": f"run {PROGRAMS}:hello",
    "schedules": "schedules list",
    "send": "send wait-1 go",
    "show": "show wait-1",
    "start": f"start {PROGRAMS}:hello",
    "terminate": "terminate wait-1",
    "unpark": "unpark wait-1",
    "version": "version",
    "why": "why wait-1",
    "workers": "workers",
}
"""What each command can do where no worker is."""
WITH_WORKER = {
    "move": "move wait-1 --code",
    "query": "query wait-1 state",
    "update": "update wait-1 set_state x",
}
ELSEWHERE = {"demo", "dev"}
"""``demo`` is what ``tests/e2e/test_demo.py`` runs so; ``dev`` is the worker below."""
CONFLICTS = {"resume", "unpark"}  # it is neither paused nor parked
FLOW = """
from perdure.graph import flow

def pack(order): ...

order = flow("order").task("pack", pack).build()
"""


@pytest.fixture
def shell(filled: Shell, tmp_path: Path) -> Shell:
    shutil.copytree(filled.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "policies.yaml").write_text("policy.workflow.run.blocked: [legacy.*]\n")
    (tmp_path / "exported.json").write_text(filled.ok("export", "hello-1").out)
    shell = Shell(tmp_path)
    shell.is_cold = True
    return shell


def test_every_command_has_a_line_here():
    here = [*LINES, *WITH_WORKER, *ELSEWHERE]
    assert sorted(here) == sorted(name for section in cli.COMMANDS.values() for name in section)


@pytest.mark.parametrize("name", LINES)
def test_a_command_imports_all_it_needs(shell: Shell, name: str):
    done = shell(*LINES[name].split())
    assert done.code == (4 if name in CONFLICTS else 0), done


def test_a_worker_and_those_who_ask_it_import_all_they_need(shell: Shell):
    with shell.worker(PROGRAMS) as worker:
        for line in WITH_WORKER.values():
            done = shell(*line.split())
            assert done.code == (4 if "move" in line else 0), done
        assert worker.interrupt() == 0
