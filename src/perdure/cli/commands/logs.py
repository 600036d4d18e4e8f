"""``perdure logs``: what a run has logged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from perdure.cli import table
from perdure.cli.finding import find
from perdure.cli.out import compact, document, format_option, hint, say
from perdure.cli.session import Database, client_on, database_option
from perdure.told import LogLine


@click.command("logs")
@click.argument("id")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only the lines after number N.",
)
@format_option("table", "json", "jsonl")
@database_option
def logs_command(database: Database, id: str, output: str, after: int) -> None:
    """Show what a run has logged, in order: of workflow code, of steps and of activities."""
    asyncio.run(_logs(database, id, output, after))


async def _logs(database: Database, id: str, output: str, after: int) -> None:
    async with client_on(database) as client:
        lines = await (await find(client, id)).logs(after=after)
    if output == "json":
        say(document(lines))
    elif output == "jsonl":
        for line in lines:
            say(compact(line))
    elif lines:
        say(_table(lines))
    else:
        hint("it has logged nothing" if not after else f"it has logged nothing after {after}")


def _table(lines: Sequence[LogLine]) -> str:
    titles = ["#", "TIME", "LEVEL", "STEP", "MESSAGE"]
    rows: list[list[str]] = []
    for line in lines:
        step = line.step or ""
        if line.attempt > 1:
            step += f" (attempt {line.attempt})"
        data = "" if line.data is None else f" {compact(line.data)}"
        time = f"{line.time:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
        text = " ".join(line.message.splitlines()) + data
        rows.append([str(line.number), time, line.level, step, text])
    return table.render(titles, rows, elastic="MESSAGE")
