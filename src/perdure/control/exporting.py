"""A run's state for the operations API: read from its history, in full or in counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from perdure.control.discovery import SYSTEM
from perdure.errors import Invalid
from perdure.store.port import RunRow
from perdure.values.states import Status
from perdure.views import Execution, HistoryEvent

FACETS = ("data", "state", "status", "timeline", "transitions")
_ENDS = {
    "activity_completed": "completed",
    "activity_failed": "failed",
    "activity_cancelled": "cancelled",
}


def number(row: RunRow) -> int:
    """Return a status as a number: 0 completed, 1 not finished, -1 any other end."""
    if not row.status.is_terminal:
        return 1
    return 0 if row.status is Status.COMPLETED else -1


def state(
    row: RunRow, events: Sequence[HistoryEvent], shown: Execution, *, values: bool
) -> dict[str, Any]:
    """Return all facets."""
    return {
        "workflow_id": row.workflow_id,
        "data": {"input": shown.input, "output": shown.output, "error": shown.error},
        "state": {
            "run_id": shown.run_id,
            "workflow": shown.workflow,
            "version": shown.version,
            "status": str(shown.status),
            "current_step": shown.current_step,
            "progress": shown.progress,
            "steps": shown.step_results,
            "metadata": shown.metadata,
            "memo": shown.memo,
            "search": shown.search,
            "tags": list(shown.tags),
            "reason": shown.reason,
        },
        "status": number(row),
        "timeline": [_moment(event, values=values) for event in events],
        "transitions": _transitions(events),
    }


def facets(found: dict[str, Any], allow: Any, block: Any) -> dict[str, Any]:
    """Return those of ``allow``, or all but ``block``; ``allow`` wins.

    Raises:
        Invalid: one of them is no facet.
    """
    wanted = _names(allow, "allow")
    unwanted = _names(block, "block")
    kept = wanted or [name for name in FACETS if name not in unwanted]
    return {"workflow_id": found["workflow_id"], **{name: found[name] for name in kept}}


def summary(row: RunRow, events: Sequence[HistoryEvent]) -> dict[str, Any]:
    """Return how much of what there is."""
    kinds = Counter(event.kind for event in events)
    names = [event.data.get("name") or "" for event in events if event.kind == "activity_scheduled"]
    system = sum(name.startswith(SYSTEM) for name in names)
    ends = [event.data.get("status") for event in events if event.kind == "child_closed"]
    return {
        "workflow_id": row.workflow_id,
        "status": number(row),
        "total_events": len(events),
        "activities": {
            "total": len(names),
            "completed": kinds["activity_completed"],
            "failed": kinds["activity_failed"],
            "system": system,
            "user": len(names) - system,
        },
        "child_workflows": {
            "total": kinds["child_scheduled"],
            "completed": ends.count("completed"),
            "failed": len(ends) - ends.count("completed"),
        },
        "timers": kinds["timer_started"],
        "signals": kinds["message_received"],
    }


def _moment(event: HistoryEvent, *, values: bool) -> dict[str, Any]:
    moment: dict[str, Any] = {
        "index": event.id,
        "key": event.kind,
        "at": event.time.isoformat(),
    }
    return {**moment, "value": event.data} if values else moment


def _transitions(events: Sequence[HistoryEvent]) -> list[dict[str, Any]]:
    """Return when each activity was asked for, and when and how it ended."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.kind == "activity_scheduled":
            at = event.time.isoformat()
            name = event.data.get("name")
            found[event.id] = {
                "activity": name,
                "id": event.id,
                "status": "running",
                "created": at,
                "updated": at,
            }
        elif event.kind in _ENDS and event.data.get("activity") in found:
            ended = found[event.data["activity"]]
            ended["status"], ended["updated"] = _ENDS[event.kind], event.time.isoformat()
    return list(found.values())


def _names(given: Any, what: str) -> Collection[str]:
    if given is not None and not isinstance(given, Iterable):
        raise Invalid(f"{what}: {given!r} is no list of facets; use {', '.join(FACETS)}")
    names = [given] if isinstance(given, str) else list(cast("Iterable[Any]", given or ()))
    if unknown := [name for name in names if name not in FACETS]:
        raise Invalid(f"{what}: {unknown[0]!r} is no facet; use {', '.join(FACETS)}")
    return names
