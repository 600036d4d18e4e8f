"""How long runs are kept, in words of the command line."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell


@pytest.fixture
def made(shell: Shell) -> Shell:
    """A folder with a database that a worker has made."""
    shell.ok("run", f"{PROGRAMS}:hello", "Ada")
    return shell


@pytest.mark.parametrize(
    ("given", "kept", "seconds"),
    [("30d", "for 30d after its end", 2_592_000), ("0", "for ever", 0), (None, None, None)],
)
def test_show_says_how_long_a_run_is_kept(
    made: Shell, given: str | None, kept: str | None, seconds: float | None
):
    more = ["--retention", given] if given is not None else []
    id = f"kept-{given}"
    made.ok("start", "wait", "--id", id, *more)
    assert made.ok("show", id, "-o", "json").json["retention_seconds"] == seconds
    lines = [line for line in made.ok("show", id).lines if line.split()[:1] == ["kept"]]
    assert [line.split(maxsplit=1)[1] for line in lines] == ([kept] if kept is not None else [])


def test_show_says_when_a_run_that_has_ended_is_deleted(made: Shell):
    with made.worker(PROGRAMS):
        made.ok("start", "hello", "Ada", "--id", "h", "--retention", "7d")
        made.ok("result", "h")
        shown = made.ok("show", "h", "-o", "json").json
    ended, deleted = (datetime.fromisoformat(shown[key]) for key in ("completed_at", "deleted_at"))
    assert deleted - ended == timedelta(days=7)
    assert re.search(r"^\s*kept +until ", made.ok("show", "h").out, re.MULTILINE)


def test_a_retention_that_is_no_time_is_refused(made: Shell):
    done = made("start", "wait", "--retention", "soon")
    assert done.code == 2
    assert "retention: 'soon'" in done.err
