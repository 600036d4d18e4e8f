"""Log lines about what went wrong: failed attempts and ended runs, after their commit.

Written by whoever committed it, once: a replay applies facts without releasing them again. A step
that succeeds and a run that completes say nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from perdure.engine.runs import Input, Run
from perdure.values import events as ev
from perdure.values.duration import SECOND, to_text
from perdure.values.failures import FailureInfo

log = logging.getLogger("perdure.runs")
_TRACE_LINES = 6


def tell_failure(run: Run, item: Input, beside: Sequence[Input]) -> None:
    """Say which attempt came to nothing, and what follows; ``beside``: all facts of its commit.

    A lost attempt that was the last allowed is two facts, the loss and the failure: one line.
    """
    fact = item.fact
    if isinstance(fact, ev.AttemptFailed):
        what = f"failed: {fact.failure.text}"
        following = f"tried again in {_span(fact.retry_at - run.time)}"
    elif isinstance(fact, ev.ActivityFailed):
        if _has(beside, ev.AttemptLost, fact.activity):
            return
        what, following = f"failed: {fact.failure.text}", "not tried again"
    else:
        assert isinstance(fact, ev.AttemptLost)
        what = "was cut off by the stop" if fact.by_stop else "was lost with its worker"
        following = "tried again"
        if _has(beside, ev.ActivityFailed, fact.activity):
            following = "it was the last one allowed, not tried again"
        elif run.status.is_stopped:
            following = "tried again when the run goes on"
    name = item.name
    if not name:
        pending = run.instance.activities.get(fact.activity) if run.instance else None
        name = pending.event.name if pending else f"#{fact.activity}"
    log.warning(
        "[%s] activity %r, attempt %d %s; %s", run.workflow_id, name, fact.attempt, what, following
    )


def _has(items: Sequence[Input], kind: type[ev.ActivityFailed | ev.AttemptLost], it: int) -> bool:
    return any(isinstance(item.fact, kind) and item.fact.activity == it for item in items)


def tell_end(run: Run, closing: ev.Event | None) -> None:
    """Say how a run ended that did not complete."""
    who = (run.workflow_id, run.workflow)
    if isinstance(closing, ev.RunFailed):
        text = f"{closing.text}{_last_lines(closing.failure)}"
        log.error("[%s] workflow %r failed: %s", *who, text)
    elif isinstance(closing, ev.RunCancelled):
        log.info("[%s] workflow %r was cancelled%s", *who, _because(closing.text))
    elif isinstance(closing, ev.RunTerminated):
        log.warning("[%s] workflow %r was terminated%s", *who, _because(closing.reason))
    elif isinstance(closing, ev.RunTimedOut):
        log.warning("[%s] workflow %r timed out", *who)


def tell_overdue(run: Run, fact: ev.Event) -> None:
    """Say that a run takes longer than policies allow, and goes on."""
    assert isinstance(fact, ev.RunOverdue)
    text = "[%s] workflow %r takes longer than %s; it goes on, as its policies want"
    log.warning(text, run.workflow_id, run.workflow, to_text(fact.limit))


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _last_lines(failure: FailureInfo) -> str:
    """Return the end of the traceback of what went wrong, to stand below the sentence."""
    trace = failure.root.trace or failure.trace
    return "".join(f"\n    {line}" for line in trace.splitlines()[-_TRACE_LINES:])


def _span(microseconds: int) -> str:
    if microseconds < SECOND:
        return f"{max(0, microseconds) // 1_000}ms"
    return to_text(microseconds - microseconds % 100_000)
