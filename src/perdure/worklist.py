"""Human tasks as people see them, and their logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from perdure import views
from perdure.human import Approval
from perdure.store.port import HumanTaskRow, LogEntry
from perdure.values import payload
from perdure.values.people import HumanTaskStatus


class HumanTask(msgspec.Struct, frozen=True):
    """A human task as lists and details show it. Times are aware UTC datetimes.

    ``status``: a claim that is over is none. ``name``: what programs call it. ``type``: what kind
    it is, in words of the user's. ``form``: a JSON Schema. ``data``: what is shown beside the
    question. ``workflow``, ``workflow_id`` and ``run_id`` are empty if no run asked for it.
    ``expires_at``: when it ends if nobody has decided it by then; ``None`` is never.
    ``created_by``: who raised it, or started its run. ``escalates``: which roles it still goes to,
    and when. ``closed_by``: who decided; ``None`` if the run gave it up. ``value`` and ``comment``:
    of the decision. ``approvals``: of those who have completed it, if ``approvers`` have to.
    ``sealed``: why what people wrote or are shown could not be opened in this process; it is left
    out then.
    """

    id: str
    status: HumanTaskStatus
    title: str
    workflow: str
    workflow_id: str
    run_id: str
    created_at: datetime
    name: str = ""
    description: str = ""
    role: str | None = None
    assignee: str | None = None
    priority: int = 2
    due_at: datetime | None = None
    remind_at: datetime | None = None
    expires_at: datetime | None = None
    is_overdue: bool = False
    claimed_by: str | None = None
    claimed_at: datetime | None = None
    claimed_until: datetime | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    form: Any = None
    data: Any = None
    value: Any = None
    comment: str = ""
    sealed: str = ""
    namespace: str = "default"
    type: str = ""
    approvers: int = 1
    approvals: Sequence[Approval[Any]] = ()
    not_by: Sequence[str] = ()
    escalates: Sequence[tuple[str, datetime]] = ()
    form_version: int = 0
    created_by: str | None = None
    tenant: str = ""


class HumanTaskEntry(msgspec.Struct, frozen=True):
    """What was done to a human task. ``by`` is empty if the clock, or its run, did it.

    ``verb``: "opened", "claimed", "extended", "released", "delegated", "reassigned", "escalated",
    "commented", "attached", "reminded", "overdue", "approved" (of several who have to complete it),
    "completed", "rejected", "cancelled" or "expired". ``data``: more of it; a comment's text is
    under "comment", the end of a claim, an aware datetime, under "until". ``sealed``: why that
    could not be opened here.
    """

    at: datetime
    by: str
    verb: str
    data: dict[str, Any] = {}
    sealed: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """A human task of many that something was not done to, and why; ``code``: of the error."""

    id: str
    code: str
    reason: str


def shown(row: HumanTaskRow, now: int) -> HumanTask:
    """Show a row."""
    same: dict[str, Any] = {
        name: getattr(row, name)
        for name in HumanTask.__struct_fields__
        if name in HumanTaskRow.__struct_fields__
    }
    same["expires_at"] = row.ends_at
    for name in _TIMES:
        same[name] = None if same[name] is None else views.to_datetime(same[name])
    for name in ("form", "data", "value"):
        same[name] = None if same[name] is None else payload.decode(same[name])
    if row.standing(now) is not row.status:
        same |= {"claimed_by": None, "claimed_at": None, "claimed_until": None}
    same |= {"status": row.standing(now), "is_overdue": row.is_overdue(now)}
    same["escalates"] = tuple((role, views.to_datetime(at)) for role, at in row.chain)
    same["approvals"] = tuple(
        Approval(
            one.by,
            views.to_datetime(one.at),
            None if one.value is None else payload.decode(one.value),
            one.comment,
            one.person or one.by,
        )
        for one in row.approvals
    )
    return HumanTask(**same)


def whole_life(row: HumanTaskRow, entries: Sequence[LogEntry]) -> list[HumanTaskEntry]:
    """Return the log of a human task with what its row alone says: that it was opened, and that
    its run gave it up.
    """
    told = [LogEntry(row.created_at, row.created_by or "", "opened"), *entries]
    if row.closed_at is not None and row.closed_by is None and told[-1].verb != "expired":
        told.append(LogEntry(row.closed_at, "", str(row.status)))
    return [
        HumanTaskEntry(views.to_datetime(it.at), it.by, it.verb, _more(it), it.sealed)
        for it in told
    ]


def _more(entry: LogEntry) -> dict[str, Any]:
    until = entry.data.get("until")
    return {**entry.data, "until": views.to_datetime(until)} if until else entry.data


_TIMES = (
    "created_at",
    "due_at",
    "remind_at",
    "expires_at",
    "claimed_at",
    "claimed_until",
    "closed_at",
)
