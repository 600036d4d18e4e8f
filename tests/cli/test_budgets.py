"""Budgets, in words of the command line."""

from __future__ import annotations

from tests.cli.conftest import PROGRAMS
from tests.cli.shell import Shell


def test_show_says_what_is_left_of_a_budget(shell: Shell):
    shell.ok("run", f"{PROGRAMS}:hello", "Ada")
    budget = ["--budget", "tokens=100000", "--budget", "usd=0.5"]
    shell.ok("start", "wait", "--id", "w", *budget)
    lines = [line.split(maxsplit=1) for line in shell.ok("show", "w").lines]
    assert [line[1] for line in lines if line[0] == "budget"] == [
        "0 of 100,000 tokens used",
        "0 of 0.5 usd used",
    ]
    told = shell.ok("show", "w", "-o", "json").json["budgets"]
    assert [(it["unit"], it["amount"], it["left"]) for it in told] == [
        ("tokens", "100000", "100000"),
        ("usd", "0.5", "0.5"),
    ]


def test_a_budget_that_is_none_is_refused(shell: Shell):
    shell.ok("run", f"{PROGRAMS}:hello", "Ada")
    done = shell("start", "wait", "--budget", "tokens=many")
    assert done.code == 2
    assert "budget.tokens: 'many' is no amount" in done.err
