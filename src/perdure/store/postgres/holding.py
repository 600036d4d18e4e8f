"""What a batch holds, so that nobody changes what it depends on before it commits.

SQLite has one writer; here many commit at once. Whatever an answer depends on is locked first, and
asked for in a later statement, which sees what those have committed who were waited for:

* a workflow id that a start wants: an advisory lock;
* an execution whose inbox, end or claim a batch touches: the row of its first run;
* the worker whose run a start replaces: its row, so that a batch of it is not under way;
* slots, where there are limits: one advisory lock.

They are taken in this order, and rows of a kind in one statement by their numbers, so two batches
do not wait for each other. Where two do all the same (each replaces a run of the other), PostgreSQL
ends one, and it is repeated. A turn of a run that its worker owns holds nothing: the fence does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.store.rows import Batch, Post, StartRequest, Watch
from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.starting import needs_look, requests_of
from perdure.values.ids import MAILBOX

if TYPE_CHECKING:
    from perdure.store.postgres.sql import Statements


class Overtaken(Exception):
    """What was to be held has changed while the locks were waited for."""


def hold(database: Statements, batch: Batch, *, limits: bool) -> None:
    """Lock what a batch depends on.

    Raises:
        Overtaken: begin the transaction again.
    """
    starts = [request for request in requests_of(batch) if needs_look(request)]
    ids = {(request.namespace, request.workflow_id) for request in starts}
    executions, addresses, closing = _touched(batch, starts)
    replaces = {
        (request.namespace, request.workflow_id)
        for request in starts
        if request.conflict == "terminate_existing"
    }
    if limits:
        database.run("hold_slots")
    if ids:
        database.run("hold_ids", to_json(sorted(ids)))
    if not (executions or addresses or closing):
        return
    wanted = to_json(sorted(addresses))
    found: list[Any] = []
    if addresses:
        found = from_json(database.run("executions_of_ids", wanted).fetchone()[0])
        executions.update(execution for execution, _, _ in found)
    owners: set[int] = set()
    if replaces:
        rows = database.run("executions_of_ids", to_json(sorted(replaces))).fetchone()[0]
        for execution, owner, parent in from_json(rows):
            closing.add(execution)
            owners.update({owner} - {None, batch.worker})
            executions.update({parent} - {None})
    if closing:
        executions |= closing
        related = database.run("relations", to_json(sorted(closing))).fetchone()[0]
        executions.update(from_json(related))
    if owners:
        database.run("hold_workers", to_json(sorted(owners)))
    if executions:
        database.run("hold_executions", to_json(sorted(executions)))
    if addresses:
        again = from_json(database.run("executions_of_ids", wanted).fetchone()[0])
        seen = owners | {None, batch.worker} if replaces else None
        for execution, owner, _ in again:
            if execution not in executions or (seen is not None and owner not in seen):
                raise Overtaken


def hold_executions(database: Statements, executions: Iterable[int]) -> None:
    """Lock these executions only."""
    database.run("hold_executions", to_json(sorted(executions)))


def _touched(
    batch: Batch, starts: list[StartRequest]
) -> tuple[set[int], set[tuple[str, str]], set[int]]:
    """Return executions, addresses (namespace, workflow id), and executions that end."""
    executions: set[int] = set()
    addresses: set[tuple[str, str]] = set()
    closing: set[int] = set()

    def address(to: Post | Watch) -> None:
        if to.execution is not None:
            executions.add(to.execution)
        elif not to.workflow_id.startswith(MAILBOX):
            addresses.add((to.namespace, to.workflow_id))

    for request in starts:
        if request.conflict not in ("fail", "none"):
            addresses.add((request.namespace, request.workflow_id))
    for request in requests_of(batch):
        if request.parent is not None and request.parent[0]:
            executions.add(request.parent[0])  # a refusal goes there
    for post in batch.posts:
        address(post)
    for turn in batch.turns:
        if turn.closes or turn.closes_children:
            closing.add(turn.execution)
        elif turn.claim is not None or turn.settles or turn.gives_up or turn.asks:
            executions.add(turn.execution)
        for post in turn.posts:
            address(post)
        for watch in turn.watches:
            address(watch)
    return executions, addresses, closing
