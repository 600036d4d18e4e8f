"""What a batch holds, so that nobody changes what it depends on before it commits.

SQLite has one writer; here many commit at once. Whatever an answer depends on is locked first, and
asked for in a later statement, which sees what those have committed who were waited for:

* a schedule that begins executions or is changed: its row, before all others;
* the worker whose run a start replaces: its row, so that a batch of it is not under way;
* slots, where there are limits: one advisory lock;
* places that a start wants: an advisory lock for each key;
* a workflow id that a start wants: an advisory lock;
* an execution whose inbox, end or claim a batch touches: the row of its first run;
* an activity on offer: its row, by whoever holds its execution, or has passed by all that others
  hold (``store/sql/offers.py``). Claims begin with the worker's row, and the row of a queue.
* a human task: its row, by whoever holds the execution that asked for it, if one did.

They are taken in this order (a worker's batch has its own row from the fence), and rows of a kind
in one statement by their numbers, so two batches do not wait for each other. Where two do all the
same (each replaces a run of the other), PostgreSQL ends one, and it is repeated. A turn of a run
that its worker owns holds nothing: the fence does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.store.sql.encoding import from_json, to_json
from perdure.store.sql.starting import REPLACES, needs_look, requests_of
from perdure.store.writes import Batch, Post, StartRequest, Watch
from perdure.values.ids import MAILBOX

if TYPE_CHECKING:
    from perdure.store.postgres.sql import Statements


class Overtaken(Exception):
    """What was to be held has changed while the locks were waited for."""


class Foreseen:
    """What a batch depends on, as far as it is known without locks."""

    def __init__(self, database: Statements, batch: Batch) -> None:
        self._database = database
        self._worker = batch.worker
        starts = [request for request in requests_of(batch) if needs_look(request)]
        self._ids = {(request.namespace, request.workflow_id) for request in starts}
        self._executions, addresses, self._closing = _touched(batch, starts)
        places = {key for request in requests_of(batch) for key, _ in request.places}
        self._places_wanted = to_json(sorted(places)) if places else ""
        replaced = {
            (request.namespace, request.workflow_id)
            for request in starts
            if request.conflict in REPLACES
        }
        self._addresses = to_json(sorted(addresses)) if addresses else ""
        self._replaced = to_json(sorted(replaced)) if replaced else ""
        self._related: Any = None
        if self._closing and not replaced:
            self._related = database.run("relations", to_json(sorted(self._closing)))

    def hold(self, *, limits: bool) -> None:
        """Lock it.

        Raises:
            Overtaken: begin the transaction again.
        """
        database, executions = self._database, self._executions
        owners: set[int | None] = {None, self._worker}
        if self._replaced:
            owners.update(owner for _, owner, _ in self._places(self._replaced))
            if others := owners - {None, self._worker}:
                database.run("hold_workers", to_json(sorted(filter(None, others))))
        if limits:
            database.run("hold_slots")
        if self._places_wanted:
            database.run("hold_places", self._places_wanted)
        if self._ids:
            database.run("hold_ids", to_json(sorted(self._ids)))
        if self._addresses:
            executions.update(place[0] for place in self._places(self._addresses))
        if self._replaced:
            for execution, owner, parent in self._places(self._replaced):
                if owner not in owners:
                    raise Overtaken
                self._closing.add(execution)
                if parent is not None:
                    executions.add(parent)
            self._related = database.run("relations", to_json(sorted(self._closing)))
        if self._closing:
            executions |= self._closing
            executions.update(from_json(self._related.fetchone()[0]))
        if executions:
            hold_executions(database, executions)
        if self._addresses and any(
            execution not in executions for execution, _, _ in self._places(self._addresses)
        ):
            raise Overtaken
        if self._replaced and any(
            owner not in owners for _, owner, _ in self._places(self._replaced)
        ):
            raise Overtaken

    def _places(self, addresses: str) -> list[tuple[int, int | None, int | None]]:
        return from_json(self._database.run("executions_of_ids", addresses).fetchone()[0])


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
    for request in starts:
        if request.retries and request.execution is not None:
            executions.add(request.execution)  # it has ended: it must not be deleted meanwhile
    for request in requests_of(batch):
        if request.parent is not None and request.parent[0]:
            executions.add(request.parent[0])  # a refusal goes there
    for post in batch.posts:
        address(post)
    executions.update(outcome.execution for outcome in batch.outcomes)
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
