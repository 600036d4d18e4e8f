"""The store port: what the engine and the client ask of a database.

Theory of operation
-------------------
A *run* is an append-only history plus one narrow state row. Three verbs write (R9):

* ``start`` writes event 1 of a run. Anybody may.
* ``post`` puts one row into an execution's inbox. Anybody may.
* ``commit`` is the only way a history grows after event 1. Only a worker whose lease has the
  current epoch may, and the check is the first statement of the batch's transaction (I1, I6).

The other verbs keep workers (``join``, ``extend``, ``leave``, ``take_over``), carry questions to
live code and back (``ask``, ``answer``), or read.

**Owners.** ``state.owner`` is the worker that has work of the run in flight. A run that waits (for
a message, a timer, a child, a person) has no owner, so sleeping runs cost nothing at a restart or
a takeover. A turn of an unowned run *claims* it in the same commit: ``TurnWrite.claim`` is the
history length the turn was computed on; if the run has an owner, has grown or has closed
meanwhile, the turn is dropped and named in ``Committed.lost``.

**Batches** are shared fate for the fence, and per-run for the rest: a dropped turn takes its posts,
children, attributes and consumed inbox rows with it, and its neighbours commit.

Verbs are synchronous and are called from one thread at a time; ``store.desk`` puts them behind
threads. Every verb takes ``now`` (microseconds since 1970): SQL never asks for the time. Payloads
are bytes. Nothing here knows graphs, human tasks or the shape of user code.

Errors of every verb: ``Unavailable`` (nothing was changed, or it is not known: see ``resolve``),
``Corrupt``, ``LeaseLost`` where a worker writes. A driver's own exceptions never leave a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from perdure.values.states import Status

R = TypeVar("R")

# -- what is written -----------------------------------------------------------------------------


class StateWrite(msgspec.Struct, gc=False):
    """New values of a run's state row; written only when one of them changed.

    ``owned``: the committing worker keeps the run (it has work in flight). ``reason``, ``detail``
    and ``unblock`` belong to parked and paused runs; ``waits`` is JSON text for ``why``.
    """

    status: Status
    owned: bool
    length: int
    wake_at: int | None = None
    closed_at: int | None = None
    reason: str | None = None
    detail: str | None = None
    unblock: str | None = None
    waits: str | None = None
    since: int = 0


class Post(msgspec.Struct, gc=False):
    """One inbox row: ``event`` is an encoded turn of one event.

    The target is ``execution`` if given, else the latest execution of ``workflow_id``. ``sender``
    and ``seq`` make a repeated post harmless (a lost acknowledgement): (sender, seq) is accepted
    once, with ``seq`` growing per sender. ``refusal``: an encoded event to put into *the sending
    run's own* inbox if the target is unknown or closed (the sender is a workflow); else the verb's
    answer says so.
    """

    event: bytes
    workflow_id: str = ""
    namespace: str = "default"
    execution: int | None = None
    sender: str = ""
    seq: int = 0
    refusal: bytes | None = None


class StartRequest(msgspec.Struct, gc=False):
    """Start a run. ``event`` is the encoded turn ``[RunStarted]``.

    ``conflict``: what to do if ``workflow_id`` has an *open* execution: ``"none"`` (the id is
    generated: do not look), ``"use_existing"``, ``"fail"``, ``"terminate_existing"``. ``reuse``:
    the same for a closed one: ``"allow_duplicate"``, ``"allow_duplicate_failed_only"``,
    ``"reject_duplicate"``. ``execution``: continue this execution (continue-as-new, workflow
    retry) and skip both checks. ``parent``: (execution, event id there). ``refusal``: an encoded
    event for the parent's inbox if the start is refused. ``first``: the first turn, computed by an
    engine of the same process; its row begins with event 1 and is written *instead of* ``event``;
    its ``state`` is the run's first. Dropped if the start is refused.
    """

    workflow: str
    workflow_id: str
    run_id: str
    event: bytes
    version: str = ""
    namespace: str = "default"
    queue: str = "default"
    conflict: str = "none"
    reuse: str = "allow_duplicate"
    attempt: int = 1
    execution: int | None = None
    parent: tuple[int, int] | None = None
    parent_close: str = "terminate"
    refusal: bytes | None = None
    first: TurnWrite | None = None
    created_by: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    memo: bytes | None = None
    search: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class TurnWrite(msgspec.Struct, gc=False):
    """One history row and what goes with it.

    ``applied``: the code ran (R3); else the row is *blind*: facts recorded without the code.
    ``claim``: see the module's text; ``None`` means this worker owns the run already.
    ``closes``: the run ends with this turn. If its inbox then holds rows that are not in
    ``consumed``, the turn is dropped and named in ``Committed.reopened`` (unless ``force_close``).
    ``opens``: (activity, attempt) of transactional activities that this turn schedules;
    ``settles``: activities whose deciding row this turn takes away; if one is gone already (its
    transaction committed first), the turn is dropped and named in ``Committed.reopened``.
    ``memo`` and ``search`` are merged; ``None`` values remove a key.
    """

    run: int
    execution: int
    first: int
    count: int
    time: int
    payload: bytes
    applied: bool = True
    claim: int | None = None
    state: StateWrite | None = None
    closes: bool = False
    force_close: bool = False
    consumed: tuple[int, ...] = ()
    posts: Sequence[Post] = ()
    children: Sequence[StartRequest] = ()
    continued: StartRequest | None = None
    opens: tuple[tuple[int, int], ...] = ()
    settles: tuple[int, ...] = ()
    memo: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    progress: str | None = None


class Beat(msgspec.Struct, gc=False):
    """The last heartbeat details of an attempt under way, kept for the attempt after a crash."""

    run: int
    activity: int
    details: bytes


class Batch(msgspec.Struct):
    """What one commit writes. ``number`` grows by one per batch of a worker (the marker, R13)."""

    worker: int
    epoch: int
    number: int
    now: int
    lease_until: int
    starts: Sequence[StartRequest] = ()
    turns: Sequence[TurnWrite] = ()
    posts: Sequence[Post] = ()


# -- what comes back -----------------------------------------------------------------------------


class Started(msgspec.Struct, gc=False):
    """What became of a start. ``refused``: ``""`` or the error's code (``already_exists``)."""

    run: int
    execution: int
    run_id: str
    workflow_id: str
    created: bool
    status: Status
    refused: str = ""


class Posted(msgspec.Struct, gc=False):
    """What became of a post: ``delivered``, ``duplicate``, ``not_found``, ``closed`` or ``full``.

    ``id`` is the inbox row's id; ``execution`` and ``event`` let an engine of the same process
    feed the row to the run without reading it back. ``run`` is the execution's current run.
    """

    outcome: str
    id: int = 0
    execution: int = 0
    run: int = 0
    event: bytes = b""


class Committed(msgspec.Struct):
    """What became of a batch that passed the fence.

    ``started`` runs parallel to ``Batch.starts``, ``posted`` to ``Batch.posts``. ``lost``: runs
    whose claim failed; ``reopened``: runs whose closing or settling turn was dropped. Neither left
    a trace. ``fed``: inbox rows that this batch's turns put into inboxes: messages, cancels,
    refusals, children's ends, parent-close requests. ``children``: runs started by turns.
    """

    started: Sequence[Started] = ()
    posted: Sequence[Posted] = ()
    lost: frozenset[int] = frozenset()
    reopened: frozenset[int] = frozenset()
    fed: Sequence[Posted] = ()
    children: Sequence[Started] = ()


class Worker(msgspec.Struct):
    """A worker's row. ``alive_for_sure``: ``True``/``False`` if the store can tell (a held or free
    lock file on SQLite), ``None`` if only the lease's time can."""

    id: int
    epoch: int
    name: str
    pid: int
    host: str
    state: str
    started_at: int
    lease_until: int
    last_batch: int = 0
    workflows: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    alive_for_sure: bool | None = None


class Definition(msgspec.Struct):
    """A registered workflow definition; ``code`` is the fingerprint of its code."""

    name: str
    version: str
    code: str = ""
    source: str = ""
    queue: str = "default"
    is_active: bool = True
    registered_at: int = 0


class RunRow(msgspec.Struct, gc=False):
    """A run as lists and details show it: facts of its start and its state row.

    ``lost_by``: the worker that owned the run when its lease was taken over; ``None`` again with
    the next state that is written (and after a graceful ``leave``, which loses nothing).
    """

    run: int
    execution: int
    run_id: str
    namespace: str
    workflow_id: str
    workflow: str
    version: str
    queue: str
    attempt: int
    created_at: int
    status: Status
    length: int
    owner: int | None = None
    wake_at: int | None = None
    closed_at: int | None = None
    reason: str | None = None
    detail: str | None = None
    unblock: str | None = None
    waits: str | None = None
    since: int = 0
    progress: str | None = None
    parent_execution: int | None = None
    parent_event: int | None = None
    parent_close: str = ""
    lost_by: int | None = None
    created_by: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    memo: bytes | None = None


class TurnRow(msgspec.Struct, gc=False):
    """One stored history row."""

    run: int
    first: int
    count: int
    time: int
    applied: bool
    worker: int
    payload: bytes


class InboxRow(msgspec.Struct, gc=False):
    """One inbox row, and the current run of its execution."""

    id: int
    execution: int
    run: int
    event: bytes


class Loaded(msgspec.Struct):
    """Everything an engine needs to wake a run, read in one snapshot.

    ``broken``: why the history cannot be read (a gap in the ids, a checksum that does not fit),
    naming the row; the other runs of the same load are not affected.
    """

    row: RunRow
    turns: list[TurnRow]
    inbox: list[InboxRow]
    beats: list[Beat] = []
    broken: str = ""


class Filter(msgspec.Struct, gc=False):
    """What ``list`` and ``count`` select; empty fields do not filter. Times in microseconds."""

    namespace: str = "default"
    workflow: str = ""
    workflow_id: str = ""
    status: tuple[Status, ...] = ()
    search: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    tags: tuple[str, ...] = ()
    correlation_id: str = ""
    tenant: str = ""
    created_by: str = ""
    started_after: int | None = None
    started_before: int | None = None


class Question(msgspec.Struct, gc=False):
    """A query for live code, put by another process. ``args`` is a JSON array."""

    id: str
    execution: int
    name: str
    args: bytes
    deadline: int
    run: int = 0


# -- the port ------------------------------------------------------------------------------------


class Reader(Protocol):
    """The verbs that only read. Each answers from one snapshot of committed rows."""

    def find(self, key: str, *, namespace: str = "default", run_id: str = "") -> RunRow | None:
        """Return the latest run of workflow id ``key`` (or of the execution whose first run's id is
        ``key``), or exactly the run ``run_id`` of it."""
        ...

    def rows(self, runs: Sequence[int]) -> list[RunRow]:
        """Return the rows of these runs, in no order; unknown ones are left out."""
        ...

    def prefix(self, key: str, *, namespace: str = "default", limit: int = 10) -> list[RunRow]:
        """Return the latest runs of up to ``limit`` executions whose workflow id begins with
        ``key``, and runs whose run id does."""
        ...

    def list(self, where: Filter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Return up to ``limit`` runs, newest first; ``before`` is the ``run`` to go on from."""
        ...

    def count(self, where: Filter, *, limit: int | None = None) -> int:
        """Count matching runs, stopping at ``limit``."""
        ...

    def history(self, run: int, *, after: int = 0, limit: int = 10_000) -> list[TurnRow]:
        """Return up to ``limit`` rows whose first event id is greater than ``after``."""
        ...

    def last_turn(self, run: int) -> TurnRow | None:
        """Return the run's last history row."""
        ...

    def load(self, runs: Sequence[int]) -> list[Loaded]:
        """Return state, history and inbox of these runs, in no order; unknown ones are left out."""
        ...

    def claimable(
        self, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[int]:
        """Return up to ``limit`` running runs without an owner, of these workflows and queues."""
        ...

    def parked(self, reasons: Sequence[str], *, limit: int, after: int = 0) -> list[RunRow]:
        """Return parked runs with one of these reasons, by ``run`` ascending from ``after``."""
        ...

    def unserved(self, workflows: Sequence[str], *, limit: int) -> list[RunRow]:
        """Return running, unowned runs whose workflow is not among ``workflows``."""
        ...

    def due(
        self, until: int, workflows: Sequence[str], queues: Sequence[str], *, limit: int
    ) -> list[tuple[int, int]]:
        """Return (run, wake_at) of unowned waiting runs with ``wake_at <= until``, soonest first."""
        ...

    def inbox(
        self, workflows: Sequence[str], queues: Sequence[str], worker: int, *, limit: int
    ) -> list[InboxRow]:
        """Return inbox rows, oldest first, of runs that ``worker`` owns or that anybody may claim
        (unowned and waiting or running, of these workflows and queues), and of parked and paused
        runs."""
        ...

    def questions(self, now: int, workflows: Sequence[str], *, limit: int) -> list[Question]:
        """Return unanswered questions whose deadline is not over, to runs of these workflows."""
        ...

    def reply(self, question: str) -> bytes | None:
        """Return the answer to a question, or ``None`` while there is none."""
        ...

    def workers(self) -> list[Worker]:
        """Return the workers that have not left."""
        ...

    def definitions(self) -> list[Definition]:
        """Return registered definitions, sources left out."""
        ...

    def attributes(self, run: int) -> dict[str, Any]:
        """Return the search attributes of a run."""
        ...


class Store(Reader, Protocol):
    """The whole port. About the calls: see the module's text."""

    def migrate(self, now: int) -> None:
        """Bring the database to this version's schema.

        Raises:
            SchemaMismatch: it was written by a newer version, or an applied migration was edited.
        """
        ...

    def start(self, requests: Sequence[StartRequest], now: int) -> list[Started]:
        """Start runs without an owner. A refused start changes nothing."""
        ...

    def post(self, posts: Sequence[Post], now: int) -> list[Posted]:
        """Put rows into inboxes."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Write a worker's batch in one transaction.

        Raises:
            LeaseLost: the worker's epoch is not current; nothing was written.
            Unavailable: it may or may not have been written: ask ``resolve``.
            StoreRefused: one turn's data is not acceptable; nothing was written.
        """
        ...

    def resolve(self, worker: int, epoch: int) -> int:
        """Return the number of the worker's last committed batch (I12).

        Raises:
            LeaseLost: the epoch is not current.
        """
        ...

    def join(
        self,
        name: str,
        pid: int,
        host: str,
        *,
        now: int,
        lease_until: int,
        queues: Sequence[str],
        definitions: Sequence[Definition],
    ) -> Worker:
        """Register a worker with a new id and register its definitions."""
        ...

    def extend(
        self, worker: int, epoch: int, *, now: int, lease_until: int, beats: Sequence[Beat] = ()
    ) -> None:
        """Extend a lease and keep heartbeat details.

        Raises:
            LeaseLost: it was taken over.
        """
        ...

    def leave(self, worker: int, epoch: int, now: int) -> None:
        """Hand all runs back and end the worker's registration."""
        ...

    def take_over(self, worker: int, epoch: int, now: int) -> bool:
        """End the lease of a dead worker (if its epoch still is ``epoch``) and release its runs.

        Returns ``False`` if somebody else did.
        """
        ...

    def ask(self, question: Question, now: int) -> None:
        """Put a question to live code."""
        ...

    def answer(self, question: str, answer: bytes, now: int) -> None:
        """Answer a question; the first answer stays."""
        ...

    def transact(
        self,
        run: int,
        activity: int,
        attempt: int,
        fn: Callable[[Any], R],
        *,
        outcome: Callable[[R], bytes],
        time_limit: float,
        now: int,
    ) -> tuple[R, Posted]:
        """Run a transactional activity (R7): ``fn(connection)``, the deletion of the attempt's
        deciding row and the inbox row ``outcome(result)`` in one transaction.

        Called from an activity's thread; a file's store uses a connection of its own for it.

        Raises:
            Superseded: the attempt was decided elsewhere; ``fn`` left no trace.
            TimeoutError: it took longer than ``time_limit`` seconds; it left no trace.
        """
        ...

    def changed(self) -> bool:
        """Tell cheaply whether another process (or connection) committed since the last call."""
        ...

    def tidy(self, *, idle: bool) -> None:
        """Do housekeeping that must not overlap with commits (WAL checkpoints on SQLite)."""
        ...

    def close(self) -> None:
        """Close connections and give locks back."""
        ...
