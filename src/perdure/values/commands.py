"""Commands: the events that the code asks for. See ``events.py``."""

from __future__ import annotations

from typing import Final

from perdure.values.event import PLAIN, Event, Handling, Message, OpenChild, UnreadNotice
from perdure.values.failures import FailureInfo
from perdure.values.retry import RetryPolicy
from perdure.values.terms import NO_TERMS, Terms


class ActivityScheduled(Event, tag="activity_scheduled"):
    """Run an activity. ``None`` policies and timeouts (microseconds) are the definition's.

    ``step``: the step of a graph that it is done for, if it is.
    """

    name: str
    args: bytes = b"[]"
    retry: RetryPolicy | None = None
    timeout: int | None = None
    queue_timeout: int | None = None
    schedule_timeout: int | None = None
    heartbeat_timeout: int | None = None
    queue: str = ""
    transactional: bool = False
    isolation: str = ""
    step: str = ""

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, ActivityScheduled) and recorded.name == self.name

    def brief(self) -> str:
        return f"activity_scheduled {self.name!r}"


class ActivityCancelled(Event, tag="activity_cancelled"):
    """The code no longer wants the activity; its outcome is now this."""

    activity: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, ActivityCancelled) and recorded.activity == self.activity

    def brief(self) -> str:
        return f"activity_cancelled #{self.activity}"


class TimerStarted(Event, tag="timer_started"):
    """Wake the run at ``due`` (microseconds since 1970)."""

    due: int


class TimerCancelled(Event, tag="timer_cancelled"):
    """The timer is no longer wanted."""

    timer: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, TimerCancelled) and recorded.timer == self.timer

    def brief(self) -> str:
        return f"timer_cancelled #{self.timer}"


class MessageSent(Event, tag="message_sent"):
    """Send a message to another execution, or to a mailbox."""

    target: str
    topic: str
    payload: bytes = b"null"
    namespace: str = ""

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, MessageSent)
            and recorded.target == self.target
            and recorded.topic == self.topic
        )

    def brief(self) -> str:
        return f"message_sent {self.topic!r} to {self.target!r}"


class ChildScheduled(Event, tag="child_scheduled"):
    """Start a child in the same commit.

    ``heir``: it is for whom its parent is: created by, correlation id, tenant and tags are those.
    ``places``: keys under which it counts while it is open, each with how many may.
    """

    workflow: str
    workflow_id: str
    run_id: str
    input: bytes = b"null"
    version: str = ""
    queue: str = ""
    parent_close: str = "terminate"
    conflict: str = ""
    reuse: str = ""
    namespace: str = ""
    context: bytes | None = None
    messages: tuple[Message, ...] = ()
    search: bytes | None = None
    memo: bytes | None = None
    terms: Terms = NO_TERMS
    heir: bool = False
    places: tuple[tuple[str, int], ...] = ()

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, ChildScheduled)
            and recorded.workflow == self.workflow
            and recorded.workflow_id == self.workflow_id
        )

    def brief(self) -> str:
        return f"child_scheduled {self.workflow!r} {self.workflow_id!r}"


class CancelSent(Event, tag="cancel_sent"):
    """Ask another execution to end, gracefully or (``terminate``) at once."""

    target: str
    reason: str = ""
    deadline: int = 0
    terminate: bool = False
    namespace: str = ""

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, CancelSent)
            and recorded.target == self.target
            and recorded.terminate == self.terminate
        )


class WatchSet(Event, tag="watch_set"):
    """Be told of the end of an execution: ``way`` as in ``ExecutionEnded``."""

    target: str
    way: str
    namespace: str = ""

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, WatchSet)
            and recorded.target == self.target
            and recorded.way == self.way
        )

    def brief(self) -> str:
        return f"watch_set {self.way} {self.target!r}"


class WatchDropped(Event, tag="watch_dropped"):
    """Be told of it no more."""

    target: str
    way: str
    namespace: str = ""

    def same_as(self, recorded: Event) -> bool:
        return (
            isinstance(recorded, WatchDropped)
            and recorded.target == self.target
            and recorded.way == self.way
        )

    def brief(self) -> str:
        return f"watch_dropped {self.way} {self.target!r}"


class HumanTaskOpened(Event, tag="human_task_opened"):
    """Ask a person for something. ``id`` names it for people, ``name`` for programs.

    ``form``: the JSON Schema of what is to be entered; ``data``: what is shown beside it. Times in
    microseconds since 1970, 0 for none. ``priority``: 1 is the most urgent, 4 the least.
    """

    id: str
    title: str
    name: str = ""
    description: str = ""
    role: str | None = None
    assignee: str | None = None
    priority: int = 2
    form: bytes | None = None
    data: bytes | None = None
    due: int = 0
    remind: int = 0
    handling: Handling = PLAIN

    @property
    def ends(self) -> int:
        """When it expires; 0 for never."""
        return self.due if self.handling.expires is None else self.handling.expires

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, HumanTaskOpened) and recorded.name == self.name

    def brief(self) -> str:
        return f"human_task_opened {self.title!r}"

    def identity(self) -> str:
        return f"{self.brief()} (name {self.name!r})" if self.name else self.brief()


class HumanTaskClosed(Event, tag="human_task_closed"):
    """The run no longer waits for it: its time is over ("expired"), or the code gave it up."""

    opened: int
    id: str
    outcome: str = "cancelled"

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, HumanTaskClosed) and recorded.opened == self.opened

    def brief(self) -> str:
        return f"human_task_closed #{self.opened} {self.outcome}"


class VersionMarked(Event, tag="version_marked"):
    """The answer of ``workflow.version`` for a change id, for good."""

    change: str
    version: int

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, VersionMarked) and recorded.change == self.change

    def brief(self) -> str:
        return f"version_marked {self.change!r} = {self.version}"


class SideEffectRecorded(Event, tag="side_effect_recorded"):
    """A value that replay must read and not compute again."""

    name: str
    value: bytes

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, SideEffectRecorded) and recorded.name == self.name

    def brief(self) -> str:
        return f"side_effect_recorded {self.name!r}"


class AttributesSet(Event, tag="attributes_set"):
    """Search attributes and memo to merge; JSON objects, ``null`` removes a key."""

    search: bytes | None = None
    memo: bytes | None = None


class ProgressReported(Event, tag="progress_reported"):
    """How far the run says it is. Soft: see ``SOFT`` in ``events.py``."""

    done: float
    total: float | None = None
    note: str = ""

    @property
    def shown(self) -> dict[str, object] | None:
        """What ``describe`` shows as the run's progress; ``None``: this says nothing of it."""
        return {"done": self.done, "total": self.total, "note": self.note}


NOT_CHOSEN: Final = "not_chosen"
"""The ``reason`` of a step that was skipped before it began: the way to it was not taken."""


class Emitted(Event, tag="emitted"):
    """The code tells what happens. Soft: see ``SOFT`` in ``events.py``.

    ``event`` and ``data``: what a user's ``emit`` says. ``name``: of what a graph tells of its
    ``step``, with a JSON object of more in ``data``. What is in the history already is not said
    again: ``of`` is the activity whose outcome it comes from, and ``path`` names, parted by dots,
    what of the outcome is meant; else it is ``result``. ``done`` of ``total`` steps are behind it,
    if ``total`` is not 0.
    """

    name: str = "event"
    event: str = ""
    data: bytes = b"null"
    step: str = ""
    of: int = 0
    path: str = "output"
    result: bytes | None = None
    done: int = 0
    total: int = 0

    @property
    def percent(self) -> int:
        """How much is behind it; at the end, all, also where steps were not taken."""
        if self.name == "progress":
            return 100
        return min(100, round(100 * self.done / self.total)) if self.total else 0

    @property
    def shown(self) -> dict[str, object] | None:
        """As in ``ProgressReported``; in percent."""
        return {"done": self.percent, "total": 100, "note": self.step} if self.total else None

    def brief(self) -> str:
        return f"emitted {self.event or f'{self.name} {self.step}'.strip()!r}"


class UpdateCompleted(Event, tag="update_completed"):
    """An update's answer. Exactly one of ``result`` and ``failure`` is set."""

    update: str
    result: bytes | None = None
    failure: FailureInfo | None = None

    def same_as(self, recorded: Event) -> bool:
        return isinstance(recorded, UpdateCompleted) and recorded.update == self.update


class RunCompleted(Event, tag="run_completed"):
    """The workflow returned ``result``.

    ``next_run``: the execution goes on in this run, started in the same commit, at ``next_at``: by
    its cron text, or (``next_attempt`` above 1) as a retry. ``messages`` go along.
    """

    result: bytes = b"null"
    next_run: str = ""
    next_at: int = 0
    next_attempt: int = 0
    messages: tuple[Message, ...] = ()


class RunFailed(Event, tag="run_failed"):
    """The workflow raised. ``not_undone``: compensations that failed on its way out.

    For ``next_run`` see ``RunCompleted``.
    """

    failure: FailureInfo
    next_run: str = ""
    next_at: int = 0
    next_attempt: int = 0
    messages: tuple[Message, ...] = ()
    not_undone: FailureInfo | None = None

    @property
    def text(self) -> str:
        """What went wrong, and what of it was not undone."""
        failed = [self.failure, *([self.not_undone] if self.not_undone else [])]
        return "; ".join(failure.text for failure in failed)

    def brief(self) -> str:
        return f"run_failed: {self.failure.message}"


class RunCancelled(Event, tag="run_cancelled"):
    """The workflow ended after a cancel request. ``failure``: of compensations on its way out."""

    reason: str = ""
    failure: FailureInfo | None = None

    @property
    def text(self) -> str:
        """The reason and what failed; empty if there is neither."""
        return "; ".join(part for part in (self.reason, self.failure and self.failure.text) if part)


class RunContinued(Event, tag="run_continued"):
    """The execution goes on in a new run, started in the same commit.

    ``messages`` and ``notices`` that nobody received go along, and ``children`` whose end that run
    is to be told.
    """

    run_id: str
    workflow: str
    input: bytes = b"null"
    messages: tuple[Message, ...] = ()
    notices: tuple[UnreadNotice, ...] = ()
    children: tuple[OpenChild, ...] = ()
