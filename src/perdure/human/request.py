"""Asking people, in workflow code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, Unpack, overload

import msgspec

from perdure.human.asking import Chain, Options, When, asked
from perdure.human.forms import Form
from perdure.kernel import traps
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.context import ROLE_KEY
from perdure.values.people import PRIORITY
from perdure.workflow.run import context, principal, to_time

T = TypeVar("T")


class Approval(msgspec.Struct, Generic[T], frozen=True):
    """What one person entered who completed a human task. ``person``: for whom ``by`` acted; else
    the same.
    """

    by: str
    at: datetime
    value: T
    comment: str = ""
    person: str = ""


class Decision(msgspec.Struct, Generic[T], frozen=True):
    """What came of a human task.

    ``outcome``: "completed", "rejected", "expired" (its time was over before anybody decided) or
    "cancelled" (somebody took it back). ``value``: what was entered, as the form's type, by the
    last one if several had to; ``None`` unless it was completed. ``by``: who decided, empty if it
    expired; ``at``: when, aware, in UTC. ``approvals``: of all who completed it, in their order;
    also of those before somebody rejected it. ``id``: of the human task.
    """

    outcome: str
    value: T
    by: str
    comment: str
    at: datetime
    approvals: tuple[Approval[T], ...] = ()
    id: str = ""

    @property
    def is_completed(self) -> bool:
        """Whether somebody did what was asked."""
        return self.outcome == "completed"


@overload
async def request(title: str, *, form: type[T], **options: Unpack[Options]) -> Decision[T]: ...
@overload
async def request(
    title: str, *, form: Mapping[str, Any] | None = None, **options: Unpack[Options]
) -> Decision[Any]: ...
async def request(
    title: str,
    *,
    form: Any = None,
    name: str = "",
    description: str = "",
    role: str | None = None,
    group: str | None = None,
    assignee: str | None = None,
    due: When | None = None,
    expires: When | None = None,
    remind: When | None = None,
    priority: int = PRIORITY,
    data: Any = None,
    type: str = "",
    escalate: Chain | None = None,
    approvers: int = 1,
    not_by: str | Iterable[str] = (),
    form_version: int = 0,
) -> Decision[Any]:
    """Ask a person, and wait for the decision.

    The human task is there from the commit in which the run asked. If the wait is cancelled (by a
    timeout, say), it is closed as cancelled; so is every one that is open when the run ends.

    Args:
        title: what is asked, in a few words.
        form: what is to be entered: a type, or a JSON Schema (extra ``human``); anything without.
        name: what programs call it: ``retry(from_step=…)`` finds it whatever the title says.
        description: the whole question.
        role: whose it is, as a group; ``None``: its configuration's default (docs/operations.md).
        group: the same.
        assignee: whose it is; nobody else can do it then.
        due: by when it is to be done (a duration, or an aware datetime), and when it expires.
        expires: when it does instead, later; ``"never"``: it stays open. From ``due`` on it is
            overdue then, and listeners get ``workflow.task.overdue``.
        remind: how long before ``due`` listeners get ``workflow.task.reminder``; without ``due``,
            how long from now; or an aware datetime.
        priority: 1 (the most urgent) to 4.
        data: what the person is shown beside the question; any payload.
        type: what kind it is, in your words, to list by.
        escalate: which roles it goes to if nobody has decided it, and when:
            ``[("lead", "1d"), ("director", "3d")]``. All times count from now; nothing comes after
            it expires. Who has claimed it, or to whom it is assigned, loses it.
        approvers: how many different people must complete it.
        not_by: who must not decide it: :func:`requester`, say.
        form_version: the number of the form, if it has one; shown with it.

    Raises:
        Invalid: an argument that cannot be meant; a decision that does not fit the form's type.
        UsageError: the form is a JSON Schema, and the extra ``human`` is not installed.
    """
    options: Options = {
        "name": name,
        "description": description,
        "role": role,
        "group": group,
        "assignee": assignee,
        "due": due,
        "expires": expires,
        "remind": remind,
        "priority": priority,
        "data": data,
        "type": type,
        "escalate": escalate,
        "approvers": approvers,
        "not_by": not_by,
        "form_version": form_version,
    }
    return (await ask(title, Form(form), options))[0]


async def ask(
    title: str, read: Form, options: Options
) -> tuple[Decision[Any], ev.HumanTaskDecided | None]:
    """Ask a person: see :func:`request`; with the decision comes what was recorded of it."""
    instance = traps.here()
    if not options.get("role") and not options.get("group"):
        options = {**options, "role": context.get(ROLE_KEY)}
    event = asked(
        instance.new_run_id("human"),
        title,
        read,
        now=instance.time,
        max_payload=instance.max_payload,
        options=options,
    )
    decided, id = await traps.human_task(instance, event)
    if decided is None:
        return Decision("expired", None, "", "", to_time(instance.time), (), id), None
    return _decision(decided, read, id), decided


def requester() -> str:
    """Return the person for whom this run was started, or ``""`` if nobody said who that is: the
    principal of the run, or the one for whom it acted.
    """
    who = principal()
    return "" if who is None else who.initiated_by or who.id


def _decision(decided: ev.HumanTaskDecided, form: Form, id: str) -> Decision[Any]:
    is_done = decided.outcome == "completed"
    value = form.read(decided.value or payload.NULL) if is_done else None
    at = to_time(decided.at)
    approvals = tuple(_approval(one, form) for one in decided.approvals)
    if is_done and not approvals:
        approvals = (Approval(decided.by, at, value, decided.comment, decided.by),)
    return Decision(decided.outcome, value, decided.by, decided.comment, at, approvals, id)


def _approval(one: ev.Approval, form: Form) -> Approval[Any]:
    value = form.read(one.value or payload.NULL)
    return Approval(one.by, to_time(one.at), value, one.comment, one.person or one.by)
