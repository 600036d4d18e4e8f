"""A shell in a folder of its own, and a database with something in it for tests that only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.shell import Shell

PROGRAMS = str(Path(__file__).with_name("programs.py"))
CHANGING = """
from perdure import activity, workflow

@activity.define
async def first() -> str:
    return "first"

@activity.define
async def other() -> str:
    return "other"

@workflow.define
async def changing() -> str:
    done = await first()
    await workflow.listen("go").receive()
    return done
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder whose perdure.db holds eight ended or waiting executions; no worker serves it."""
    shell = Shell(tmp_path_factory.mktemp("filled"))
    with shell.worker(PROGRAMS) as worker:
        shell.ok("start", "hello", "Ada", "--id", "hello-1", "--tag", "nice", "--search", "n=1")
        shell.ok("start", "hello", "Grace", "--id", "hello-2", "--tenant", "acme")
        shell.ok("start", "boom", "--id", "boom-1", "--correlation-id", "c-1")
        shell.ok("start", "bug", "--id", "bug-1")
        shell.ok("start", "wait", '{"a": [1, "ü"]}', "--id", "wait-1", "--memo", "why=later")
        shell.ok("start", "wait", "--id", "stop-1")
        shell.ok("start", "wait", "--id", "kill-1")
        shell.ok("start", "echo", "text", "--id", "echo-1", "--created-by", "me")
        shell.ok("cancel", "stop-1", "--reason", "enough")
        shell.ok("terminate", "kill-1", "--reason", "now")
        ended = {"hello-1", "hello-2", "boom-1", "bug-1", "stop-1", "kill-1", "echo-1"}
        for id in sorted(ended):
            shell("result", id, "--timeout", "10s")
        shell.until(lambda: shell.status("wait-1") == "waiting")
        worker.interrupt()
    return shell
