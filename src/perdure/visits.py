"""What an execution is described as, and what the history of a graph's run says of its steps.

``Execution.step_results`` and ``Execution.metadata`` are made here. A run is a graph's if its
history has a step's mark; of any other there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, cast

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
_WEBHOOK_DATA = "webhook_data"
"""Where a webhook leaves what has come, unless its definition says otherwise."""
_STATUS = {
    "workflow.step.completed": "completed",
    "workflow.step.failed": "failed",
    "workflow.step.skipped": "skipped",
    "workflow.step.cancelled": "cancelled",
}


class Gathered:
    """The ``data`` and ``metadata`` that a graph's run has, as far as its history was read.

    ``webhooks``: under which keys of ``data`` its webhooks leave what has come; ``None``: nobody
    knows, and it is where they leave it by default.
    """

    def __init__(self, webhooks: Mapping[str, str] | None = None) -> None:
        self.data: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self._webhooks = webhooks
        self._kinds: dict[str, str] = {}
        self._outcomes: dict[int, bytes] = {}
        self._asked: dict[int, str] = {}
        self._not_done: list[tuple[str, Any]] = []

    def take(self, events: Sequence[dict[str, Any]], first: int) -> None:
        """Read a row; rows are read in their order."""
        for number, event in enumerate(events, first):
            read = self._READ.get(event["kind"])
            if read is not None:
                read(self, number, event)

    def _started(self, _: int, event: dict[str, Any]) -> None:
        given = payload.decode(event.get("input", payload.NULL))
        self.data = cast("dict[str, Any]", given) if isinstance(given, dict) else {}

    def _outcome(self, _: int, event: dict[str, Any]) -> None:
        self._outcomes[event["activity"]] = event.get("result", payload.NULL)

    def _update(self, _: int, event: dict[str, Any]) -> None:
        if event["name"] == SET_METADATA:
            for given in payload.decode(event.get("args", b"[]")):
                self.metadata.update(given)

    def _asks(self, number: int, event: dict[str, Any]) -> None:
        self._asked[number] = event.get("name", "")

    def _decided(self, _: int, event: dict[str, Any]) -> None:
        told = {"outcome": event.get("outcome", "cancelled")}
        told |= {"by": event.get("by", ""), "comment": event.get("comment", "")}
        if told["outcome"] != "completed":
            self._not_done.append((self._asked.get(event["opened"], ""), told))

    def _mark(self, _: int, event: dict[str, Any]) -> None:
        """Merge what a handler has set: a mark says whether an outcome is one's, and was taken."""
        if event.get("path", "output"):
            found = payload.decode(self._outcomes.pop(event.get("of", 0), payload.NULL))
            outcome = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
            changes = cast("dict[str, Any]", outcome.get("changes") or {})
            self.metadata.update(changes.get("metadata", {}))
            self.data.update(changes.get("data", {}))
            for key in changes.get("dropped", ()):
                self.data.pop(key, None)
        name, step = event.get("name"), event.get("step", "")
        if name == "step.started":
            self._kinds[step] = payload.decode(event.get("data", b"{}")).get("step_type", "")
        elif name == "step.completed":
            self._completed(step, event)

    def _completed(self, step: str, event: dict[str, Any]) -> None:
        """Take what came from outside: what a person entered, or a message."""
        kind = self._kinds.get(step)
        if kind not in ("human", "webhook"):
            return
        came = payload.decode(event.get("result") or payload.NULL)
        if kind == "webhook":
            keys = {step: _WEBHOOK_DATA} if self._webhooks is None else self._webhooks
            if step in keys:
                self.data[keys[step]] = came
        elif (step, came) in self._not_done:  # it went on without, and says so to the next step
            self._not_done.remove((step, came))
        elif isinstance(came, dict):
            self.data.update(cast("dict[str, Any]", came))

    _READ: ClassVar[Mapping[str, Callable[[Any, int, dict[str, Any]], None]]] = {
        "run_started": _started,
        "activity_completed": _outcome,
        "update_accepted": _update,
        "human_task_opened": _asks,
        "human_task_decided": _decided,
        "human_task_closed": _decided,
        "emitted": _mark,
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
    gathered = Gathered()
    for turn in turns:
        events = ev.decode_plain(turn.payload)
        told = named.tell(events, turn.first, turn.time, named.Head("", "", ""), past)
        _note(steps, told, events)
        gathered.take(events, turn.first)
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
