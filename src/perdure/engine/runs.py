"""What a worker knows of a run it has at hand.

A :class:`Run` is the engine's side of one run: its identity, how much of its history is stored, the
live instance if one is in memory, and the *inputs* that wait for its next turn. The history is the
truth; a Run can be dropped at any time and rebuilt by loading.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.engine import overdue
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.values.concurrency import lane_of
from perdure.values.states import Status
from perdure.values.terms import RESUME_WITHIN

if TYPE_CHECKING:
    from perdure.definition import Workflow
    from perdure.engine.work import Work
    from perdure.named import Past
    from perdure.store.offers import Offer
    from perdure.store.port import RunRow, StartRequest, TurnWrite

Done = Callable[[BaseException | None], None]
_BY_HAND = 1 << 62


class Phase(enum.Enum):
    """What happens to a run right now. Inputs wait except in IDLE (R15: one turn at a time)."""

    IDLE = "idle"
    LOADING = "loading"
    COMMITTING = "committing"
    GONE = "gone"


class Input:
    """One fact for the next turn. ``inbox`` is the row it came from; ``done`` is told its fate.

    ``transaction``: the fact decides an attempt of this transactional activity, and (if not 0) the
    attempt with this number follows: (activity, next attempt). ``name``: of the activity that the
    fact is about, if it failed. ``opens``: (activity, attempt) of transactional activities that get
    a deciding row with it; ``asks``: (event, command) of human tasks that a copy asks for anew;
    ``offering``: activities whose offer in a task queue is taken back with it, and the next offer.
    """

    __slots__ = ("asks", "done", "fact", "inbox", "name", "offering", "opens", "transaction")

    def __init__(
        self,
        fact: ev.Event,
        inbox: int = 0,
        done: Done | None = None,
        transaction: tuple[int, int] | None = None,
        name: str = "",
    ) -> None:
        self.fact = fact
        self.name = name
        self.inbox = inbox
        self.done = done
        self.transaction = transaction
        self.opens: tuple[tuple[int, int], ...] = ()
        self.asks: tuple[tuple[int, ev.HumanTaskOpened], ...] = ()
        self.offering: tuple[tuple[int, Offer | None], ...] = ()

    @property
    def arrival(self) -> int:
        """What sorts inputs as they came: a load and a look may have brought them in another order.

        What came in by hand came after what is in the inbox: before the door answers, its sender
        sends nothing else.
        """
        return self.inbox or _BY_HAND


class Offered(NamedTuple):
    """An activity of a run in another task queue."""

    queue: str
    scheduled_at: int


_NOTHING: dict[int, Offered] = {}


class Labels(NamedTuple):
    """For whom an execution is, and what it belongs to, besides its tenant."""

    created_by: str | None = None
    correlation_id: str | None = None
    tags: tuple[str, ...] = ()


UNLABELLED = Labels()


def labels_of(what: StartRequest | RunRow) -> Labels:
    """Return the labels of a start, or of a run as the store has it."""
    if what.created_by is None and what.correlation_id is None and not what.tags:
        return UNLABELLED
    return Labels(what.created_by, what.correlation_id, what.tags)


class Run:
    """See the module's text. ``key`` is 0 until the start is committed."""

    __slots__ = (
        "blind",
        "cancel_deadline",
        "closing_tries",
        "definition",
        "doubt",
        "execution",
        "has_lost",
        "in_queue",
        "inputs",
        "instance",
        "is_full",
        "is_owned",
        "is_queued",
        "key",
        "labels",
        "length",
        "namespace",
        "offered",
        "on_idle",
        "parent",
        "past",
        "phase",
        "queue",
        "run_id",
        "seen",
        "started",
        "status",
        "stop",
        "tenant",
        "time",
        "timer_due",
        "untold",
        "updates",
        "waits",
        "wake_at",
        "work",
        "workflow",
        "workflow_id",
    )

    def __init__(self, key: int) -> None:
        self.key = key
        self.execution = 0
        self.workflow = ""
        self.workflow_id = ""
        self.run_id = ""
        self.namespace = "default"
        self.queue = "default"
        self.tenant: str | None = None
        self.labels = UNLABELLED
        self.parent: tuple[int, int] | None = None
        self.definition: Workflow[Any, Any] | None = None
        self.instance: Instance | None = None
        self.started: ev.RunStarted | None = None
        self.length = 0
        self.time = 0
        self.blind: Sequence[ev.Event] = ()
        """Facts that are stored and not yet applied: they join the next applied turn (R3)."""
        self.inputs: list[Input] = []
        self.seen: set[int] = set()
        """Inbox rows that are in ``inputs`` or in the turn under way."""
        self.phase = Phase.IDLE
        self.is_queued = False
        self.in_queue = False
        """Whether it has not begun because a concurrency limit makes it wait, now or later."""
        self.is_owned = False
        self.has_lost = False
        """Whether attempts that died with the worker before are still to be found and recorded."""
        self.is_full = False
        """Whether the code has left as many messages unread as an inbox may hold."""
        self.status = Status.RUNNING
        self.wake_at: int | None = None
        self.waits: str | None = None
        self.stop: tuple[str, str, str] = ("", "", "")
        """Of a parked or paused run: reason, detail, what unblocks."""
        self.timer_due = False
        self.cancel_deadline = 0
        self.closing_tries = 0
        self.work: dict[int, Work] = {}
        """Attempts this worker has under way or in backoff, by activity."""
        self.offered = _NOTHING
        """Its activities that others carry out; added to by :meth:`offer`."""
        self.updates: dict[str, list[Callable[[ev.UpdateCompleted | None], None]]] = {}
        self.doubt: tuple[TurnWrite, list[Input]] | None = None
        """A turn whose commit is not known to have happened; settled when the run is loaded."""
        self.past: Past | None = None
        """What earlier rows say, while somebody listens."""
        self.untold: tuple[int, ev.Event] | None = None
        """How it began, or was copied, and when: in a row that no engine has recorded."""
        self.on_idle: tuple[Callable[[], None], ...] = ()

    @property
    def lane(self) -> str:
        """Whose it is when runs take turns."""
        return lane_of(self.tenant, self.started.terms.key if self.started is not None else "")

    @property
    def priority(self) -> int:
        """Higher goes first."""
        return self.started.terms.priority if self.started is not None else 0

    @property
    def deadline(self) -> tuple[int, str]:
        """When the run ends without its code, and why: a timeout's name, "cancel",
        "resume_within"; (0, ""): never.

        Or (``overdue.py``) when it is asked to end, or is late, as policies want it.
        """
        due, which = self.started.deadline if self.started is not None else (0, "")
        if self.started is not None and self.started.terms.timeout_action:
            due, which = overdue.deadline(self, self.started)
        if self.cancel_deadline and (not due or self.cancel_deadline < due):
            return self.cancel_deadline, "cancel"
        if self.started is not None and self.started.resume_by:
            by = self.started.resume_by
            if self.waits_for_resume and (not due or by < due):
                return by, RESUME_WITHIN
        return due, which

    def is_kept_from_beginning(self, now: int) -> bool:
        """Tell whether a paused run cannot begin, whatever is asked of it: it was paused before it
        was due, or from its start and nobody has resumed it.
        """
        if self.started is None:
            return False
        is_resumed = any(isinstance(item.fact, ev.RunResumed) for item in self.inputs)
        is_new = self.started.resume_by is not None and not is_resumed
        return is_new or self.started.not_before > now

    @property
    def waits_for_resume(self) -> bool:
        """Whether it was started paused, and nobody has said that it may begin, or is to end."""
        if self.status is not Status.PAUSED or self.started is None:
            return False
        is_new = self.started.resume_by is not None
        return is_new and not any(isinstance(item.fact, ev.GOES_ON) for item in self.inputs)

    def offer(self, activity: int, queue: str, scheduled_at: int) -> None:
        """Note that an activity is on offer."""
        if self.offered is _NOTHING:
            self.offered = {}
        self.offered[activity] = Offered(queue, scheduled_at)

    def is_out_of_time(self, now: int) -> bool:
        """Tell whether a deadline has passed that ends it."""
        due, which = self.deadline
        return bool(due) and due <= now and which not in overdue.SOFT

    @property
    def has_deadline(self) -> bool:
        """Whether :attr:`deadline` says anything."""
        started = self.started
        if self.cancel_deadline or started is None:
            return bool(self.cancel_deadline)
        return bool(started.run_deadline or started.execution_deadline)

    def next_due(self) -> int | None:
        """Return when the run must be looked at again: its start, a timer, its deadline."""
        due = self.deadline[0] or None
        if self.status is Status.PENDING and self.started is not None:
            return min(due or self.started.not_before, self.started.not_before)
        if self.status.is_stopped or self.instance is None:
            return due
        timer = self.instance.next_due()
        return timer if due is None else due if timer is None else min(due, timer)

    def drop_instance(self) -> None:
        """Close the live instance; the next turn will load the run."""
        instance, self.instance = self.instance, None
        if instance is not None:
            instance.evict()
        self.blind = ()

    def __str__(self) -> str:
        return f"{self.workflow} {self.workflow_id!r}"

    def __repr__(self) -> str:
        return f"<Run {self.key} {self.workflow_id!r} {self.phase.value}>"
