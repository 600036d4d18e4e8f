"""Fork, retry, export and import from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("repaired"))
    with shell.worker(PROGRAMS):
        yield shell


def test_a_fork_prints_its_id_and_goes_on(served: Shell):
    served.ok("start", "hello", "Ada", "--id", "h")
    served.ok("result", "h")
    done = served.ok("fork", "h", "--before-step", "greet", "--id", "h2")
    assert done.out == "h2\n"
    assert served.ok("result", "h2").json == "Hello, Ada!"
    served.ok("fork", "h", "--after-event", "0", "--input", '"Eve"', "--id", "h3")
    assert served.ok("result", "h3").json == "Hello, Eve!"


def test_show_and_history_tell_of_forks_on_both_sides(served: Shell):
    served.ok("start", "hello", "Ada", "--id", "s")
    served.ok("result", "s")
    served.ok("fork", "s", "--after-event", "1", "--id", "s2")
    assert "fork as s2" in served.ok("show", "s").out
    assert "fork of s " in served.ok("show", "s2").out
    assert "fork as s2" in served.ok("history", "s").err
    assert "forked" in served.ok("history", "s2").out


def test_a_retry_is_a_new_run_of_the_same_id(served: Shell):
    served.ok("start", "boom", "--id", "b")
    served("result", "b")
    before = served.ok("show", "b", "-o", "json").json
    assert served.ok("retry", "b").out == "b\n"
    assert served("result", "b").code == 1
    after = served.ok("show", "b", "-o", "json").json
    assert before["run_id"] != after["run_id"]
    assert after["origin"]["run_id"] == before["run_id"]


def test_what_cannot_be_is_said_in_one_line_with_its_code(served: Shell):
    served.ok("start", "wait", "--id", "w")
    served.until(lambda: served.status("w") == "waiting")
    assert served("retry", "w").code == 4
    assert served("fork", "w").code == 2
    assert served("fork", "w", "--after-event", "1", "--id", "w").code == 4
    assert served("fork", "nobody", "--after-event", "1").code == 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["retry", "hello-1"], "Name a step (--from-step)"),
        (["fork", "hello-1"], "give either --after-event or --before-step"),
        (["fork", "hello-1", "--after-event", "99"], "--after-event: 99 is no event"),
        (["fork", "hello-1", "--after-event", "3", "--input", "1"], "(--after-event 0)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_missing_is_called_by_the_option(filled: Shell, args: list[str], says: str):
    done = filled(*args)
    assert done.code == 2
    assert says in done.err
    assert "=" not in done.err


def test_an_export_is_imported_into_a_database_of_its_own(filled: Shell, tmp_path: Path):
    file = str(tmp_path / "run.json")
    filled.ok("export", "hello-1", "-o", file)
    shell = Shell(tmp_path)
    assert shell.ok("import", file).out == "hello-1\n"
    assert shell.ok("result", "hello-1").json == "Hello, Ada!"
    assert shell.ok("export", "hello-1").json == json.loads(Path(file).read_text())
    assert shell("import", file).code == 4
    assert shell.ok("import", file, "--id", "copy").out == "copy\n"


def test_an_open_run_is_imported_with_its_seed_only(filled: Shell, tmp_path: Path):
    shell = Shell(tmp_path)
    without = filled.ok("export", "wait-1").out
    refused = shell("import", "-", stdin=without)
    assert refused.code == 2
    assert "seed" in refused.err
    shell.ok("import", "-", stdin=filled.ok("export", "wait-1", "--with-seed").out)
    assert shell.status("wait-1") == "running"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\xff"])
def test_a_file_that_is_no_export_is_refused(shell: Shell, text: str):
    (shell.folder / "bad.json").write_bytes(text.encode("latin-1"))
    done = shell("import", "bad.json")
    assert done.code == 2
    assert shell("import", "nowhere.json").code == 2
