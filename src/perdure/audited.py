"""A door that tells the audit of what goes through it, in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from perdure.definition import Workflow
from perdure.door import Door
from perdure.errors import PerdureError
from perdure.store.port import (
    Act,
    Acted,
    HumanTaskRaise,
    HumanTaskRow,
    Posted,
    Question,
    RunRow,
    Started,
    StartRequest,
)
from perdure.values import events as ev
from perdure.values.audit import AuditLine, Level, detail, line_by
from perdure.values.principals import Principal
from perdure.values.records import Amend

_ACTIONS: dict[type[ev.Event], str] = {
    ev.MessageReceived: "send",
    ev.CancelRequested: "cancel",
    ev.RunTerminated: "terminate",
    ev.RunPaused: "pause",
    ev.RunResumed: "resume",
    ev.RunUnparked: "unpark",
}
_ASKED = ("update", "move")
"""Questions that change a run; queries do not."""


def audited(door: Door, who: Principal | None, level: Level) -> Door:
    """Return the door as it is for somebody whose acts are told."""
    return cast("Door", _AuditedDoor(door, who, level))


class _AuditedDoor:
    """What is not told goes straight through."""

    def __init__(self, door: Door, who: Principal | None, level: Level) -> None:
        self._door = door
        self._who = who
        self._is_full = level is Level.FULL

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    async def start(
        self, request: StartRequest, started: ev.RunStarted, definition: Workflow[Any, Any] | None
    ) -> Started:
        request.audit = self._of_start(request, started)
        return await self._door.start(request, started, definition)

    def start_within(
        self, connection: object, request: StartRequest, started: ev.RunStarted
    ) -> Started:
        request.audit = self._of_start(request, started)
        return self._door.start_within(connection, request, started)

    async def start_copy(self, request: StartRequest) -> Started:
        run, event, how = request.origin or (0, 0, "import")
        facts = {"workflow": request.workflow, "origin": run, "event": event}
        request.audit = self._line(how, request.namespace, request.workflow_id, facts)
        return await self._door.start_copy(request)

    async def post(
        self, row: RunRow, fact: ev.Event, sender: str, seq: int, audit: AuditLine | None = None
    ) -> Posted:
        action = _ACTIONS.get(type(fact), str(fact.kind))
        facts: dict[str, Any] = {"before": {"status": str(row.status)}, "after": _said(fact)}
        line = self._line(action, row.namespace, row.workflow_id, facts, row.run_id)
        return await self._door.post(row, fact, sender, seq, audit or line)

    async def ask(self, row: RunRow, question: Question) -> bytes:
        action, _, name = question.name.partition(":")
        if action in _ASKED:  # code answers it, which no transaction of ours can hold: told before
            facts = {"name": name, "args": msgspec.Raw(question.args)}
            line = self._line(action, row.namespace, row.workflow_id, facts, row.run_id)
            now = self._door.now()
            await self._door.write(lambda store: store.amend(Amend(audit=[line]), now))
        return await self._door.ask(row, question)

    async def act(self, act: Act) -> HumanTaskRow:
        return await self._door.act(await self._told(act))

    async def act_all(
        self, acts: Sequence[Act], *, all_or_none: bool = False
    ) -> list[Acted | PerdureError]:
        told = [await self._told(act) for act in acts]
        return await self._door.act_all(told, all_or_none=all_or_none)

    async def raise_human_task(self, wanted: HumanTaskRaise) -> HumanTaskRow:
        asked = wanted.asked
        facts = {"after": {"title": asked.title, "role": asked.role, "assignee": asked.assignee}}
        who = self._by(wanted.by)
        wanted.audit = self._line("people.create", wanted.namespace, wanted.id, facts, who=who)
        return await self._door.raise_human_task(wanted)

    def _by(self, name: str) -> Principal | None:
        who = self._who
        return Principal(name) if name and (who is None or who.id != name) else who

    async def _told(self, act: Act) -> Act:
        facts: dict[str, Any] = {}
        if self._is_full:
            id, namespace = act.id, act.namespace
            row = await self._door.read(lambda store: store.human_task(id, namespace=namespace))
            facts = {"before": None if row is None else _standing(row), "after": _wish(act)}
        who = act.who or self._by(act.by)
        line = self._line(f"people.{act.verb}", act.namespace, act.id, facts, who=who)
        return msgspec.structs.replace(act, audit=line)

    def _of_start(self, request: StartRequest, started: ev.RunStarted) -> AuditLine:
        after: dict[str, Any] = {
            "workflow": request.workflow,
            "version": request.version,
            "input": msgspec.Raw(started.input),
            "tags": request.tags,
            "search": request.search,
        }
        if request.memo is not None:
            after["memo"] = msgspec.Raw(request.memo)
        return self._line("start", request.namespace, request.workflow_id, {"after": after})

    def _line(
        self,
        action: str,
        namespace: str,
        target: str,
        facts: dict[str, Any],
        run_id: str = "",
        *,
        who: Principal | None = None,
    ) -> AuditLine:
        data = detail(self._door.chance, facts) if self._is_full else None
        return line_by(
            who or self._who,
            action,
            target=target,
            run_id=run_id,
            namespace=namespace,
            data=data,
        )


def _said(fact: ev.Event) -> dict[str, Any]:
    if isinstance(fact, ev.MessageReceived):
        message = fact.message
        return {"topic": message.topic, "payload": msgspec.Raw(message.payload)}
    reason = getattr(fact, "reason", "")
    return {"reason": reason} if reason else {}


def _standing(row: HumanTaskRow) -> dict[str, Any]:
    names = ("status", "assignee", "role", "claimed_by")
    return {name: getattr(row, name) for name in names}


def _wish(act: Act) -> dict[str, Any]:
    wish: dict[str, Any] = {
        name: value
        for name in ("comment", "assignee", "role")
        if (value := getattr(act, name)) is not None and value != ""
    }
    if act.value is not None:
        wish["value"] = msgspec.Raw(act.value)
    return wish
