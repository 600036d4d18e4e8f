"""``perdure result``: the outcome of a run, on stdout and as the exit code."""

from __future__ import annotations

import asyncio

import click

from perdure.cli import exits
from perdure.cli.finding import find
from perdure.cli.out import document, hint, say
from perdure.cli.session import Database, client_on, database_option


@click.command("result")
@click.argument("id")
@click.option(
    "--timeout", metavar="SPAN", help="Wait no longer than this (90s, 5m); exit code 124."
)
@database_option
def result_command(database: Database, id: str, timeout: str | None) -> int:
    """Wait for the result and print it as JSON; the exit code is the outcome."""
    return asyncio.run(_result(database, id, timeout))


async def _result(database: Database, id: str, timeout: str | None) -> int:
    async with client_on(database) as client:
        handle = await find(client, id)
        if not (await handle.status()).is_terminal:
            hint(f"waiting: {await handle.why()}")
        try:
            say(document(await handle.result(timeout=timeout)))
        except TimeoutError:
            hint(f"error: {handle.id!r} has not ended within {timeout}: {await handle.why()}")
            return exits.TIMED_OUT
    return exits.OK
