"""Human tasks: their life as a table, and who may do what to one, and when.

Everything that asks "may this happen now?" reads this file: the stores judge by it with the row
locked, clients show what it gives. A claim has an end; one that is over counts as open.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from perdure import errors
from perdure.values.audit import AuditLine
from perdure.values.duration import to_text
from perdure.values.facts import HumanTaskDecided


class HumanTaskStatus(StrEnum):
    """Where a human task stands."""

    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @classmethod
    def _missing_(cls, value: object) -> HumanTaskStatus | None:
        return cls.CANCELLED if value == "canceled" else None

    @property
    def is_open(self) -> bool:
        """Whether somebody may still do it."""
        return self in OPEN


OPEN: Final = frozenset({HumanTaskStatus.OPEN, HumanTaskStatus.CLAIMED})
CLOSED: Final = frozenset(HumanTaskStatus) - OPEN
TRANSITIONS: Final[dict[HumanTaskStatus, frozenset[HumanTaskStatus]]] = {
    HumanTaskStatus.OPEN: frozenset({HumanTaskStatus.CLAIMED} | CLOSED),
    HumanTaskStatus.CLAIMED: frozenset({HumanTaskStatus.OPEN} | CLOSED),
    **dict.fromkeys(CLOSED, frozenset[HumanTaskStatus]()),
}
"""What may follow what. Staying is allowed while it is open: a claim is extended, say."""
CODES: Final = {status: number for number, status in enumerate(HumanTaskStatus)}
"""Small integers for the store. Append only: stored rows hold them."""
BY_CODE: Final = tuple(HumanTaskStatus)
PRIORITY: Final = 2
"""1 is the most urgent, 4 the least."""
PRIORITIES: Final = range(1, 5)


def may(before: HumanTaskStatus, after: HumanTaskStatus) -> bool:
    """Tell whether a human task may go from ``before`` to ``after``."""
    return after in TRANSITIONS[before] or (before is after and before.is_open)


class HumanTaskRow(msgspec.Struct, gc=False):
    """A human task as a store has it. Times in microseconds since 1970; ``form`` and others: JSON.

    ``event``: what opened it, in the history of ``run``. ``assignee``: whose it is, if somebody's
    in particular; ``role``: whose it is otherwise. ``closed_by``: who decided; empty if the run
    gave it up. ``sealed``: why description, form, data, value or comment could not be opened;
    they are empty then.
    """

    id: str
    namespace: str
    run: int
    execution: int
    event: int
    run_id: str
    workflow_id: str
    workflow: str
    status: HumanTaskStatus
    name: str
    title: str
    description: str
    role: str | None
    assignee: str | None
    priority: int
    form: bytes | None
    data: bytes | None
    created_at: int
    due_at: int | None
    remind_at: int | None
    claimed_by: str | None = None
    claimed_at: int | None = None
    claimed_until: int | None = None
    closed_at: int | None = None
    closed_by: str | None = None
    value: bytes | None = None
    comment: str = ""
    sealed: str = ""

    def standing(self, now: int) -> HumanTaskStatus:
        """Return the status: a claim that is over is none."""
        is_over = self.claimed_until is not None and self.claimed_until <= now
        return HumanTaskStatus.OPEN if self.status is _CLAIMED and is_over else self.status

    def is_overdue(self, now: int) -> bool:
        """Tell whether it is late."""
        return self.status.is_open and self.due_at is not None and self.due_at < now


class HumanTaskFilter(msgspec.Struct, gc=False):
    """What a list selects; empty fields do not filter.

    ``for_person``: what is assigned to them or to nobody. ``prefix``: of the id.
    """

    namespace: str = "default"
    status: tuple[HumanTaskStatus, ...] = ()
    role: str = ""
    assignee: str = ""
    for_person: str = ""
    workflow: str = ""
    workflow_id: str = ""
    overdue: bool = False
    prefix: str = ""


class Act(msgspec.Struct, gc=False):
    """What ``by`` does to a human task. ``verb`` is one of VERBS.

    ``until``: of a claim. ``value``: what was entered, as JSON. ``assignee`` and ``role``: whose it
    is from now on. ``audit``: told of it in the same transaction.
    """

    id: str
    verb: str
    by: str
    namespace: str = "default"
    until: int = 0
    value: bytes | None = None
    comment: str = ""
    assignee: str | None = None
    role: str | None = None
    audit: AuditLine | None = None


_OPEN = HumanTaskStatus.OPEN
_CLAIMED = HumanTaskStatus.CLAIMED
VERBS: Final[dict[str, HumanTaskStatus]] = {
    "claim": _CLAIMED,
    "extend": _CLAIMED,
    "release": _OPEN,
    "reassign": _OPEN,
    "complete": HumanTaskStatus.COMPLETED,
    "reject": HumanTaskStatus.REJECTED,
    "cancel": HumanTaskStatus.CANCELLED,
}
"""What each verb makes of a human task."""
_OF_THE_HOLDER = frozenset({"claim", "extend", "release", "complete", "reject"})
_OF_CLAIMS = frozenset({"extend", "release"})


def judge(task: HumanTaskRow, act: Act, now: int) -> HumanTaskRow:
    """Return the human task as it is after the act.

    Raises:
        TaskClosed: it was decided or given up before; the message says by whom and when.
        TaskClaimed: somebody else holds it; or, to extend or release: nobody does.
        TaskDenied: it is assigned to somebody else.
    """
    after = VERBS[act.verb]
    if not may(task.status, after):
        raise errors.TaskClosed(_ended(task, now), details=_details(task))
    if act.verb in _OF_THE_HOLDER:
        _check_holder(task, act, now)
    if after is _CLAIMED:
        since = task.claimed_at if task.standing(now) is _CLAIMED else now
        return msgspec.structs.replace(
            task, status=after, claimed_by=act.by, claimed_at=since, claimed_until=act.until
        )
    free = msgspec.structs.replace(
        task, status=after, claimed_by=None, claimed_at=None, claimed_until=None
    )
    if after is not _OPEN:
        free.closed_at, free.closed_by = now, act.by
        free.value, free.comment = act.value, act.comment
    elif act.verb == "reassign":
        free.assignee, free.role = act.assignee, act.role
    return free


def _check_holder(task: HumanTaskRow, act: Act, now: int) -> None:
    if task.assignee is not None and task.assignee != act.by:
        raise errors.TaskDenied(
            f"human task {task.title!r} ({task.id}) is assigned to {task.assignee!r}, so "
            f"{act.by!r} cannot {act.verb} it; reassign it first",
            details=_details(task),
        )
    is_held = task.standing(now) is _CLAIMED
    if is_held and task.claimed_by != act.by:
        assert task.claimed_until is not None
        raise errors.TaskClaimed(
            f"human task {task.title!r} ({task.id}) is claimed by {task.claimed_by!r} for "
            f"another {to_text(_rounded(task.claimed_until - now))}",
            details=_details(task),
        )
    if act.verb in _OF_CLAIMS and not is_held:
        raise errors.TaskClaimed(
            f"human task {task.title!r} ({task.id}) is not claimed: there is nothing to "
            f"{act.verb}; if {act.by!r} had claimed it, that claim is over",
            details=_details(task),
        )


def decision(task: HumanTaskRow) -> HumanTaskDecided:
    """Return what the run is told of a human task that was decided."""
    assert task.closed_at is not None
    return HumanTaskDecided(
        opened=task.event,
        outcome=str(task.status),
        value=task.value,
        by=task.closed_by or "",
        comment=task.comment,
        at=task.closed_at,
        asked_by=task.run_id,
    )


def awaited(asked: Sequence[Any], due: str) -> str:
    """Say what a run waits for: (title, role, assignee), and ``due``: "in 2h", say."""
    title, role, assignee = asked
    whose = f"assigned to {assignee!r}" if assignee else f"role {role!r}" if role else ""
    told = ", ".join(part for part in (whose, f"due {due}" if due else "") if part)
    return f"a person: {title!r}{f' ({told})' if told else ''}"


def _ended(task: HumanTaskRow, now: int) -> str:
    by = f" by {task.closed_by!r}" if task.closed_by else ""
    if not by and task.status is HumanTaskStatus.CANCELLED:
        by = ": its workflow no longer waits for it"
    past = max(0, now - (task.closed_at or now))
    when = f"{to_text(_rounded(past))} ago" if past >= _SECOND else "just now"
    return f"human task {task.title!r} ({task.id}) was {task.status} {when}{by}"


def _details(task: HumanTaskRow) -> dict[str, object]:
    return {
        "id": task.id,
        "status": str(task.status),
        "by": task.closed_by or task.claimed_by,
        "at": task.closed_at,
    }


_SECOND: Final = 1_000_000


def _rounded(microseconds: int) -> int:
    seconds = max(1, microseconds // _SECOND)
    for least, grain in ((86_400, 3_600), (3_600, 60)):
        if seconds >= least:
            seconds -= seconds % grain
            break
    return seconds * _SECOND
