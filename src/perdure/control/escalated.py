"""Escalations as operators see them: human tasks in the words of lt.escalations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from perdure.client import Client
from perdure.control.results import Refused
from perdure.errors import Invalid
from perdure.human.escalation import SEARCH, companion
from perdure.store.port import RunRow
from perdure.values.people import HumanTaskStatus
from perdure.values.states import Status
from perdure.worklist import HumanTask

STATUSES: Final = {
    "pending": (HumanTaskStatus.OPEN, HumanTaskStatus.CLAIMED),
    "resolved": (HumanTaskStatus.COMPLETED, HumanTaskStatus.REJECTED),
    "cancelled": (HumanTaskStatus.CANCELLED,),
    "expired": (HumanTaskStatus.EXPIRED,),
}
"""The page's words, and what they stand for."""
_WORDS: Final = {status: word for word, several in STATUSES.items() for status in several}
_OPEN: Final = tuple(status for status in Status if not status.is_terminal)
RAISED: Final = "perdure.escalation"
"""The name of human tasks that were raised with more than a payload."""


class Raised(msgspec.Struct, omit_defaults=True):
    """What is kept as the data of one that was raised with more than a payload."""

    payload: Any = None
    subtype: str = ""
    metadata: dict[str, Any] = {}


def word_for(status: HumanTaskStatus) -> str:
    """Return a status in the page's words."""
    return _WORDS[status]


def statuses_of(given: Any, *, available: bool | None) -> tuple[HumanTaskStatus, ...]:
    """Return what a list asks for; nothing left of it is an empty tuple.

    ``given``: one of the page's words, or several; pending if left out. ``available``: of those
    that are pending only what nobody holds, or only what somebody does.

    Raises:
        Invalid: an unknown status.
    """
    words: Iterable[Any] = (given,) if isinstance(given, str) else ("pending",)
    if given is not None and not isinstance(given, str):
        if not isinstance(given, Iterable):
            raise Invalid(f"status: {given!r} is no status")
        words = cast("Iterable[Any]", given)
    found: list[HumanTaskStatus] = []
    for word in words:
        name = "cancelled" if word == "canceled" else word
        if name not in STATUSES:
            raise Invalid(f"status: {word!r} is unknown; use {', '.join(STATUSES)}")
        found += STATUSES[name]
    if available is not None and type(available) is not bool:
        raise Invalid(f"available: {available!r} is neither True nor False")
    if available is not None:
        only = HumanTaskStatus.OPEN if available else HumanTaskStatus.CLAIMED
        found = [status for status in found if status is only]
    return tuple(dict.fromkeys(found))


def type_of(task: HumanTask) -> str:
    """Return of which workflow type an escalation is, or of which type it was raised."""
    return task.type if is_companion(task) or not task.workflow else task.workflow


def is_companion(task: HumanTask) -> bool:
    """Tell whether the run that is asked for has ended, and is started again with the answer."""
    return task.workflow == companion.name


def asker_of(task: HumanTask) -> str:
    """Return the workflow id of the run that asked; empty if it was raised by hand."""
    return task.name if is_companion(task) else task.workflow_id


def record(task: HumanTask) -> dict[str, Any]:
    """Return an escalation with the page's fields. Times are aware datetimes in UTC.

    ``outcome``: what it is more exactly, "open" or "rejected" say. ``assigned_to``: who holds it,
    or to whom it is assigned, or who decided it.
    """
    raised = _raised(task)
    is_ours = is_companion(task)
    return {
        "id": task.id,
        "type": task.type or task.workflow,
        "subtype": raised.subtype or task.type or task.workflow,
        "title": task.title,
        "description": task.description,
        "status": word_for(task.status),
        "outcome": str(task.status),
        "available": task.status is HumanTaskStatus.OPEN,
        "priority": task.priority,
        "role": task.role,
        "workflow_id": asker_of(task) or None,
        "workflow_type": type_of(task) if task.workflow else None,
        "run_id": (task.workflow_id.rpartition("/")[2] if is_ours else task.run_id) or None,
        "assigned_to": task.claimed_by or task.assignee or task.closed_by,
        "assigned_until": task.claimed_until,
        "claimed_at": task.claimed_at,
        "resolved_at": task.closed_at,
        "resolved_by": task.closed_by,
        "comment": task.comment,
        "escalation_payload": raised.payload,
        "resolver_payload": task.value,
        "metadata": raised.metadata,
        "form": task.form,
        "form_version": task.form_version,
        "due_at": task.due_at,
        "expires_at": task.expires_at,
        "is_overdue": task.is_overdue,
        "approvers": task.approvers,
        "approvals": len(task.approvals),
        "created_at": task.created_at,
        "created_by": task.created_by,
        "tenant": task.tenant,
    }


def violations(error: Invalid) -> list[dict[str, str]]:
    """Return what of an answer does not fit its form, by field; empty if that is not the error."""
    details: Any = error.details
    if not isinstance(details, Mapping) or "errors" not in details:
        return []
    found: list[Any] = cast("Mapping[str, Any]", details)["errors"]
    return [{"field": one["path"].lstrip("/"), "message": one["message"]} for one in found]


def misfit(told: list[dict[str, str]], text: str) -> Refused:
    """Return the refusal of an answer that does not fit its form."""
    return Refused(422, "schema_validation", text, {"violations": told})


def closed(task: HumanTask) -> Refused:
    """Return the refusal of an act on what has ended."""
    word = word_for(task.status)
    by = f" by {task.closed_by!r}" if task.closed_by else ""
    told = {"id": task.id, "status": word, "by": task.closed_by}
    return Refused(409, f"already_{word}", f"Escalation {task.id} is {word}{by}", told)


async def withdraw(client: Client, row: RunRow, reason: str) -> int:
    """End what asks for runs of a workflow id that have ended with an escalation; return how many.

    Nobody's answer starts them again then. What a run asks itself goes with the run.
    """
    cursor: str | None = None
    ended = 0
    while True:
        page = await client.list(
            workflow=companion.name,
            search={SEARCH: row.workflow_id},
            status=_OPEN,
            namespace=row.namespace,
            cursor=cursor,
        )
        for run in page.items:
            ended += await client.get(run.id, namespace=row.namespace).terminate(reason)
        if (cursor := page.cursor) is None:
            return ended


def _raised(task: HumanTask) -> Raised:
    if task.workflow or task.name != RAISED:
        return Raised(task.data)
    try:
        return msgspec.convert(task.data, Raised)
    except msgspec.ValidationError:
        return Raised(task.data)  # of somebody who has named theirs so
