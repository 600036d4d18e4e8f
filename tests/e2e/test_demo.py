"""The first five minutes: `perdure demo`, and what it leaves for the reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.shell import Done, Shell

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("demo"))
    shell.is_cold = True
    return shell


@pytest.fixture(scope="module")
def shown(shell: Shell) -> Done:
    return shell("demo")


def test_the_demo_succeeds(shown: Done):
    assert shown.code == 0, shown
    assert "✗" not in shown.out
    assert shown.out.count("✓") == 8


def test_the_demo_tells_what_each_step_did(shown: Done):
    rows = {line.split()[0]: line for line in shown.lines if "…" in line}
    assert set(rows) == {"reserve", "charge", "ship"}
    assert all("once" in row for row in rows.values())
    assert "(killed)" in rows["charge"]
    assert "2 lines" in rows["charge"]
    assert rows["charge"].count("…") == 1, "one idempotency key"
    assert "1 line" in rows["reserve"]


def test_the_demo_leaves_its_files_and_no_process(shell: Shell, shown: Done):
    folder = shell.folder / "perdure-demo"
    assert (folder / "perdure.db").is_file()
    assert len((folder / "effects.log").read_text().splitlines()) == 4
    assert shell.ok("workers", "--db", "perdure-demo/perdure.db", "-o", "json").json == []


def test_the_commands_that_the_demo_prints_work(shell: Shell, shown: Done):
    lines = [line.strip() for line in shown.lines if " -m perdure " in line]
    assert [line.split(" -m perdure ")[1].split()[0] for line in lines] == [
        "list",
        "history",
        "dev",
    ]
    for line in lines[:2]:
        assert "fulfil" in typed(shell, line).stdout


def typed(shell: Shell, line: str, search: str | None = None) -> subprocess.CompletedProcess[str]:
    """Type a line as it was printed; ``search``: in a shell with this ``PATH``."""
    return subprocess.run(
        line,
        shell=True,
        cwd=shell.folder,
        env=os.environ if search is None else {**os.environ, "PATH": search},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_commands_that_a_script_off_the_path_prints_name_the_script(shell: Shell, shown: Done):
    script = Path(sys.executable).with_name("perdure")
    others = [
        place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != script.parent
    ]
    workers = "--db perdure-demo/perdure.db workers"
    off_the_path = typed(shell, f"{script} {workers}", os.pathsep.join(others))
    assert f"start one with `{script} dev MODULE --db perdure-demo/perdure.db`" in (
        off_the_path.stderr
    )
    on_it = os.pathsep.join([str(script.parent), *others])
    by_name = typed(shell, f"perdure {workers}", on_it)
    assert "start one with `perdure dev MODULE" in by_name.stderr


def test_the_demo_can_be_played_again(shell: Shell, shown: Done):
    assert shell("demo").code == 0


def test_the_demo_does_not_take_the_database_from_a_worker(shell: Shell, shown: Done):
    with shell.worker("perdure.demo.orders", "--db", "perdure-demo/perdure.db") as worker:
        done = shell("demo")
        assert done.code == 4
        assert str(worker.pid) in done.err
        worker.interrupt()
    assert shell.ok("list", "--db", "perdure-demo/perdure.db", "-o", "ids").out == "A-1001\n"


def test_the_example_is_the_program_of_the_demo():
    example = (ROOT / "examples" / "orders.py").read_text()
    assert example == (ROOT / "src" / "perdure" / "demo" / "orders.py").read_text()


def test_the_first_five_minutes_go_as_written(tmp_path: Path):
    """Serve the order example, kill it at the approval, serve it again."""
    shell = Shell(tmp_path)
    shutil.copy(ROOT / "examples" / "orders.py", tmp_path)
    with shell.worker("orders.py") as worker:
        shell.ok("start", "fulfil", '{"id": "A-1", "total": 4200}', "--id", "A-1")
        shell.until(lambda: shell.status("A-1") == "waiting")
        worker.kill()
    with shell.worker("orders.py"):
        shell.ok("send", "A-1", "approval", '{"by": "Ada", "ok": true}')
        assert shell.ok("result", "A-1").json["approved_by"] == "Ada"
    effects = (tmp_path / "effects.log").read_text()
    assert [effects.count(f'"{step}"') for step in ("reserve", "charge", "ship")] == [1, 1, 1]


def test_a_refused_order_is_undone(tmp_path: Path):
    shell = Shell(tmp_path)
    shutil.copy(ROOT / "examples" / "orders.py", tmp_path)
    with shell.worker("orders.py"):
        shell.ok("start", "fulfil", "id=A-2", "total=1", "--id", "A-2")
        shell.until(lambda: shell.status("A-2") == "waiting")
        shell.ok("send", "A-2", "approval", "by=Ada", "ok=false")
        done = shell("result", "A-2")
    assert done.code == 1
    assert "Ada refused order A-2 (Refused)" in done.err
    effects = (tmp_path / "effects.log").read_text().splitlines()
    steps = [line.split('"')[3] for line in effects]
    assert steps == ["reserve", "charge", "refund", "release"]
