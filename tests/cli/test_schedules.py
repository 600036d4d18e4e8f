"""`perdure schedules`: what begins by the clock."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("schedules"))
    with shell.worker(PROGRAMS):
        yield shell


def test_one_is_created_begins_executions_and_is_shown(served: Shell):
    made = served.ok("schedules", "create", "ticks", "hello", "Ada", "--every", "1s")
    assert made.out == "ticks\n"
    assert re.search(r"schedule 'ticks' of 'hello': next at \d{4}-", made.err)
    served.until(lambda: _show(served, "ticks")["fired"] >= 2)
    shown = _show(served, "ticks")
    assert (shown["every"], shown["input"], shown["overlap"]) == (1.0, "Ada", "skip")
    assert len(shown["next"]) == 5
    run = shown["runs"][-1]["workflow_id"]
    assert re.fullmatch(r"ticks-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run)
    assert served.ok("result", run).json == "Hello, Ada!"
    text = served.ok("schedules", "show", "ticks").out
    assert "every 1s" in text
    assert re.search(r"^run +ticks-\d{4}-", text, re.MULTILINE)
    assert "ticks" in served.ok("schedules", "list").out


def _show(shell: Shell, id: str) -> dict[str, object]:
    return shell.ok("schedules", "show", id, "-o", "json").json


def test_it_is_paused_triggered_and_deleted(served: Shell):
    cron = ("--cron", "0 9 * * 1-5", "--timezone", "Europe/Berlin")
    served.ok("schedules", "create", "weekly", "hello", *cron, "--description", "greet")
    paused = served.ok("schedules", "pause", "weekly", "--note", "holidays")
    assert "schedule 'weekly' is paused (holidays)" in paused.err
    assert served.ok("schedules", "list", "--paused", "-o", "ids").out == "weekly\n"
    begun = served.ok("schedules", "trigger", "weekly").out.strip()
    assert served.ok("result", begun).json == "Hello, World!"
    assert "next at" in served.ok("schedules", "resume", "weekly").err
    assert served.ok("schedules", "delete", "weekly", "-o", "json").json["deleted"] is True
    gone = served("schedules", "show", "weekly")
    assert (gone.code, gone.out) == (3, "")
    assert "there is no schedule 'weekly'" in gone.err


def test_the_past_is_made_up_for(served: Shell):
    served.ok("schedules", "create", "past", "hello", "--every", "1d")
    span = ("--after", "2026-01-01T00:00Z", "--before", "2026-01-04T00:00Z")
    assert served.ok("schedules", "backfill", "past", *span, "-o", "json").json == {"ticks": 3}
    served.until(lambda: _show(served, "past")["fired"] == 3)
    assert served.ok("result", "past-2026-01-02T00:00:00Z").json == "Hello, World!"


def test_a_preview_needs_no_database_and_says_what_the_clocks_do(tmp_path_factory: object):
    shell = Shell(tmp_path_factory.mktemp("none"))  # type: ignore[attr-defined]
    start = ("--start", "2030-03-30T12:00+01:00", "--count", "2")
    zone = ("--timezone", "Europe/Berlin")
    lines = shell.ok("schedules", "preview", "--cron", "30 2 * * *", *zone, *start).lines
    assert lines[0] == (
        "2030-03-31 01:00:00Z  Sun 31 Mar 03:00 +0200  "
        "the clocks skip the time it names; it runs at 03:00 instead"
    )
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--cron", "* * * * * *"), 2, "6 fields; it needs five"),
        (("--cron", "@daily", "--timezone", "Berlin"), 2, "did you mean Europe/Berlin"),
        (("--at", "2026-12-01T09:00"), 2, "--at: '2026-12-01T09:00' says no time zone"),
        (("--at", "2020-12-01T09:00Z"), 2, "at: is over"),
        ((), 2, "one of cron=, every= and at="),
        (("--every", "10ms"), 2, "every: 10ms is less than 1s"),
    ],
)
def test_what_cannot_be_is_bad_usage(
    served: Shell, options: tuple[str, ...], code: int, message: str
):
    done = served("schedules", "create", "bad", "hello", *options)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert served("schedules", "show", "bad").code == 3


def test_a_different_one_of_that_name_is_a_conflict(served: Shell):
    served.ok("schedules", "create", "twice", "hello", "--cron", "@daily")
    served.ok("schedules", "create", "twice", "hello", "--cron", "@daily")
    refused = served("schedules", "create", "twice", "hello", "--cron", "@weekly")
    assert refused.code == 4
    served.ok("schedules", "create", "twice", "hello", "--cron", "@weekly", "--replace")
    assert _show(served, "twice")["cron"] == "0 0 * * 0"
