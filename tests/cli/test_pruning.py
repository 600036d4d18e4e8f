"""`perdure prune`: it counts first, asks, and deletes nothing that is open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.cli.shell import Shell

from perdure import Client, Engine, Status, workflow

DATABASE = "sqlite:///test.db"


@workflow.define
async def short(n: int) -> int:
    if n < 0:
        raise ValueError(n)
    return n


@workflow.define
async def waiting() -> None:
    await workflow.listen("go").receive()


async def _fill(url: str) -> None:
    async with Engine(url, [short, waiting], retention=0) as engine:
        for n in range(3):
            await engine.client.execute(short, n, id=f"ended-{n}")
        failed = await engine.client.start(short, -1, id="failed")
        while (await failed.describe()).status is not Status.FAILED:
            await asyncio.sleep(0)  # sleep: lets the engine of this loop go on
        await engine.client.start(waiting, id="open")
        await engine.client.execute(short, 9, id="newest")


async def _ids(url: str) -> set[str]:
    async with Client(url) as client:
        return {item.id for item in (await client.list()).items}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    asyncio.run(_fill(f"sqlite:///{tmp_path}/test.db"))
    return Shell(tmp_path, PERDURE_DB=DATABASE)


def ids(shell: Shell) -> set[str]:
    return asyncio.run(_ids(f"sqlite:///{shell.folder}/test.db"))


EVERYTHING = {"ended-0", "ended-1", "ended-2", "failed", "open", "newest"}


def test_a_dry_run_counts_and_deletes_nothing(shell: Shell):
    done = shell.ok("prune", "--older-than", "0s", "--dry-run")
    assert done.out.startswith("4 runs that had ended before ")
    assert done.out.rstrip().endswith("would be deleted")
    assert shell.ok("prune", "--older-than", "1d", "--dry-run").out.startswith("0 runs")
    assert ids(shell) == EVERYTHING


def test_it_asks_first_and_a_no_deletes_nothing(shell: Shell):
    done = shell("prune", "--older-than", "0s", stdin="n\n")
    assert done.code == 2, done
    assert "delete 4 runs that had ended before" in done.err
    assert "nothing was deleted" in done.err
    assert ids(shell) == EVERYTHING
    done = shell.ok("prune", "--older-than", "0s", stdin="y\n")
    assert "deleted 4 runs" in done.err
    assert ids(shell) == {"open", "newest"}


def test_yes_and_a_status_delete_only_what_ended_so(shell: Shell):
    done = shell.ok("prune", "--older-than", "0s", "--status", "failed", "--yes")
    assert "deleted 1 run\n" in done.err
    assert ids(shell) == EVERYTHING - {"failed"}
    assert shell("show", "failed").code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--older-than", "soon"], "--older-than"),
        (["--older-than", "1d", "--status", "running"], "running"),
        ([], "--older-than"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], said: str):
    done = Shell(tmp_path, PERDURE_DB=DATABASE)("prune", *arguments)
    assert done.code == 2
    assert said in done.err
