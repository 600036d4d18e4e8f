"""Gathers the rows from which ``why.py`` says in one sentence why a run does not go on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from perdure import errors, views, why
from perdure.door import Door, is_a, sound, whole_history
from perdure.store.port import (
    HumanTaskFilter,
    HumanTaskRow,
    InboxRow,
    RunRow,
    Standing,
    TurnRow,
    Worker,
)
from perdure.values import events as ev
from perdure.values.states import Status

_FOLLOWED = 3


async def explain(
    door: Door, row: RunRow, workers: Sequence[Worker], depth: int = _FOLLOWED
) -> str:
    """Return the sentence; ``depth``: how many generations of children it tells of."""
    children: list[str] = []
    for name in why.children_of(row)[:_FOLLOWED] if depth else ():
        child = await door.find(name, row.namespace)
        if child is not None:
            children.append(await explain(door, child, workers, depth - 1))
    turns: list[TurnRow] = []
    if not row.status.is_terminal and not row.status.is_stopped:  # else the row says it all
        with suppress(errors.Sealed):  # then the row says what it can
            turns = await whole_history(door, sound(row))
    standing: Standing | None = None
    if row.status is Status.PENDING and row.reason is not None:
        standing = await door.read(lambda store: store.standing(row.execution))
    has_inbox = bool(turns) or row.status is Status.PAUSED
    loaded = await door.read(lambda store: store.load([row.run])) if has_inbox else []
    arrived = [why.fact_of(item.event) for each in loaded for item in each.inbox]
    offers = [one for each in loaded for one in each.offers]
    asked = await _asked(door, row)
    now = door.now()
    return why.why(
        row,
        turns,
        workers,
        now,
        children,
        standing,
        arrived=arrived,
        offers=offers,
        asked=asked,
        is_resumed=any(_goes_on(each.inbox) for each in loaded),
    )


def _goes_on(inbox: Sequence[InboxRow]) -> bool:
    """Tell whether a paused run goes on by the last word that somebody gave it."""
    steered = [row.event for row in inbox if is_a((ev.RunPaused, *ev.GOES_ON), row.event)]
    return bool(steered) and is_a(ev.GOES_ON, steered[-1])


async def _asked(door: Door, row: RunRow) -> list[HumanTaskRow]:
    """Return what a run asks people for; the rows know what its own do not: escalations, claims."""
    if not views.waits_of(row).get("people"):
        return []
    where, now = HumanTaskFilter(namespace=row.namespace, workflow_id=row.workflow_id), door.now()
    found = await door.read(lambda store: store.human_tasks(where, now, limit=_FOLLOWED))
    return [task for task in found if task.run == row.run]
