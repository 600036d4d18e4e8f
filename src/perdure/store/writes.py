"""What goes into a store; ``port.py`` says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from perdure.store.lines import LogLine
from perdure.store.offers import Offer, Outcome
from perdure.store.rows import Place, TurnRow
from perdure.values.audit import AuditLine
from perdure.values.commands import HumanTaskOpened
from perdure.values.meters import Charge
from perdure.values.people import HumanTaskStatus
from perdure.values.states import Status


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
    Posts see what the turns of their batch did. ``audit``: told if it is delivered; of a verb's or
    a batch's own posts only.
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
    audit: AuditLine | None = None


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
    generated: do not look), ``"use_existing"`` (one of another workflow is refused; a child that
    its parent's end is about to terminate is replaced), ``"fail"``, ``"terminate_existing"``.
    ``reuse``: the same for a closed one: ``"allow_duplicate"``, ``"allow_duplicate_failed_only"``,
    ``"reject_duplicate"``. ``execution``: continue this execution (continue-as-new, workflow retry)
    and skip both checks. ``parent``: (execution, event id there). In both, execution 0 means that
    of the turn which asks: a first turn does not know its own yet. ``refusal``: an encoded event
    for the parent's inbox if the start is refused. ``first``: the first turn, computed by an engine
    of the same process; its row begins with event 1 and is written *instead of* ``event``; its
    ``state`` is the run's first. Dropped if the start is refused. ``created_at``: 0 is when its
    history begins. ``not_before``: the run is pending until then. ``is_eager``: an engine may take
    the first turn itself. ``messages``: encoded events for the inbox of the execution that is used
    instead (``use_existing``); a new run has them in event 1. ``watches``: of the execution that is
    started or used; a child's only of one that is used, since its parent hears of its own children
    anyway. ``key`` and ``priority``: under a limit, where it stands in the queue; ``deadline``:
    when it is out of time, also there; 0 is none.

    ``state``: the run's first, if it is not simply to be claimed. A start with event 1 alone may be
    paused so; under a limit it stands aside, and joins the queue when it is resumed.

    ``copied``: history rows of another run (from event 1, gapless) that are written, byte for byte,
    *instead of* ``event``.
    The last ``own`` of these rows are none of the other run's, but the first of this one's.
    ``origin``: (run, last event copied, how) for ``Reader.forks``. ``retries``: the run is the next
    of ``execution``, after this one; refused unless that is the latest of the workflow id and has
    ended, and was not erased. It takes over memo and attributes. ``audit``: told if something was
    started or used; not of starts that turns ask for.

    ``sees``: the tenant whose executions alone who asks may see; empty: all. A workflow id that is
    another tenant's, or nobody's, is then taken, and nothing is told of who has it.

    ``places``: keys under which the execution counts while it is open, each with how many may; it
    is refused if one of them is full. ``charges``: what it costs of budgets, or it is refused.
    ``budget``: units and amounts, in millionths, of the budget
    that it brings; its key is the run id. ``keep_for``: how long the new execution is kept after
    its end, in microseconds; 0 is for ever, ``None`` is as long as others.
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
    own: int = 0
    state: StateWrite | None = None
    origin: tuple[int, int, str] | None = None
    retries: int = 0
    audit: AuditLine | None = None
    places: tuple[tuple[str, int], ...] = ()
    budget: tuple[tuple[str, int], ...] = ()
    charges: tuple[Charge, ...] = ()
    keep_for: int | None = None
    sees: str = ""

    @property
    def is_paused(self) -> bool:
        """Whether it is paused before it has begun."""
        return self.state is not None and self.state.status is Status.PAUSED and not self.copied


class HumanTaskWrite(msgspec.Struct, gc=False):
    """A human task to open: ``asked`` by event number ``event`` of the turn's run, under ``id``."""

    id: str
    event: int
    asked: HumanTaskOpened


class HumanTaskRaise(msgspec.Struct, gc=False):
    """A human task that no run asks for: ``by`` raises it, for ``tenant`` if there are several.
    ``audit``: told of it in the same transaction, if it is new.
    """

    id: str
    asked: HumanTaskOpened
    namespace: str = "default"
    by: str = ""
    tenant: str = ""
    audit: AuditLine | None = None


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
    open. ``offers``: activities put on offer in task queues; ``withdraws``: activities whose offer
    this turn takes back, first of all. One that closes the run takes back all it has. ``memo`` and
    ``search`` are merged; ``None`` values remove a key. ``version``: the run goes by another
    version of its definition from here on. ``lines``: what the code logged in this turn.
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
    offers: Sequence[Offer] = ()
    withdraws: tuple[int, ...] = ()
    memo: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    progress: str | None = None
    version: str | None = None
    lines: Sequence[LogLine] = ()


class Prune(msgspec.Struct, frozen=True):
    """Which ended runs to delete: of executions that had ended by ``before`` (with one of these
    ``statuses``, if there are any), behind ``after`` in the order of their ends.

    At most about ``runs`` of them, and no more when they have ``events``. ``scope``: ``others``
    leaves executions alone that have a retention of their own. ``own`` is only these, if their own
    one is over at ``before``, in the order in which they are due; ``statuses`` do not count there.
    """

    before: int
    statuses: tuple[Status, ...] = ()
    after: Place | None = None
    runs: int = 200
    events: int = 5_000
    scope: Literal["all", "others", "own"] = "all"


class Batch(msgspec.Struct):
    """What one commit writes. ``number`` grows by one per batch of a worker (the marker, R13).

    ``lines``: log lines of any runs, before those of the turns; those of a run that is not there
    are left out. ``outcomes``: of attempts of offered activities, judged after the turns.
    ``audit``: lines of the audit, besides those of starts and posts.
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
    outcomes: Sequence[Outcome] = ()
    audit: Sequence[AuditLine] = ()
