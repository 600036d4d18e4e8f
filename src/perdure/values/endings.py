"""What the end of a run means to whoever waits for it."""

from __future__ import annotations

from perdure import errors
from perdure.values import events as ev
from perdure.values import failures
from perdure.values.erasing import ERASED
from perdure.values.failures import FailureInfo

_ERASED = "its result was erased: it ended as completed, and nobody can say any more with what"


def status_of(closing: ev.Event) -> str:
    """Return the status of a run with this closing event."""
    return ev.CLOSES_AS[type(closing)]


def next_run(closing: ev.Event) -> str:
    """Return the id of the run in which the execution goes on, or ``""``."""
    if isinstance(closing, ev.RunContinued):
        return closing.run_id
    if isinstance(closing, (ev.RunCompleted, ev.RunFailed, ev.RunTimedOut)):
        return closing.next_run
    return ""


def followed_by(closing: ev.Event) -> str:
    """Return the run whose result is this one's too: a continuation or a retry, no cron tick."""
    if isinstance(closing, ev.RunContinued):
        return closing.run_id
    if isinstance(closing, (ev.RunFailed, ev.RunTimedOut)) and closing.next_attempt > 1:
        return closing.next_run
    return ""


def result_of(closing: ev.Event) -> bytes | None:
    """Return the encoded result, if the run completed and it was not erased."""
    if isinstance(closing, ev.RunCompleted) and closing.result != ERASED:
        return closing.result
    return None


def failure_of(closing: ev.Event) -> FailureInfo | None:
    """Return the failure that the end means; ``None`` if the run completed (and was not erased)."""
    if isinstance(closing, ev.RunCompleted) and closing.result == ERASED:
        return FailureInfo(_ERASED, errors.Erased.default_kind, "Erased", retryable=False)
    if isinstance(closing, ev.RunFailed):
        return closing.failure
    if isinstance(closing, ev.RunCancelled):
        text = closing.text or "the workflow was cancelled"
        return _end("WorkflowCancelled", "Canceled", text, cause=closing.failure)
    if isinstance(closing, ev.RunTerminated):
        text = closing.reason or "the workflow was terminated"
        return _end("WorkflowTerminated", "Canceled", text)
    if isinstance(closing, ev.RunTimedOut):
        text = f"the {closing.timeout} timeout passed"
        return _end("WorkflowTimedOut", "Timeout", text, retryable=closing.timeout == "run")
    return None


def error_of(closing: ev.Event, name: str) -> errors.PerdureError | None:
    """Return what whoever waits for the result of ``name`` is told; ``None`` if it completed (and
    was not erased).
    """
    if isinstance(closing, ev.RunCompleted) and closing.result == ERASED:
        return errors.Erased(f"workflow {name!r}: {_ERASED}")
    if isinstance(closing, ev.RunFailed):
        text = f"workflow {name!r} failed: {closing.text}"
        return failures.wrap(errors.WorkflowFailed, text, closing.failure)
    if isinstance(closing, ev.RunCancelled):
        because = f": {closing.text}" if closing.text else ""
        failure = closing.failure
        return errors.WorkflowCancelled(
            f"workflow {name!r} was cancelled{because}",
            cause=failures.to_exception(failure) if failure is not None else None,
        )
    if isinstance(closing, ev.RunTerminated):
        because = f": {closing.reason}" if closing.reason else ""
        return errors.WorkflowTerminated(f"workflow {name!r} was terminated{because}")
    if isinstance(closing, ev.RunTimedOut):
        text = f"workflow {name!r} timed out: the {closing.timeout} timeout passed"
        return errors.WorkflowTimedOut(text)
    return None


def _end(
    name: str,
    kind: str,
    message: str,
    *,
    retryable: bool = False,
    cause: FailureInfo | None = None,
) -> FailureInfo:
    return FailureInfo(message, kind=kind, type=name, retryable=retryable, cause=cause)
