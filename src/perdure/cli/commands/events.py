"""``perdure events``: what happened in all runs, or in one, by name."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from perdure import errors
from perdure.cli import table
from perdure.cli.finding import find
from perdure.cli.out import compact, document, format_option, hint, say, short
from perdure.cli.session import Database, client_on, database_option

if TYPE_CHECKING:
    from perdure.named import NamedEvent

_WHO = ("instance_id", "workflow_name")
_NAME_WIDTH = 24


@click.command("events")
@click.argument("id", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is recorded from here on.")
@click.option("--after", metavar="EVENT", help="Begin behind this event's id, or `now`.")
@click.option("--pattern", default="*", help="Names; * matches the rest.  [default: *]")
@format_option("table", "json", "jsonl", "ids")
@database_option
def events_command(
    database: Database,
    output: str,
    id: str | None,
    after: str | None,
    pattern: str,
    *,
    follow: bool,
) -> None:
    """Show what happened in all runs, or in those of one execution, in the order it was recorded.

    The id of the last event that was dealt with, given to --after, misses nothing and repeats
    nothing.
    """
    if follow and output == "json":
        raise errors.UsageError("--follow has no end, and a JSON document has one: use -o jsonl")
    asyncio.run(_events(database, output, id, after, pattern, follow=follow))


async def _events(
    database: Database,
    output: str,
    id: str | None,
    after: str | None,
    pattern: str,
    *,
    follow: bool,
) -> None:
    found: list[NamedEvent] = []
    last = after
    async with client_on(database) as client:
        workflow_id = (await find(client, id)).id if id is not None else None
        async for event in client.events(
            pattern, workflow_id=workflow_id, after=after, follow=follow
        ):
            last = event.id
            if output == "json":
                found.append(event)
            else:
                say(_line(event, output))
                if follow:
                    sys.stdout.flush()
    if output == "json":
        say(document(found))
    if last is not None and output != "ids":
        hint(f"to go on from here: {database.line('events', '--after', last)}")


def _line(event: NamedEvent, output: str) -> str:
    if output == "ids":
        return event.id
    if output == "jsonl":
        return compact(event)
    name = event.name.removeprefix("workflow.")
    rest = {key: value for key, value in event.data.items() if key not in _WHO}
    what = table.clean(short(rest, 100)) if rest else ""
    time = f"{event.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z" if event.at is not None else ""
    id = table.clean(event.data["instance_id"])
    return f"{time}  {name:<{_NAME_WIDTH}}  {id}  {what}".rstrip()
