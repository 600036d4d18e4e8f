"""What an execution is described as, and what the history of a graph's run says of its steps.

``Execution.step_results`` and ``Execution.metadata`` are made here. A run is a graph's if its
history has a step's mark; of any other there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure import errors, views
from perdure.door import Door, whole_history
from perdure.store.port import RunRow, TurnRow
from perdure.trail import Gathered, Visit, Visits
from perdure.values import events as ev
from perdure.values.budgets import carried
from perdure.views import Execution

_NEXT_ROWS = 7
"""A graph marks its first step in its first turn; before that there is a start, and few else."""


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
    visits, gathered = Visits(), Gathered()
    for turn in turns:
        events = ev.decode_plain(turn.payload)
        visits.take(events, turn.first, turn.time)
        gathered.take(events, turn.first)
    steps = {it.step: _shown(it) for it in visits.found if it.kind != "activity"}
    if execution.status.is_terminal:
        for visit in steps.values():
            if visit["status"] == "running":
                visit["status"] = "cancelled"
    current = [name for name, visit in steps.items() if visit["status"] == "running"]
    return msgspec.structs.replace(
        execution,
        step_results=steps,
        metadata=gathered.metadata,
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


def _shown(visit: Visit) -> dict[str, Any]:
    return {
        "step_name": visit.step,
        "status": visit.status,
        "input": visit.input,
        "output": visit.output,
        "error": visit.error,
        "started_at": visit.started_at,
        "completed_at": visit.completed_at,
        "attempts": visit.attempts,
    }
