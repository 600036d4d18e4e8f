"""What all of ``lt.escalations`` shares, and the calls for many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from perdure import errors
from perdure.client import Client
from perdure.control import configs
from perdure.control.access import needs_auth, needs_scope
from perdure.control.asked import Asked, together
from perdure.control.configs import WorkflowConfig
from perdure.control.escalated import (
    asker_of,
    closed,
    is_companion,
    misfit,
    record,
    type_of,
    violations,
)
from perdure.control.kept import Kept
from perdure.control.results import ApiResult, Refused, answering
from perdure.control.roles import check_role
from perdure.human.asking import names
from perdure.human.forms import Form, check_entered
from perdure.many import Many
from perdure.people import HumanTasks
from perdure.policy import Guard
from perdure.values import payload as payloads
from perdure.values.principals import Principal
from perdure.worklist import HumanTask

T = TypeVar("T")

READ, WRITE = "escalation:read", "escalation:write"
MINUTES = 30
_DECIDING = ("resolve", "reject")
_JUDGED = ("reject", "cancel")
"""What a run that waits gets to know, beside its answer."""
_ACTS = {"resolve": "complete", "reject": "reject", "cancel": "cancel"}
"""What decides, in the words of human tasks."""
_Act = Callable[[HumanTasks], Awaitable[HumanTask]]


class Escalating:
    """See the module's text. ``guard``: who judges calls for ``service``; ``None``: nobody."""

    def __init__(
        self, client: Client, auth: Principal | None, guard: Guard | None, service: str
    ) -> None:
        self._client = client = client if auth is None else client.as_(auth)
        self._auth = auth
        self._asked = Asked(client, auth, guard, service)
        self._configs = Kept(client, configs.KIND, WorkflowConfig)

    # -- many --------------------------------------------------------------------------------

    @answering
    async def bulk_claim(
        self, *, ids: Iterable[str], duration_minutes: float = MINUTES
    ) -> ApiResult:
        """Hold several: ``{claimed, skipped}``; each role involved must be written whole."""
        self._caller(WRITE)
        span = span_of(duration_minutes)
        return _many("claimed", await self._people.claim_many(names(ids, "ids"), span))

    @answering
    async def bulk_assign(self, *, ids: Iterable[str], assignee: str) -> ApiResult:
        """Make several somebody's: ``{assigned, skipped}``."""
        self._caller(WRITE)
        return _many("assigned", await self._people.assign_many(names(ids, "ids"), assignee))

    @answering
    async def bulk_escalate(
        self, *, ids: Iterable[str], role: str | None = None, reason: str = ""
    ) -> ApiResult:
        """Give several to a role, or each to the next of its own: ``{escalated, skipped}``."""
        self._caller(WRITE)
        to = None if role is None else check_role(role)
        done = await self._people.escalate_many(names(ids, "ids"), to, reason=reason)
        return _many("escalated", done)

    @answering
    async def bulk_cancel(self, *, ids: Iterable[str], reason: str = "") -> ApiResult:
        """Take several back: ``{cancelled, skipped}``."""
        self._caller(WRITE)
        wanted = names(ids, "ids")
        people = await self._judged_all(wanted, await self._all_open(wanted), "cancel")
        return _many("cancelled", await people.cancel_many(wanted, reason))

    @answering
    async def resolve_all_or_none(
        self, *, ids: Iterable[str], payload: Any = None, comment: str = ""
    ) -> ApiResult:
        """Answer up to 100 with one payload, or none of them: 409 with ``failed``, or 422."""
        self._caller(WRITE)
        answer_of(payload)
        wanted = names(ids, "ids")
        tasks = await self._all_open(wanted)
        people = await self._judged_all(wanted, tasks, "resolve", payload)
        told: list[dict[str, str]] = []
        for task in tasks:
            told += await self._misfits(task, payload)
        if told:
            text = f"{len(told)} fields do not fit; none was resolved"
            raise misfit(told, text)
        done = await people.complete_all(wanted, payload, comment=comment)
        return _many("resolved", done)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _people(self) -> HumanTasks:
        return self._client.human_tasks

    def _caller(self, scope: str) -> Principal:
        return needs_scope(needs_auth(self._auth), scope)

    async def _seen(self, id: str) -> HumanTask:
        return await self._people.get(id, for_=self._auth)

    async def _open(self, id: str) -> HumanTask:
        """Return one that can still be acted on."""
        task = await self._seen(id)
        if not task.status.is_open:
            raise closed(task)
        return task

    async def _acted(self, id: str, verb: str, act: _Act) -> ApiResult:
        task = await self._open(id)
        bound = await self._judged(task, verb) if verb in _JUDGED else self._client
        people = bound.human_tasks
        return ApiResult(200, record(await self._tried(task, verb, act(people))))

    async def _judged(self, task: HumanTask, verb: str, given: Any = None) -> Client:
        """Ask policies about a decision, which has to be allowed without them, too: else it would
        cost what they grant. Return what to decide by.
        """
        if self._asked.is_judged:
            await self._tried(task, verb, self._people.check(task.id, _ACTS[verb]))
        return await self._asked_of(task, verb, given)

    async def _asked_of(self, task: HumanTask, verb: str, given: Any) -> Client:
        begins = verb == "resolve" and is_companion(task)
        asker, type = asker_of(task), type_of(task)
        return await self._asked.answer(task.id, asker, type, verb, given, begins=begins)

    async def _all_open(self, ids: Iterable[str]) -> list[HumanTask]:
        """Return those of many that can be acted on; what is not there is told later."""
        found: list[HumanTask] = []
        for id in ids:
            with suppress(errors.TaskNotFound):
                found.append(await self._seen(id))
        return [task for task in found if task.status.is_open]

    async def _judged_all(
        self, ids: Iterable[str], tasks: Iterable[HumanTask], verb: str, given: Any = None
    ) -> HumanTasks:
        """See whether somebody may decide many, and ask policies about each; return what to decide
        by.
        """
        await self._people.check_many(ids, _ACTS[verb])
        bound = [await self._asked_of(task, verb, given) for task in tasks]
        return together(bound[-1] if bound else self._client, bound).human_tasks

    async def _tried(self, task: HumanTask, verb: str, act: Awaitable[T]) -> T:
        """Return what came of an act; what was refused says by its code why."""
        try:
            return await act
        except errors.TaskClosed as error:  # somebody was faster
            raise closed(await self._seen(task.id)) from error
        except errors.TaskClaimed as error:
            now = await self._seen(task.id)
            me = self._client.identity
            code = "claimed_by_other" if now.claimed_by not in (None, me) else "not_claimed"
            if code == "not_claimed" and verb in _DECIDING:
                code = "claim_expired"
            raise Refused(409, code, error.message) from error
        except errors.Invalid as error:
            if told := violations(error):
                raise misfit(told, error.message) from error
            raise

    async def _config(self, type: str) -> WorkflowConfig | None:
        found = await self._configs.find(type) if type else None
        return None if found is None else found.value

    async def _schema(self, task: HumanTask) -> dict[str, Any] | None:
        """Return what the configuration of its workflow demands of an answer."""
        config = await self._config(type_of(task))
        return None if config is None else config.resolver_schema

    async def _misfits(self, task: HumanTask, given: Any) -> list[dict[str, str]]:
        """Return what of a payload does not fit one of many."""
        schema = task.form if task.form is not None else await self._schema(task)
        data = payloads.encode(given, what="payload")
        if schema is None:
            return []
        try:
            check_entered(Form(schema).schema, data)
        except errors.Invalid as error:
            if not (found := violations(error)):
                raise
            return [{**one, "escalation_id": task.id} for one in found]
        return []


def answer_of(payload: Any) -> None:
    """Refuse an answer that is none."""
    if payload is None:
        raise Refused(400, "no_payload", "payload: it is left out; say what the answer is")


def span_of(minutes: float) -> float:
    """Return minutes in seconds.

    Raises:
        Invalid: they are no number above 0.
    """
    is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)  # pyright: ignore[reportUnnecessaryIsInstance] - users' values
    if not is_number or not minutes > 0:
        raise errors.Invalid(f"duration_minutes: {minutes!r} is no number of minutes above 0")
    return minutes * 60


def _many(word: str, done: Many) -> ApiResult:
    skipped = [{"id": it.id, "code": it.code, "reason": it.reason} for it in done.skipped]
    return ApiResult(200, {word: [task.id for task in done.done], "skipped": skipped})
