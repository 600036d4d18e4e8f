"""What a graph tells of a visit's end: soft commands that say what the history does not say yet.

A handler's output and error lie in the history with the activity's outcome; the mark names that.
Only what no activity gave (a choice, what a function made of the context) is in the mark itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure import errors
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.commands import NOT_CHOSEN

if TYPE_CHECKING:
    from perdure.graph.interpret import Visit
    from perdure.graph.steps import BaseStep, Left

_SHOWN = 200


def ended(step: str, left: Left, visit: Visit, done: int, total: int) -> ev.Emitted:
    """Return the mark of a visit that came to its end; ``done`` of ``total`` steps are."""
    if visit.is_skipped:
        name, activity = "step.skipped", visit.activity
        return ev.Emitted(name=name, step=step, of=activity, done=done, total=total)
    if left.source is not None and visit.activity:
        return ev.Emitted(
            name="step.completed",
            step=step,
            of=visit.activity,
            path=left.source,
            done=done,
            total=total,
        )
    result = None if left.output is None else _encoded(left.output, visit)
    return ev.Emitted(name="step.completed", step=step, result=result, done=done, total=total)


def passed_over(step: BaseStep) -> ev.Emitted:
    """Return the mark of a step that cannot begin any more."""
    data = {"step_type": step.told, "reason": NOT_CHOSEN}
    return ev.Emitted(name="step.skipped", step=step.name, data=payload.encode(data))


def failed(step: str, error: Exception, visit: Visit) -> ev.Emitted:
    """Return the mark of a visit that failed."""
    activity, path = visit.activity, "output" if visit.has_context else ""
    if isinstance(error, errors.ActivityFailed) and activity:
        return ev.Emitted(name="step.failed", step=step, of=activity, path=path)
    cause = error.cause if isinstance(error, errors.ActivityFailed) and error.cause else error
    text = cause.message if isinstance(cause, errors.PerdureError) else repr(cause)
    data = payload.encode({"error": text.encode(errors="replace").decode()})
    return ev.Emitted(name="step.failed", step=step, of=activity, path=path, data=data)


def presentable(value: Any) -> Any:
    """Return a value that need not have a form for the history; else what it is."""
    try:
        payload.encode(value)
    except errors.Invalid:
        return _what(value)
    return value


def _encoded(output: Any, visit: Visit) -> bytes:
    """Encode an output that need not have a form for the history; else say what it is."""
    try:
        return payload.limit(
            payload.encode(output), visit.max_payload, what=f"output of {visit.step.name}"
        )
    except errors.Invalid:
        return payload.encode(_what(output))


def _what(value: Any) -> str:
    return f"<{type(value).__name__}>"[:_SHOWN]
