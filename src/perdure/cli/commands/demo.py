"""``perdure demo``: the narrative, the table and the claims of the demonstration."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from perdure.cli import exits, table
from perdure.cli.out import say, took
from perdure.cli.session import Database
from perdure.demo.story import ORDER, PROGRAM, Demo, Step
from perdure.engine.clock import monotonic

FOLDER = Path("perdure-demo")


@click.command("demo")
def demo_command() -> int:
    """Run an order, kill its worker with SIGKILL in the middle of a step, watch the order finish.

    The worker is a process of its own on a SQLite file in ./perdure-demo. Every claim is checked,
    against the history in the database and against a log that the steps write outside of it; the
    exit code is 1 if one does not hold.
    """
    began = monotonic()
    sentences: list[str] = []

    def tell(text: str) -> None:
        sentences.append(text)
        say(f"{len(sentences)}. {text}")

    demo = Demo(FOLDER, tell)
    try:
        asyncio.run(demo.perform())
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    say("")
    say(_table(demo.steps, demo.killed))
    say("")
    for claim in demo.claims:
        mark = table.paint("✓", "green") if claim.holds else table.paint("✗ NOT SO:", "red")
        say(f"{mark} {claim.text}")
    say(f"\nThat took {took(monotonic() - began)}. Look for yourself:")
    for line in _commands(demo):
        say(f"  {line}")
    return exits.OK if all(claim.holds for claim in demo.claims) else exits.FAILED


def _table(steps: list[Step], killed: int) -> str:
    titles = ["STEP", "RECORDED", "ATTEMPTS", "BY PROCESS", "EFFECTS LOG", "IDEMPOTENCY KEY"]
    rows: list[list[str]] = []
    for step in steps:
        cut_off = len(step.pids) > 1
        by = [f"{pid} (killed)" if pid == killed and cut_off else str(pid) for pid in step.pids]
        rows.append(
            [
                step.name,
                "once" if step.recorded == 1 else f"{step.recorded} times",
                str(step.attempts),
                ", ".join(by),
                "1 line" if len(step.effects) == 1 else f"{len(step.effects)} lines",
                ", ".join(f"{key[:12]}…" for key in step.keys),
            ]
        )
    return table.render(titles, rows)


def _commands(demo: Demo) -> list[str]:
    database = Database("", str(demo.database))
    return [
        database.line("list"),
        database.line("history", str(ORDER["id"])),
        f"cat {demo.effects_log}",
        database.line("dev", PROGRAM),
    ]
