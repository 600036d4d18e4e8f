"""``perdure dev``: a worker in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
from types import ModuleType

import click

from perdure import __version__
from perdure.activity import Activity
from perdure.cli import exits
from perdure.cli.loading import load_module
from perdure.cli.out import LOG_FORMAT, hint
from perdure.cli.session import Database, database_option
from perdure.definition import Workflow
from perdure.engine.engine import Engine


@click.command("dev")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "-q", "--queue", "queues", multiple=True, help="Serve this queue; repeat.  [default: default]"
)
@click.option("-v", "--verbose", is_flag=True, help="Log what the engine does, too.")
@database_option
def dev_command(
    database: Database, modules: tuple[str, ...], queues: tuple[str, ...], *, verbose: bool
) -> int:
    """Serve the workflows and activities of modules in the foreground, until Ctrl-C.

    MODULE is a dotted name or a path to a .py file. The database is created if it is not there.
    Work that is cut off, by Ctrl-C or by kill -9, goes on where it stopped at the next start.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format=LOG_FORMAT,
        datefmt="%H:%M:%S",
    )
    if not verbose:
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    loaded = [load_module(module) for module in modules]
    try:
        asyncio.run(_serve(database, loaded, queues or ("default",)))
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.OK


async def _serve(database: Database, modules: list[ModuleType], queues: tuple[str, ...]) -> None:
    engine = Engine(database.url, modules, task_queues=queues)
    async with engine:
        serving = asyncio.create_task(engine.run())
        _introduce(database, modules)
        await _recall(engine, database)
        hint("ready; Ctrl-C stops, and unfinished work goes on at the next start")
        await serving
        hint("stopping: what runs gets a moment to finish (Ctrl-C again: at once)")
    hint("stopped")


def _introduce(database: Database, modules: list[ModuleType]) -> None:
    found = [value for module in modules for value in vars(module).values()]
    workflows = [f"{f.name} {f.version}" for f in found if isinstance(f, Workflow)]
    activities = [f.name for f in found if isinstance(f, Activity)]
    hint(f"perdure {__version__}, pid {os.getpid()}")
    hint(f"  database    {database.name}")
    hint(f"  workflows   {', '.join(dict.fromkeys(workflows)) or 'none'}")
    hint(f"  activities  {', '.join(dict.fromkeys(activities)) or 'none'}")


async def _recall(engine: Engine, database: Database) -> None:
    """Say what was left from before."""
    counts = {
        status: await engine.client.count(status=status)
        for status in ("running", "waiting", "parked")
    }
    left = [f"{count} {status}" for status, count in counts.items() if count]
    if left:
        hint(f"  unfinished  {', '.join(left)}")
    if counts["parked"]:
        hint(f"  parked runs cannot go on; see {database.line('list', '--status', 'parked')}")
