"""From what the user typed as an ID to an execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from perdure import errors
from perdure.cli.out import hint, moment
from perdure.views import from_datetime

if TYPE_CHECKING:
    from perdure.client import Client
    from perdure.handle import Handle
    from perdure.views import Execution, WorkerView

LAST = "@last"


async def find(client: Client, text: str) -> Handle[Any]:
    """Return a handle on the execution, or on exactly the run whose run id was given.

    Raises:
        NotFound: there is none.
        click.UsageError: several fit; the message lists them.
    """
    if text == LAST or text.startswith(f"{LAST}:"):
        return await _last(client, text.partition(":")[2])
    if text[:1] == "@":
        raise errors.Invalid(f"{text!r} is no id; there are {LAST} and {LAST}:WORKFLOW")
    if not text:
        raise errors.Invalid("an id cannot be empty")
    found = await client.find(text)
    if not found:
        raise errors.NotFound(f"there is no execution {text!r}; see `perdure list`")
    ids = {execution.id for execution in found}
    if len(ids) > 1 or (len(found) > 1 and not found[0].id.startswith(text)):
        raise click.UsageError(_ambiguous(text, found))
    execution = found[0]
    if execution.id.startswith(text):
        return client.get(execution.id)
    run_id = execution.run_id if execution.run_id.startswith(text) else text
    return client.get(execution.id, run_id)


async def tell_if_open(handle: Handle[Any], asked_at: int) -> None:
    """Say that a start at ``asked_at`` (microseconds) used an execution that was there before."""
    execution = await handle.describe()
    if from_datetime(execution.created_at) < asked_at:
        since = moment(execution.started_at)
        hint(f"{handle.id!r} is already open since {since}; it keeps its input")


def serves(worker: WorkerView, workflow: str) -> bool:
    """Tell whether a worker is there and runs ``workflow``."""
    if worker.state != "live":
        return False
    return any(key.partition(" ")[0] == workflow for key in worker.workflows)


async def _last(client: Client, workflow: str) -> Handle[Any]:
    filters = {"workflow": workflow} if workflow else {}
    page = await client.list(limit=1, **filters)
    if not page.items:
        of = f" of workflow {workflow!r}" if workflow else ""
        raise errors.NotFound(f"there is no execution{of} yet; see `perdure list`")
    return client.get(page.items[0].id)


def _ambiguous(text: str, found: Sequence[Execution]) -> str:
    lines = [f"{text!r} fits several; write more of the id:"]
    lines += [f"  {e.id}  {e.workflow}  {e.status}  (run {e.run_id})" for e in found]
    return "\n".join(lines)
