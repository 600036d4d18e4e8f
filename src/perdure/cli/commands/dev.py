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
from perdure.cli.session import Database, database_option, sealing
from perdure.definition import Workflow
from perdure.engine.engine import Engine
from perdure.values.duration import microseconds
from perdure.values.limits import LIST_MAX
from perdure.values.states import MENDED_BY_CODE, ParkReason

_TRIED = (*MENDED_BY_CODE, ParkReason.UNKNOWN_WORKFLOW, ParkReason.UNSERVED_QUEUE)


@click.command("dev")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "-q", "--queue", "queues", multiple=True, help="Serve this queue; repeat.  [default: default]"
)
@click.option(
    "--grace",
    metavar="SPAN",
    default="5s",
    help="How long running activities get at Ctrl-C or SIGTERM (90s, 5m) before they are cut off; "
    "an attempt that is cut off counts.  [default: 5s]",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what the engine does, too.")
@database_option
def dev_command(
    database: Database,
    modules: tuple[str, ...],
    queues: tuple[str, ...],
    grace: str,
    *,
    verbose: bool,
) -> int:
    """Serve the workflows and activities of modules in the foreground, until Ctrl-C.

    MODULE is a dotted name, or a path to a .py or a definition file (.yaml, .json). The database is
    created if it is not there. Work that is cut off, by Ctrl-C or by kill -9, goes on where it
    stopped at the next start.
    """
    microseconds(grace, what="--grace")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format=LOG_FORMAT,
        datefmt="%H:%M:%S",
    )
    if not verbose:
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    loaded = [load_module(module) for module in modules]
    try:
        asyncio.run(_serve(database, loaded, queues or ("default",), grace))
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.OK


async def _serve(
    database: Database, modules: list[ModuleType], queues: tuple[str, ...], grace: str
) -> None:
    engine = Engine(database.url, modules, task_queues=queues, **sealing())
    async with engine:
        serving = asyncio.create_task(engine.run())
        names = _introduce(database, modules)
        await _recall(engine, database, names)
        hint(
            f"ready; Ctrl-C stops: running activities get {grace} (--grace), an attempt that is "
            "cut off counts, and unfinished work goes on at the next start"
        )
        await serving
        hint(f"stopping: running activities get {grace} (Ctrl-C again: at once)")
        await engine.stop(grace)
    hint("stopped")


def _introduce(database: Database, modules: list[ModuleType]) -> set[str]:
    """Say what is served, and return the names of the workflows."""
    found = [value for module in modules for value in vars(module).values()]
    workflows = [f"{f.name} {f.version}" for f in found if isinstance(f, Workflow)]
    activities = [f.name for f in found if isinstance(f, Activity)]
    hint(f"perdure {__version__}, pid {os.getpid()}")
    hint(f"  database    {database.name}")
    hint(f"  workflows   {', '.join(dict.fromkeys(workflows)) or 'none'}")
    hint(f"  activities  {', '.join(dict.fromkeys(activities)) or 'none'}")
    return {f.name for f in found if isinstance(f, Workflow)}


async def _recall(engine: Engine, database: Database, names: set[str]) -> None:
    """Say what was left from before."""
    counts = {
        status: await engine.client.count(status=status)
        for status in ("running", "waiting", "parked")
    }
    left = [f"{count} {status}" for status, count in counts.items() if count]
    if left:
        hint(f"  unfinished  {', '.join(left)}")
    if not counts["parked"]:
        return
    tried = stay = 0
    cursor = None
    while True:
        page = await engine.client.list(status="parked", limit=LIST_MAX, cursor=cursor)
        fit = sum(item.workflow in names and item.reason in _TRIED for item in page.items)
        tried, stay = tried + fit, stay + len(page.items) - fit
        cursor = page.cursor
        if cursor is None:
            break
    if tried:
        hint(f"  parked      {tried} will be tried, if the code is not what they were parked with")
    if stay:
        see = database.line("list", "--status", "parked")
        hint(f"  parked      {stay} cannot go on by themselves; see {see}")
