"""Asking people, in workflow code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

import msgspec

from perdure import errors
from perdure.human.forms import Form
from perdure.kernel import traps
from perdure.kernel.instance import Instance
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import Duration, microseconds
from perdure.values.labels import check_label
from perdure.values.limits import LABEL, REASON
from perdure.values.people import PRIORITIES, PRIORITY
from perdure.workflow.run import to_time

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

When = Duration | datetime
"""A duration from now on, or an aware datetime."""


class Decision(msgspec.Struct, Generic[T], frozen=True):
    """What came of a human task.

    ``outcome``: "completed", "rejected", "expired" (it was due before anybody decided) or
    "cancelled" (somebody took it back). ``value``: what was entered, as the form's type; ``None``
    unless it was completed. ``by``: who decided, empty if it expired; ``at``: when, aware, in UTC.
    """

    outcome: str
    value: T
    by: str
    comment: str
    at: datetime

    @property
    def is_completed(self) -> bool:
        """Whether somebody did what was asked."""
        return self.outcome == "completed"


class _Options(TypedDict, total=False):
    name: str
    description: str
    role: str | None
    group: str | None
    assignee: str | None
    due: When | None
    remind: When | None
    priority: int
    data: Any


@overload
async def request(title: str, *, form: type[T], **options: Unpack[_Options]) -> Decision[T]: ...
@overload
async def request(
    title: str, *, form: Mapping[str, Any] | None = None, **options: Unpack[_Options]
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
    remind: When | None = None,
    priority: int = PRIORITY,
    data: Any = None,
) -> Decision[Any]:
    """Ask a person, and wait for the decision.

    The human task is there from the commit in which the run asked. If the wait is cancelled (a
    timeout, a race that something else has won), it is closed as cancelled; so is every one that is
    open when the run ends.

    Args:
        title: what is asked, in a few words.
        form: what is to be entered: a type, or a JSON Schema (extra ``human``); anything without.
        name: what programs call it: ``retry(from_step=…)`` finds it whatever the title says.
        description: the whole question.
        role: whose it is, as a group of people.
        group: the same.
        assignee: whose it is; nobody else can do it then.
        due: when it expires: a duration, or an aware datetime.
        remind: how long before ``due`` listeners get ``workflow.task.reminder``; without ``due``,
            how long from now; or an aware datetime.
        priority: 1 (the most urgent) to 4.
        data: what the person is shown beside the question; any payload.

    Raises:
        Invalid: an argument that cannot be meant; a decision that does not fit the form's type.
        UsageError: the form is a JSON Schema, and the extra ``human`` is not installed.
    """
    instance = traps.here()
    read = Form(form)
    if role is not None and group is not None and role != group:
        raise errors.Invalid(f"role {role!r} and group {group!r} mean the same: give one")
    if not payload.text(title, what="title", maximum=LABEL):
        raise errors.Invalid("title: it is empty; say in a few words what is asked")
    if type(priority) is not int or priority not in PRIORITIES:
        raise errors.Invalid(f"priority: {priority!r} is not a number from 1 (urgent) to 4")
    due_at = _time_of(due, instance, "due")
    event = ev.HumanTaskOpened(
        id=instance.new_run_id("human"),
        title=title,
        name=payload.text(name, what="name", maximum=LABEL),
        description=payload.text(description, what="description", maximum=REASON),
        role=check_label(role if role is not None else group, "role"),
        assignee=check_label(assignee, "assignee"),
        priority=priority,
        form=read.schema and payload.limit(read.schema, instance.max_payload, what="form"),
        data=None if data is None else _encoded(data, instance),
        due=due_at,
        remind=_reminder(remind, due_at, instance),
    )
    decided = await traps.human_task(instance, event)
    if decided is None:
        return Decision("expired", None, "", "", to_time(instance.time))
    is_done = decided.outcome == "completed"
    value = read.read(decided.value or payload.NULL) if is_done else None
    return Decision(decided.outcome, value, decided.by, decided.comment, to_time(decided.at))


def _encoded(data: Any, instance: Instance) -> bytes:
    return payload.limit(payload.encode(data, what="data"), instance.max_payload, what="data")


def _time_of(given: When | None, instance: Instance, what: str) -> int:
    """Return a time in microseconds; 0 if none is given."""
    if given is None:
        return 0
    if not isinstance(given, datetime):
        return instance.time + microseconds(given, what=what)
    if given.tzinfo is None:
        raise errors.Invalid(f"{what}: {given!r} has no time zone")
    return (given - _EPOCH) // _MICROSECOND


def _reminder(given: When | None, due: int, instance: Instance) -> int:
    if given is None or isinstance(given, datetime) or not due:
        return _time_of(given, instance, "remind")
    at = due - microseconds(given, what="remind")
    if at <= instance.time:
        raise errors.Invalid(f"remind: {given} before it is due is before it is asked")
    return at


_MICROSECOND = datetime.resolution
