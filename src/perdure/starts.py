"""What a start is made of: event 1, and what the store must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.definition import Workflow
from perdure.door import Host
from perdure.store.port import StartRequest, StateWrite
from perdure.values import budgets, ids, payload
from perdure.values import events as ev
from perdure.values.duration import soonest, to_text
from perdure.values.labels import check_label, check_tags
from perdure.values.options import REUSE, conflict_policy, one_of, read_resume_by, read_terms
from perdure.values.principals import carrying, check_context, tenant_for
from perdure.values.states import Status
from perdure.values.terms import Deadlines, ends_unbegun, first_deadlines
from perdure.workflow import check_mapping, check_search, recorded_messages


class Starts:
    """Makes starts for a client; who they are for comes from the client alone."""

    def __init__(self, client: Host) -> None:
        self._client = client

    def request(
        self,
        workflow: Any,
        definition: Workflow[Any, Any] | None,
        value: Any,
        options: dict[str, Any],
    ) -> tuple[StartRequest, ev.RunStarted]:
        """Return what the store is asked for, and event 1.

        Raises:
            Invalid: a bad option, or input that does not fit.
            PermissionDenied: the client acts for somebody of another tenant.
        """
        name = definition.name if definition is not None else workflow
        data = payload.encode(value, what=f"input of {name}")
        payload.limit(data, self._client.max_payload, what=f"input of {name}")
        if definition is not None:
            definition.check_input(data, value)
        door = self._client.door
        now = door.now()
        run_id = ids.uuid7(now // 1000, door.chance(10))
        explicit = options.get("id")
        workflow_id = run_id if explicit is None else ids.check_workflow_id(explicit)
        granted = self._client.granted
        terms = granted.terms(read_terms(options))
        deadlines = first_deadlines(terms, now)
        queue = options.get("task_queue") or (definition.task_queue if definition else "default")
        given = check_context(check_mapping(options.get("context") or {}, "context"))
        given = budgets.with_budget(given, options.get("budget"), run_id)
        context = carrying(given, self._client.acts_for) if self._client.acts_for else given
        context = granted.within(context)
        started = ev.RunStarted(
            workflow=name,
            version=options.get("version") or (definition.version if definition else ""),
            workflow_id=workflow_id,
            run_id=run_id,
            seed=door.chance(16),
            input=data,
            code=definition.code if definition else "",
            queue=queue,
            namespace=options.get("namespace") or self._client.namespace,
            context=self._encoded(context, "context"),
            messages=self._messages(options, run_id, now),
            started_at=now,
            first_started_at=now,
            terms=terms,
            not_before=deadlines.not_before,
            run_deadline=deadlines.run,
            execution_deadline=deadlines.execution,
            places=granted.places,
            resume_by=read_resume_by(options, now),
        )
        return self._asked(started, deadlines, options), started

    def _messages(self, options: dict[str, Any], run_id: str, now: int) -> tuple[ev.Message, ...]:
        given = options.get("messages")
        if not given:
            return ()
        sender = _address(options.get("sender"))
        found = recorded_messages(given, sender, now, self._client.max_payload)
        return tuple(
            msgspec.structs.replace(message, id=f"{run_id}/start/{number}")
            for number, message in enumerate(found, start=1)
        )

    def _asked(
        self, started: ev.RunStarted, deadlines: Deadlines, options: dict[str, Any]
    ) -> StartRequest:
        """Return what the store is asked for: event 1 apart, what it must know of the start."""
        memo = check_mapping(options.get("memo") or {}, "memo")
        who = self._client.acts_for
        default = who.id if who is not None else None
        out_of_time = ends_unbegun(started.terms, deadlines)
        return StartRequest(
            workflow=started.workflow,
            workflow_id=started.workflow_id,
            run_id=started.run_id,
            event=b"",
            version=started.version,
            namespace=started.namespace,
            queue=started.queue,
            conflict=conflict_policy(options, is_explicit="id" in options),
            reuse=one_of("id_reuse_policy", options.get("id_reuse_policy"), REUSE),
            not_before=deadlines.not_before,
            key=started.terms.key,
            priority=started.terms.priority,
            deadline=out_of_time,
            state=_paused(started, out_of_time),
            is_eager=options.get("eager", True),
            messages=ev.encode_messages(started.messages),
            created_by=check_label(options.get("created_by") or default, "created_by"),
            correlation_id=check_label(options.get("correlation_id"), "correlation_id"),
            tenant=tenant_for(who, check_label(options.get("tenant"), "tenant")),
            tags=check_tags(options.get("tags") or ()),
            memo=self._encoded(memo, "memo"),
            search=check_search(options.get("search") or {}),
            budget=budgets.own(started.context, started.run_id),
            places=started.places,
            keep_for=started.terms.retention,
            sees=who.tenant if who is not None else "",
        )

    def _encoded(self, given: Mapping[str, Any], what: str) -> bytes | None:
        if not given:
            return None
        return payload.limit(
            payload.encode(dict(given), what=what), self._client.max_payload, what=what
        )


def _paused(started: ev.RunStarted, out_of_time: int) -> StateWrite | None:
    """Return the first state of a run that begins when somebody resumes it; ``None``: others."""
    due = started.resume_by
    if due is None:
        return None
    detail = "it was started paused"
    if due:
        within = to_text(due - started.started_at)
        detail = f"{detail}, and ends unless somebody resumes it within {within}"
    return StateWrite(
        Status.PAUSED,
        owned=False,
        length=1,
        wake_at=soonest(due, out_of_time) or None,
        reason="paused",
        detail=detail,
        unblock="`perdure resume`",
        since=started.started_at,
    )


def _address(sender: Any) -> str:
    address = sender if sender is None or isinstance(sender, str) else sender.id
    return "" if address is None else payload.text(address, what="sender")
