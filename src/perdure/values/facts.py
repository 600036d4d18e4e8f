"""Facts: the events that come from outside the code. See ``events.py``."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from perdure.values.bounds import Bounds
from perdure.values.duration import SECOND, soonest
from perdure.values.event import Approval, Event, Message, OpenChild, Parent, UnreadNotice
from perdure.values.failures import FailureInfo
from perdure.values.terms import NO_TERMS, Terms


class RunStarted(Event, tag="run_started"):
    """Event 1. ``seed`` is secret: no API returns it, exports leave it out unless asked.

    Times in microseconds since 1970, 0 for none: the run takes no turn before ``not_before`` and
    none after its deadlines. ``notices`` and ``children`` as in ``RunContinued``.
    ``first_run_id``: of the execution's first run, if this is another. ``schedule``: the id of the
    schedule that began the execution, by its tick ``scheduled_at``. ``places``: keys under which
    the execution counts while it is open, each with how many may. ``resume_by``: it is paused from
    its start and ends if nobody has resumed it by then, 0: whenever that is; ``None``: it is not.
    """

    workflow: str
    version: str
    workflow_id: str
    run_id: str
    seed: bytes
    input: bytes = b"null"
    code: str = ""
    flavour: str = ""
    queue: str = "default"
    namespace: str = "default"
    attempt: int = 1
    parent: Parent | None = None
    continued_from: str | None = None
    context: bytes | None = None
    messages: tuple[Message, ...] = ()
    started_at: int = 0
    first_started_at: int = 0
    terms: Terms = NO_TERMS
    not_before: int = 0
    run_deadline: int = 0
    execution_deadline: int = 0
    notices: tuple[UnreadNotice, ...] = ()
    children: tuple[OpenChild, ...] = ()
    first_run_id: str = ""
    schedule: str = ""
    scheduled_at: int = 0
    places: tuple[tuple[str, int], ...] = ()
    resume_by: int | None = None

    @property
    def first_run(self) -> str:
        """The id of the execution's first run."""
        return self.first_run_id or self.run_id

    @property
    def deadline(self) -> tuple[int, str]:
        """When the run is out of time, and by which timeout; (0, "") if never."""
        if not self.run_deadline and not self.execution_deadline:
            return 0, ""
        limits = [(self.run_deadline, "run"), (self.execution_deadline, "execution")]
        return min((limit for limit in limits if limit[0]), default=(0, ""))

    def brief(self) -> str:
        return f"run_started {self.workflow!r}"


class ActivityCompleted(Event, tag="activity_completed"):
    """The activity's outcome; final."""

    activity: int
    result: bytes = b"null"
    attempt: int = 1
    worker: str = ""

    def brief(self) -> str:
        return f"activity_completed #{self.activity}"


class ActivityFailed(Event, tag="activity_failed"):
    """No attempt is left, or the failure forbids one; final. Timeouts have kind ``Timeout``."""

    activity: int
    failure: FailureInfo
    attempt: int = 1
    worker: str = ""

    def brief(self) -> str:
        return f"activity_failed #{self.activity}: {self.failure.message}"


class AttemptFailed(Event, tag="attempt_failed"):
    """One attempt failed; the next begins at ``retry_at``. Changes nothing for the code."""

    activity: int
    attempt: int
    failure: FailureInfo
    retry_at: int
    worker: str = ""
    heartbeat: bytes | None = None

    def brief(self) -> str:
        return f"attempt_failed #{self.activity} attempt {self.attempt}: {self.failure.message}"


class AttemptLost(Event, tag="attempt_lost"):
    """An attempt was cut off with its worker. It counts as an attempt.

    ``by_stop``: the worker was asked to stop and cut it off; nothing speaks against the activity.
    ``in_a_row``: of an attempt in a task queue: which one in a row that was lost with its worker.
    """

    activity: int
    attempt: int
    worker: str = ""
    heartbeat: bytes | None = None
    by_stop: bool = False
    in_a_row: int = 0

    def brief(self) -> str:
        return f"attempt_lost #{self.activity} attempt {self.attempt} with {self.worker}"


class TimerFired(Event, tag="timer_fired"):
    """A timer's time has come."""

    timer: int

    def brief(self) -> str:
        return f"timer_fired #{self.timer}"


class MessageReceived(Event, tag="message_received"):
    """A message entered the history: exactly once, whether or not anybody listens."""

    rank: ClassVar[int] = 1
    message: Message

    def brief(self) -> str:
        return f"message_received {self.message.topic!r}"


class SendResolved(Event, tag="send_resolved"):
    """What became of a sent message: delivered, or ``failure``.

    ``asked_by``: run id of the sender. A run that continues it has numbers of its own.
    """

    send: int
    failure: FailureInfo | None = None
    asked_by: str = ""

    def brief(self) -> str:
        return f"send_resolved #{self.send}"


class ChildClosed(Event, tag="child_closed"):
    """A child ended, or could not start. Exactly one of ``result`` and ``failure`` is set.

    ``asked_by``: run id of the parent that started it; what continues it has numbers of its own.
    """

    rank: ClassVar[int] = 2
    child: int
    status: str
    result: bytes | None = None
    failure: FailureInfo | None = None
    run_id: str = ""
    at: int = 0
    asked_by: str = ""

    def brief(self) -> str:
        return f"child_closed #{self.child} {self.status}"


class ExecutionEnded(Event, tag="execution_ended"):
    """An execution that this run watches has ended. ``watch``: the command that asked.

    ``way``: "monitor", "link", "linked" (it had linked itself to this run) or "await"; as in
    ``ChildClosed``, exactly one of ``result`` and ``failure`` is set, and ``asked_by`` is the run.
    """

    rank: ClassVar[int] = 2
    watch: int
    way: str
    workflow_id: str
    run_id: str
    status: str
    result: bytes | None = None
    failure: FailureInfo | None = None
    at: int = 0
    asked_by: str = ""

    def brief(self) -> str:
        return f"execution_ended {self.workflow_id!r} {self.status}"


class HumanTaskDecided(Event, tag="human_task_decided"):
    """A person has done a human task, or somebody took it back. ``opened``: the command that asked.

    ``outcome`` is "completed", "rejected" or "cancelled"; ``value``: what was entered; ``at`` in
    microseconds since 1970; ``asked_by``: the run that asked; ``approvals``: all that led to it,
    the last included, if several people had to complete it; ``begins``: what bounds the execution
    that begins with the answer, if a door has judged it.
    """

    opened: int
    outcome: str
    value: bytes | None = None
    by: str = ""
    comment: str = ""
    at: int = 0
    asked_by: str = ""
    approvals: tuple[Approval, ...] = ()
    begins: Bounds | None = None

    def brief(self) -> str:
        return f"human_task_decided #{self.opened} {self.outcome}"


class UpdateAccepted(Event, tag="update_accepted"):
    """An update passed its validator and its handler starts."""

    rank: ClassVar[int] = 3
    update: str
    name: str
    args: bytes = b"[]"

    def brief(self) -> str:
        return f"update_accepted {self.name!r}"


class CancelRequested(Event, tag="cancel_requested"):
    """Somebody asked the run to end; at ``deadline`` (microseconds, 0: none) it is terminated."""

    rank: ClassVar[int] = 4
    reason: str = ""
    deadline: int = 0
    by: str = ""


class RunTaken(Event, tag="run_taken"):
    """A worker took the run up: for its first turn, or after another worker's end.

    Changes nothing for the code, and gives a first turn without commands an event of its own.
    ``run_deadline``: what the worker's definition allows a run whose first turn this is (0: no
    limit); who started it may not have known the definition.
    """

    worker: str = ""
    code: str = ""
    run_deadline: int = 0

    def onto(self, started: RunStarted) -> RunStarted:
        """Return what event 1 says from here on."""
        if not self.run_deadline:
            return started
        due = soonest(started.run_deadline, self.run_deadline)
        return msgspec.structs.replace(started, run_deadline=due)


class RunOverdue(Event, tag="run_overdue"):
    """The time of the execution is over, and it goes on: so the policies want it.

    ``limit``: what it was, in microseconds.
    """

    limit: int = 0

    def brief(self) -> str:
        return f"run_overdue: longer than {self.limit / SECOND:g} s"


class RunParked(Event, tag="run_parked"):
    """The run cannot go on; ``unblock`` says what would let it."""

    reason: str
    detail: str = ""
    unblock: str = ""
    code: str = ""

    def brief(self) -> str:
        return f"run_parked {self.reason}"


class RunUnparked(Event, tag="run_unparked"):
    """Somebody, or a worker with fitting code, lets the run go on."""

    by: str = ""


class RunPaused(Event, tag="run_paused"):
    """The run takes no turns until it is resumed."""

    by: str = ""


class RunResumed(Event, tag="run_resumed"):
    """The run takes turns again, or its first one."""

    by: str = ""

    def onto(self, started: RunStarted) -> RunStarted:
        """Return what event 1 says from here on: that it was to be resumed is done with."""
        if started.resume_by is None:
            return started
        return msgspec.structs.replace(started, resume_by=None)


class RunMoved(Event, tag="run_moved"):
    """From here on the run goes by another version of its definition, which fits its history."""

    version: str
    by: str = ""

    def brief(self) -> str:
        return f"run_moved to version {self.version}"


class KeptKey(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """The idempotency key of a call: of the activity with this name and digest of arguments."""

    name: str
    args: str
    key: str


class Forked(Event, tag="forked"):
    """The history up to here was copied from another run; from here on it is this run's own (R4).

    ``origin`` and ``origin_run`` name the run it was copied from, up to its ``event``; ``how``:
    "fork", "retry" or "import". ``workflow_id`` and ``run_id`` are this run's from here on, and its
    deadlines count anew. The run draws from ``seed``, and what is scheduled, or still open, gets
    keys derived from it. With ``keeps_chance`` draws go on as they were, what is still open keeps
    its key, and so does a call that the other run made without success (``keys``).
    """

    seed: bytes
    origin: str
    origin_run: str = ""
    event: int = 0
    how: str = "fork"
    workflow_id: str = ""
    run_id: str = ""
    keeps_chance: bool = False
    keeps_parent: bool = False
    keys: tuple[KeptKey, ...] = ()
    not_before: int = 0
    run_deadline: int = 0
    execution_deadline: int = 0

    def onto(self, started: RunStarted) -> RunStarted:
        """Return what event 1 says from here on."""
        if not self.run_id:
            return started
        is_same = self.how == "retry" and self.workflow_id == started.workflow_id
        return msgspec.structs.replace(
            started,
            workflow_id=self.workflow_id,
            run_id=self.run_id,
            first_run_id=started.first_run if is_same else "",
            parent=started.parent if self.keeps_parent else None,
            not_before=self.not_before,
            run_deadline=self.run_deadline,
            execution_deadline=self.execution_deadline,
            # What goes on here under its own id is still to be resumed; a copy begins.
            resume_by=started.resume_by if self.run_id == started.run_id else None,
        )

    def brief(self) -> str:
        return f"forked ({self.how}) from {self.origin!r}"


class RunHandedOver(Event, tag="run_handed_over"):
    """The copy was made by ``by``; ``context``: the propagated one from here on, if it is another,
    since the copy acts for them, or since what it was copied from did.
    """

    by: str = ""
    context: bytes | None = None

    def onto(self, started: RunStarted) -> RunStarted:
        """Return what event 1 says from here on."""
        if self.context is None:
            return started
        return msgspec.structs.replace(started, context=self.context)

    def brief(self) -> str:
        return f"run_handed_over by {self.by!r}" if self.by else "run_handed_over"


class RunTerminated(Event, tag="run_terminated"):
    """Ended from outside, without the code."""

    reason: str = ""
    by: str = ""


class RunTimedOut(Event, tag="run_timed_out"):
    """Ended because its time was up. For ``next_run`` see ``RunCompleted``."""

    timeout: str = "run"
    next_run: str = ""
    next_at: int = 0
    next_attempt: int = 0

    def brief(self) -> str:
        return f"run_timed_out ({self.timeout} timeout)"
