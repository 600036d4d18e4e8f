"""``perdure db``: making the tables, printing the SQL for them, saying how far a database is."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.cli.shell import Shell

from perdure.store.sqlite.store import MIGRATIONS


def test_a_database_is_made_and_says_that_it_is_up_to_date(shell: Shell):
    assert "0001 (core)" in shell.ok("db", "migrate").err
    assert "has everything" in shell.ok("db", "migrate").err
    found = shell.ok("db", "status", "-o", "json").json
    assert [one["number"] for one in found["applied"]] == [one.number for one in MIGRATIONS]
    assert (found["dialect"], found["pending"]) == ("sqlite", [])
    assert found["tables"]["perdure_migration"] == len(MIGRATIONS)


def test_the_sql_is_printed_and_the_database_left_alone(shell: Shell):
    printed = shell.ok("db", "migrate", "--sql").out
    assert not (shell.folder / "perdure.db").exists()
    with closing(sqlite3.connect(shell.folder / "perdure.db")) as connection:
        connection.executescript(printed)
    assert shell.ok("db", "status").out.count("applied by Perdure") == len(MIGRATIONS)
    assert shell.ok("db", "migrate", "--sql", "--pending").out == ""


def test_what_is_missing_is_named_and_the_exit_code_says_it(shell: Shell):
    sqlite3.connect(shell.folder / "perdure.db").execute("CREATE TABLE mine (a)").connection.close()
    done = shell("db", "status")
    assert done.code == 1
    assert "0001 core: pending" in done.out
    assert "db migrate" in done.err


def test_a_server_need_not_be_there_for_its_sql(shell: Shell):
    url = "postgresql://nobody@127.0.0.1:1/none?schema=billing"
    printed = shell.ok("db", "migrate", "--sql", "--role", "app", "--db", url).out
    assert 'CREATE SCHEMA IF NOT EXISTS "billing";' in printed
    assert 'GRANT USAGE ON SCHEMA "billing" TO "app";' in printed


def test_options_of_the_text_go_with_the_text(shell: Shell):
    assert shell("db", "migrate", "--pending").code == 2
    assert shell("db", "status").code == 6
