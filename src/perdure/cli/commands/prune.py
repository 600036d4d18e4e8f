"""The command that deletes ended runs now, instead of when the workers' retention says so."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from perdure import errors, views
from perdure.cli import exits
from perdure.cli.out import hint, say
from perdure.cli.session import Database, client_on, database_option, user
from perdure.engine.clock import SystemClock
from perdure.store.port import Prune
from perdure.values.duration import microseconds
from perdure.values.states import TERMINAL, Status

if TYPE_CHECKING:
    from perdure.client import Client

_SHARE = 0.5
"""Of the time: workers write meanwhile."""
_STATUSES = [str(status) for status in TERMINAL if status is not Status.CONTINUED_AS_NEW]


@click.command("prune")
@click.option(
    "--older-than", required=True, metavar="SPAN", help="Ended at least so long ago: 30d, 12h."
)
@click.option(
    "-s",
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(sorted(_STATUSES)),
    help="Only executions that ended so; repeat for several.",
)
@click.option("--dry-run", "is_trial", is_flag=True, help="Count, and delete nothing.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@database_option
def prune_command(
    database: Database,
    older_than: str,
    statuses: tuple[str, ...],
    *,
    is_trial: bool,
    is_sure: bool,
) -> int:
    """Delete ended runs, with histories and all that is theirs, for ever.

    Counts first, and asks. The newest run of a database stays, and so does everything of open
    executions, but for runs that were continued long ago. In all namespaces.
    """
    span = microseconds(older_than, what="--older-than")
    wish = Prune(SystemClock().now() - span, tuple(Status(status) for status in statuses))
    return asyncio.run(_prune(database, wish, is_trial=is_trial, is_sure=is_sure))


async def _prune(database: Database, wish: Prune, *, is_trial: bool, is_sure: bool) -> int:
    async with client_on(database, write=not is_trial) as client:
        if not is_sure or is_trial:
            count = await _go_through(client, wish, is_trial=True)
            when = _moment(wish.before)
            if is_trial:
                say(f"{count} run{_s(count)} that had ended before {when} would be deleted")
                return exits.OK
            if not count:
                hint(f"no runs had ended before {when}")
                return exits.OK
            question = f"delete {count} run{_s(count)} that had ended before {when}, for ever?"
            if not await asyncio.to_thread(click.confirm, question, err=True):
                raise errors.UsageError("nothing was deleted")
        # Before it is done: it takes many transactions, and may be cut off.
        facts = {"before": _moment(wish.before), "statuses": wish.statuses}
        await client.as_(user()).audit.note("prune", facts=facts)
        count = await _go_through(client, wish, is_trial=False)
    hint(f"deleted {count} run{_s(count)}")
    return exits.OK


async def _go_through(client: Client, wish: Prune, *, is_trial: bool) -> int:
    """Delete, or count, batch after batch; leave others time to write in between."""
    count, loop = 0, asyncio.get_running_loop()
    while True:
        began = loop.time()
        if is_trial:
            found = await client.door.read(lambda store, wish=wish: store.prunable(wish))
        else:
            found = await client.door.write(lambda store, wish=wish: store.prune(wish))
            await asyncio.sleep((loop.time() - began) * (1 / _SHARE - 1))
        count += found.runs
        if found.goes_on is None:
            return count
        wish = msgspec.structs.replace(wish, after=found.goes_on)


def _moment(time: int) -> str:
    moment: datetime = views.to_datetime(time)
    return moment.isoformat(timespec="seconds")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
