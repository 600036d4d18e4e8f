"""Commands that change something: they write what a worker will find, or ask a live one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from perdure import errors
from perdure.cli import exits, given
from perdure.cli.finding import find, serves
from perdure.cli.out import document, hint, say
from perdure.cli.session import Database, client_on, database_option

if TYPE_CHECKING:
    from perdure.handle import Handle

# -- messages, queries, updates ------------------------------------------------------------------


@click.command("send")
@click.argument("id")
@click.argument("topic")
@click.argument("payload", nargs=-1, metavar="[PAYLOAD] [K=V]...")
@database_option
def send_command(database: Database, id: str, topic: str, payload: tuple[str, ...]) -> None:
    """Send a message; it is durable when this returns, and received once.

    PAYLOAD is JSON, plain text, @FILE or - (stdin).
    """
    asyncio.run(_send(database, id, topic, given.payload(payload)))


async def _send(database: Database, id: str, topic: str, value: Any) -> None:
    async with client_on(database, write=True) as client:
        handle = await find(client, id)
        await handle.send(topic, value)
    hint(f"sent {topic!r} to {handle.id}")


@click.command("query")
@click.argument("id")
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option(
    "--timeout",
    default="10s",
    metavar="SPAN",
    help="How long to wait for the answer.  [default: 10s]",
)
@database_option
def query_command(
    database: Database, id: str, name: str, args: tuple[str, ...], timeout: str
) -> None:
    """Ask a query handler; a worker answers.

    ARGS are JSON, plain text, @FILE or - (stdin).
    """
    values = [given.value(arg) for arg in args]
    asyncio.run(_ask(database, id, lambda handle: handle.query(name, *values, timeout=timeout)))


@click.command("update")
@click.argument("id")
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("--update-id", metavar="ID", help="A repeated call with it returns the first answer.")
@click.option(
    "--timeout",
    default="10s",
    metavar="SPAN",
    help="How long to wait for the answer.  [default: 10s]",
)
@database_option
def update_command(
    database: Database,
    id: str,
    name: str,
    args: tuple[str, ...],
    update_id: str | None,
    timeout: str,
) -> None:
    """Call an update handler and print its answer.

    ARGS are JSON, plain text, @FILE or - (stdin).
    """
    values = [given.value(arg) for arg in args]
    asyncio.run(
        _ask(
            database,
            id,
            lambda handle: handle.update(name, *values, id=update_id, timeout=timeout),
        )
    )


async def _ask(
    database: Database, id: str, question: Callable[[Handle[Any]], Awaitable[Any]]
) -> None:
    async with client_on(database, write=True) as client:
        handle = await find(client, id)
        workflow = (await handle.describe()).workflow
        # Without this, nobody there would look like somebody slow.
        if not any(serves(worker, workflow) for worker in await client.workers()):
            raise errors.Unavailable(
                f"no worker serves {workflow!r} now, and only one can answer; start it with "
                f"`{database.line('dev', 'MODULE')}`"
            )
        say(document(await question(handle)))


# -- ending --------------------------------------------------------------------------------------


@click.command("cancel")
@click.argument("id")
@click.option("--reason", default="", help="Stands in the history.")
@click.option("--deadline", metavar="SPAN", help="Terminate it if it has not ended after this.")
@database_option
def cancel_command(database: Database, id: str, reason: str, deadline: str | None) -> int:
    """Ask an execution to end; its code can clean up first."""
    return asyncio.run(
        _change(database, id, lambda handle: handle.cancel(reason, deadline), "asked to end")
    )


@click.command("terminate")
@click.argument("id")
@click.option("--reason", default="", help="Stands in the history.")
@database_option
def terminate_command(database: Database, id: str, reason: str) -> int:
    """End an execution at once, without its code."""
    return asyncio.run(
        _change(database, id, lambda handle: handle.terminate(reason), "told to stop")
    )


async def _change(
    database: Database, id: str, change: Callable[[Handle[Any]], Awaitable[bool]], done: str
) -> int:
    async with client_on(database, write=True) as client:
        handle = await find(client, id)
        if await change(handle):
            hint(f"{handle.id}: {done}")
            return exits.OK
        status = await handle.status()
    hint(f"error: {handle.id!r} is {status}; nothing was changed")
    return exits.CONFLICT
