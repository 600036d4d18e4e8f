"""`perdure check`: every open run replayed against code that is to be deployed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

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

@workflow.define
async def stepping() -> int:
    print("a line of the user's own")
    first = await one()
    second = await two()
    await workflow.listen("go").receive()
    return first + second

@workflow.define
async def napping() -> None:
    await workflow.sleep("30d")
"""
SWAPPED = CODE.replace("= await one()", "= await three()").replace(
    "@activity.define\nasync def two",
    "@activity.define\nasync def three() -> int:\n    return 3\n\n@activity.define\nasync def two",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with two waiting runs, one asleep and one that has ended."""
    shell = Shell(tmp_path_factory.mktemp("runs"))
    (shell.folder / "flows.py").write_text(CODE)
    (shell.folder / "changed.py").write_text(SWAPPED)
    with shell.worker("flows.py") as worker:
        for id in ("s-1", "s-2", "s-3"):
            shell.ok("start", "stepping", "--id", id)
        shell.ok("start", "napping", "--id", "n-1")
        shell.ok("send", "s-3", "go")
        shell.ok("result", "s-3", "--timeout", "10s")
        for id in ("s-1", "s-2", "n-1"):
            shell.until(lambda key=id: shell.status(key) == "waiting")
        worker.interrupt()
    return shell


def test_code_that_fits_every_open_run_is_exit_code_0_and_no_data(runs: Shell):
    done = runs("check", "flows.py")
    assert (done.code, done.out) == (0, "")
    assert "3 open runs checked: 3 fit" in done.err


def test_each_run_that_does_not_fit_is_a_line_with_event_expected_actual_and_place(runs: Shell):
    done = runs("check", "changed.py")
    assert done.code == 1
    title, *lines = done.lines
    assert title.split()[:4] == ["ID", "WORKFLOW", "VERDICT", "EVENT"]
    assert [line.split()[0] for line in lines] == ["s-1", "s-2"]
    line = 1 + SWAPPED.splitlines().index("    first = await three()")
    for part in (
        "does not fit",
        "activity_scheduled 'one'",
        "activity_scheduled 'three'",
        f"changed.py:{line} in stepping",
    ):
        assert part in lines[0]
    assert "3 open runs checked: 1 fit, 2 do not fit" in done.err


def test_json_has_a_verdict_for_every_run_and_what_user_code_prints_is_not_in_it(runs: Shell):
    found = runs("check", "changed.py", "-o", "json").json
    assert found["counts"] == {"fits": 1, "does_not_fit": 2, "unknown_workflow": 0, "corrupt": 0}
    assert [(run["id"], run["verdict"]) for run in found["runs"]] == [
        ("s-1", "does_not_fit"),
        ("s-2", "does_not_fit"),
        ("n-1", "fits"),
    ]
    misfit = found["runs"][0]
    assert (misfit["event"], misfit["reason"]) == (3, "nondeterminism")
    assert misfit["expected"] == "activity_scheduled 'one'"
    assert "patched" in misfit["message"]


def test_nothing_is_changed_by_a_check(runs: Shell):
    def rows() -> list[object]:
        connection = sqlite3.connect(runs.folder / "perdure.db")
        found = connection.execute("select * from perdure_state").fetchall()
        found += connection.execute("select * from perdure_history").fetchall()
        connection.close()
        return found

    before = rows()
    assert runs("check", "changed.py").code == 1
    assert rows() == before


def test_a_workflow_that_the_modules_do_not_define_is_told_unless_it_was_not_asked_for(
    runs: Shell, tmp_path: Path
):
    part = tmp_path / "part.py"
    part.write_text(CODE.replace("async def napping", "async def dozing"))
    done = runs("check", str(part))
    assert done.code == 1
    assert "unknown workflow" in done.lines[1]
    assert "2 fit, 1 of an unknown workflow" in done.err
    done = runs("check", str(part), "--workflow", "stepping")
    assert (done.code, done.out) == (0, "")
    assert "not asked for, and not checked: napping (1)" in done.err


def test_a_version_that_is_not_defined_any_more_beside_others_is_unknown(
    runs: Shell, tmp_path: Path
):
    twice = tmp_path / "twice.py"
    twice.write_text(
        "from perdure import workflow\n"
        + "".join(
            f"@workflow.define(name='napping', version='{version}.0.0')\n"
            f"async def napping{version}() -> None:\n    await workflow.sleep('30d')\n"
            for version in (2, 3)
        )
    )
    done = runs("check", str(twice), "-w", "napping")
    assert done.code == 1
    assert "defines 'napping', but not version 1.0.0" in done.out


def test_a_limit_takes_the_oldest_and_says_how_many_it_left_out(runs: Shell):
    done = runs("check", "changed.py", "--limit", "1", "-o", "json")
    assert [run["id"] for run in done.json["runs"]] == ["s-1"]
    assert done.json["left_out"] == 2
    assert "2 more were left out by --limit" in done.err


def test_a_damaged_history_is_corrupt_and_the_others_are_checked(runs: Shell, tmp_path: Path):
    copy = tmp_path / "copy.db"
    source, target = sqlite3.connect(runs.folder / "perdure.db"), sqlite3.connect(copy)
    source.backup(target)
    target.execute(
        "update perdure_history set payload = zeroblob(5) where first > 1 and run ="
        " (select run from perdure_run where workflow_id = 's-1')"
    )
    target.commit()
    for connection in (source, target):
        connection.close()
    done = runs("check", "flows.py", "--db", str(copy))
    assert done.code == 1
    assert "corrupt" in done.lines[1]
    assert "2 fit, 1 corrupt" in done.err


def test_a_check_works_beside_a_running_worker(shell: Shell):
    (shell.folder / "flows.py").write_text(CODE)
    (shell.folder / "changed.py").write_text(SWAPPED)
    with shell.worker("flows.py"):
        shell.ok("start", "stepping", "--id", "s-1")
        shell.until(lambda: shell.status("s-1") == "waiting")
        assert shell("check", "changed.py").code == 1
        shell.ok("send", "s-1", "go")
        assert shell.ok("result", "s-1", "--timeout", "10s").json == 3


def test_code_that_never_ends_a_replay_is_a_misfit_and_the_check_goes_on(
    runs: Shell, tmp_path: Path
):
    endless = tmp_path / "endless.py"
    endless.write_text(
        "from perdure import workflow\n"
        "@workflow.define\nasync def napping() -> None:\n    while True:\n        pass\n"
    )
    done = runs("check", str(endless), "-w", "napping", "-o", "json")
    assert [run["reason"] for run in done.json["runs"]] == ["turn_timeout"]


UNORDERED = """
from perdure import activity, workflow

def make(name):
    @activity.define(name=name)
    async def step() -> None:
        pass
    return step

STEPS = {name: make(name) for name in "ant bee cat dog eel fox gnu hen ibis jay".split()}

@workflow.define
async def unordered() -> None:
    for name in set(STEPS):
        await STEPS[name]()
    await workflow.listen("go").receive()
"""


def test_code_that_goes_through_a_set_does_not_fit_although_the_hash_seed_is_fixed(tmp_path: Path):
    shell = Shell(tmp_path, PYTHONHASHSEED="0")
    (shell.folder / "flows.py").write_text(UNORDERED)
    with shell.worker("flows.py") as worker:
        shell.ok("start", "unordered", "--id", "u-1")
        shell.until(lambda: shell.status("u-1") == "waiting")
        worker.interrupt()
    done = shell("check", "flows.py", "-o", "json")
    assert done.code == 1
    assert [run["reason"] for run in done.json["runs"]] == ["nondeterminism"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["nowhere"], 2, "there is no module"),
        (["flows.py", "-w", "steping"], 2, "it has: napping, stepping"),
        (["flows.py", "--db", "none.db"], 6, "there is no database"),
    ],
)
def test_what_cannot_be_checked_is_refused(runs: Shell, args: list[str], code: int, says: str):
    done = runs("check", *args)
    assert done.code == code
    assert says in done.err
