"""What a start may ask for about time, and what follows from it when a run ends.

All times are microseconds; 0 means none. Deadlines are fixed when a run is started and recorded in
its event 1, so that every worker, and every replay, knows the same ones.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from perdure.values.cron import next_tick
from perdure.values.failures import FailureInfo
from perdure.values.retry import RetryPolicy


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Limits of an execution, its runs and their turns; when it begins and whether it comes again.

    ``execution_timeout`` covers all runs of the execution, ``run_timeout`` one run, both from the
    moment the (delayed) start is due; ``task_timeout`` one turn of its code; ``activity_timeout``
    an attempt of each activity that says nothing of its own. ``retry`` starts a new run after a
    failure; ``cron`` one at each tick after the end of the run before. ``key`` and ``priority``
    (higher goes first) matter where a concurrency limit makes executions wait.

    ``timeout_action``: what follows when the execution's time, or an activity's, is over: ``fail``,
    ``cancel`` or ``continue``; ``""``: nobody has said, and it is as without policies. ``alerts``:
    whether its failure raises an alert. Both come from the policies at a door (``granted.py``).

    ``retention``: how long the execution is kept after its end; here 0 is for ever, and ``None`` as
    long as the engine keeps all others. A copy is kept as those: it has other people's event 1.
    """

    execution_timeout: int = 0
    run_timeout: int = 0
    task_timeout: int = 0
    activity_timeout: int = 0
    start_delay: int = 0
    retry: RetryPolicy | None = None
    cron: str = ""
    key: str = ""
    priority: int = 0
    timeout_action: str = ""
    alerts: bool = False
    retention: int | None = None


NO_TERMS = Terms()
FAIL, CANCEL, CONTINUE = "fail", "cancel", "continue"
RESUME_WITHIN: Final = "resume_within"
"""Who ends a run that was started paused, and that nobody has let begin."""


class Deadlines(NamedTuple):
    """When a run may begin, and when it and its execution are out of time."""

    not_before: int
    run: int
    execution: int

    @property
    def first(self) -> int:
        """The earlier of the two deadlines, or 0."""
        return min(filter(None, (self.run, self.execution)), default=0)


def ends_unbegun(terms: Terms, deadlines: Deadlines) -> int:
    """Return when a run that has not begun is out of time; 0: never."""
    return deadlines.run if terms.timeout_action == CONTINUE else deadlines.first


class Next(NamedTuple):
    """The run that follows one that ended: when it begins, and which attempt it is."""

    at: int
    attempt: int


def first_deadlines(terms: Terms, now: int) -> Deadlines:
    """Return the deadlines of an execution's first run, started at ``now``."""
    not_before = now + terms.start_delay if terms.start_delay else 0
    if terms.cron:
        not_before = next_tick(terms.cron, not_before or now)
    begins = not_before or now
    execution = begins + terms.execution_timeout if terms.execution_timeout else 0
    return later_deadlines(terms, now, execution, not_before)


def later_deadlines(terms: Terms, now: int, execution: int, not_before: int = 0) -> Deadlines:
    """Return the deadlines of a later run, in an execution with deadline ``execution``."""
    begins = not_before or now
    run = begins + terms.run_timeout if terms.run_timeout else 0
    return Deadlines(not_before, run, execution)


def successor(
    terms: Terms, attempt: int, execution_deadline: int, failure: FailureInfo | None, now: int
) -> Next | None:
    """Return the run that follows attempt ``attempt``, which failed with ``failure`` or completed.

    A failure is retried while the policy allows; then, as after a success, cron says when.
    """
    following: Next | None = None
    policy = terms.retry
    if failure is not None and policy is not None and policy.allows(failure.root, attempt):
        following = Next(now + policy.delay_after(attempt), attempt + 1)
    elif terms.cron:
        following = Next(next_tick(terms.cron, now), 1)
    if following is not None and execution_deadline and following.at >= execution_deadline:
        return None
    return following
