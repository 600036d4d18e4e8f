"""A door that tells the audit of what goes through it, in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.definition import Workflow
from perdure.door import Door
from perdure.errors import PerdureError
from perdure.store.port import (
    Act,
    Acted,
    Happened,
    HumanTaskRaise,
    HumanTaskRow,
    Posted,
    Question,
    RunRow,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
    Started,
    StartRequest,
)
from perdure.values import events as ev
from perdure.values.audit import AuditLine, Level, detail, line_by
from perdure.values.granted import NOTHING, Granted
from perdure.values.principals import Principal
from perdure.values.records import Amend
from perdure.values.schedules import Spec, Template

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


def audited(door: Door, who: Principal | None, level: Level, granted: Granted = NOTHING) -> Door:
    """Return the door as it is for somebody whose acts are told.

    ``granted``: by whoever has judged them; its level counts if it is the fuller one.
    """
    fuller = max(level, granted.audit, key=[*Level].index)
    if fuller is Level.NONE:
        return door
    if who is None and granted.service:
        who = Principal(granted.service)
    return cast("Door", _AuditedDoor(door, who, fuller, granted.told))


class _AuditedDoor:
    """What is not told goes straight through."""

    def __init__(
        self, door: Door, who: Principal | None, level: Level, told: Mapping[str, Any]
    ) -> None:
        self._door = door
        self._who = who
        self._is_full = level is Level.FULL
        self._verdict = told

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
        event, how = request.origin[1:] if request.origin is not None else (0, "import")
        [mark] = ev.decode_turn(request.copied[-1].payload)[:1]
        known: dict[str, Any] = {}
        if isinstance(mark, ev.Forked):  # not of what was imported after its end
            known = {"origin": mark.origin, "origin_run": mark.origin_run}
        facts = {"workflow": request.workflow, "event": event}
        home, id = request.namespace, request.workflow_id
        request.audit = self._line(how, home, id, facts, request.run_id, always=known)
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

    async def put_schedule(self, put: SchedulePut) -> ScheduleRow:
        facts: dict[str, Any] = {}
        if self._is_full:
            before = await self._schedule(put.namespace, put.id)
            after = (put.spec, put.template, put.is_paused, put.note)
            facts = {"before": before and _planned(*before), "after": _planned(*after)}
        line = self._line("schedule.update", put.namespace, f"schedule/{put.id}", facts)
        return await self._door.put_schedule(msgspec.structs.replace(put, audit=line))

    async def steer_schedule(self, steer: ScheduleSteer) -> Happened:
        facts: dict[str, Any] = {}
        if self._is_full:
            before = await self._schedule(steer.namespace, steer.id)
            wish = {name: getattr(steer, name) for name in ("note", "overlap", "after", "before")}
            facts = {
                "before": before and _planned(*before),
                "after": {name: value for name, value in wish.items() if value},
            }
        action, target = f"schedule.{steer.verb}", f"schedule/{steer.id}"
        line = self._line(action, steer.namespace, target, facts)
        return await self._door.steer_schedule(msgspec.structs.replace(steer, audit=line))

    async def _schedule(self, namespace: str, id: str) -> tuple[Spec, Template, bool, str] | None:
        row = await self._door.read(lambda store: store.schedule(id, namespace=namespace))
        return None if row is None else (row.spec, row.template, row.is_paused, row.note)

    def _by(self, name: str) -> Principal | None:
        """Return who is told to have acted: by a name that was given, and believed, whose client
        gave it is told, too.
        """
        who = self._who
        if who is None:
            return Principal(name) if name else None
        if name in ("", who.id):
            return who
        return Principal(name, initiated_by=who.initiated_by or who.id)

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
        if request.is_paused:
            after["paused"] = True
        if request.memo is not None:
            after["memo"] = msgspec.Raw(request.memo)
        if started.messages:
            after["messages"] = [_sent(message) for message in started.messages]
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
        always: Mapping[str, Any] = NOTHING.told,
    ) -> AuditLine:
        """Return the line; ``always``: what it says beside who did what also in a summary."""
        known = {**always, **self._verdict, **(facts if self._is_full else {})}
        return line_by(
            who or self._who,
            action,
            target=target,
            run_id=run_id,
            namespace=namespace,
            decision="allowed" if self._verdict else "",
            data=detail(self._door.chance, known) if known else None,
        )


def _said(fact: ev.Event) -> dict[str, Any]:
    if isinstance(fact, ev.MessageReceived):
        return _sent(fact.message)
    reason = getattr(fact, "reason", "")
    return {"reason": reason} if reason else {}


def _sent(message: ev.Message) -> dict[str, Any]:
    return {"topic": message.topic, "payload": msgspec.Raw(message.payload)}


def _planned(
    spec: Spec, template: Template, is_paused: bool | None, note: str | None
) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(template, builtin_types=(bytes,))
    for name in ("input", "context", "memo"):
        if isinstance(made.get(name), bytes):
            made[name] = msgspec.Raw(made[name])
    return {"spec": spec, "starts": made, "paused": is_paused, "note": note}


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
