"""What follows when the time that policies allow is over: not the end, if they say so.

``fail`` is what happens without policies, too: the run times out, the activity fails. With
``cancel`` the run is asked to end, so that its code can clean up, and has as long for that as it
had before. With ``continue`` it goes on: its history, its listeners and the log say that it is
late. Both are about the time of the execution, which policies bound, and about activities; a limit
of a definition's own, or of one run, is what it always was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import SECOND, to_text
from perdure.values.failures import FailureInfo
from perdure.values.terms import CANCEL, CONTINUE

if TYPE_CHECKING:
    from perdure.engine.core import Core
    from perdure.engine.runs import Run
    from perdure.engine.work import Work

_log = logging.getLogger("perdure.runs")
BY: Final = "policy"
"""Who asks."""
_CANCELS: Final = "time to cancel"
_IS_LATE: Final = "late"
SOFT: Final = (_CANCELS, _IS_LATE)
"""Deadlines that end nothing by themselves."""


def deadline(run: Run, started: ev.RunStarted) -> tuple[int, str]:
    """Return the earliest deadline of a run whose policies say what follows; (0, ""): none."""
    terms, due = started.terms, started.execution_deadline
    found = [(started.run_deadline, "run")] if started.run_deadline else []
    if not due:
        pass
    elif terms.timeout_action == CANCEL:
        # Once it was asked to end, it has the time that this gave it, or less.
        is_asked = 0 < run.cancel_deadline <= due + terms.execution_timeout
        found += [] if is_asked else [(due, _CANCELS)]
    elif terms.timeout_action == CONTINUE:
        # A run that is stopped is late when it goes on.
        instance = run.instance
        found += [] if instance is None or instance.is_overdue else [(due, _IS_LATE)]
    else:
        found.append((due, "execution"))
    return min(found, default=(0, ""))


def fact_of(run: Run, which: str) -> ev.Event | None:
    """Return what a run whose time is over is told; ``None``: it was, and has yet to apply it."""
    started = run.started
    assert started is not None
    limit = started.terms.execution_timeout
    fact: ev.Event = ev.RunOverdue(limit=limit)
    if which == _CANCELS:
        until = started.execution_deadline + limit
        reason = f"it took longer than {to_text(limit)}"
        fact = ev.CancelRequested(reason=reason, deadline=until, by=BY)
    is_told = any(_is_same(item.fact, fact) for item in run.inputs)
    return None if is_told else fact


def cancels(run: Run, facts: Iterable[ev.Event]) -> ev.CancelRequested | None:
    """Return the request to end that follows from the timeout of an activity among these facts."""
    assert run.instance is not None
    if run.instance.cancel is not None:
        return None
    for fact in facts:
        if isinstance(fact, ev.ActivityFailed) and is_timeout(fact.failure):
            pending = run.instance.activities.get(fact.activity)
            if pending is not None:
                what = pending.event.step or pending.event.name
                reason = f"{what!r} took too long: {fact.failure.message}"
                return ev.CancelRequested(reason=reason, by=BY)
    return None


def is_timeout(failure: FailureInfo) -> bool:
    """Tell whether an activity failed because its time was over, and not by its own word."""
    if failure.type != "TimeoutError" or failure.details is None:
        return False
    details = payload.decode(failure.details)
    return isinstance(details, dict) and "timeout_type" in details


def expect(core: Core, work: Work) -> asyncio.TimerHandle:
    """Tell of an attempt that is late; it goes on."""
    loop = asyncio.get_running_loop()
    return loop.call_later(work.patience / SECOND, _tell_late, core, work)


def _tell_late(core: Core, work: Work) -> None:
    limit = to_text(work.patience)
    _log.warning(
        "[%s] activity %r, attempt %d takes longer than %s; it goes on, as its policies want",
        work.run.workflow_id,
        work.event.name,
        work.attempt,
        limit,
    )
    if core.listeners.has_any:
        told = work.facts() | {"limit": work.patience / SECOND}
        core.listeners.tell("workflow.step.overdue", told)


def _is_same(one: ev.Event, other: ev.Event) -> bool:
    return type(one) is type(other) and getattr(one, "by", "") == getattr(other, "by", "")
