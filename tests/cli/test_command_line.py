"""What holds for every command: help, usage errors, pipes, and what is not loaded."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from tests.cli.shell import PERDURE, Shell
from tests.cli.terminal import on_terminal

import perdure
from perdure import cli

NAMES = [name for section in cli.COMMANDS.values() for name in section]


def test_help_lists_every_command(shell: Shell):
    text = shell.ok("--help").out
    for name in NAMES:
        assert f"  {name} " in text


def test_no_command_is_a_call_for_help(shell: Shell):
    assert shell.ok().out == shell.ok("--help").out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(name: str):
    context = click.Context(cli.perdure, info_name="perdure")
    command = cli.perdure.get_command(context, name)
    assert command is not None
    assert command.name == name
    text = command.get_help(click.Context(command, parent=context, info_name=name))
    assert f"Usage: perdure {name}" in text
    for parameter in command.params:
        is_documented = not isinstance(parameter, click.Option) or parameter.help
        assert is_documented, f"--{parameter.name} has no help"


@pytest.mark.parametrize("args", [["version"], ["--version"]], ids=" ".join)
def test_version_is_printed(shell: Shell, args: list[str]):
    assert shell.ok(*args).out == f"perdure {perdure.__version__}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["lst"], "did you mean 'list'"),
        (["show"], "missing argument 'ID'"),
        (["list", "--foo"], "--foo"),
        (["list", "extra"], "extra"),
        (["--foo"], "--foo"),
        (["send", "id"], "missing argument 'TOPIC'"),
        (["dev"], "missing argument 'MODULE...'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_usage_is_one_line_and_exit_code_2(shell: Shell, args: list[str], says: str):
    done = shell(*args)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "--help" in done.err
    assert len(done.err.splitlines()) == 1


def test_an_empty_database_name_is_bad_usage_and_says_where_it_came_from(shell: Shell):
    for args in (["--db", "", "list"], ["list", "--db", ""], ["--db", " ", "run", "x.py"]):
        done = shell(*args)
        assert (done.code, "--db is empty" in done.err) == (2, True)
    done = shell("list", PERDURE_DB="")
    assert (done.code, "variable PERDURE_DB is empty" in done.err) == (2, True)


def test_a_reader_that_goes_away_is_no_trouble(filled: Shell):
    process = subprocess.Popen(
        [*PERDURE, "list", "-o", "jsonl"],
        cwd=filled.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize(
    "args", [["history", "wait-1"], ["list", "-o", "json"], ["--help"], ["version"]], ids=" ".join
)
def test_a_full_disk_under_stdout_is_one_line_and_an_exit_code_of_its_own(
    filled: Shell, args: list[str]
):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PERDURE, *args],
            cwd=filled.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
    assert done.returncode == 74


def test_a_terminal_gets_colours_and_a_table_that_fits(filled: Shell):
    code, shown = on_terminal(filled, "history", "wait-1", columns=60)
    assert code == 0
    assert "\x1b[" in shown
    assert "…" in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colours_can_be_refused(filled: Shell, variables: dict[str, str]):
    _, shown = on_terminal(filled, "list", variables=variables)
    assert "\x1b" not in shown
    assert "wait-1" in shown


def test_a_locale_without_the_characters_gets_their_codes(filled: Shell):
    done = filled.ok("show", "wait-1", PYTHONIOENCODING="ascii")
    assert "\\xfc" in done.out


# -- the package's front -------------------------------------------------------------------------


@pytest.mark.parametrize("name", perdure.__all__)
def test_every_public_name_is_where_the_front_says(name: str):
    assert getattr(perdure, name) is not None
    assert name in dir(perdure)


def test_an_unknown_name_of_the_front_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        import_module("perdure").nothing_of_the_kind  # noqa: B018
    done = subprocess.run(
        [sys.executable, "-c", "from perdure import nothing_of_the_kind"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImportError: cannot import name 'nothing_of_the_kind'" in done.stderr


def test_importing_perdure_loads_nothing_else():
    code = "import sys, perdure; print([m for m in sys.modules if m.startswith('perdure.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
