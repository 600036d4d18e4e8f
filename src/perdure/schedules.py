"""Executions that begin by the clock: ``client.schedules`` (docs/schedules.md).

A schedule is a row; any worker of the database begins what is due, and each tick begins one
execution, however many workers there are. What is asked for is checked before anything is written.
A principal of a tenant changes that tenant's schedules alone: else ``PermissionDenied``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any, cast

import msgspec

from perdure import errors
from perdure.definition import Workflow
from perdure.door import Host
from perdure.store.port import (
    Happened,
    ScheduleFilter,
    SchedulePut,
    ScheduleRow,
    ScheduleSteer,
)
from perdure.timetable import SHOWN, WAYS, Schedule, Triggered, read_spec, read_time, shown
from perdure.values import limits, payload
from perdure.values.labels import check_label, check_tags
from perdure.values.options import canonical, one_of, read_terms
from perdure.values.principals import carrying, check_context, tenant_for
from perdure.values.schedules import (
    Overlap,
    Template,
    Upcoming,
    check_schedule_id,
    ticks_after,
    upcoming,
    workflow_id_of,
)
from perdure.views import Page
from perdure.workflow import check_mapping, check_search, encode_mapping

_OPTIONS = frozenset(
    {
        "concurrency_key",
        "context",
        "correlation_id",
        "created_by",
        "execution_timeout",
        "memo",
        "namespace",
        "priority",
        "retention",
        "retry",
        "run_timeout",
        "search",
        "tags",
        "task_queue",
        "task_timeout",
        "tenant",
        "version",
    }
)
_MOST_SHOWN = 1_000
_MOST_BACKFILLED = 10_000
_OF_BACKFILLS = (Overlap.BUFFER_ALL, Overlap.ALLOW, Overlap.SKIP)


class Schedules:
    """See the module's text."""

    def __init__(self, client: Host) -> None:
        self._client = client

    # -- making ------------------------------------------------------------------------------

    async def create(
        self,
        id: str,
        workflow: Workflow[Any, Any] | str,
        input: Any = None,
        *,
        replace: bool = False,
        **asked: Any,
    ) -> Schedule:
        """Create a schedule; it is on disk when this returns.

        The same call again changes nothing and returns what is there.

        Args:
            id: of the schedule; its executions are called ``ID-2026-11-22T09:00:00Z``.
            workflow: a definition, or the name of one, which no worker need know yet.
            input: what each execution gets.
            replace: take the place of a different one with this id. It keeps its counts and runs,
                its note, and whether it is paused, unless ``note`` and ``paused`` say otherwise.
            **asked: one of ``cron`` (five fields or ``@daily`` and the like; read in ``timezone``,
                UTC), ``every`` (a duration of at least a second, at its multiples since 1970, or
                ``offset`` later) and ``at`` (an aware datetime, once).

                ``overlap`` (``skip``, ``buffer_one``, ``buffer_all``, ``allow``, ``cancel_other``,
                ``terminate_other``): what happens to a tick while an execution is open.
                ``catch_up`` (a day): how late a tick may still begin. ``jitter``: each tick begins
                up to so much later, as chance has it. ``start``, ``end`` (aware datetimes): no tick
                before the one, none at or after the other. ``max_executions``; ``paused``;
                ``description``, ``note``.

                Of the options of a start: ``version``, ``task_queue``, ``execution_timeout``,
                ``run_timeout``, ``task_timeout``, ``retry``, ``concurrency_key``, ``priority``,
                ``retention``, ``memo``, ``search``, ``context``, ``correlation_id``, ``tags``,
                ``tenant``, ``created_by``, ``namespace``.

        Raises:
            Invalid: something of it cannot be; the message says what. Nothing was written.
            AlreadyExists: there is a different one with this id.
        """
        put = self.prepared(id, workflow, input, **asked)
        put = msgspec.structs.replace(put, replaces=bool(replace), sees=self._sees)
        return self._shown(await self._client.door.put_schedule(put))

    async def update(
        self, id: str, workflow: Workflow[Any, Any] | str, input: Any = None, **asked: Any
    ) -> Schedule:
        """Replace a schedule as a whole: what is left out of ``asked`` is as in :meth:`create`.

        Raises:
            ScheduleNotFound: there is none.
            Invalid: as in :meth:`create`.
        """
        put = self.prepared(id, workflow, input, **asked)
        put = msgspec.structs.replace(put, must_exist=True, sees=self._sees)
        return self._shown(await self._client.door.put_schedule(put))

    async def delete(self, id: str, *, namespace: str | None = None) -> None:
        """Delete a schedule; executions that it has begun go on.

        Raises:
            ScheduleNotFound: there is none.
        """
        await self._steer(id, "delete", namespace)

    # -- looking -----------------------------------------------------------------------------

    async def get(self, id: str, *, namespace: str | None = None) -> Schedule:
        """Return a schedule.

        Raises:
            ScheduleNotFound: there is none.
        """
        return self._shown(await self._row(id, namespace))

    async def list(
        self,
        *,
        limit: int = limits.LIST_DEFAULT,
        cursor: str | None = None,
        workflow: Workflow[Any, Any] | str = "",
        prefix: str = "",
        paused: bool | None = None,
        namespace: str | None = None,
    ) -> Page[Schedule]:
        """List schedules by their ids.

        Args:
            limit: at most this many, 1 to 1000.
            cursor: ``page.cursor`` of the page before.
            workflow: of this workflow.
            prefix: whose id begins so.
            paused: only those that are, or are not.
            namespace: if it is not the client's.
        """
        _check_number("limit", limit, limits.LIST_MAX)
        _check_flag("paused", paused)
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        where = ScheduleFilter(
            namespace or self._client.namespace,
            payload.text(name, what="workflow"),
            payload.text(prefix, what="prefix"),
            paused,
        )
        rows = await self._client.door.read(
            lambda store: store.schedules(
                where, limit=limit + 1, after=payload.text(cursor or "", what="cursor")
            )
        )
        items = [self._shown(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    def preview(self, *, count: int = SHOWN, **asked: Any) -> list[Upcoming]:
        """Return the next ticks that a spec would have, with what daylight saving does to them.

        Args:
            count: how many, up to 1,000.
            **asked: the spec, as in :meth:`create`.

        Raises:
            Invalid: it cannot be.
        """
        _check_number("count", count, _MOST_SHOWN)
        spec = read_spec(asked)
        if asked:
            raise errors.Invalid(f"preview: unknown option {next(iter(asked))!r}")
        return upcoming(spec, self._client.door.now(), count)

    # -- steering ----------------------------------------------------------------------------

    async def pause(
        self, id: str, note: str | None = None, *, namespace: str | None = None
    ) -> Schedule:
        """Let no tick begin anything, nor what waits, until :meth:`resume`. What runs goes on.

        Raises:
            ScheduleNotFound: there is none.
        """
        return self._shown((await self._steer(id, "pause", namespace, note=_note(note))).row)

    async def resume(
        self, id: str, note: str | None = None, *, namespace: str | None = None
    ) -> Schedule:
        """Go on after a pause, with the next tick: those of the pause are not made up for.

        Raises:
            ScheduleNotFound: there is none.
        """
        return self._shown((await self._steer(id, "resume", namespace, note=_note(note))).row)

    async def trigger(
        self, id: str, *, overlap: str | None = None, namespace: str | None = None
    ) -> Triggered:
        """Begin an execution now, also of a schedule that is paused or finished.

        Args:
            id: of the schedule.
            overlap: if an execution is open; the schedule's own policy if left out.
            namespace: if it is not the client's.

        Raises:
            ScheduleNotFound: there is none.
        """
        way = None if overlap is None else Overlap(one_of("overlap", overlap, WAYS))
        happened = await self._steer(id, "trigger", namespace, overlap=way)
        if happened.started:
            begun = happened.started[0]
            return Triggered("fired", begun.workflow_id, begun.run_id)
        tick = happened.row.standing.triggered
        passed = happened.passed[-1] if happened.passed else None
        if passed is not None and passed.what == "buffered":
            name = workflow_id_of(happened.row.id, tick, "trigger")
            return Triggered("buffered", name, "", "an execution is open")
        return Triggered("skipped", reason=passed.why if passed is not None else "")

    async def backfill(
        self,
        id: str,
        after: datetime,
        before: datetime,
        *,
        overlap: str | None = None,
        namespace: str | None = None,
    ) -> int:
        """Begin executions for ticks of the past, in order; return how many ticks there are.

        A tick whose execution is there already begins no other.

        Args:
            id: of the schedule.
            after: the first tick may be at this time.
            before: the last one is before this time, which is not in the future.
            overlap: ``buffer_all`` (each begins when the one before has ended), ``allow`` (all at
                once) or ``skip``.
            namespace: if it is not the client's.

        Raises:
            ScheduleNotFound: there is none.
            Invalid: no time between the two, or more than 10,000 ticks.
            Conflict: it has ten backfills to do.
        """
        way = Overlap(one_of("overlap", overlap, _OF_BACKFILLS))
        first, end = read_time("after", after), read_time("before", before)
        if end <= first:
            raise errors.Invalid("backfill: before= is not after after=")
        if end > self._client.door.now():
            raise errors.Invalid(
                "backfill: before= is in the future; its ticks begin by themselves"
            )
        spec = (await self._row(id, namespace)).spec
        count = 0
        for tick in islice(ticks_after(spec, first - 1), _MOST_BACKFILLED + 1):
            if tick >= end:
                break
            count += 1
        if count > _MOST_BACKFILLED:
            raise errors.Invalid(
                f"backfill: more than {_MOST_BACKFILLED:,} ticks; do it part by part"
            )
        if count:
            await self._steer(id, "backfill", namespace, overlap=way, after=first, before=end)
        return count

    # -- inside ------------------------------------------------------------------------------

    async def _steer(self, id: str, verb: str, namespace: str | None, **more: Any) -> Happened:
        home = namespace or self._client.namespace
        return await self._client.door.steer_schedule(
            ScheduleSteer(home, payload.text(id, what="id"), verb, sees=self._sees, **more)
        )

    @property
    def _sees(self) -> str:
        """The tenant whose schedules alone may be changed; ``""``: those of all."""
        who = self._client.acts_for
        return who.tenant if who is not None else ""

    async def _row(self, id: str, namespace: str | None = None) -> ScheduleRow:
        home, key = namespace or self._client.namespace, payload.text(id, what="id")
        row = await self._client.door.read(lambda store: store.schedule(key, namespace=home))
        if row is None:
            raise errors.ScheduleNotFound(id)
        return row

    def _shown(self, row: ScheduleRow) -> Schedule:
        return shown(row, self._client.door.now())

    def prepared(self, id: str, workflow: Any, input: Any = None, **asked: Any) -> SchedulePut:
        """Return what :meth:`create` writes, for who writes it together with something else.

        Raises:
            Invalid: as in :meth:`create`.
        """
        given = {name: value for name, value in asked.items() if value is not None}
        key = check_schedule_id(id)
        paused, note = given.pop("paused", None), given.pop("note", None)
        description = payload.text(given.pop("description", ""), what="description")
        spec = read_spec(given)
        namespace = given.pop("namespace", None) or self._client.namespace
        options = canonical(given, _OPTIONS, what="schedules")
        _check_flag("paused", paused)
        template = self._template(workflow, input, options, description)
        return SchedulePut(namespace, key, spec, template, paused, _note(note))

    def _template(
        self, workflow: Any, value: Any, options: Mapping[str, Any], description: str
    ) -> Template:
        definition: Workflow[Any, Any] | None = None
        name = workflow
        if isinstance(workflow, Workflow):
            definition = cast("Workflow[Any, Any]", workflow)
            name = definition.name
        if not isinstance(name, str) or not name:
            raise errors.Invalid(f"schedules: {workflow!r} is neither a workflow nor a name")
        most = self._client.max_payload
        data = payload.limit(
            payload.encode(value, what=f"input of {name}"), most, what=f"input of {name}"
        )
        if definition is not None:
            definition.check_input(data, value)
        who, granted = self._client.acts_for, self._client.granted
        given = check_context(check_mapping(options.get("context") or {}, "context"))
        carried = granted.within(carrying(given, who) if who else given)
        return Template(
            workflow=name,
            version=options.get("version", ""),
            queue=options.get("task_queue", ""),
            input=data,
            context=encode_mapping(carried, "context", most),
            memo=encode_mapping(options.get("memo"), "memo", most),
            search=check_search(options.get("search") or {}),
            tags=check_tags(options.get("tags") or ()),
            correlation_id=check_label(options.get("correlation_id"), "correlation_id"),
            tenant=tenant_for(who, check_label(options.get("tenant"), "tenant")),
            created_by=check_label(
                options.get("created_by") or (who.id if who else None), "created_by"
            ),
            terms=granted.terms(read_terms(options)),
            description=description,
            places=granted.places,
            meters=granted.meters,
        )


def _note(text: str | None) -> str | None:
    return None if text is None else payload.text(text, what="note", maximum=limits.REASON)


def _check_number(what: str, given: object, most: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise errors.Invalid(f"{what}: {given!r} is not a number from 1 to {most}")


def _check_flag(what: str, given: object) -> None:
    if given is not None and not isinstance(given, bool):
        raise errors.Invalid(f"{what}: {given!r} is neither True nor False")
