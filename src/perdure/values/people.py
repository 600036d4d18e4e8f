"""Human tasks: their life as a table, and who may do what to one, and when.

Everything that asks "may this happen now?" reads this file: the stores judge by it with the row
locked, clients show what it gives. A claim has an end; one that is over counts as open. What
happens by the clock alone is in ``overdue.py``, which human tasks a principal reaches in
``reach.py``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import msgspec

from perdure import errors
from perdure.values.audit import AuditLine
from perdure.values.bounds import Bounds
from perdure.values.duration import to_text
from perdure.values.event import Approval
from perdure.values.facts import HumanTaskDecided
from perdure.values.principals import Kind, Principal, Reach
from perdure.values.reach import Sight, readable, writable


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

    ``event``: what opened it, in the history of ``run``; of one that no run asked for, ``run`` and
    ``execution`` are ``None``. ``assignee``: whose it is, if somebody's in particular; ``role``:
    whose it is otherwise. ``closed_by``: who decided; empty if the run gave it up. ``approvals``:
    of those who completed it so far, if ``approvers`` are more than one. ``chain``: which roles it
    still goes to, and when. ``next_at``: when the clock next does something to it. ``expires_at``:
    when it ends if nobody has decided it; 0 for never, ``None`` for the time when it is due.
    ``sealed``: why description, form, data, value, comment or approvals could not be opened; they
    are empty then.
    """

    id: str
    namespace: str
    run: int | None
    execution: int | None
    event: int | None
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
    approvals: tuple[Approval, ...] = ()
    type: str = ""
    approvers: int = 1
    not_by: tuple[str, ...] = ()
    chain: tuple[tuple[str, int], ...] = ()
    next_at: int | None = None
    form_version: int = 0
    created_by: str | None = None
    tenant: str = ""
    expires_at: int | None = None
    sealed: str = ""

    @property
    def ends_at(self) -> int | None:
        """When it expires; ``None`` for never."""
        return self.due_at if self.expires_at is None else self.expires_at or None

    def standing(self, now: int) -> HumanTaskStatus:
        """Return the status: a claim that is over is none."""
        is_over = self.claimed_until is not None and self.claimed_until <= now
        return HumanTaskStatus.OPEN if self.status is _CLAIMED and is_over else self.status

    def is_overdue(self, now: int) -> bool:
        """Tell whether it is late."""
        return self.status.is_open and self.due_at is not None and self.due_at < now


TallyBy = Literal["role", "type"]


class HumanTaskFilter(msgspec.Struct, gc=False):
    """What a list selects; empty fields do not filter.

    ``for_person``: what is assigned to them or to nobody. ``holder``: what is theirs: assigned to
    them, claimed by them, or decided by them. ``roles``: of one of these. ``kind``: of this type,
    or of none and asked by this workflow. ``workflow_prefix``, beside a ``workflow_id``: also what
    executions ask whose ids begin so. ``prefix``: of the id. ``opened_from``, ``closed_from``:
    asked, or ended, since then. ``sight``: only what somebody may read. ``search``: of runs with
    these search attributes.
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
    type: str = ""
    sight: Sight | None = None
    roles: tuple[str, ...] = ()
    priority: int = 0
    holder: str = ""
    kind: str = ""
    workflow_prefix: str = ""
    opened_from: int = 0
    closed_from: int = 0
    search: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Act(msgspec.Struct, gc=False):
    """What ``by`` does to a human task. ``verb`` is one of VERBS.

    ``until``: of a claim. ``value``: what was entered, as JSON. ``assignee`` and ``role``: whose it
    is from now on. ``data``: of an attachment, as JSON. ``who``: the principal that acts; without
    one, whoever calls is trusted. ``is_bulk``: it is one of many, for which a principal must be
    able to change all of the role. ``audit``: told of it in the same transaction. ``begins``: what
    bounds the execution that begins with the answer, if a door has judged it.
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
    data: bytes | None = None
    who: Principal | None = None
    is_bulk: bool = False
    begins: Bounds | None = None

    @property
    def person(self) -> str:
        """For whom it is done: who a service account acts for, else who acts."""
        return (self.who.initiated_by if self.who is not None else "") or self.by


class LogEntry(msgspec.Struct, gc=False, frozen=True):
    """What was done to a human task, by whom and when; ``by`` is empty if the clock did it.

    ``verb``: "claimed", say. ``data``: more of it, as JSON types. ``number``: of the row, 0 for
    what is not written yet.
    """

    at: int
    by: str
    verb: str
    data: dict[str, Any] = {}
    number: int = 0
    sealed: str = ""


class Verb(NamedTuple):
    """``after``: what it makes of a human task; ``None``: what it was. ``told``: its word in the
    log. ``reach``: what a principal must be able to change. ``by_holder``: nobody else's claim or
    assignment may be in the way.
    """

    after: HumanTaskStatus | None
    told: str
    reach: Reach = Reach.ALL
    by_holder: bool = False


_OPEN = HumanTaskStatus.OPEN
_CLAIMED = HumanTaskStatus.CLAIMED
_COMPLETED = HumanTaskStatus.COMPLETED
VERBS: Final[dict[str, Verb]] = {
    "claim": Verb(_CLAIMED, "claimed", Reach.SELF, by_holder=True),
    "extend": Verb(_CLAIMED, "extended", Reach.SELF, by_holder=True),
    "release": Verb(_OPEN, "released", by_holder=True),
    "delegate": Verb(_OPEN, "delegated", Reach.SELF, by_holder=True),
    "reassign": Verb(_OPEN, "reassigned"),
    "escalate": Verb(_OPEN, "escalated"),
    "comment": Verb(None, "commented", Reach.SELF),
    "attach": Verb(None, "attached", Reach.SELF),
    "complete": Verb(_COMPLETED, "completed", Reach.SELF, by_holder=True),
    "reject": Verb(HumanTaskStatus.REJECTED, "rejected", Reach.SELF, by_holder=True),
    "cancel": Verb(HumanTaskStatus.CANCELLED, "cancelled", Reach.SELF),
}
"""What people can do to a human task."""
APPROVED: Final = "approved"
"""The word in the log for who completed it when others still had to."""
_DECIDES = frozenset({"claim", "complete", "reject"})
_OF_CLAIMS = frozenset({"extend", "release"})


def judge(task: HumanTaskRow, act: Act, now: int) -> HumanTaskRow:
    """Return the human task as it is after the act.

    Raises:
        TaskNotFound: the principal may not read it.
        TaskDenied: the principal may not do this; or it is assigned to somebody else; or whoever
            acts is barred from it, or has approved it already.
        TaskClosed: it was decided or given up before; the message says by whom and when.
        TaskClaimed: somebody else holds it; or, to extend or release: nobody does; or, to complete
            or reject: the claim of whoever acts is over.
        Invalid: there is no role to escalate it to.
    """
    verb = VERBS[act.verb]
    if act.who is not None:
        _check_reach(task, act, act.who, now)
    after = verb.after or task.status
    if not may(task.status, after):
        raise errors.TaskClosed(_ended(task, now), details=_details(task))
    if verb.after is None:
        return task
    if act.verb in _DECIDES:
        _check_barred(task, act)
    if verb.by_holder:
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
        _close(free, act, now)
    elif act.verb == "escalate":
        _escalate(free, act)
    elif act.verb != "release":
        _check_given(task, act)
        free.assignee = act.assignee
        free.role = act.role if act.verb == "reassign" and act.role is not None else free.role
    return free


def _close(task: HumanTaskRow, act: Act, now: int) -> None:
    if act.verb == "complete" and task.approvers > 1:
        person = act.person if act.person != act.by else ""
        task.approvals += (Approval(act.by, now, act.value, act.comment, person),)
        if len(task.approvals) < task.approvers:
            task.status, task.assignee = _OPEN, None
            return
    task.next_at = None
    task.closed_at, task.closed_by = now, act.by
    task.value, task.comment = act.value, act.comment


def _escalate(task: HumanTaskRow, act: Act) -> None:
    role = act.role or next((role for role, _ in task.chain), None)
    if role is None:
        raise errors.Invalid(
            f"human task {task.title!r} ({task.id}) has no role that it goes to next: name one"
        )
    roles = [step for step, _ in task.chain]
    # What it skips does not come after all.
    passed = roles.index(role) + 1 if role in roles else 0
    escalated_to(task, role, task.chain[passed:])
    task.next_at = upcoming(task, _NEVER if task.next_at is None else task.next_at)


def escalated_to(task: HumanTaskRow, role: str, chain: tuple[tuple[str, int], ...]) -> None:
    """Make it another role's: nobody has it in particular any more."""
    task.role, task.assignee, task.chain = role, None, chain
    task.claimed_by = task.claimed_at = task.claimed_until = None
    task.status = _OPEN


def upcoming(task: HumanTaskRow, since: int) -> int | None:
    """Return when the clock next does something to it; what it only tells of before ``since`` is
    over.

    A run keeps the time of what it asked for itself, but for escalations.
    """
    times = [at for _, at in task.chain[:1]]
    if task.run is None:
        ends = task.ends_at
        times += [] if ends is None else [ends]
        told = (task.remind_at, task.due_at if task.due_at != ends else None)
        times += [at for at in told if at is not None and at >= since]
    return min(times, default=None)


def _check_reach(task: HumanTaskRow, act: Act, who: Principal, now: int) -> None:
    if not readable(who).sees(task, now):
        raise errors.TaskNotFound(task.id)
    sight, verb = writable(who), VERBS[act.verb]
    is_whole = act.is_bulk or verb.reach is Reach.ALL
    if not (sight.covers(task) if is_whole else sight.sees(task, now)):
        whose = f"of role {task.role!r}" if task.role else "of no role"
        many = ", one of many," if act.is_bulk else ""
        raise errors.TaskDenied(
            f"{who.id!r} may not {act.verb} human task {task.title!r} ({task.id}){many} {whose}",
            details=_details(task),
        )


def _check_barred(task: HumanTaskRow, act: Act) -> None:
    people = {act.by, act.person}
    if people & set(task.not_by):
        raise errors.TaskDenied(
            f"human task {task.title!r} ({task.id}) must not be decided by {act.person!r}",
            details=_details(task),
        )
    if any(_has_given(act, one) for one in task.approvals):
        raise errors.TaskDenied(
            f"human task {task.title!r} ({task.id}) has been completed by {act.person!r} already; "
            f"it takes {task.approvers} different people",
            details=_details(task),
        )


def _has_given(act: Act, one: Approval) -> bool:
    """Tell whether whoever acts has a part in an approval. Two people who are known may act through
    one service account; an account of which nobody knows for whom it acted may have been either.
    """
    shared = {act.by, act.person} & {one.by, one.person}
    is_account = act.who is not None and act.who.kind is Kind.SERVICE
    if is_account and act.by == one.by and act.by != act.person and one.person:
        shared.discard(act.by)
    return bool(shared)


def _check_given(task: HumanTaskRow, act: Act) -> None:
    to = act.assignee
    if to is None:
        return
    barred = "must not be decided" if to in task.not_by else ""
    if any(to in (one.by, one.person) for one in task.approvals):
        barred = "has been completed"
    if barred:
        raise errors.TaskDenied(
            f"human task {task.title!r} ({task.id}) {barred} by {to!r}, so it cannot become theirs",
            details=_details(task),
        )


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
    is_theirs = is_held or (act.verb == "delegate" and task.assignee == act.by)
    if act.verb in _OF_CLAIMS | {"delegate"} and not is_theirs:
        raise errors.TaskClaimed(
            f"human task {task.title!r} ({task.id}) is not claimed: there is nothing to "
            f"{act.verb}; if {act.by!r} had claimed it, that claim is over",
            details=_details(task),
        )
    if act.verb in ("complete", "reject") and not is_held and task.claimed_by == act.by:
        raise errors.TaskClaimed(
            f"the claim of {act.by!r} on human task {task.title!r} ({task.id}) is over, and others "
            f"may be at it; claim it again to {act.verb} it",
            details=_details(task),
        )


def entry(before: HumanTaskRow, act: Act, after: HumanTaskRow, now: int) -> LogEntry:
    """Return what the log says of an act."""
    told = VERBS[act.verb].told
    data: dict[str, Any] = {}
    if act.verb in ("claim", "extend"):
        data = {"until": act.until}
    elif act.verb in ("delegate", "reassign"):
        data = {"assignee": after.assignee, "role": after.role}
    elif act.verb == "escalate":
        data = {"from": before.role, "role": after.role}
    elif act.verb == "attach" and act.data is not None:
        data = msgspec.json.decode(act.data)
    elif len(after.approvals) > len(before.approvals):
        told = told if after.closed_at is not None else APPROVED
        data = {"approvals": len(after.approvals), "approvers": after.approvers}
    if act.comment:
        data["comment"] = act.comment
    if act.person != act.by:
        data["for"] = act.person
    return LogEntry(now, act.by, told, data)


def decision(task: HumanTaskRow, begins: Bounds | None = None) -> HumanTaskDecided:
    """Return what the run is told of a human task that was decided. ``begins``: see the event."""
    assert task.closed_at is not None
    assert task.event is not None
    return HumanTaskDecided(
        opened=task.event,
        outcome=str(task.status),
        value=task.value,
        by=task.closed_by or "",
        comment=task.comment,
        at=task.closed_at,
        asked_by=task.run_id,
        approvals=task.approvals,
        begins=begins,
    )


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
_NEVER: Final = 2**63 - 1


def _rounded(microseconds: int) -> int:
    seconds = max(1, microseconds // _SECOND)
    for least, grain in ((86_400, 3_600), (3_600, 60)):
        if seconds >= least:
            seconds -= seconds % grain
            break
    return seconds * _SECOND
