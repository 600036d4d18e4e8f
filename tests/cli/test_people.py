"""`perdure people`: what people are asked for, and what they do about it."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("people"))
    with shell.worker(PROGRAMS):
        yield shell


def asked(shell: Shell, id: str, **options: object) -> str:
    """Start a run that asks; return the id of the human task."""
    shell.ok("start", "approve", json.dumps(options), "--id", id)
    shell.until(lambda: shell.status(id) == "waiting")
    return shell.ok("people", "list", "--id", id, "-o", "ids").out.strip()


def test_what_is_asked_is_found_by_the_search_attributes_of_its_run(served: Shell):
    for number in (7, 8):
        served.ok("start", "approve", "{}", "--id", f"o-{number}", "--search", f"order={number}")
        served.until(lambda number=number: served.status(f"o-{number}") == "waiting")
    listed = served.ok("people", "list", "--search", "order=7", "-o", "json").json
    assert [item["workflow_id"] for item in listed["items"]] == ["o-7"]


def test_what_is_asked_is_listed_shown_and_completed_by_the_user_of_the_computer(served: Shell):
    task = asked(served, "p-1", role="finance", due="2d", data={"order": 7})
    listed = served.ok("people", "list", "--role", "finance", "-o", "json").json
    assert [item["id"] for item in listed["items"]] == [task]
    assert "Approve it?" in served.ok("people", "list").out
    shown = served.ok("people", "show", task[:-3], "-o", "json").json
    assert (shown["data"], shown["workflow_id"]) == ({"order": 7}, "p-1")
    why = served.ok("why", "p-1").out
    assert "for a person: 'Approve it?' (role 'finance', due in 1d23h)" in why
    done = served.ok("people", "complete", task, "ok=true", "--comment", "fine")
    assert f"is completed, by {getpass.getuser()}" in done.err
    told = ["completed", {"ok": True}, getpass.getuser(), "fine"]
    assert served.ok("result", "p-1").json == told
    history = served.ok("history", "p-1").out
    assert re.search(r"human_task_opened +Approve it\? due 20\d\d-\d\d-\d\d ", history)
    assert re.search(r"human_task_decided +Approve it\? \(#3\) outcome=completed", history)


def test_what_does_not_fit_the_form_is_bad_usage_and_changes_nothing(served: Shell):
    task = asked(served, "p-2")
    done = served("people", "complete", task, "ok=perhaps")
    assert (done.code, done.out) == (2, "")
    assert 'ok: "perhaps" is not of type "boolean"' in done.err
    assert served.ok("people", "show", task, "-o", "json").json["status"] == "open"


def test_a_claim_keeps_others_out_and_is_given_back(served: Shell):
    task = asked(served, "p-3")
    claimed = served.ok("people", "claim", task, "--for", "1h", "--by", "ada", "-o", "json").json
    assert (claimed["status"], claimed["claimed_by"]) == ("claimed", "ada")
    refused = served("people", "complete", task, "ok=true", "--by", "grace")
    assert refused.code == 4
    assert "is claimed by 'ada' for another 59m" in refused.err
    served.ok("people", "release", task, "--by", "ada")
    served.ok("people", "complete", task, "ok=true", "--by", "grace")
    again = served("people", "complete", task, "ok=true", "--by", "ada")
    assert again.code == 4
    assert re.search(r"was completed (just now|\w+ ago) by 'grace'", again.err)


def test_it_is_rejected_reassigned_or_taken_back(served: Shell):
    task = asked(served, "p-4", assignee="grace")
    denied = served("people", "reject", task, "--by", "ada")
    assert denied.code == 4
    assert "assigned to 'grace'" in denied.err
    served.ok("people", "reassign", task, "--to", "ada", "--by", "grace")
    assert task in served.ok("people", "list", "--for", "ada", "-o", "ids").lines
    served.ok("people", "reject", task, "--reason", "no", "--by", "ada")
    assert served.ok("result", "p-4").json == ["rejected", None, "ada", "no"]
    task = asked(served, "p-5")
    served.ok("people", "cancel", task, "--reason", "asked twice", "--by", "ada")
    assert served.ok("result", "p-5").json[0] == "cancelled"
    closed = served.ok("people", "list", "-s", "rejected,cancelled", "-o", "jsonl").lines
    assert {"rejected", "cancelled"} == {json.loads(line)["status"] for line in closed}


def raised(shell: Shell, title: str, *options: str) -> str:
    return shell.ok("people", "create", title, *options, "--by", "ada").out.strip()


def test_one_is_raised_escalated_talked_about_and_delegated(served: Shell):
    more = ["host=a", "--role", "ops", "--type", "alert", "--escalate", "lead=1d", "--due", "2d"]
    task = raised(served, "Disk full", *more)
    assert served.ok("people", "list", "--type", "alert", "-o", "ids").lines == [task]
    shown = served.ok("people", "show", task, "-o", "json").json
    assert (shown["data"], shown["role"], shown["created_by"]) == ({"host": "a"}, "ops", "ada")
    served.ok("people", "comment", task, "I am at it", "--by", "ada")
    served.ok("people", "attach", task, "graph", "https://x/1", "--type", "image/png")
    served.ok("people", "escalate", task, "--reason", "too big", "--by", "ada")
    served.ok("people", "claim", task, "--by", "ada")
    served.ok("people", "delegate", task, "--to", "grace", "--by", "ada")
    lines = served.ok("people", "log", task, "-o", "jsonl").lines
    assert [json.loads(line)["verb"] for line in lines] == [
        "opened",
        "commented",
        "attached",
        "escalated",
        "claimed",
        "delegated",
    ]
    told = served.ok("people", "log", task).out
    assert "I am at it" in told
    assert re.search(r"escalated +ada +.*lead", told)
    assert served("people", "claim", task, "--by", "ada").code == 4
    wrong = served("people", "create", "x", "--escalate", "lead")
    assert (wrong.code, "lead=1d" in wrong.err) == (2, True)


def test_several_are_claimed_assigned_and_taken_back_at_once(served: Shell):
    ids = [raised(served, f"Do {n}", "--role", "many") for n in range(3)]
    served.ok("people", "claim", *ids, "--by", "ada")
    held = served("people", "claim", *ids, "--by", "grace", "-o", "json")
    assert held.code == 4
    assert [it["code"] for it in held.json["skipped"]] == ["human_task.claimed"] * 3
    served.ok("people", "reassign", *ids, "--to", "zoe", "--by", "ada")
    assert served("people", "reassign", *ids, "--group", "ops").code == 2
    served.ok("people", "escalate", *ids, "--to", "lead", "--by", "ada")
    listed = served.ok("people", "list", "--role", "lead", "-o", "ids").lines
    assert set(ids) <= set(listed)
    served.ok("people", "cancel", *ids, "--by", "ada")
    assert served.ok("people", "list", "--role", "lead", "-o", "ids").lines == [
        id for id in listed if id not in ids
    ]


def test_an_unknown_id_is_not_found_and_a_short_one_fits_several(served: Shell):
    asked(served, "p-6")
    asked(served, "p-7")
    assert served("people", "show", "nothing").code == 3
    many = served("people", "show", "0")
    assert many.code == 2
    assert "fits several" in many.err


def test_what_is_overdue_is_listed_until_somebody_does_it(served: Shell):
    late = raised(served, "Late", "--due", "1ms", "--expires", "never")
    raised(served, "In time", "--due", "9d")
    served.until(lambda: "overdue" in served.ok("people", "log", late).out)
    [line] = served.ok("people", "list", "--overdue").lines[1:]
    assert "Late" in line and "(overdue)" in line
    served.ok("people", "complete", late, "ok=true", "--by", "ada")
    assert "nobody is asked" in served.ok("people", "list", "--overdue").err


def test_nothing_is_asked_in_an_empty_database(tmp_path: Path):
    shell = Shell(tmp_path)
    with shell.worker(PROGRAMS):
        assert shell.ok("people", "list", "-o", "json").json == {"items": [], "cursor": None}
        assert "nobody is asked" in shell.ok("people", "list", "--overdue").err
