"""``perdure start``: hand a workflow to the workers."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import given
from perdure.cli.finding import serves, tell_if_open
from perdure.cli.out import compact, document, format_option, hint, say
from perdure.cli.session import Database, client_on, database_option
from perdure.errors import Invalid, UsageError
from perdure.values.states import Status

if TYPE_CHECKING:
    from perdure.client import Client
    from perdure.definition import Workflow


@click.command("start")
@click.argument("name", metavar="WORKFLOW|MODULE:WORKFLOW")
@click.argument("items", nargs=-1, metavar="[INPUT] [K=V]...")
@click.option("--id", metavar="ID", help="Workflow id; an open execution with it is used again.")
@click.option("--input", "document_", metavar="JSON|@FILE|-", help="The input, as an option.")
@click.option("--version", help="Version of the definition.")
@click.option("--queue", "task_queue", help="Queue of the workers that run it.")
@click.option(
    "--conflict",
    "id_conflict_policy",
    type=click.Choice(["use_existing", "fail"]),
    help="If an open execution has the id.  [default: use_existing]",
)
@click.option("--tag", "tags", multiple=True, help="Repeat for several.")
@click.option("--search", multiple=True, metavar="K=V", help="Search attribute; repeat.")
@click.option("--memo", multiple=True, metavar="K=V", help="Note that lists show; repeat.")
@click.option(
    "--budget", multiple=True, metavar="UNIT=AMOUNT", help="What it may spend, in all; repeat."
)
@click.option("--correlation-id", metavar="ID", help="Id of what it belongs to elsewhere.")
@click.option("--tenant", help="Whose it is.")
@click.option("--created-by", metavar="WHO", help="Who starts it.")
@click.option(
    "--concurrency-key", metavar="KEY", help="Whose limit of open executions it counts in."
)
@click.option("--priority", type=int, help="In the queue of a limit; higher goes first.")
@click.option(
    "--retention", metavar="SPAN", help="Keep it so long after its end (30d; 0 is for ever)."
)
@click.option("--paused", is_flag=True, help="It begins when somebody resumes it.")
@click.option(
    "--resume-within", metavar="SPAN", help="With --paused: it ends if nobody has by then."
)
@format_option("ids", "json", "jsonl")
@database_option
def start_command(
    database: Database,
    name: str,
    items: tuple[str, ...],
    document_: str | None,
    output: str,
    **options: Any,
) -> None:
    """Start a workflow for the workers to run; it is on disk when this returns.

    Prints its id. INPUT is JSON, plain text, @FILE or - (stdin); K=V sets fields of it; V is JSON
    where it can be (b=2 is a number; text is b='"2"'). By its name alone, a workflow's input is
    checked when a worker begins it; as MODULE:WORKFLOW it is checked here.
    """
    if options["resume_within"] and not options["paused"]:
        raise UsageError("--resume-within goes with --paused")
    value = given.payload(items, document_)
    for key in ("search", "memo", "budget"):
        options[key] = given.pairs(options[key], f"--{key}")
    chosen = {key: option for key, option in options.items() if option not in (None, (), {}, False)}
    asyncio.run(_start(database, name, items, value, chosen, output))


async def _definition(client: Client, target: str) -> Workflow[Any, Any] | None:
    """Load MODULE:WORKFLOW, unless that is the name of a workflow."""
    if ":" not in target:
        return None
    known = await client.door.read(lambda store: store.definitions())
    if any(one.name == target for one in known):
        return None
    from perdure.cli.loading import load_workflow

    with redirect_stdout(sys.stderr):
        return load_workflow(target)[1]


async def _start(
    database: Database,
    name: str,
    items: tuple[str, ...],
    value: Any,
    options: dict[str, Any],
    output: str,
) -> None:
    async with client_on(database, write=True) as client:
        definition = await _definition(client, name)
        asked_at = client.door.now()
        try:
            handle = await client.start(definition or name, value, **options)
        except Invalid as exc:
            raise given.hint_at_text(exc, items) from exc
        name = name if definition is None else definition.name
        execution = await handle.describe()
        await tell_if_open(handle, asked_at)
        is_served = any(serves(worker, name) for worker in await client.workers())
    if output == "ids":
        say(execution.id)
    else:
        fields = {"id": execution.id, "run_id": execution.run_id, "workflow": execution.workflow}
        say((document if output == "json" else compact)(fields))
    if execution.status is Status.PAUSED:
        hint(f"it is paused; let it go on: {database.line('resume', execution.id)}")
    elif not is_served:
        hint(
            f"no worker serves {name!r} now; it begins when one does: "
            f"{database.line('dev', 'MODULE')}"
        )
    else:
        hint(f"follow it: {database.line('result', execution.id)}")
