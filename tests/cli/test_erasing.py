"""`perdure erase`: it asks, and what is erased is erased for every command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.cli.shell import Shell

from perdure import Client, Engine, Personal, workflow
from perdure.errors import Erased

DATABASE = "sqlite:///test.db"
NAME = "Ada Lovelace"


@workflow.define
async def greet(name: str) -> str:
    return f"Hello, {name}"


@workflow.define
async def waiting(name: str) -> None:
    await workflow.listen("go").receive()


async def _fill(url: str) -> Personal:
    async with Engine(url, [greet, waiting]) as engine:
        for id in ("one", "two", "three"):
            tags = ["eu"] if id != "three" else []
            await engine.client.execute(greet, NAME, id=id, tags=tags)
        await engine.client.start(waiting, NAME, id="open", tags=["eu"])
        return await engine.client.personal.seal("u42", NAME)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    asyncio.run(_fill(f"sqlite:///{tmp_path}/test.db"))
    return Shell(tmp_path, PERDURE_DB=DATABASE)


def reasons(shell: Shell) -> dict[str, str | None]:
    items = shell.ok("list", "-o", "json").json["items"]
    return {item["id"]: item.get("reason") for item in items}


NOTHING: dict[str, str | None] = dict.fromkeys(("one", "two", "three", "open"))


def test_an_execution_is_erased_for_every_command(shell: Shell):
    assert shell.ok("erase", "one", "--yes").out == "one\n"
    assert reasons(shell) == {**NOTHING, "one": "erased"}
    for command in ("show", "history", "export", "why"):
        done = shell.ok(command, "one")
        assert NAME not in done.out
        assert "erased" in done.out
    done = shell("result", "one")
    assert (done.code, NAME in done.err) == (3, False)
    assert "'one': its result was erased" in done.err
    assert "cannot be retried" in shell("retry", "one").err
    [line] = shell.ok("audit", "list", "--action", "erase", "-o", "json").json["items"]
    assert line["target"] == "one"


def test_all_with_a_tag_are_erased_but_for_open_ones(shell: Shell):
    done = shell.ok("erase", "--tag", "eu", "--yes")
    assert "erased 2 executions; 1 is open and as before" in done.err
    assert reasons(shell) == {**NOTHING, "one": "erased", "two": "erased"}


def test_a_person_is_erased(shell: Shell):
    value = asyncio.run(_fill(f"sqlite:///{shell.folder}/other.db"))
    assert "is erased" in shell.ok("erase", "--subject", "u42", "--yes", "--db", "other.db").err
    again = shell.ok("erase", "--subject", "u42", "--yes", "--db", "other.db")
    assert "had been erased before" in again.err

    async def look() -> None:
        async with Client(f"sqlite:///{shell.folder}/other.db") as client:
            await client.personal.open(value)

    with pytest.raises(Erased):
        asyncio.run(look())


def test_what_cannot_be_erased_keeps_nothing_else_from_it(shell: Shell):
    done = shell("erase", "one", "open", "two", "--yes")
    assert (done.code, done.out) == (4, "one\ntwo\n")
    assert "error: open: run " in done.err
    assert reasons(shell) == {**NOTHING, "one": "erased", "two": "erased"}


def test_a_person_of_whom_nothing_is_kept_is_told_from_a_misspelt_one(shell: Shell):
    assert "no key" not in shell.ok("erase", "--subject", "u42", "--dry-run").err
    for how in ("--dry-run", "--yes"):
        assert "there is no key of 'u24' here" in shell.ok("erase", "--subject", "u24", how).err
    assert shell("erase", "--subject", "u" * 1_001, "--yes").code == 2


@pytest.mark.parametrize("what", [["one"], ["--tag", "eu"], ["--subject", "u42"]])
def test_it_asks_first_and_a_trial_or_a_no_erases_nothing(shell: Shell, what: list[str]):
    done = shell("erase", *what, stdin="n\n")
    assert (done.code, "for ever?" in done.err) == (2, True)
    assert "nothing was erased" in done.err
    assert shell.ok("erase", *what, "--dry-run").out.startswith("would ")
    assert reasons(shell) == NOTHING


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name executions"),
        (["one", "--subject", "u42"], 2, "name executions"),
        (["open", "--yes"], 4, "end it first"),
        (["nobody", "--yes"], 3, "there is no execution 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused(shell: Shell, arguments: list[str], code: int, said: str):
    done = shell("erase", *arguments)
    assert done.code == code
    assert said in done.err
