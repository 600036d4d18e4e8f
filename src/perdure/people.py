"""What people are asked for, and what they do: ``client.human_tasks``.

Who acts is the identity of the client, or ``by=``. Everything is judged in one transaction with the
row locked (``perdure.values.people``), so of two people who decide at once one hears that the other
was first.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol, cast

import msgspec

from perdure import errors, views
from perdure.door import Door
from perdure.human.forms import check_entered
from perdure.store.port import Act, HumanTaskFilter, HumanTaskRow
from perdure.values import limits, payload
from perdure.values.duration import Duration, microseconds
from perdure.values.labels import check_label
from perdure.values.people import HumanTaskStatus
from perdure.views import Page

_CLAIM = "30m"


class Host(Protocol):
    """What this needs of its client."""

    @property
    def door(self) -> Door:
        """Where its calls go."""
        ...

    @property
    def namespace(self) -> str:
        """Where its ids mean something."""
        ...

    @property
    def max_payload(self) -> int:
        """Bytes a payload may have."""
        ...

    @property
    def identity(self) -> str:
        """Who acts."""
        ...


class HumanTask(msgspec.Struct, frozen=True):
    """A human task as lists and details show it. Times are aware UTC datetimes.

    ``status``: a claim that is over is none. ``name``: what programs call it. ``form``: a JSON
    Schema. ``data``: what is shown beside the question. ``closed_by``: who decided; ``None`` if the
    run gave it up. ``value`` and ``comment``: of the decision. ``sealed``: why what people wrote or
    are shown could not be opened in this process; it is left out then.
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


class HumanTasks:
    """See the module's text."""

    def __init__(self, client: Host) -> None:
        self._client = client

    # -- looking -----------------------------------------------------------------------------

    async def list(
        self,
        *,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
        **filters: Any,
    ) -> Page[HumanTask]:
        """List human tasks: those that are open by when they are due, then by age.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            **filters: ``status`` (one or several; open and claimed if left out; with any other the
                newest come first), ``role`` (or ``group``), ``assignee``, ``for_person`` (what is
                assigned to them or to nobody), ``workflow``, ``workflow_id``, ``overdue=True``,
                ``namespace``.
        """
        if not isinstance(cast("Any", limit), int) or not 1 <= limit <= limits.LIST_MAX:
            raise errors.Invalid(f"limit: {limit!r} is not a number from 1 to {limits.LIST_MAX}")
        where = self._filter(filters)
        door, now = self._client.door, self._client.door.now()
        after = await self._row(cursor, where.namespace) if cursor else None
        rows = await door.read(
            lambda store: store.human_tasks(where, now, limit=limit + 1, after=after)
        )
        items = [shown(row, now) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def overdue(self, **filters: Any) -> Page[HumanTask]:
        """List those that are open and late: :meth:`list` with ``overdue=True``."""
        return await self.list(**filters, overdue=True)

    async def get(self, id: str, *, namespace: str | None = None) -> HumanTask:
        """Return a human task.

        Raises:
            TaskNotFound: there is none with this id.
        """
        return self._shown(await self._row(id, namespace))

    # -- acting ------------------------------------------------------------------------------

    async def claim(self, id: str, for_: Duration = _CLAIM, *, by: str | None = None) -> HumanTask:
        """Keep a human task for oneself, for 30 minutes unless ``for_`` says otherwise.

        Until then nobody else can decide it; after that it counts as open. Whoever holds it already
        gets a new span from now.

        Raises:
            TaskClaimed: somebody else holds it.
            TaskClosed, TaskDenied, TaskNotFound: see the class of the error.
        """
        return await self._act(id, "claim", by, until=self._until(for_))

    async def extend(self, id: str, for_: Duration = _CLAIM, *, by: str | None = None) -> HumanTask:
        """Hold on to a claim, for so long from now.

        Raises:
            TaskClaimed: it is not held, or by somebody else.
        """
        return await self._act(id, "extend", by, until=self._until(for_))

    async def release(self, id: str, *, by: str | None = None) -> HumanTask:
        """Give a claim back.

        Raises:
            TaskClaimed: it is not held, or by somebody else.
        """
        return await self._act(id, "release", by)

    async def complete(
        self, id: str, value: Any = None, *, by: str | None = None, comment: str = ""
    ) -> HumanTask:
        """Do what was asked: the run goes on with ``value``. It need not be claimed before.

        When this has returned, the decision is on disk and reaches the run. A step's
        ``validate_submission`` is asked there, and may let the step ask again (docs/people.md).

        Raises:
            Invalid: the value does not fit the form; the message has the path. Nothing was changed.
            TaskClosed: it was decided before; the message says by whom and when.
            TaskClaimed: somebody else holds it.
            TaskDenied: it is assigned to somebody else.
        """
        data = payload.encode(value, what="value")
        payload.limit(data, self._client.max_payload, what="value")
        row = await self._row(id)
        if row.status.is_open:
            check_entered(row.form, data)
        return await self._act(id, "complete", by, value=data, comment=_comment(comment))

    async def reject(self, id: str, reason: str = "", *, by: str | None = None) -> HumanTask:
        """Refuse what was asked: the run goes on with the outcome "rejected".

        Raises:
            TaskClosed, TaskClaimed, TaskDenied: as in :meth:`complete`.
        """
        return await self._act(id, "reject", by, comment=_comment(reason))

    async def reassign(
        self,
        id: str,
        to: str | None = None,
        *,
        group: str | None = None,
        role: str | None = None,
        by: str | None = None,
        reason: str = "",
    ) -> HumanTask:
        """Make it somebody else's: a person's, or a group's. A claim ends with it.

        Raises:
            Invalid: neither or both were given.
        """
        role = role if role is not None else group
        if (to is None) == (role is None):
            raise errors.Invalid("reassign: give either to=, a person, or group=")
        return await self._act(
            id,
            "reassign",
            by,
            assignee=check_label(to, "to"),
            role=check_label(role, "group"),
            comment=_comment(reason),
        )

    async def cancel(self, id: str, reason: str = "", *, by: str | None = None) -> HumanTask:
        """Take it back: the run goes on with the outcome "cancelled"."""
        return await self._act(id, "cancel", by, comment=_comment(reason))

    # -- inside ------------------------------------------------------------------------------

    async def _act(self, id: str, verb: str, by: str | None, **more: Any) -> HumanTask:
        who = self._client.identity if by is None else by
        if not who:
            raise errors.UsageError(
                f"{verb}: say who does it: Client(…, identity=…), Engine(…, identity=…) or by=…"
            )
        namespace = self._client.namespace
        who = payload.text(who, what="by", maximum=limits.LABEL)
        act = Act(payload.text(id, what="id"), verb, who, namespace, **more)
        return self._shown(await self._client.door.act(act))

    async def _row(self, id: str, namespace: str | None = None) -> HumanTaskRow:
        home = namespace or self._client.namespace
        key = payload.text(id, what="id")
        row = await self._client.door.read(lambda store: store.human_task(key, namespace=home))
        if row is None:
            raise errors.TaskNotFound(id)
        return row

    def _shown(self, row: HumanTaskRow) -> HumanTask:
        return shown(row, self._client.door.now())

    def _until(self, span: Duration) -> int:
        claimed = microseconds(span, what="for_")
        if not claimed:
            raise errors.Invalid("for_: a claim of no time at all is none")
        return self._client.door.now() + claimed

    def _filter(self, given: dict[str, Any]) -> HumanTaskFilter:
        values = {key: value for key, value in given.items() if value is not None}
        if "group" in values:
            values["role"] = values.pop("group")
        if unknown := set(values) - set(HumanTaskFilter.__struct_fields__):
            raise errors.Invalid(f"list: unknown filter {', '.join(sorted(unknown))}")
        status: Any = values.get("status", ())
        try:
            several = [status] if isinstance(status, str) else list(status)
            values["status"] = tuple(HumanTaskStatus(one) for one in several)
        except (TypeError, ValueError) as exc:
            names = ", ".join(HumanTaskStatus)
            raise errors.Invalid(f"status: {exc}; use {names}") from exc
        values["workflow"] = getattr(values.get("workflow", ""), "name", values.get("workflow", ""))
        try:
            return msgspec.convert({"namespace": self._client.namespace, **values}, HumanTaskFilter)
        except msgspec.ValidationError as exc:
            raise errors.Invalid(f"list: {exc}") from exc


def shown(row: HumanTaskRow, now: int) -> HumanTask:
    """Show a row."""
    same: dict[str, Any] = {
        name: getattr(row, name)
        for name in HumanTask.__struct_fields__
        if name in HumanTaskRow.__struct_fields__
    }
    for name in _TIMES:
        same[name] = None if same[name] is None else views.to_datetime(same[name])
    for name in ("form", "data", "value"):
        same[name] = None if same[name] is None else payload.decode(same[name])
    if row.standing(now) is not row.status:
        same |= {"claimed_by": None, "claimed_at": None, "claimed_until": None}
    same |= {"status": row.standing(now), "is_overdue": row.is_overdue(now)}
    return HumanTask(**same)


_TIMES = (
    "created_at",
    "due_at",
    "remind_at",
    "claimed_at",
    "claimed_until",
    "closed_at",
)


def _comment(text: str) -> str:
    return payload.text(text, what="comment", maximum=limits.REASON)
