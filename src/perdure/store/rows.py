"""What goes into a store and what comes back; ``port.py`` says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.store.lines import LogLine
from perdure.values.commands import HumanTaskOpened
from perdure.values.concurrency import NO_LIMIT, Limit
from perdure.values.people import HumanTaskRow, HumanTaskStatus
from perdure.values.states import Status

# -- what is written -----------------------------------------------------------------------------


class StateWrite(msgspec.Struct, gc=False):
    """New values of a run's state row; written only when one of them changed.

    ``owned``: the committing worker keeps the run (it has work in flight). ``reason``, ``detail``
    and ``unblock`` belong to parked and paused runs; ``waits`` is JSON text for ``why``;
    ``unread``: messages in the history that the code has not received. ``keeps_lost``: the write
    says nothing about attempts that died with the worker before, so ``lost_by`` stays as it is.
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
    unread: int = 0
    keeps_lost: bool = False


class Post(msgspec.Struct, gc=False):
    """One inbox row: ``event`` is an encoded turn of one event.

    The target is ``execution`` if given, else the latest execution of ``workflow_id``. ``sender``
    and ``seq`` make a repeated post harmless (a lost acknowledgement): (sender, seq) is accepted
    once, with ``seq`` growing per sender: a number at or below the last accepted one is a repeat,
    so a sender repeats a post before it sends the next. ``refusal``: an encoded event to put into
    *the sending run's own* inbox if the target is unknown, closed or full (the sender is a
    workflow); ``overflow``: the same, if it is full, and ``ended``, if it is closed; without one
    the verb's answer says so. A turn's post without a refusal is not limited in number, since
    nobody would hear of it; nor is one that ``is_control``, since it may be what empties the inbox.
    Posts see what the turns of their batch did.
    """

    event: bytes
    workflow_id: str = ""
    namespace: str = "default"
    execution: int | None = None
    sender: str = ""
    seq: int = 0
    refusal: bytes | None = None
    overflow: bytes | None = None
    ended: bytes | None = None
    is_control: bool = False


class Watch(msgspec.Struct, gc=False):
    """Tell a watcher of the end of an execution: ``execution``, or the latest of ``workflow_id``.

    The watcher is a mailbox, or (``mailbox`` empty) the run whose turn carries the watch. When the
    execution ends, an ``ExecutionEnded`` with this ``way``, ``ref`` and ``asked_by`` goes there; at
    once if it has ended; for ``way`` "child" a ``ChildClosed``. A "link" is also entered the other
    way round, as "linked", for a failure of the watcher. ``refusal`` as in ``Post``; ``drop``: take
    such watches back, and a link of an execution whichever of the two has set it.
    """

    way: str
    workflow_id: str = ""
    namespace: str = "default"
    execution: int | None = None
    mailbox: str = ""
    ref: int = 0
    asked_by: str = ""
    refusal: bytes | None = None
    drop: bool = False


class StartRequest(msgspec.Struct, gc=False):
    """Start a run. ``event`` is the encoded turn ``[RunStarted]``.

    ``conflict``: what to do if ``workflow_id`` has an *open* execution: ``"none"`` (the id is
    generated: do not look), ``"use_existing"`` (one of another workflow is refused), ``"fail"``,
    ``"terminate_existing"``. ``reuse``: the same for a closed one: ``"allow_duplicate"``,
    ``"allow_duplicate_failed_only"``, ``"reject_duplicate"``. ``execution``: continue this
    execution (continue-as-new, workflow retry) and skip both checks. ``parent``: (execution, event
    id there). In both, execution 0 means that of the turn which asks: a first turn does not know
    its own yet. ``refusal``: an encoded event for the parent's inbox if the start is refused.
    ``first``: the first turn, computed by an engine of the same process; its row begins with event
    1 and is written *instead of* ``event``; its ``state`` is the run's first. Dropped if the start
    is refused. ``created_at``: 0 is when its history begins. ``not_before``: the run is pending
    until then. ``is_eager``: an engine may take the first turn itself. ``messages``: encoded events
    for the inbox of the execution that is used instead (``use_existing``); a new run has them in
    event 1. ``watches``: of the execution that is started or used; a child's only of one that is
    used, since its parent hears of its own children anyway. ``key`` and ``priority``: under a
    limit, where it stands in the queue; ``deadline``: when it is out of time, also there; 0 is
    none.

    ``copied``: history rows of another run (from event 1, gapless) that are written, byte for byte,
    *instead of* ``event``; ``state`` is then the run's first, if it is not simply to be claimed.
    ``origin``: (run, last event copied, how) for ``Reader.forks``. ``retries``: the run is the next
    of ``execution``, after this one; refused unless that is the latest of the workflow id and has
    ended. It takes over memo and attributes.
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
    created_at: int = 0
    not_before: int = 0
    is_eager: bool = True
    key: str = ""
    priority: int = 0
    deadline: int = 0
    messages: tuple[bytes, ...] = ()
    watches: tuple[Watch, ...] = ()
    created_by: str | None = None
    correlation_id: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    memo: bytes | None = None
    search: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    copied: Sequence[TurnRow] = ()
    state: StateWrite | None = None
    origin: tuple[int, int, str] | None = None
    retries: int = 0


class HumanTaskWrite(msgspec.Struct, gc=False):
    """A human task to open: ``asked`` by event number ``event`` of the turn's run, under ``id``."""

    id: str
    event: int
    asked: HumanTaskOpened


class TurnWrite(msgspec.Struct, gc=False):
    """One history row and what goes with it.

    ``applied``: the code ran (R3); else the row is *blind*: facts recorded without the code.
    ``claim``: see the module's text; ``None`` means this worker owns the run already.
    ``closes``: the run ends with this turn. If its inbox then holds rows that are not in
    ``consumed``, the turn is dropped and named in ``Committed.reopened`` (unless ``force_close``).
    ``closes_children``: the execution goes on (``continued``), but not its children.
    ``opens``: (activity, attempt) of transactional activities that this turn schedules;
    ``settles``: activities whose deciding row this turn takes away; if one is gone already (its
    transaction committed first), the turn is dropped and named in ``Committed.reopened``.
    ``asks``: human tasks that this turn opens; ``gives_up``: (id, what it is now) of those, before
    or of this very turn, that it no longer waits for; if one was decided meanwhile, the turn is
    dropped and named in ``Committed.reopened``. A turn that closes the run cancels all that are
    open. ``memo`` and ``search`` are merged; ``None`` values remove a key. ``version``: the run
    goes by another version of its definition from here on. ``lines``: what the code logged in this
    turn.
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
    closes_children: bool = False
    force_close: bool = False
    consumed: tuple[int, ...] = ()
    posts: Sequence[Post] = ()
    watches: Sequence[Watch] = ()
    children: Sequence[StartRequest] = ()
    continued: StartRequest | None = None
    opens: tuple[tuple[int, int], ...] = ()
    settles: tuple[int, ...] = ()
    asks: Sequence[HumanTaskWrite] = ()
    gives_up: tuple[tuple[str, HumanTaskStatus], ...] = ()
    memo: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    progress: str | None = None
    version: str | None = None
    lines: Sequence[LogLine] = ()


class Beat(msgspec.Struct, gc=False):
    """The last heartbeat details of an attempt under way, kept for the attempt after a crash."""

    run: int
    activity: int
    details: bytes


class Batch(msgspec.Struct):
    """What one commit writes. ``number`` grows by one per batch of a worker (the marker, R13).

    ``lines``: log lines of any runs, before those of the turns; those of a run that is not there
    are left out.
    """

    worker: int
    epoch: int
    number: int
    now: int
    lease_until: int
    starts: Sequence[StartRequest] = ()
    turns: Sequence[TurnWrite] = ()
    posts: Sequence[Post] = ()
    lines: Sequence[LogLine] = ()


# -- what comes back -----------------------------------------------------------------------------


class Started(msgspec.Struct, gc=False):
    """What became of a start.

    ``refused``: ``""``, ``already_exists``, or ``busy``: an execution whose place it is to take is
    started or moved in the same batch; try again; or ``limit``, of which ``detail`` tells; or
    ``full``: the execution that would be used instead has no room for the start's messages.
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


class Acted(msgspec.Struct):
    """A human task after somebody has acted on it, and what the run was told, if anything."""

    task: HumanTaskRow
    posted: Posted | None = None


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
    alive_for_sure: bool | None = None


class Definition(msgspec.Struct):
    """A registered workflow definition; ``code`` is the fingerprint of its code.

    ``limit`` is that of the workflow in all its versions.
    """

    name: str
    version: str
    code: str = ""
    source: str = ""
    queue: str = "default"
    is_active: bool = True
    registered_at: int = 0
    limit: Limit = NO_LIMIT


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
    ``after``: the last run it looked at; ``worker``: who does it, 0 when it is done.
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
    ``damaged``: the columns that cannot be read; here they are empty.
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
    """A run whose history begins with a copy of its ``origin``'s, up to ``event`` of that."""

    run: int
    workflow_id: str
    run_id: str
    origin: int
    origin_workflow_id: str
    origin_run_id: str
    event: int
    how: str


class InboxRow(msgspec.Struct, gc=False):
    """One inbox row, and the current run of its execution."""

    id: int
    execution: int
    run: int
    event: bytes


class Loaded(msgspec.Struct):
    """Everything an engine needs to wake a run, read in one snapshot.

    ``broken``: why the history or the row cannot be read (a gap in the ids, say, or a checksum that
    does not fit), naming it; the other runs of the same load are not affected.
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
    """A query or an update for live code. ``args``: JSON array; ``update``: an update's own id."""

    id: str
    execution: int
    name: str
    args: bytes
    deadline: int
    run: int = 0
    update: str = ""
