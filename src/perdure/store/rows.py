"""What comes back from a store; ``port.py`` says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.store.offers import OfferKey, OfferRow
from perdure.values.concurrency import NO_LIMIT, Limit
from perdure.values.people import HumanTaskRow, LogEntry
from perdure.values.states import Status


class Resealed(msgspec.Struct, gc=False):
    """A page of ``Store.reseal``. ``after``: where the next begins; ``""``: this was the last.

    ``seen`` rows of ``table`` were looked at, of which ``changed`` were sealed anew.
    """

    after: str
    table: str = ""
    seen: int = 0
    changed: int = 0


class Started(msgspec.Struct, gc=False):
    """What became of a start.

    ``refused``: ``""``, ``already_exists``, or ``busy``: an execution whose place it is to take is
    started or moved in the same batch; try again; or ``limit``, of which ``detail`` tells, or
    ``rate``, the same, and at ``retry_at`` the next may begin; or ``place``: under the key
    ``place`` there is none, or ``budget``, of which ``detail`` tells; or ``full``: the execution
    that would be used instead has no room for the start's messages; or ``taken``: the id is that of
    an execution which who asks may not see, and nothing is told of it; or ``erased``: the run to
    retry was.
    ``replaced``: the run whose place it took. ``is_queued``: a limit makes it wait; its first turn,
    if there was one, has not happened.
    ``workflow``: what the execution that has the id began as.
    """

    run: int
    execution: int
    run_id: str
    workflow_id: str
    created: bool
    status: Status
    refused: str = ""
    replaced: int = 0
    workflow: str = ""
    detail: str = ""
    is_queued: bool = False
    retry_at: int = 0
    place: str = ""


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
    ``has_mail``: something went into a mailbox. ``is_recalled``: since the worker's last batch,
    runs were taken from it one by one. ``has_admitted``: runs that were queued are to run now.
    ``next_at``: when a rate lets the first of those begin whom this batch found held back by it.
    ``told``: inbox rows of the batch's outcomes of offered activities; ``void``: outcomes that came
    too late.
    """

    started: Sequence[Started] = ()
    posted: Sequence[Posted] = ()
    lost: frozenset[int] = frozenset()
    reopened: frozenset[int] = frozenset()
    fed: Sequence[Posted] = ()
    children: Sequence[Started] = ()
    is_recalled: bool = False
    has_mail: bool = False
    has_admitted: bool = False
    next_at: int | None = None
    told: Sequence[Posted] = ()
    void: frozenset[OfferKey] = frozenset()


class Acted(msgspec.Struct):
    """A human task after somebody has acted on it, and what the run was told, if anything."""

    task: HumanTaskRow
    posted: Posted | None = None


class Moved(msgspec.Struct):
    """A human task after the clock has moved it on, and what its log says of that."""

    task: HumanTaskRow
    entries: Sequence[LogEntry]


class Worker(msgspec.Struct):
    """A worker's row. ``alive_for_sure``: ``True``/``False`` if the store can tell (a held or free
    lock file on SQLite), ``None`` if only the lease's time can.
    """

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
    activities: tuple[str, ...] = ()
    alive_for_sure: bool | None = None


class Definition(msgspec.Struct):
    """A registered workflow definition; ``code`` is the fingerprint of its code.

    ``limit`` is that of the workflow in all its versions. ``triggers``: what starts it besides.
    """

    name: str
    version: str
    code: str = ""
    source: str = ""
    queue: str = "default"
    is_active: bool = True
    registered_at: int = 0
    limit: Limit = NO_LIMIT
    triggers: tuple[str, ...] = ()


class OpenRun(msgspec.Struct, gc=False):
    """An open run, as much as says who may run it. ``since``: when its state last changed."""

    run: int
    workflow: str
    version: str
    queue: str
    since: int


class Sweep(msgspec.Struct):
    """How far the open runs of a workflow were checked against the code that serves it.

    ``scope``: which queues, as text; ``code``: of all versions together; ``began_at``: when the
    pass under way (or the last one) began; ``since``: it passes over runs whose state is older;
    ``after``: the last run it looked at; ``worker``: who does it, 0 when it is done. In the mark of
    retention, which is of no workflow, ``code`` says how long its worker keeps ended runs, in
    microseconds.
    """

    workflow: str
    scope: str
    code: str
    began_at: int
    since: int = 0
    after: int = 0
    worker: int = 0


class RunRow(msgspec.Struct, gc=False):
    """A run as lists and details show it: facts of its start and its state row.

    ``lost_by``: the worker that owned the run when its lease was taken over, which lived no longer
    than its lease, ``lost_until``; ``None`` again with the next state that is written, unless that
    ``keeps_lost`` (and after a graceful ``leave``, which loses nothing).
    ``suspected``: how many workers ended while a turn of this run held them (R8).
    ``unread``: messages in the history that the code had not received when the row was written.
    ``damaged``: the columns that cannot be read; here they are empty. So are those that are sealed
    and cannot be opened in this process; ``sealed`` says why.
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
    begins_at: int | None
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
    suspected: int = 0
    unread: int = 0
    created_by: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    memo: bytes | None = None
    lost_until: int | None = None
    damaged: tuple[str, ...] = ()
    sealed: str = ""

    @property
    def fault(self) -> str:
        """Say what of the row cannot be read, or return ``""``."""
        if not self.damaged:
            return ""
        what = ", ".join(self.damaged)
        return f"row of run {self.run} ({self.run_id}): what is stored as {what} cannot be read"


class TurnRow(msgspec.Struct, gc=False):
    """One stored history row."""

    run: int
    first: int
    count: int
    time: int
    applied: bool
    worker: int
    payload: bytes

    @property
    def place(self) -> str:
        """Where it stands, for errors."""
        return f"history of run {self.run}: the row of event {self.first}"


class Fork(msgspec.Struct, gc=False):
    """A run whose history begins with a copy of its ``origin``'s, up to ``event`` of that.

    ``origin_workflow_id`` and ``origin_run_id`` are empty once the origin was deleted.
    """

    run: int
    workflow_id: str
    run_id: str
    origin: int
    origin_workflow_id: str
    origin_run_id: str
    event: int
    how: str


class InboxRow(msgspec.Struct, gc=False):
    """One inbox row, and the current run of its execution.

    ``fault``: why its event, which is empty then, could not be opened.
    """

    id: int
    execution: int
    run: int
    event: bytes
    fault: str = ""


class Beat(msgspec.Struct, gc=False):
    """The last heartbeat details of an attempt under way, kept for the attempt after a crash."""

    run: int
    activity: int
    details: bytes


class Loaded(msgspec.Struct):
    """Everything an engine needs to wake a run, read in one snapshot.

    ``broken``: why the history or the row cannot be read (a gap in the ids, say, or a checksum that
    does not fit), naming it; the other runs of the same load are not affected. ``is_sealed``: a
    codec, a key or the blob store is missing in this process. ``is_unavailable``: the blob store
    did not answer; try again.
    """

    row: RunRow
    turns: list[TurnRow]
    inbox: list[InboxRow]
    beats: list[Beat] = []
    offers: list[OfferRow] = []
    broken: str = ""
    is_sealed: bool = False
    is_unavailable: bool = False


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


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a list goes on: behind this run. ``at``: its time, if the list is in order of times."""

    run: int
    at: int = 0


class Listed(msgspec.Struct, gc=False):
    """A page of a list. ``goes_on``: from where there may be more; the page may be short of it."""

    rows: list[RunRow]
    goes_on: Place | None = None


class Counted(msgspec.Struct, gc=False):
    """How many runs match; there are more than ``number``, or may be, unless it ``is_all``."""

    number: int
    is_all: bool = True


class Pruned(msgspec.Struct, gc=False):
    """How many runs were deleted, with so many history ``rows``; where to go on, if there is more.

    Somebody may have to look on although no run was deleted.
    """

    runs: int
    rows: int = 0
    goes_on: Place | None = None


class Question(msgspec.Struct, gc=False):
    """A query or an update for live code. ``args``: JSON array; ``update``: an update's own id."""

    id: str
    execution: int
    name: str
    args: bytes
    deadline: int
    run: int = 0
    update: str = ""
