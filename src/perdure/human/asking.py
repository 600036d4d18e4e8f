"""What is asked of people, checked and written down: by a run, or by somebody who raises it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from perdure import errors
from perdure.human.forms import Form
from perdure.values import events as ev
from perdure.values import payload
from perdure.values.duration import Duration, microseconds
from perdure.values.event import PLAIN
from perdure.values.labels import check_name, check_text
from perdure.values.limits import REASON
from perdure.values.people import PRIORITIES, PRIORITY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
APPROVERS = 100
"""The most people that have to complete one human task."""
STEPS = 20
"""The most roles that one human task goes to."""

NEVER = "never"
"""Instead of a time when it expires."""

When = Duration | datetime
"""A duration from now on, or an aware datetime."""
Chain = Mapping[str, When] | Sequence[tuple[str, When]]
"""Which roles a human task goes to, and when: ``[("lead", "1d"), ("director", "3d")]``."""


class Options(TypedDict, total=False):
    """See ``human.request``."""

    name: str
    description: str
    role: str | None
    group: str | None
    assignee: str | None
    due: When | None
    expires: When | None
    remind: When | None
    priority: int
    data: Any
    type: str
    escalate: Chain | None
    approvers: int
    not_by: str | Iterable[str]
    form_version: int


def asked(
    id: str, title: str, form: Form, *, now: int, max_payload: int, options: Options
) -> ev.HumanTaskOpened:
    """Return what is asked, as it is recorded; durations count from ``now``.

    Raises:
        Invalid: an option that cannot be meant.
    """
    given = options.get
    role, group = given("role"), given("group")
    if role and group and role != group:
        raise errors.Invalid(f"role {role!r} and group {group!r} mean the same: give one")
    if not check_text(title, "title"):
        raise errors.Invalid("title: it is empty; say in a few words what is asked")
    priority = given("priority", PRIORITY)
    if type(priority) is not int or priority not in PRIORITIES:
        raise errors.Invalid(f"priority: {priority!r} is not a number from 1 (urgent) to 4")
    due, data = _time_of(given("due"), now, "due"), given("data")
    expires = _end_of(given("expires"), due, now)
    not_by = names(given("not_by", ()), "not_by")
    if given("assignee") in not_by:
        raise errors.Invalid(f"assignee: {given('assignee')!r} is among not_by")
    handling = ev.Handling(
        type=check_text(given("type", ""), "type"),
        escalate=_chain(given("escalate"), now, due if expires is None else expires),
        approvers=_number(given("approvers", 1), 1, APPROVERS, "approvers"),
        not_by=not_by,
        form_version=_number(given("form_version", 0), 0, 2**31, "form_version"),
        expires=expires,
    )
    return ev.HumanTaskOpened(
        id=id,
        title=title,
        name=check_text(given("name", ""), "name"),
        description=check_text(given("description", ""), "description", REASON),
        role=_whose(role, "role") or _whose(group, "group"),
        assignee=_whose(given("assignee"), "assignee"),
        priority=priority,
        form=form.schema and payload.limit(form.schema, max_payload, what="form"),
        data=None if data is None else _encoded(data, max_payload),
        due=due,
        remind=_reminder(given("remind"), due, now),
        handling=PLAIN if handling == PLAIN else handling,
    )


def names(given: Any, what: str) -> tuple[str, ...]:
    """Return one name, or several, as a tuple; empty ones are left out.

    Raises:
        Invalid: it is neither.
    """
    several: Any = (given,) if isinstance(given, str) else given
    if not isinstance(several, Iterable) or isinstance(several, Mapping):
        raise errors.Invalid(f"{what}: {given!r} is neither a name nor a list of names")
    found = [check_text(one, what) for one in cast("Iterable[Any]", several)]
    return tuple(dict.fromkeys(one for one in found if one))


def _whose(given: Any, what: str) -> str | None:
    """Return a name; ``None`` of none, or of an empty one."""
    return None if given is None or given == "" else check_name(given, what)


def _chain(given: Any, now: int, end: int) -> tuple[tuple[str, int], ...]:
    """Return the steps of a chain that come before its end; each has a time of its own."""
    if given is None:
        return ()
    pairs = cast("Any", given).items() if isinstance(given, Mapping) else given
    steps: list[tuple[str, int]] = []
    for place, pair in enumerate(_listed(pairs)):
        what = f"escalate[{place}]"
        try:
            role, after = pair
        except (TypeError, ValueError):
            raise errors.Invalid(f'{what}: {pair!r} is not (role, when): ("lead", "1d")') from None
        if role == "":
            raise errors.Invalid(f"{what}: the role is empty")
        check_name(role, what)
        at = _time_of(after, now, what)
        if steps and at <= steps[-1][1]:
            raise errors.Invalid(
                f"{what}: it goes to {role!r} no later than to {steps[-1][0]!r}; every time counts "
                "from when it is asked"
            )
        steps.append((role, at))
    if len(steps) > STEPS:
        raise errors.Invalid(f"escalate: {len(steps)} steps are over the limit of {STEPS}")
    return tuple(step for step in steps if not end or step[1] < end)


def _listed(given: Any) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise errors.Invalid(f'escalate: {given!r} is no list of (role, when): [("lead", "1d")]')
    return list(cast("Iterable[Any]", given))


def _number(given: Any, least: int, most: int, what: str) -> int:
    if type(given) is not int or not least <= given <= most:
        raise errors.Invalid(f"{what}: {given!r} is not a whole number from {least} to {most}")
    return given


def _encoded(data: Any, max_payload: int) -> bytes:
    return payload.limit(payload.encode(data, what="data"), max_payload, what="data")


def _time_of(given: When | None, now: int, what: str) -> int:
    """Return a time in microseconds; 0 if none is given."""
    if given is None:
        return 0
    if not isinstance(given, datetime):
        return now + microseconds(given, what=what)
    if given.tzinfo is None:
        raise errors.Invalid(f"{what}: {given!r} has no time zone")
    return (given - _EPOCH) // _MICROSECOND


def _end_of(given: When | None, due: int, now: int) -> int | None:
    """Return when it expires: 0 for never, ``None`` for when it is due."""
    if given == NEVER:
        return 0 if due else None
    if given is None or (at := _time_of(given, now, "expires")) == due:
        return None
    if at < due:
        raise errors.Invalid(f"expires: {given} is before it is due; it would be over by then")
    return at


def _reminder(given: When | None, due: int, now: int) -> int:
    if given is None or isinstance(given, datetime) or not due:
        return _time_of(given, now, "remind")
    at = due - microseconds(given, what="remind")
    if at <= now:
        raise errors.Invalid(f"remind: {given} before it is due is before it is asked")
    return at
