"""What an execution is described as, and what the history of a graph's run says of its steps.

``Execution.step_results`` and ``Execution.metadata`` are made here. A run is a graph's if its
history has a step's mark; of any other there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec

from perdure import errors, named, views
from perdure.door import Door, whole_history
from perdure.store.port import RunRow, TurnRow
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.budgets import carried
from perdure.values.commands import NOT_CHOSEN
from perdure.views import Execution

SET_METADATA = "set_metadata"
"""The update by which ``handle.set_metadata`` reaches a run of a graph."""
_NEXT_ROWS = 7
"""A graph marks its first step in its first turn; before that there is a start, and few else."""
_STATUS = {
    "workflow.step.completed": "completed",
    "workflow.step.failed": "failed",
    "workflow.step.skipped": "skipped",
    "workflow.step.cancelled": "cancelled",
}


async def described(door: Door, row: RunRow, *, with_steps: bool) -> Execution:
    """Return everything there is to show of a run; ``with_steps``: of a graph also its steps.

    Raises:
        Corrupt: something of it cannot be read. A damaged history only hides the steps.
    """
    first = await door.read(lambda store: store.history(row.run, limit=1))
    spends = [key for key, _ in carried(_context(first))]
    found = await door.read(
        lambda store: views.execution(
            row,
            first=first,
            last=store.last_turn(row.run),
            search=store.attributes(row.run),
            kin=store.forks(row.run),
            kept_for=store.kept_for(row.execution),
            budgets=store.budgets(spends) if spends else (),
        )
    )
    if not with_steps:
        return found
    try:
        if await _is_of_graph(door, row, first):
            found = shown(found, await whole_history(door, row))
    except errors.Corrupt:
        pass  # the list, the history and the sentence of why say so
    return found


def metadata(values: Any) -> dict[str, Any]:
    """Return what was given as metadata.

    Raises:
        Invalid: it is no mapping of texts.
    """
    given = cast("Mapping[Any, Any]", values) if isinstance(values, Mapping) else None
    if given is None or not all(isinstance(key, str) for key in given):
        raise errors.Invalid(f"metadata: {values!r:.80} is no mapping from texts to values")
    return dict(given)


def shown(execution: Execution, turns: Sequence[TurnRow]) -> Execution:
    """Return a graph's execution with what its whole history says of steps.

    Raises:
        Corrupt: a row is damaged.
    """
    past = named.Past(is_whole=True)
    steps: dict[str, dict[str, Any]] = {}
    gathered: dict[str, Any] = {}
    outcomes: dict[int, bytes] = {}
    for turn in turns:
        events = ev.decode_plain(turn.payload)
        told = named.tell(events, turn.first, turn.time, named.Head("", "", ""), past)
        _note(steps, told, events)
        _merge(gathered, events, outcomes)
    if execution.status.is_terminal:
        for visit in steps.values():
            if visit["status"] == "running":
                visit["status"] = "cancelled"
    current = [name for name, visit in steps.items() if visit["status"] == "running"]
    return msgspec.structs.replace(
        execution,
        step_results=steps,
        metadata=gathered,
        current_step=", ".join(current) or execution.current_step,
    )


def _context(first: Sequence[TurnRow]) -> bytes | None:
    """Return the context that a run was started with."""
    return ev.decode_plain(first[0].payload)[0].get("context") if first else None


async def _is_of_graph(door: Door, row: RunRow, first: Sequence[TurnRow]) -> bool:
    """Tell whether a history, whose first row is ``first``, begins as a graph's does."""
    if any(map(_has_mark, first)):
        return True
    after = first[-1].first if first else 0
    following = await door.read(lambda store: store.history(row.run, after=after, limit=_NEXT_ROWS))
    return any(map(_has_mark, following))


def _has_mark(turn: TurnRow) -> bool:
    return any(
        event["kind"] == "emitted" and event.get("name") == "step.started"
        for event in ev.decode_plain(turn.payload)
    )


def _note(
    steps: dict[str, dict[str, Any]],
    told: Sequence[tuple[str, named.NamedEvent]],
    events: Sequence[dict[str, Any]],
) -> None:
    for _, event in told:
        name: Any = event.data.get("step_name")
        if event.name == "workflow.step.started" and event.data["step_type"] != "activity":
            steps[name] = _visit(name, "running", began=event.at)
            continue
        if event.data.get("reason") == NOT_CHOSEN:
            steps[name] = _visit(name, "skipped", ended=event.at)
            continue
        visit = steps.get(name)
        if visit is None:
            continue
        if event.name == "workflow.step.retry":
            visit["attempts"] = event.data["attempt"] + 1
        elif event.name in _STATUS:
            visit["status"], visit["completed_at"] = _STATUS[event.name], event.at
            visit |= {key: event.data[key] for key in ("output", "error") if key in event.data}
            visit["attempts"] = event.data.get("attempts", visit["attempts"])
    for event in events:
        if event["kind"] == "activity_scheduled" and event.get("step") in steps:
            steps[event["step"]]["input"] = next(iter(payload.decode(event["args"])), None)


def _visit(
    name: str, status: str, *, began: datetime | None = None, ended: datetime | None = None
) -> dict[str, Any]:
    return {
        "step_name": name,
        "status": status,
        "input": None,
        "output": None,
        "error": None,
        "started_at": began,
        "completed_at": ended,
        "attempts": 0 if began is None else 1,
    }


def _merge(
    metadata: dict[str, Any], events: Sequence[dict[str, Any]], outcomes: dict[int, bytes]
) -> None:
    """Merge what handlers and clients have set; a mark says which outcome is a handler's."""
    for event in events:
        kind = event["kind"]
        if kind == "activity_completed":
            outcomes[event["activity"]] = event.get("result", payload.NULL)
        elif kind == "emitted" and event.get("path", "output"):
            found = payload.decode(outcomes.pop(event.get("of", 0), payload.NULL))
            outcome = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
            changes = cast("dict[str, Any]", outcome.get("changes") or {})
            metadata.update(changes.get("metadata", {}))
        elif kind == "update_accepted" and event["name"] == SET_METADATA:
            for given in payload.decode(event.get("args", b"[]")):
                metadata.update(given)
