"""``perdure graph``: a diagram of a definition, with or without the state of a run."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from perdure import errors
from perdure.cli.finding import find
from perdure.cli.loading import load_workflow
from perdure.cli.out import document, format_option, say
from perdure.cli.session import Database, client_on, database_option
from perdure.engine.guard import NoGuard
from perdure.engine.replaying import replay
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.states import StepStatus
from perdure.values import payload
from perdure.values.limits import MAX_PAYLOAD

_ENDED = {
    StepStatus.SUCCEEDED: "completed",
    StepStatus.FAILED: "failed",
    StepStatus.SKIPPED: "skipped",
}


@click.command("graph")
@click.argument("target", metavar="MODULE:DEFINITION")
@click.option("--run", "id", metavar="ID", help="Show where this run stands.")
@format_option("mermaid", "json")
@database_option
def graph_command(database: Database, target: str, id: str | None, output: str) -> None:
    """Print a step machine or a graph as a Mermaid diagram, or its nodes and edges as JSON.

    MODULE is a dotted name, or a path to a .py file or to a definition file (.yaml, .json). The
    state of a run is found by a replay of its history with this code; no worker is needed.
    """
    with redirect_stdout(sys.stderr):
        _, definition = load_workflow(target)
    if not isinstance(definition, WorkflowDefinition):
        raise errors.UsageError(
            f"{definition.name!r} is a function; a diagram is of a step machine or a graph"
        )
    with redirect_stdout(sys.stderr):
        state = None if id is None else asyncio.run(_state(database, id, definition))
    if output == "json":
        graph: dict[str, Any] = definition.get_graph().to_dict()
        say(document(graph if state is None else {**graph, "state": state}))
    elif state is None:
        say(definition.to_mermaid())
    else:
        stands = [state[name] for name in ("current", "completed", "failed", "skipped")]
        say(definition.to_mermaid_with_state(*stands))


async def _state(
    database: Database, id: str, definition: WorkflowDefinition
) -> dict[str, list[str]]:
    """Return the names of a run's steps by where they stand."""
    async with client_on(database) as client:
        found = await (await find(client, id)).describe()
        if found.workflow != definition.name:
            raise errors.UsageError(
                f"{found.id!r} is a run of {found.workflow!r}, not of {definition.name!r}"
            )
        row = await client.door.read(
            lambda store: store.find("", namespace=found.namespace, run_id=found.run_id)
        )
        assert row is not None
        loaded = (await client.door.read(lambda store: store.load([row.run])))[0]
    replayed = replay(definition, loaded, NoGuard(), max_payload=MAX_PAYLOAD)
    if replayed.misfit is not None:
        raise errors.UsageError(
            f"the code does not fit the run {found.id!r}: {replayed.misfit.detail}"
        )
    instance = replayed.instance
    if "graph" not in instance.queries:  # it has not begun
        return {"current": [], "completed": [], "failed": [], "skipped": []}
    answer = payload.decode(instance.query("graph", lambda query: query.answer(b"[]")))
    instance.evict()
    last = {visit["step_name"]: visit["status"] for visit in answer["step_history"]}
    current = answer["current_steps"]
    state = {name: _ENDED.get(status) for name, status in last.items() if name not in current}
    ended = {
        kind: [name for name, stands in state.items() if stands == kind] for kind in _ENDED.values()
    }
    return {"current": current, **ended}
