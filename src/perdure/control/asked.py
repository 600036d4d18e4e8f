"""What policies are asked of operations: which of their groups a call belongs to, and about what.

Roles, scopes and configurations are asked before (``access.py``); here a start is what a service's
``run`` is, a terminate its ``cancel``, a cron schedule its trigger.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec

from perdure import errors
from perdure.client import Client
from perdure.control.envelope import Envelope
from perdure.judging import Judge, asked_schedule, claims_of, own_caller, sized
from perdure.policy import Guard, Request, Verdict
from perdure.store.port import RunRow
from perdure.timetable import read_spec
from perdure.values import payload
from perdure.values.bounds import Bounds
from perdure.values.options import conflict_policy
from perdure.values.principals import Principal
from perdure.versions import version_to_start
from perdure.workflow import recorded_messages

T = TypeVar("T")


class Listing:
    """What of a look at workflows is shown. ``asked``: who judges, and what was asked and said;
    ``None``: nobody judges, and everything is shown.
    """

    def __init__(self, asked: tuple[Judge, Request, Verdict] | None) -> None:
        self._asked = asked

    async def shown(self, rows: Iterable[T], type_of: Callable[[T], str]) -> list[T]:
        """Return the rows that may be seen."""
        if self._asked is None:
            return list(rows)
        judge, request, verdict = self._asked
        return await judge.shown(rows, verdict, request, lambda row: (type_of(row), ""))


class Asked:
    """Asks, if there is a guard; each call returns by what to act."""

    def __init__(
        self, client: Client, auth: Principal | None, guard: Guard | None, service: str
    ) -> None:
        self._client = client
        self._judge: Judge | None = None
        if guard is not None:
            claims = claims_of(auth) if auth is not None else {}
            name = payload.text(service, what="service")
            self._judge = Judge(client, guard, service=name, claims=claims)

    @property
    def is_judged(self) -> bool:
        """Whether there is somebody to ask."""
        return self._judge is not None

    @asynccontextmanager
    async def start(
        self, type: str, envelope: Envelope, options: Mapping[str, Any]
    ) -> AsyncGenerator[Client]:
        """Ask about a start, made within, and about what it does to a run that is there."""
        judge = self._judge
        if judge is None:
            yield self._client
            return
        await self._existing(options)
        chosen = await self._version(type, options.get("version") or "")
        request = _of_start(judge, type, chosen, envelope, caller=own_caller())
        verdict = await judge.allow("run", request)
        bound = await judge.admit("run", request, verdict)
        try:
            yield bound
        except errors.ConcurrencyLimit as error:
            raise await judge.no_place("run", request, verdict, error) from error

    async def schedule(self, type: str, envelope: Envelope, cron: str, *, is_new: bool) -> Client:
        """Ask about a cron schedule; ``is_new``: it counts for the rate of new ones."""
        judge = self._judge
        if judge is None:
            return self._client
        asked = asked_schedule(read_spec({"cron": cron}), self._client.door.now())
        request = _of_start(judge, type, "", envelope, schedule=asked, caller=own_caller())
        verdict = await judge.allow("trigger", request)
        return await judge.admit("trigger", request, verdict, is_spent=is_new)

    async def end(self, row: RunRow, reason: str) -> Client:
        """Ask about a terminate."""
        judge = self._judge
        if judge is None:
            return self._client
        request, action = judge.about(row, reason=reason), "terminate"
        verdict = await judge.allow("cancel", request, action=action)
        return await judge.admit("cancel", request, verdict, action=action)

    async def send(self, row: RunRow, name: str, given: Any = None) -> Client:
        """Ask about something that a run which waits for it receives."""
        judge = self._judge
        if judge is None:
            return self._client
        request = judge.about(row, signal=name, **sized(given, "payload"))
        return await judge.admit("signal", request, await judge.allow("signal", request))

    async def answer(
        self, id: str, workflow_id: str, type: str, verb: str, given: Any = None, *, begins: bool
    ) -> Client:
        """Ask about a decision on an escalation: a signal ``escalation_VERB`` to what asked for it,
        or (``begins``) the start of what ended with it, which is bound by what is granted here. If
        nobody asked, or who did is gone, nothing is known but the type.
        """
        judge = self._judge
        if judge is None:
            return self._client
        if begins:
            version = ""
            with suppress(errors.NotFound):  # then nothing can begin, which what asks will say
                version = await self._version(type, "")
            start = judge.request(name=type, version=version, **sized(given, "payload"))
            bound = await judge.admit("run", start, await judge.allow("run", start))
            return _beginning(bound, {id: bound.granted.bounds})
        row = None
        if workflow_id:
            row = await self._client.door.find(workflow_id, self._client.namespace)
        name = f"escalation_{verb}"
        if row is not None:
            return await self.send(row, name, given)
        known = sized(given, "payload")
        request = judge.request(name=type, signal=name, instance_id=workflow_id or id, **known)
        return await judge.admit("signal", request, await judge.allow("signal", request))

    async def look(self, row: RunRow) -> None:
        """Ask about a look at a run."""
        if self._judge is not None:
            await self._judge.allow("get_status", self._judge.about(row))

    async def list(self) -> Listing:
        """Ask about a look at what there is; return what says what of it may be seen."""
        judge = self._judge
        if judge is None:
            return Listing(None)
        request = judge.request()
        return Listing((judge, request, await judge.allow("list", request)))

    async def _existing(self, options: Mapping[str, Any]) -> None:
        """Ask about a run that a start would end, or give messages to: it is no way around."""
        home, id = options.get("namespace") or self._client.namespace, options["id"]
        row = await self._client.door.read(lambda store: store.find(id, namespace=home))
        if row is None or row.status.is_terminal:
            return
        way = conflict_policy(options, is_explicit=True)
        if way == "terminate_existing":
            await self.end(row, "")
        elif way == "use_existing":
            messages = options.get("messages") or ()
            recorded_messages(messages, "", 0)  # or they cannot be meant
            for topic, value in messages:
                await self.send(row, topic, value)

    async def _version(self, type: str, version: str) -> str:
        """Return the version that a start would take: conditions read it."""
        door = self._client.door
        known = await door.read(lambda store: store.definitions())
        return version_to_start(known, type, version, lambda one: door.definition(type, one))


def _beginning(client: Client, begins: Mapping[str, Bounds]) -> Client:
    """Return the client whose answers to these human tasks begin executions with such bounds."""
    return client.under(msgspec.structs.replace(client.granted, begins=begins))


def together(client: Client, others: Iterable[Client]) -> Client:
    """Return the client that may do what each of these was let do to its human task."""
    begins = {id: one for other in others for id, one in other.granted.begins.items()}
    return _beginning(client, begins) if begins else client


def _of_start(judge: Judge, type: str, version: str, envelope: Envelope, **more: Any) -> Request:
    size = len(payload.encode(envelope, what=f"envelope of {type}"))
    given = envelope.data
    return judge.request(name=type, version=version, input=given, input_size=size, **more)
