"""``lt.escalations``: what waits for people, in the words of operators, each call one answer.

An escalation is a human task (``client.human_tasks``): of a run that waits for it, of a run that
has ended with it and is started again with the answer, or raised by hand. Who may do what is judged
there; here it becomes a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perdure import errors
from perdure.control.escalated import (
    RAISED,
    STATUSES,
    Raised,
    is_companion,
    record,
    statuses_of,
)
from perdure.control.escalating import (
    MINUTES,
    READ,
    WRITE,
    Escalating,
    answer_of,
    span_of,
)
from perdure.control.kept import Kept
from perdure.control.results import ApiResult, answering
from perdure.control.roles import ALWAYS, Role, check_role
from perdure.human.asking import names
from perdure.human.escalation import prefix_of
from perdure.values import limits, payload
from perdure.values.duration import microseconds
from perdure.values.labels import check_label
from perdure.values.people import PRIORITY, HumanTaskStatus, TallyBy
from perdure.workflow import check_mapping
from perdure.worklist import HumanTask

PERIODS = ("1h", "24h", "7d", "30d")
COUNTED: tuple[str, ...] = ("pending", "claimed", "created", "resolved")
_OPTIONS = frozenset({"approvers", "assignee", "due", "escalate", "expires", "not_by", "remind"})
_text = payload.text


class Escalations(Escalating):
    """See the module's text. ``auth``: who calls; without it, every call is refused.
    ``guard``: who judges decisions for ``service``; ``None``: nobody.
    """

    # -- looking -----------------------------------------------------------------------------

    @answering
    async def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        role: str | None = None,
        roles: Iterable[str] | None = None,
        type: str | None = None,
        workflow_id: str | None = None,
        assigned_to: str | None = None,
        priority: int | None = None,
        available: bool | None = None,
        overdue: bool | None = None,
        search: Mapping[str, Any] | None = None,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
    ) -> ApiResult:
        """Return ``escalations`` that the caller may read, and the ``cursor`` of the next page.

        ``status``: ``pending`` (if left out), ``resolved``, ``cancelled``, ``expired``, or several.
        All filters narrow, ``roles`` too. ``type``: also of a workflow of that type. ``available``:
        that nobody holds, or that somebody does. ``assigned_to``: assigned to, claimed or decided.
        ``search``: of runs with these search attributes, or that have ended with an
        ``Escalation(search=…)`` of these.
        """
        self._caller(READ)
        wanted = statuses_of(status, available=available)
        among = None if roles is None else names(roles, "roles")
        if not wanted or among == ():
            return ApiResult(200, {"escalations": [], "cursor": None})
        filters = {
            "status": wanted,
            "role": role,
            "roles": among,
            "kind": check_label(type, "type"),
            "holder": check_label(assigned_to, "assigned_to"),
            "priority": priority,
            "overdue": overdue,
            "search": search,
            **_of_workflow(workflow_id),
        }
        return ApiResult(200, await self._page(limit, cursor, filters))

    @answering
    async def get(self, *, id: str) -> ApiResult:
        """Return an escalation."""
        self._caller(READ)
        return ApiResult(200, record(await self._seen(id)))

    @answering
    async def get_by_workflow_id(
        self, *, workflow_id: str, limit: int = limits.LIST_DEFAULT, cursor: str | None = None
    ) -> ApiResult:
        """Return all that runs of a workflow id have asked, whatever became of it."""
        self._caller(READ)
        filters = {"status": tuple(HumanTaskStatus), **_of_workflow(workflow_id)}
        return ApiResult(200, await self._page(limit, cursor, filters))

    @answering
    async def get_log(self, *, id: str) -> ApiResult:
        """Return the whole life of an escalation, comments included, oldest first."""
        self._caller(READ)
        return ApiResult(200, {"entries": await self._people.log(id, for_=self._auth)})

    @answering
    async def list_types(self) -> ApiResult:
        """Return the ``types`` of all escalations that the caller may read, whatever became of
        them, in the order of their names.
        """
        self._caller(READ)
        found = await self._people.tally("type", for_=self._auth, status=tuple(HumanTaskStatus))
        return ApiResult(200, {"types": sorted(name for name in found if name)})

    @answering
    async def get_stats(self, *, period: str = "24h") -> ApiResult:
        """Count what is pending and what of it is claimed, and what was created and resolved within
        a period (``1h``, ``24h``, ``7d`` or ``30d``) up to now: in all, by role and by type.

        Counts hold what the same call of ``list`` would, so what the caller may read.
        """
        caller = self._caller(READ)
        if period not in PERIODS:
            raise errors.Invalid(f"period: {period!r} is unknown; use {', '.join(PERIODS)}")
        own = {grant.role for grant in caller.grants}
        if caller.is_admin:
            own |= {role.name for role in await Kept(self._client, "role", Role).all()}
        since = self._client.door.now() - microseconds(period)
        by_role = await self._counts("role", since, sorted(own - ALWAYS))
        by_type = await self._counts("type", since)
        whole = {word: sum(one[word] for one in by_type.values()) for word in COUNTED}
        told = {
            "by_role": [{"role": name, **by_role[name]} for name in sorted(by_role) if name],
            "by_type": [{"type": name, **by_type[name]} for name in sorted(by_type) if name],
        }
        return ApiResult(200, {**whole, "period": period, **told})

    # -- one ---------------------------------------------------------------------------------

    @answering
    async def create(
        self,
        *,
        type: str,
        role: str | None = None,
        priority: int = PRIORITY,
        payload: Any = None,
        subtype: str = "",
        title: str = "",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        form: Any = None,
        **options: Any,
    ) -> ApiResult:
        """Raise one that no workflow asks for: 201 with the record.

        ``role``: if left out, the default of the configuration of that type. ``title``: the type if
        left out; other than ``description``, it is never encrypted. ``form``: a JSON Schema of the
        answer; ``metadata={"form_schema": …}`` says the same. ``options``: ``due``, ``expires``,
        ``remind``, ``assignee``, ``escalate``, ``approvers``, ``not_by`` of ``human.request``.
        """
        self._caller(WRITE)
        if unknown := sorted(set(options) - _OPTIONS):
            known = ", ".join(sorted(_OPTIONS))
            raise errors.Invalid(f"create: unknown field {unknown[0]!r}; it takes {known}")
        name = _text(type, what="type", maximum=limits.LABEL)
        if not name:
            raise errors.Invalid("type: it is empty")
        config = await self._config(name)
        role = role or (config.default_role if config is not None else None)
        if not role:
            raise errors.Invalid(f"role: it is left out, and type {name!r} has no default role")
        about = dict(check_mapping(metadata or {}, "metadata"))
        more = bool(subtype or about)
        data = Raised(payload, _text(subtype, what="subtype"), about) if more else payload
        raised = await self._people.create(
            title or name,
            form=form if form is not None else about.get("form_schema"),
            data=data,
            type=name,
            name=RAISED if more else "",
            role=check_role(role),
            description=description,
            priority=priority,
            **options,
        )
        return ApiResult(201, record(raised))

    @answering
    async def claim(self, *, id: str, duration_minutes: float = MINUTES) -> ApiResult:
        """Hold one: ``{escalation, is_extension}``; a second claim of the holder extends it."""
        caller, span = self._caller(WRITE), span_of(duration_minutes)
        task = await self._open(id)
        after = await self._tried(task, "claim", self._people.claim(id, span))
        is_extension = task.claimed_by == caller.id
        return ApiResult(200, {"escalation": record(after), "is_extension": is_extension})

    @answering
    async def extend(self, *, id: str, duration_minutes: float = MINUTES) -> ApiResult:
        """Hold on to a claim, for so long from now; 409 if it is not held by the caller."""
        self._caller(WRITE)
        span = span_of(duration_minutes)
        return await self._acted(id, "extend", lambda people: people.extend(id, span))

    @answering
    async def release(self, *, id: str) -> ApiResult:
        """Give a claim back; 409 if it is not held by the caller."""
        self._caller(WRITE)
        return await self._acted(id, "release", lambda people: people.release(id))

    @answering
    async def resolve(self, *, id: str, payload: Any = None, comment: str = "") -> ApiResult:
        """Answer one: ``{escalation, resumes}``, which is the workflow id that goes on with it.

        Checked in this order: a payload (400), that it is there and may be read (404), is pending
        (409), that policies allow it and it may be written (403), that nobody else holds it and a
        claim is not over (409), and the payload against its form, or else the configuration's
        ``resolver_schema`` (422).
        """
        self._caller(WRITE)
        answer_of(payload)
        task = await self._open(id)
        people = (await self._judged(task, "resolve", payload)).human_tasks
        schema = await self._schema(task)
        done = people.complete(id, payload, comment=comment, form=schema)
        return _resolved(await self._tried(task, "resolve", done))

    @answering
    async def reject(self, *, id: str, reason: str = "") -> ApiResult:
        """Refuse one: who waits goes on with that; a run that has ended is not started again."""
        self._caller(WRITE)
        return await self._acted(id, "reject", lambda people: people.reject(id, reason))

    @answering
    async def escalate(self, *, id: str, role: str | None = None, reason: str = "") -> ApiResult:
        """Give one to another role, or to the next of its own; nobody holds it any more."""
        self._caller(WRITE)
        to = None if role is None else check_role(role)
        return await self._acted(
            id, "escalate", lambda people: people.escalate(id, to, reason=reason)
        )

    @answering
    async def assign(self, *, id: str, assignee: str, reason: str = "") -> ApiResult:
        """Make one somebody's; a claim ends with it."""
        self._caller(WRITE)
        return await self._acted(
            id, "assign", lambda people: people.reassign(id, assignee, reason=reason)
        )

    @answering
    async def cancel(self, *, id: str, reason: str = "") -> ApiResult:
        """Take one back: who waits goes on with that; nothing is started again."""
        self._caller(WRITE)
        return await self._acted(id, "cancel", lambda people: people.cancel(id, reason))

    @answering
    async def comment(self, *, id: str, text: str) -> ApiResult:
        """Say something about one, while it is pending."""
        self._caller(WRITE)
        return await self._acted(id, "comment", lambda people: people.comment(id, text))

    @answering
    async def attach(
        self,
        *,
        id: str,
        name: str,
        uri: str,
        media_type: str = "",
        size: int | None = None,
        digest: str = "",
    ) -> ApiResult:
        """Refer to a document, while one is pending; it stays where it is. See ``HumanTasks``."""
        self._caller(WRITE)
        more: dict[str, Any] = {"media_type": media_type, "size": size, "digest": digest}
        return await self._acted(id, "attach", lambda people: people.attach(id, name, uri, **more))

    # -- inside ------------------------------------------------------------------------------

    async def _page(
        self, limit: int, cursor: str | None, filters: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            page = await self._people.list(limit=limit, cursor=cursor, for_=self._auth, **filters)
        except errors.TaskNotFound as error:
            raise errors.Invalid(f"cursor: {cursor!r} is none of this list") from error
        return {"escalations": [record(task) for task in page.items], "cursor": page.cursor}

    async def _counts(
        self, by: TallyBy, since: int, names: Iterable[str] = ()
    ) -> dict[str, dict[str, int]]:
        """Return what is counted of each role or type; ``names``: also where there is nothing."""
        wanted: dict[str, dict[str, Any]] = {
            "pending": {},
            "claimed": {"status": HumanTaskStatus.CLAIMED},
            "created": {"status": tuple(HumanTaskStatus), "opened_from": since},
            "resolved": {"status": STATUSES["resolved"], "closed_from": since},
        }
        found = {name: dict.fromkeys(COUNTED, 0) for name in names}
        for word, filters in wanted.items():
            tally = await self._people.tally(by, for_=self._auth, **filters)
            for name, number in tally.items():
                found.setdefault(name, dict.fromkeys(COUNTED, 0))[word] = number
        return found


def _of_workflow(workflow_id: str | None) -> dict[str, str]:
    """Return the filters of what a workflow id has asked: its runs, and those that ask for them."""
    if workflow_id is None:
        return {}
    id = _text(workflow_id, what="workflow_id")
    return {"workflow_id": id, "workflow_prefix": prefix_of(id)}


def _resolved(task: HumanTask) -> ApiResult:
    resumes: str | None = None
    if not task.status.is_open:  # else more people have to answer
        resumes = f"rerun-{task.id}" if is_companion(task) else task.workflow_id or None
    return ApiResult(200, {"escalation": record(task), "resumes": resumes})
