"""`perdure audit`: what was done is listed, a change of it is found and named, old lines go."""

from __future__ import annotations

import asyncio
import sqlite3
from getpass import getuser
from pathlib import Path

import pytest
from tests.cli.shell import Shell
from tests.support.seals import Backwards

from perdure import Client, Engine, workflow
from perdure.audit import read_archived
from perdure.values.principals import Principal

DATABASE = "sqlite:///test.db"


async def _fill(url: str) -> None:
    robot = Principal("robot", initiated_by="ada")
    async with Client(url, identity=robot) as client:
        for n in range(3):
            await client.audit.note(f"done.{n}", f"o-{n}", facts={"n": n})
        await client.audit.note("policy.run", "o-9", decision="denied", rule="blocked[0]")


@workflow.define(name="later")
async def later(_: None) -> None:
    await workflow.listen("never").receive()


async def _start(url: str, count: int) -> None:
    async with Engine(url, later) as engine:
        for n in range(count):
            await engine.client.start(later, id=f"o-{n}")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    asyncio.run(_fill(f"sqlite:///{tmp_path}/test.db"))
    return Shell(tmp_path, PERDURE_DB=DATABASE)


def test_lines_are_listed_newest_first(shell: Shell):
    lines = shell.ok("audit", "list").lines
    assert len(lines) == 5
    assert "robot for ada" in lines[1] and "denied blocked[0]" in lines[1]
    assert shell.ok("audit", "list", "--action", "done.*", "-o", "jsonl").out.count("\n") == 3
    page = shell.ok("audit", "list", "--limit", "1", "-o", "json", "--since", "1h").json
    assert [item["number"] for item in page["items"]] == [4]
    more = shell.ok("audit", "list", "--cursor", page["cursor"], "-o", "json").json
    assert [item["detail"] for item in more["items"]] == [{"n": 2}, {"n": 1}, {"n": 0}]
    assert "nothing like that" in shell.ok("audit", "list", "--id", "x").err


def test_what_commands_do_is_told_where_there_is_an_audit(shell: Shell):
    asyncio.run(_start(f"sqlite:///{shell.folder}/test.db", 0))
    shell.ok("start", "later", "--id", "o-1")
    shell.ok("terminate", "o-1", "--reason", "secret")
    shell.ok("prune", "--older-than", "0s", "--yes")
    told = shell.ok("audit", "list", "--since", "1h", "--limit", "3", "-o", "json").json["items"]
    assert [(it["action"], it["target"]) for it in told] == [
        ("prune", ""),
        ("terminate", "o-1"),
        ("start", "o-1"),
    ]
    assert {it["principal"] for it in told} == {getuser()}
    assert [it["detail"] and sorted(it["detail"]) for it in told] == [
        ["before", "statuses"],
        None,
        None,
    ]


def test_who_acts_under_another_name_is_told_too(shell: Shell):
    async def ask() -> str:
        async with Client(f"sqlite:///{shell.folder}/test.db") as client:
            return (await client.human_tasks.create("Well?", by="x")).id

    shell.ok("people", "claim", asyncio.run(ask()), "--by", "boss")
    [told] = shell.ok("audit", "list", "--action", "people.*", "-o", "json").json["items"]
    assert (told["principal"], told["initiated_by"]) == ("boss", getuser())


def test_a_variable_says_how_much_is_told_of_commands(tmp_path: Path):
    quiet = Shell(tmp_path, PERDURE_DB=DATABASE, PERDURE_AUDIT="")
    asyncio.run(_start(f"sqlite:///{tmp_path}/test.db", 4))
    quiet.ok("pause", "o-0")
    assert "nothing like that" in quiet.ok("audit", "list").err
    Shell(tmp_path, PERDURE_DB=DATABASE, PERDURE_AUDIT="full").ok("cancel", "o-1", "--reason", "r")
    quiet.ok("cancel", "o-2", "--reason", "r")
    Shell(tmp_path, PERDURE_DB=DATABASE, PERDURE_AUDIT="none").ok("cancel", "o-3")
    told = quiet.ok("audit", "list", "-o", "json").json["items"]
    assert [(it["target"], it["detail"] and it["detail"]["after"]) for it in told] == [
        ("o-2", None),
        ("o-1", {"reason": "r"}),
    ]
    wrong = Shell(tmp_path, PERDURE_DB=DATABASE, PERDURE_AUDIT="some")("cancel", "o-3")
    assert wrong.code == 2 and "PERDURE_AUDIT" in wrong.err


def test_what_holds_is_said_with_the_end_of_the_chain(shell: Shell):
    said = shell.ok("audit", "verify").out.strip()
    assert said.startswith("4 rows hold; the last is 4:")
    noted = said.rpartition(" ")[2]
    assert shell.ok("audit", "verify", "test.db", "--noted", noted).out.strip() == said
    assert shell.ok("audit", "verify", DATABASE, "-o", "json").json["holds"] is True
    wrong = shell("audit", "verify", "--noted", "2:00")
    assert wrong.code == 1 and wrong.out.startswith("row 2 does not fit")
    assert shell("audit", "verify", "--noted", "2").code == 2
    assert shell("audit", "verify", "none.db").code == 6


def test_the_first_row_that_was_changed_is_named(shell: Shell):
    connection = sqlite3.connect(shell.folder / "test.db", isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE perdure_audit SET principal = 'eve' WHERE number = 2")
    connection.execute("DROP TRIGGER perdure_audit_stays")
    connection.execute("UPDATE perdure_audit SET principal = 'eve' WHERE number = 2")
    connection.close()
    done = shell("audit", "verify")
    assert done.code == 1
    assert done.out.startswith("row 2 does not fit: its hash")
    assert shell("audit", "verify", "-o", "json").json["broken"] == 2


def test_old_lines_go_into_a_file_and_the_rest_still_holds(shell: Shell):
    kept = shell.ok("audit", "cut", "--older-than", "1h", "--archive", "old.jsonl")
    assert "no line is from before" in kept.err and not (shell.folder / "old.jsonl").exists()
    done = shell.ok("audit", "cut", "--older-than", "0s", "--archive", "old.jsonl")
    assert done.err.startswith("4 lines are in old.jsonl")
    archived = (shell.folder / "old.jsonl").read_bytes().splitlines()
    assert [read_archived(line).number for line in archived] == [1, 2, 3, 4]
    assert shell.ok("audit", "verify").out.startswith("1 rows hold; the last is 5:")
    [line] = shell.ok("audit", "list", "-o", "jsonl").lines
    assert '"audit.cut"' in line
    again = shell("audit", "cut", "--older-than", "0s", "--archive", "old.jsonl")
    assert again.code == 4 and "name a new file" in again.err


def test_what_cannot_be_archived_stays_and_leaves_no_file(tmp_path: Path):
    async def fill() -> None:
        async with Client(f"sqlite:///{tmp_path}/test.db", codec=Backwards()) as client:
            await client.audit.note("done", "o-1", facts={"n": 1})

    asyncio.run(fill())
    shell = Shell(tmp_path, PERDURE_DB=DATABASE)
    cut = ("audit", "cut", "--older-than", "0s", "--archive")
    refused = shell(*cut, "old.jsonl")
    assert refused.code == 6 and "would be in no archive" in refused.err
    assert not (tmp_path / "old.jsonl").exists()
    assert shell.ok("audit", "verify").out.startswith("1 rows hold")
    nowhere = shell(*cut, "no/old.jsonl")
    assert nowhere.code == 2 and "no/old.jsonl: No such file" in nowhere.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--cursor", "².1"),
        ("list", "--cursor", "99999999999999999999.1"),
        ("verify", "--noted", "²:ab"),
        ("verify", "--noted", "1:"),
        ("verify", "--noted", "99999999999999999999:ab"),
        ("erase", "", "--yes"),
    ],
)
def test_nonsense_is_refused(shell: Shell, arguments: tuple[str, ...]):
    assert shell("audit", *arguments).code == 2


def test_archives_are_checked_with_what_is_left(shell: Shell):
    noted = shell.ok("audit", "verify").out.split()[-1]
    for name in ("a", "b"):
        shell.ok("audit", "cut", "--older-than", "0s", "--archive", name)
    assert (shell.folder / "a").stat().st_mode & 0o777 == 0o600
    both = ("--archive", "a", "--archive", "b")
    assert shell.ok("audit", "verify", *both).out.startswith("6 rows hold; the last is 6:")
    shell.ok("audit", "verify", *both, "--noted", noted)
    gone = shell("audit", "verify", "--noted", noted)
    assert gone.code == 4 and "give the archive" in gone.err
    assert "in no archive here" in shell("audit", "verify", "--archive", "a").out
    late = shell("audit", "verify", "--archive", "b")
    assert late.code == 2 and "begins with row 5" in late.err
    lines = (shell.folder / "a").read_text().splitlines(keepends=True)
    (shell.folder / "a").write_text("".join(lines).replace('"o-1"', '"o-7"'))
    changed = shell("audit", "verify", *both)
    assert changed.code == 1 and changed.out.startswith("row 2 does not fit: its hash")
    (shell.folder / "a").write_text("".join(lines[:1] + lines[2:]))
    assert "row 2 is missing" in shell("audit", "verify", *both).out
    (shell.folder / "a").write_text("nonsense")
    assert shell("audit", "verify", *both).code == 2


def test_details_are_erased_and_the_chain_holds(shell: Shell):
    refused = shell("audit", "erase", "o-1", stdin="n\n")
    assert refused.code == 2 and "nothing was erased" in refused.err
    assert "details of 1 line erased" in shell.ok("audit", "erase", "o-1", "--yes").err
    assert shell("audit", "erase", "none", "--yes").code == 3
    told = shell.ok("audit", "list", "--id", "o-1", "-o", "json").json["items"]
    assert [(it["action"], it["detail"], it["is_erased"]) for it in told] == [
        ("audit.erase", None, False),
        ("done.1", None, True),
    ]
    assert shell.ok("audit", "verify").out.startswith("5 rows hold")


def test_lists_end_before_a_time(shell: Shell):
    assert shell.ok("audit", "list", "--until", "1h").lines == []
    assert len(shell.ok("audit", "list", "--until", "0s", "--since", "1h").lines) == 5
