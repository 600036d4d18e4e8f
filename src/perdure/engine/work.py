"""What a worker knows of an activity that it carries to its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perdure import activity, errors
from perdure.engine.interrupts import ends_the_loop
from perdure.engine.threads import Raised
from perdure.kernel.entropy import idempotency_key
from perdure.kernel.pending import PendingActivity
from perdure.values import events as ev
from perdure.values import failures, payload
from perdure.values.limits import LOST_IN_A_ROW
from perdure.values.lines import Line
from perdure.values.retry import ACTIVITY_DEFAULT, RetryPolicy
from perdure.values.states import ParkReason
from perdure.values.terms import CONTINUE

if TYPE_CHECKING:
    from perdure.engine.clock import Clock
    from perdure.engine.lanes import Lanes
    from perdure.engine.logs import Logs
    from perdure.engine.processes.process import Job
    from perdure.engine.runs import Run
    from perdure.personal import Keys

T = TypeVar("T")
Activity = activity.Activity[Any, Any]

_SECOND = 1_000_000


class Work:
    """One activity that this worker carries to its outcome, attempt by attempt."""

    __slots__ = (
        "attempt",
        "beaten_at",
        "call",
        "definition",
        "details",
        "event",
        "has_begun",
        "is_cut",
        "is_entered",
        "job",
        "key_source",
        "late_call",
        "left_details",
        "logs",
        "not_before",
        "number",
        "patience",
        "place",
        "queue",
        "retry_call",
        "run",
        "scheduled_at",
        "task",
        "tell",
        "time",
    )

    def __init__(
        self, run: Run, number: int, event: ev.ActivityScheduled, definition: Any, now: int
    ) -> None:
        self.run = run
        self.number = number
        self.event = event
        self.definition: activity.Activity[Any, Any] | None = definition
        self.attempt = 1
        self.scheduled_at = now
        self.key_source: str | bytes = b""
        """Its idempotency key, or the seed that it comes from."""
        self.call: asyncio.Task[Any] | None = None
        """The function's own task, if the attempt is timed."""
        self.job: Job | None = None
        """The attempt's way through a subprocess, if it runs in one."""
        self.not_before = 0
        self.beaten_at = 0.0
        self.details: bytes | None = None
        self.left_details: bytes | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False
        """Whether the attempt has entered the function: what it does may have happened."""
        self.is_entered = False
        """Whether the attempt's task has taken its first step."""
        self.is_cut = False
        """Whether the attempt was cut off by a stop: what comes of it now comes too late."""
        self.retry_call: asyncio.TimerHandle | None = None
        self.queue: Lanes[Work] | None = None
        """Where it waits for a slot, if it does."""
        self.place = "", 0
        """Its lane and priority there."""
        self.logs: Logs | None = None
        self.tell: Callable[[Work, ev.Event], None] | None = None
        """Who is told what comes of an attempt of another worker's run."""
        self.patience = patience(event, run.started)
        """After how long it is told of an attempt that it is late and goes on; 0: never."""
        self.late_call: asyncio.TimerHandle | None = None
        self.time = asyncio.get_running_loop().time
        """Seconds of the loop's clock; may be called from any thread."""

    @property
    def key(self) -> str:
        """Its idempotency key."""
        source = self.key_source
        return source if isinstance(source, str) else idempotency_key(source, self.number)

    def wait_in(self, queue: Lanes[Work]) -> None:
        """Wait for a slot."""
        self.queue = queue
        self.place = self.run.lane, self.run.priority
        queue.append(self, *self.place)

    def leave_queue(self) -> None:
        """Wait for a slot no longer."""
        if self.queue is not None:
            self.queue.remove(self, *self.place)
            self.queue = None

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is under way, due or queued."""
        return self.task is None and self.retry_call is None and self.queue is None

    @property
    def is_cut_off(self) -> bool:
        """Whether an attempt was cancelled, or will not hear of it."""
        return self.task is not None and (self.task.cancelled() or not self.task.done())

    @property
    def policy(self) -> RetryPolicy:
        """The policy recorded with the call, or the definition's."""
        if self.event.retry is not None:
            return self.event.retry
        return (self.definition.retry if self.definition else None) or ACTIVITY_DEFAULT

    @property
    def gives_up_late(self) -> bool:
        """Whether it is not tried again when it was too late: else what policies want to follow
        from that never would.
        """
        started = self.run.started
        wanted = started.terms.timeout_action if started is not None else ""
        return bool(wanted) and not self.policy.max_attempts

    @property
    def is_timed(self) -> bool:
        """Whether an attempt may have to be given up while it runs."""
        event = self.event
        return not (event.timeout is event.schedule_timeout is event.heartbeat_timeout is None)

    def info(self) -> activity.Info:
        """Return what the attempt knows about itself."""
        run, left = self.run, self.left_details
        return activity.Info(
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            workflow=run.workflow,
            activity_id=self.number,
            activity=self.event.name,
            attempt=self.attempt,
            idempotency_key=self.key,
            queue=self.event.queue or run.queue,
            heartbeat_details=payload.decode(left) if left else None,
            namespace=run.namespace,
        )

    def context(self, services: Mapping[str, Any], keys: Keys) -> activity.Attempt:
        """Return what the attempt's function finds in ``perdure.activity``."""
        started = self.run.started
        context = started.context if started is not None else None
        return activity.Attempt(
            self.info,
            beat=self.beat,
            context=context,
            services=services,
            log=self.log,
            keys=keys,
        )

    def begin(self) -> None:
        """The attempt enters the function; called from any thread."""
        self.has_begun = True

    def beat(self, details: Any) -> None:
        """Take a heartbeat; called from any thread."""
        if details is not None:
            self.details = payload.encode(details, what="heartbeat details")
        self.beaten_at = self.time()

    def beaten(self, details: bytes | None) -> None:
        """Take a heartbeat from a subprocess."""
        self.details = details or self.details
        self.beaten_at = self.time()

    def log(self, line: Line) -> None:
        """Keep a log line; called from any thread."""
        if self.logs is not None:
            self.logs.add(self.run, line, self.event.name, self.attempt)

    def facts(self) -> dict[str, Any]:
        """Return what events about the attempt's process say of it."""
        return {
            "instance_id": self.run.workflow_id,
            "workflow_name": self.run.workflow,
            "activity": self.event.name,
            "attempt": self.attempt,
        }

    def __repr__(self) -> str:
        return f"{self.event.name} of {self.run.workflow_id!r} (attempt {self.attempt})"


def resolved(pending: PendingActivity, known: Activity | None) -> ev.ActivityScheduled:
    """Return a call with all its options.

    A call by name says none: they are those of the definition that has the name here. A call of a
    definition has said them, also those that ``options()`` changed.
    """
    event = pending.event
    if pending.definition is not None or known is None:
        return event
    return msgspec.structs.replace(
        event,
        retry=_or(event.retry, known.retry),
        timeout=_or(event.timeout, known.timeout),
        queue_timeout=_or(event.queue_timeout, known.queue_timeout),
        schedule_timeout=_or(event.schedule_timeout, known.schedule_timeout),
        heartbeat_timeout=_or(event.heartbeat_timeout, known.heartbeat_timeout),
        queue=event.queue or known.task_queue,
        transactional=known.transactional,
    )


def limited(event: ev.ActivityScheduled, started: ev.RunStarted | None) -> ev.ActivityScheduled:
    """Return a call whose attempts have the time of its run's activities, if it says nothing."""
    limit = started.terms.activity_timeout if started is not None else 0
    if not limit or event.timeout is not None or patience(event, started):
        return event
    return msgspec.structs.replace(event, timeout=limit)


def patience(event: ev.ActivityScheduled, started: ev.RunStarted | None) -> int:
    """Return the time of its run's activities, if an attempt goes on when that is over: nothing but
    its own code waits for it, and policies want no end.
    """
    if started is None or started.terms.timeout_action != CONTINUE:
        return 0
    return 0 if event.step or event.timeout is not None else started.terms.activity_timeout


def _or(said: T | None, otherwise: T | None) -> T | None:
    return otherwise if said is None else said


class Past:
    """What a history says of an activity without an outcome."""

    __slots__ = ("attempts", "details", "lost_in_a_row", "retry_at", "scheduled_at", "worker")

    def __init__(self, scheduled_at: int, worker: int) -> None:
        self.scheduled_at = scheduled_at
        self.worker = worker
        self.attempts = 0
        self.retry_at = 0
        self.lost_in_a_row = 0
        self.details: bytes | None = None


def lost_outcome(
    number: int, name: str, policy: RetryPolicy, attempt: int, in_a_row: int
) -> ev.ActivityFailed | ev.RunParked | None:
    """Return what a lost attempt ends, if the policy allows no other or it was one too many."""
    if not policy.allows_after_loss(attempt):
        info = failures.FailureInfo(
            f"attempt {attempt} of {policy.max_attempts} was lost with its worker",
            kind=errors.Kind.WORKER_LOST,
            type="WorkerLost",
            retryable=False,
        )
        return ev.ActivityFailed(activity=number, failure=info, attempt=attempt)
    if in_a_row >= LOST_IN_A_ROW:
        return ev.RunParked(
            reason=ParkReason.WORKER_LOST,
            detail=f"activity {name!r} lost its worker {in_a_row} times in a row",
        )
    return None


class FailedElsewhere(Exception):
    """An attempt failed in its own process, which recorded the failure, or ended with it."""

    def __init__(self, failure: failures.FailureInfo) -> None:
        super().__init__(failure.message)
        self.failure = failure


class TimedOut(Exception):
    """An attempt ran out of time; after the ``schedule`` timeout there is no other."""

    def __init__(self, which: str, limit: int, step: str = "") -> None:
        super().__init__(which)
        self.is_final = which == "schedule"
        self.info = timed_out(which, limit, step)


async def enter(work: Work, fn: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> Any:
    """Call an async activity. A ``SystemExit`` in a task would end the loop: it comes wrapped."""
    work.has_begun = True
    try:
        return await fn(*args)
    except Exception:
        raise
    except BaseException as exc:
        # Not in its own task: the coroutine is being closed, and this is how Python does it.
        if ends_the_loop(exc) or current_task() not in (work.task, work.call):
            raise
        raise Raised(exc) from exc


def current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs; ``None``: no loop runs any more."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def timed(
    work: Work,
    future: asyncio.Future[Any],
    clock: Clock,
    *,
    entered: asyncio.Future[None] | None = None,
) -> Any:
    """Wait for an attempt under its timeouts and its heartbeat.

    ``entered``: until then only the time of all attempts counts; a process may have to start.

    Raises:
        TimedOut: one of them has passed; the future is cancelled.
    """
    event = work.event
    began = None if entered is not None else clock.now()
    work.beaten_at = work.time()
    try:
        while not future.done():
            if began is None and entered is not None and entered.done():
                began, work.beaten_at = clock.now(), work.time()
            limits = list(_limits(work, began))
            now = clock.now()
            left = min(((due - now) / _SECOND for due, _, _ in limits), default=None)
            if event.heartbeat_timeout is not None and began is not None:
                quiet = work.beaten_at + event.heartbeat_timeout / _SECOND - work.time()
                if quiet <= 0:
                    raise TimedOut("heartbeat", event.heartbeat_timeout, event.step)
                left = quiet if left is None else min(left, quiet)
            if left is not None and left <= 0:
                _, which, limit = min(limits)
                raise TimedOut(which, limit, event.step)
            waited = [future] if began is not None or entered is None else [future, entered]
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        future.cancel()
        raise
    return future.result()


def _limits(work: Work, began: int | None) -> Iterator[tuple[int, str, int]]:
    """Yield when each timeout passes, its name and its length."""
    event = work.event
    if event.timeout is not None and began is not None:
        yield began + event.timeout, "attempt", event.timeout
    if event.schedule_timeout is not None:
        yield work.scheduled_at + event.schedule_timeout, "schedule", event.schedule_timeout


def timed_out(which: str, limit: int, step: str = "") -> failures.FailureInfo:
    """Return the failure of an attempt that ran out of time; ``step``: of which it is one."""
    passed = f"the {which} timeout of {limit / _SECOND:g} s passed"
    return failures.FailureInfo(
        f"Step timed out: {passed}" if step else passed,
        kind=errors.Kind.TIMEOUT,
        type="TimeoutError",
        details=payload.encode({"timeout_type": which}),
    )


def misplaced(event: ev.ActivityScheduled, queue: str) -> failures.FailureInfo:
    """Return the failure of a transactional activity of another queue than its run's."""
    return failures.FailureInfo(
        f"activity {event.name!r} is transactional, and its task queue {event.queue!r} is another "
        f"one than its run's ({queue!r}): it commits together with the run, so the worker that has "
        "the run carries it out. Leave task_queue= out, or transactional=True",
        kind=errors.Kind.INVALID,
        type="Invalid",
        retryable=False,
    )


def missing(name: str) -> failures.FailureInfo:
    """Return the failure of an activity that this worker does not know."""
    return failures.FailureInfo(
        f"activity {name!r} is not registered with this worker; name its module in definitions=",
        kind=errors.Kind.NOT_FOUND,
        type="NotFound",
        retryable=False,
    )
