"""What people are asked for, and what they do: ``client.human_tasks``.

Who acts is the identity of the client, or ``by=``: a name, which is believed, or a principal, whose
roles are asked. Everything is judged in one transaction with the row locked
(``perdure.values.people``), so of two people who decide at once one hears that the other was first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack, cast

import msgspec

from perdure import errors
from perdure.human.asking import Options, asked
from perdure.human.forms import Form, check_entered
from perdure.many import CLAIM, Acting, Actor, Many, comment_of
from perdure.store.port import Act, HumanTaskFilter, HumanTaskRaise, HumanTaskRow, LogEntry
from perdure.values import ids, limits, payload
from perdure.values.duration import Duration
from perdure.values.labels import check_name, check_text
from perdure.values.people import HumanTaskStatus, TallyBy, judge
from perdure.values.principals import Principal
from perdure.values.reach import Sight, readable, writable
from perdure.views import Page
from perdure.workflow import check_search
from perdure.worklist import HumanTask, HumanTaskEntry, Skipped, shown, whole_life

__all__ = ["HumanTask", "HumanTaskEntry", "HumanTasks", "Many", "Skipped"]
_LOG_PAGE = 1_000


class HumanTasks(Acting):
    """See the module's text."""

    # -- looking -----------------------------------------------------------------------------

    async def list(
        self,
        *,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
        for_: Principal | None = None,
        **filters: Any,
    ) -> Page[HumanTask]:
        """List human tasks: those that are open by when they are due, then by age.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            for_: only what this principal may read.
            **filters: ``status`` (one or several; open and claimed if left out; with any other the
                newest come first), ``role`` (or ``group``), ``assignee``, ``for_person`` (what is
                assigned to them or to nobody), ``holder`` (what is assigned to them, claimed or was
                decided by them), ``roles`` (of one of these), ``type``, ``priority``, ``workflow``,
                ``workflow_id``, ``search`` (of runs with these search attributes),
                ``overdue=True``, ``namespace``.
        """
        if not isinstance(cast("Any", limit), int) or not 1 <= limit <= limits.LIST_MAX:
            raise errors.Invalid(f"limit: {limit!r} is not a number from 1 to {limits.LIST_MAX}")
        where = self._filter(filters, for_)
        door, now = self._client.door, self._client.door.now()
        after = await self._row(cursor, where.namespace) if cursor else None
        rows = await door.read(
            lambda store: store.human_tasks(where, now, limit=limit + 1, after=after)
        )
        items = [shown(row, now) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def count(self, *, for_: Principal | None = None, **filters: Any) -> int:
        """Count what :meth:`list` would list, with the same filters."""
        where, now = self._filter(filters, for_), self._client.door.now()
        return await self._client.door.read(lambda store: store.count_human_tasks(where, now))

    async def tally(
        self, by: TallyBy, *, for_: Principal | None = None, **filters: Any
    ) -> dict[str, int]:
        """Count what :meth:`list` would list, for each role or each type; ``""`` has none. What has
        no type of its own has that of its workflow, whose name it is.
        """
        if by not in ("role", "type"):
            raise errors.Invalid(f"tally: by {by!r}; use role, type")
        where, now = self._filter(filters, for_), self._client.door.now()
        return await self._client.door.read(lambda store: store.tally_human_tasks(where, now, by))

    async def overdue(self, **filters: Any) -> Page[HumanTask]:
        """List those that are open and late: :meth:`list` with ``overdue=True``."""
        return await self.list(**filters, overdue=True)

    async def get(
        self, id: str, *, namespace: str | None = None, for_: Principal | None = None
    ) -> HumanTask:
        """Return a human task.

        Raises:
            TaskNotFound: there is none with this id, or ``for_`` may not read it.
        """
        return self._shown(await self._row(id, namespace, for_))

    async def log(
        self, id: str, *, namespace: str | None = None, for_: Principal | None = None
    ) -> list_[HumanTaskEntry]:
        """Return the whole life of a human task, comments and attachments included, oldest first.

        Raises:
            TaskNotFound: as in :meth:`get`.
        """
        row = await self._row(id, namespace, for_)
        entries: list_[LogEntry] = []
        after: int | None = 0
        while after is not None:
            page = await self._client.door.read(
                lambda store, after=after: store.human_log(row.id, after=after, limit=_LOG_PAGE)
            )
            entries += page
            after = page[-1].number if len(page) == _LOG_PAGE else None
        return whole_life(row, entries)

    # -- acting ------------------------------------------------------------------------------

    async def create(
        self,
        title: str,
        *,
        form: Any = None,
        payload: Any = None,
        id: str = "",
        by: Actor = None,
        **options: Unpack[Options],
    ) -> HumanTask:
        """Raise a human task that no workflow asks for: for somebody to deal with, by hand.

        It is claimed, decided and escalated as any other, and expires when it is due, or as
        ``expires`` says; nobody is told of the decision but its log and whoever looks.

        Args:
            title: what is asked, in a few words.
            form: what is to be entered, as in ``human.request``.
            payload: what is shown beside the question; the same as ``data``.
            id: a UUID of its own; the same call again gives the same human task.
            by: who raises it; a principal must be able to change all of the role.
            **options: ``role``, ``type``, ``due``, ``escalate``, ``priority`` and the others of
                ``human.request``.

        Raises:
            TaskDenied: the principal may not.
            Conflict: the id is another one's: of another title, type or tenant, or a run's.
        """
        name, who = self._who("create", by)
        door, now = self._client.door, self._client.door.now()
        if payload is not None:
            if options.get("data") is not None:
                raise errors.Invalid("payload and data mean the same: give one")
            options["data"] = payload
        id = check_name(id, "id") if id != "" else ids.uuid7(now // 1000, door.chance(10))
        limit = self._client.max_payload
        event = asked(id, title, Form(form), now=now, max_payload=limit, options=options)
        if who is not None and not writable(who).covers_role(event.role):
            raise errors.TaskDenied(f"{who.id!r} may not raise human tasks of role {event.role!r}")
        tenant = who.tenant if who is not None else ""
        wanted = HumanTaskRaise(id, event, self._client.namespace, name, tenant)
        row = await door.raise_human_task(wanted)
        # It may have been there before, and have gone where its raiser cannot follow.
        if who is not None and row.created_by != name and not readable(who).sees(row, now):
            raise errors.Conflict(f"human task {id!r} is another one: choose another id")
        return self._shown(row)

    async def claim(self, id: str, for_: Duration = CLAIM, *, by: Actor = None) -> HumanTask:
        """Keep a human task for oneself, for 30 minutes unless ``for_`` says otherwise.

        Until then nobody else can decide it; after that it counts as open. Whoever holds it already
        gets a new span from now.

        Raises:
            TaskClaimed: somebody else holds it.
            TaskClosed, TaskDenied, TaskNotFound: see the class of the error.
        """
        return await self._act(id, "claim", by, until=self._until(for_))

    async def extend(self, id: str, for_: Duration = CLAIM, *, by: Actor = None) -> HumanTask:
        """Hold on to a claim, for so long from now.

        Raises:
            TaskClaimed: it is not held, or by somebody else.
        """
        return await self._act(id, "extend", by, until=self._until(for_))

    async def release(self, id: str, *, by: Actor = None) -> HumanTask:
        """Give a claim back.

        Raises:
            TaskClaimed: it is not held, or by somebody else.
        """
        return await self._act(id, "release", by)

    async def check(self, id: str, verb: str, *, by: Actor = None) -> None:
        """See whether ``verb`` ("complete", say) may be done now, and do nothing.

        Raises:
            TaskClosed, TaskClaimed, TaskDenied, TaskNotFound: as what does it.
        """
        judge(await self._row(id), self._made(id, verb, by), self._client.door.now())

    async def complete(
        self,
        id: str,
        value: Any = None,
        *,
        by: Actor = None,
        comment: str = "",
        form: Mapping[str, Any] | None = None,
    ) -> HumanTask:
        """Do what was asked: the run goes on with ``value``. It need not be claimed before.

        When this has returned, the decision is on disk and reaches the run. If several people have
        to complete it, it is open for the next one until there are enough. A step's
        ``validate_submission`` is asked there, and may let the step ask again (docs/people.md).
        ``form``: a JSON Schema that holds if the human task has no form.

        Raises:
            Invalid: the value does not fit the form; the message has the path. Nothing was changed.
            TaskClosed: it was decided before; the message says by whom and when.
            TaskClaimed: somebody else holds it.
            TaskDenied: it is assigned to somebody else.
        """
        act = self._made(id, "complete", by, comment=comment_of(comment))
        act.value = self._encoded(value)
        row = await self._row(id)
        if act.who is not None:
            judge(row, act, self._client.door.now())  # who may not, does not hear of the form
        if row.status.is_open:
            own = Form(form).schema if row.form is None else row.form
            check_entered(own, act.value)
        return self._shown(await self._client.door.act(act))

    async def reject(self, id: str, reason: str = "", *, by: Actor = None) -> HumanTask:
        """Refuse what was asked: the run goes on with the outcome "rejected".

        Raises:
            TaskClosed, TaskClaimed, TaskDenied: as in :meth:`complete`.
        """
        return await self._act(id, "reject", by, comment=comment_of(reason))

    async def reassign(
        self,
        id: str,
        to: str | None = None,
        *,
        group: str | None = None,
        role: str | None = None,
        by: Actor = None,
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
            assignee=None if to is None else check_name(to, "to"),
            role=None if role is None else check_name(role, "group"),
            comment=comment_of(reason),
        )

    async def cancel(self, id: str, reason: str = "", *, by: Actor = None) -> HumanTask:
        """Take it back: the run goes on with the outcome "cancelled"."""
        return await self._act(id, "cancel", by, comment=comment_of(reason))

    async def delegate(self, id: str, to: str, *, reason: str = "", by: Actor = None) -> HumanTask:
        """Give it to another person: whoever has claimed it, or to whom it is assigned, can.

        Raises:
            TaskClaimed: it is not claimed by, or assigned to, whoever does it.
        """
        given = {"assignee": check_name(to, "to"), "comment": comment_of(reason)}
        return await self._act(id, "delegate", by, **given)

    async def escalate(
        self,
        id: str,
        to: str | None = None,
        *,
        reason: str = "",
        by: Actor = None,
        next_role: Callable[[str | None], str | None] | None = None,
    ) -> HumanTask:
        """Give it to another role now. Nobody has it in particular any more: a claim ends.

        Args:
            id: of the human task.
            to: the role; without it the next of its own steps.
            reason: for the log.
            by: who does it; a principal must be able to change all of the present role.
            next_role: gives the role that follows one, where the human task has no more steps.

        Raises:
            Invalid: there is no role to go to.
        """
        role = None if to is None else check_name(to, "to")
        if role is None and next_role is not None:
            row = await self._row(id)
            role = None if row.chain else next_role(row.role)
        return await self._act(id, "escalate", by, role=role, comment=comment_of(reason))

    async def comment(self, id: str, text: str, *, by: Actor = None) -> HumanTask:
        """Say something about it, while it is open; :meth:`log` has it."""
        if not comment_of(text, "text"):
            raise errors.Invalid("text: it is empty")
        return await self._act(id, "comment", by, comment=text)

    async def attach(
        self,
        id: str,
        name: str,
        uri: str,
        *,
        media_type: str = "",
        size: int | None = None,
        digest: str = "",
        by: Actor = None,
    ) -> HumanTask:
        """Refer to a document, while it is open; :meth:`log` has it. It stays where it is.

        Args:
            id: of the human task.
            name: what people call the document.
            uri: where it is; it is shown as it is, and never fetched.
            media_type: ``"application/pdf"``, say.
            size: in bytes.
            digest: of its bytes: ``"sha256:…"``.
            by: who does it.
        """
        texts = {"name": name, "uri": uri, "media_type": media_type, "digest": digest}
        told: dict[str, Any] = {
            what: check_text(text, what, limits.REASON)
            for what, text in texts.items()
            if text or what in ("name", "uri")
        }
        if not name or not uri:
            raise errors.Invalid(f"{'name' if not name else 'uri'}: it is empty")
        if size is not None:
            if type(size) is not int or size < 0:
                raise errors.Invalid(f"size: {size!r} is no number of bytes")
            told["size"] = size
        return await self._act(id, "attach", by, data=payload.encode(told, what="attachment"))

    # -- inside ------------------------------------------------------------------------------

    def _made(self, id: str, verb: str, by: Actor, **more: Any) -> Act:
        name, who = self._who(verb, by)
        home = self._client.namespace
        begins = self._client.granted.begins.get(id)
        return Act(payload.text(id, what="id"), verb, name, home, who=who, begins=begins, **more)

    async def _act(self, id: str, verb: str, by: Actor, **more: Any) -> HumanTask:
        act = self._made(id, verb, by, **more)
        return self._shown(await self._client.door.act(act))

    async def _row(
        self, id: str, namespace: str | None = None, for_: Principal | None = None
    ) -> HumanTaskRow:
        home = namespace or self._client.namespace
        key = payload.text(id, what="id")
        door = self._client.door
        row = await door.read(lambda store: store.human_task(key, namespace=home))
        sight = _sight(for_)
        if row is None or (sight is not None and not sight.sees(row, door.now())):
            raise errors.TaskNotFound(id)
        return row

    def _filter(self, given: dict[str, Any], for_: Principal | None) -> HumanTaskFilter:
        values = {key: value for key, value in given.items() if value is not None}
        if "group" in values:
            values["role"] = values.pop("group")
        if unknown := set(values) - (set(HumanTaskFilter.__struct_fields__) - {"sight"}):
            raise errors.Invalid(f"list: unknown filter {', '.join(sorted(unknown))}")
        roles: Any = values.get("roles")
        if isinstance(roles, list | tuple | set | frozenset) and not roles:
            values["roles"] = ("",)  # of none of them, which no human task is
        if "search" in values:
            values["search"] = check_search(values["search"])
        status: Any = values.get("status", ())
        try:
            several = [status] if isinstance(status, str) else list(status)
            values["status"] = tuple(HumanTaskStatus(one) for one in several)
        except (TypeError, ValueError) as exc:
            names = ", ".join(HumanTaskStatus)
            raise errors.Invalid(f"status: {exc}; use {names}") from exc
        values["workflow"] = getattr(values.get("workflow", ""), "name", values.get("workflow", ""))
        try:
            where = msgspec.convert(
                {"namespace": self._client.namespace, **values}, HumanTaskFilter
            )
        except msgspec.ValidationError as exc:
            raise errors.Invalid(f"list: {exc}") from exc
        where.sight = _sight(for_)
        return where


def _sight(for_: Principal | None) -> Sight | None:
    """Return what a principal may read; ``None``: everything."""
    if for_ is not None and not isinstance(cast("Any", for_), Principal):
        raise errors.Invalid(f"for_: {for_!r} is no Principal")
    return None if for_ is None else readable(for_)


list_ = list
"""In the class, the name means what it lists."""
