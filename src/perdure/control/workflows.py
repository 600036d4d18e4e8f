"""``lt.workflows``: invoke, inspect and configure workflows, each call one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, cast

import msgspec

from perdure import errors, views
from perdure.client import Client
from perdure.control import configs, exporting
from perdure.control.access import check_invocation, check_role, needs_auth
from perdure.control.asked import Asked
from perdure.control.configs import WorkflowConfig
from perdure.control.discovery import Discovery
from perdure.control.envelope import Envelope, Provider, invocation
from perdure.control.escalated import withdraw
from perdure.control.identity import INVOKE, Identity
from perdure.control.kept import Found, Kept, until_written
from perdure.control.options import read_options
from perdure.control.results import ApiResult, Refused, answering
from perdure.handle import Handle
from perdure.human.escalation import ESCALATIONS
from perdure.policy import Guard
from perdure.store.port import RunRow, ScheduleDrop, SchedulePut
from perdure.timetable import Schedule
from perdure.values import ids, payload
from perdure.values.labels import check_label, check_labels
from perdure.values.principals import Kind, Principal, sees
from perdure.values.records import Amend, Drop
from perdure.values.states import Status

_SYSTEM = Principal("perdure", kind=Kind.SERVICE, scopes=("workflow:cron",))
"""Who runs what begins by the clock, if no account does."""
_TYPE = "workflow_type"
_OF_CRON = (
    _TYPE,
    "cron_schedule",
    "description",
    "task_queue",
    "invocable",
    "envelope_schema",
)


class Workflows:
    """See the module's text. ``auth``: who calls; without it, what needs somebody is refused.
    ``guard``: who judges calls for ``service``; ``None``: nobody.
    """

    def __init__(
        self, client: Client, auth: Principal | None, guard: Guard | None, service: str
    ) -> None:
        # The audit names who calls, and not whose program it is.
        self._client = client = client if auth is None else client.as_(auth)
        self._auth = auth
        self._asked = Asked(client, auth, guard, service)
        self._discovery = Discovery(client)
        self._kept = Kept(client, configs.KIND, WorkflowConfig)
        self._identity = Identity(client)

    # -- one run -----------------------------------------------------------------------------

    @answering
    async def invoke(
        self,
        *,
        type: str,
        data: Any = None,
        metadata: Any = None,
        execute_as: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ApiResult:
        """Start a workflow: 202 with ``workflow_id``.

        Checked in this order: somebody calls (401), the shapes (400), role and scope (403), whether
        the type may be invoked (403), has a queue (400), or is known at all (404), and the data
        against the schema (422).
        """
        caller = needs_auth(self._auth)
        name = payload.text(type, what="type")
        given, told = _mapping(data, "data"), _mapping(metadata, "metadata")
        if execute_as is not None:
            payload.text(execute_as, what="execute_as")
        asked = read_options(_mapping(options, "options"))
        kept = await self._kept.find(name)
        config = kept.value if kept is not None else None
        check_role(caller, config)
        check_invocation(caller, config, INVOKE)
        if config is not None:
            asked.setdefault("task_queue", config.task_queue)
        else:
            asked.setdefault("task_queue", await self._discovery.queue_of(name))
        execute = config.execute_as if config is not None else None
        acts = await self._identity.resolve_actor(caller, execute_as, execute)
        if config is not None and (schema := config.data_schema()) is not None:
            wrong = schema.mistakes(given, what="data")
            if wrong:
                raise Refused(422, "invalid_envelope", "; ".join(wrong), {"violations": wrong})
        workflow_id = asked.setdefault("id", f"{name}-{_unique(self._client)}")
        ids.check_workflow_id(workflow_id)
        origin = asked.setdefault("correlation_id", workflow_id)
        check_label(origin, "correlation_id")
        if config is not None and config.certified:
            told.setdefault("certified", True)
        envelope = Envelope(
            given,
            told,
            invocation(
                acts,
                caller,
                origin=origin,
                scopes=(INVOKE,) if acts.id != caller.id else tuple(caller.scopes or ()),
                providers=await self._providers(config, origin, acts.tenant, asked),
            ),
        )
        # As in HotMesh: an id is started once.
        asked.setdefault("id_conflict_policy", "fail")
        async with self._asked.start(name, envelope, asked) as bound:
            handle = await self._start(_acting(bound, acts, config), name, envelope, asked)
        found = {"workflow_id": handle.id, "message": "Workflow started"}
        return ApiResult(202, found)

    @answering
    async def get_status(self, *, workflow_id: str, namespace: str | None = None) -> ApiResult:
        """Return 0 (completed), 1 (not finished) or -1 (any other end)."""
        row = await self._row(workflow_id, namespace)
        await self._asked.look(row)
        return ApiResult(200, {"workflow_id": row.workflow_id, "status": exporting.number(row)})

    @answering
    async def get_result(self, *, workflow_id: str, namespace: str | None = None) -> ApiResult:
        """Return the result, 202 as long as there is none, and 409 where there will be none."""
        row = await self._row(workflow_id, namespace)
        await self._asked.look(row)
        if not row.status.is_terminal:
            return ApiResult(202, {"workflow_id": row.workflow_id, "status": "running"})
        handle = self._handle(row)
        try:
            result = await handle.result()
        except errors.PerdureError as error:
            if row.status is Status.COMPLETED:
                raise
            raise Refused(
                409, f"workflow.{row.status}", error.message, {"workflow_id": row.workflow_id}
            ) from error
        return ApiResult(200, {"workflow_id": row.workflow_id, "result": result})

    @answering
    async def terminate(
        self, *, workflow_id: str, reason: str = "", namespace: str | None = None
    ) -> ApiResult:
        """End a run at once, and take back what it asks people for; also of one that has ended."""
        row = await self._row(workflow_id, namespace)
        bound = await self._asked.end(row, reason)
        ended = await bound.get(row.workflow_id, namespace=row.namespace).terminate(reason=reason)
        if not await withdraw(bound, row, reason) and not ended:
            row = await self._row(workflow_id, namespace)
            raise Refused(409, f"workflow.{row.status}", f"{workflow_id!r} is {row.status} already")
        return ApiResult(200, {"terminated": True, "workflow_id": row.workflow_id})

    @answering
    async def resume(self, *, workflow_id: str, namespace: str | None = None) -> ApiResult:
        """Let a paused run go on, or begin that was invoked with ``pending``; 409 if it is not
        paused.
        """
        row = await self._row(workflow_id, namespace)
        bound = await self._asked.send(row, "resume")
        if not await bound.get(row.workflow_id, namespace=row.namespace).resume():
            row = await self._row(workflow_id, namespace)
            raise Refused(409, f"workflow.{row.status}", f"{workflow_id!r} is {row.status}")
        return ApiResult(200, {"resumed": True, "workflow_id": row.workflow_id})

    @answering
    async def export(
        self,
        *,
        workflow_id: str,
        summary: bool = False,
        allow: Any = None,
        block: Any = None,
        values: bool = True,
        namespace: str | None = None,
    ) -> ApiResult:
        """Return a run's state: all facets, those of ``allow``, or all but ``block``.

        ``summary``: counts alone. ``values=False`` leaves the values of the timeline out.
        """
        row = await self._row(workflow_id, namespace)
        await self._asked.look(row)
        events = await self._handle(row).history()
        if summary:
            return ApiResult(200, exporting.summary(row, events))
        found = exporting.state(row, events, await self._handle(row).describe(), values=values)
        return ApiResult(200, exporting.facets(found, allow, block))

    # -- what there is -----------------------------------------------------------------------

    @answering
    async def list_workers(self, *, include_system: bool = False) -> ApiResult:
        """Return what live workers serve, by name and queue."""
        listing = await self._asked.list()
        known = await self._configs()
        found = await self._discovery.workers(known, include_system=include_system)
        return ApiResult(200, {"workers": await listing.shown(found, itemgetter("name"))})

    @answering
    async def list_discovered(
        self, *, include_system: bool = False, tool_tags: Iterable[str] | None = None
    ) -> ApiResult:
        """Return every type that workers serve, runs were started of, or configurations name.

        ``tool_tags``: only types whose configuration has one of these.
        """
        tags = None if tool_tags is None else frozenset(check_labels(tool_tags, "tool_tags"))
        listing = await self._asked.list()
        known = await self._configs()
        found = await self._discovery.discovered(known, include_system=include_system)
        if tags is not None:
            tagged = {
                type for type, config in known.items() if not tags.isdisjoint(config.tool_tags)
            }
            found = [it for it in found if it[_TYPE] in tagged]
        return ApiResult(200, {"workflows": await listing.shown(found, itemgetter(_TYPE))})

    @answering
    async def get_cron_status(self) -> ApiResult:
        """Return what begins by the clock, whether it does, and its next five times."""
        listing = await self._asked.list()
        known = (await self._configs()).values()
        found: list[dict[str, Any]] = []
        for config in await listing.shown(known, attrgetter(_TYPE)):
            if config.cron_schedule is None:
                continue
            schedule = await self._schedule_of(config)
            is_active = schedule is not None and not schedule.paused
            shown = {name: getattr(config, name) for name in _OF_CRON}
            times = [one.at for one in schedule.next] if schedule is not None and is_active else []
            found.append({**shown, "active": is_active, "next": times})
        return ApiResult(200, {"schedules": found})

    @answering
    async def list_configs(self) -> ApiResult:
        """Return all configurations, by type."""
        listing = await self._asked.list()
        known = (await self._configs()).values()
        return ApiResult(200, {"workflows": await listing.shown(known, attrgetter(_TYPE))})

    @answering
    async def get_config(self, *, type: str) -> ApiResult:
        """Return a configuration."""
        listing = await self._asked.list()
        config = (await self._found(type)).value
        if not await listing.shown([config], attrgetter(_TYPE)):
            raise _no_config()
        return ApiResult(200, config)

    @answering
    async def upsert_config(self, *, type: str, **fields: Any) -> ApiResult:
        """Create or replace a configuration: what is left out is reset to its default.

        All is checked before anything is written; the configuration and its cron schedule are
        written together. The same call twice changes nothing but ``updated_at``.
        """
        name = payload.text(type, what="type")

        async def change() -> WorkflowConfig:
            before = await self._kept.find(name)
            was = before.value if before is not None else None
            config: WorkflowConfig = configs.make(name, fields, now=self._now(), before=was)
            schedules = await self._schedules(config, was)
            await self._identity.roles.ensure(config.named_roles)
            put = self._kept.put(name, config, before.version if before is not None else 0)
            line = self._kept.line("upsert", name, was, config)
            await self._client.door.amend(Amend([put], audit=[line]), schedules)
            return config

        return ApiResult(200, await until_written(change))

    @answering
    async def delete_config(self, *, type: str) -> ApiResult:
        """Delete a configuration, and its cron schedule with it. Workers go on, and so do runs."""

        async def change() -> None:
            config, version = await self._found(type)
            drop = Drop(configs.KIND, type, version, self._client.namespace)
            line = self._kept.line("delete", type, config, None)
            await self._client.door.amend(Amend(drops=[drop], audit=[line]), self._dropped(config))

        await until_written(change)
        return ApiResult(200, {"deleted": True, "workflow_type": type})

    # -- inside ------------------------------------------------------------------------------

    async def _start(
        self, client: Client, name: str, envelope: Envelope, options: dict[str, Any]
    ) -> Handle[Any]:
        given = _mapping(options.pop("search", None), "options.search")
        search = {"entity": options.pop("entity", name), **given}
        return await client.start(name, envelope, search=search, **options)

    def _dropped(self, before: WorkflowConfig | None) -> list[ScheduleDrop]:
        """Return what takes a configuration's schedule away. If it has none, what is called so is
        somebody else's.
        """
        if before is None or not before.is_scheduled:
            return []
        return [ScheduleDrop(self._client.namespace, _schedule_id(before.workflow_type))]

    async def _schedules(
        self, config: WorkflowConfig, before: WorkflowConfig | None
    ) -> Sequence[SchedulePut | ScheduleDrop]:
        """Return what is to become of the cron schedule of a configuration."""
        dropped = self._dropped(before)
        if not config.is_scheduled:
            return dropped
        acts = await self._identity.resolve_actor(_SYSTEM, None, config.execute_as)
        sent = config.template()
        metadata = {"source": "cron", **_mapping(sent.get("metadata"), "envelope_schema.metadata")}
        if config.certified:
            metadata.setdefault("certified", True)
        envelope = Envelope(
            _mapping(sent.get("data"), "envelope_schema.data"),
            metadata,
            invocation(acts, acts, origin="", scopes=("workflow:cron",), providers={}),
        )
        cron, type = config.cron_schedule or "", config.workflow_type
        is_new = before is None or (before.is_scheduled, before.cron_schedule) != (True, cron)
        bound = await self._asked.schedule(type, envelope, cron, is_new=is_new)
        prepared = _acting(bound, acts, config).schedules.prepared(
            _schedule_id(type),
            type,
            envelope,
            cron=cron,
            task_queue=config.task_queue,
            search={"entity": type},
        )
        return [msgspec.structs.replace(prepared, replaces=bool(dropped))]

    async def _providers(
        self,
        config: WorkflowConfig | None,
        origin: str,
        tenant: str,
        options: Mapping[str, Any],
    ) -> dict[str, Provider]:
        """Return the latest outputs of what the workflow consumes, under the same origin and in the
        namespace in which it is to run; a principal of a tenant gets those of its own.
        """
        own = {"tenant": tenant} if tenant else {}
        own["namespace"] = options.get("namespace") or self._client.namespace
        found: dict[str, Provider] = {}
        for consumed in config.consumes if config is not None else ():
            where = {"workflow": consumed, "correlation_id": origin, **own}
            if (provider := await self._provider(where)) is not None:
                found[consumed] = provider
        return found

    async def _provider(self, where: Mapping[str, Any]) -> Provider | None:
        """Return the latest output; what asks people is none."""
        cursor: str | None = None
        while True:
            page = await self._client.list(status=Status.COMPLETED, cursor=cursor, **where)
            # Newest first is by the start; of executions that overlap, the last to end counts.
            for last in sorted(page.items, key=attrgetter("completed_at"), reverse=True):
                handle = self._client.get(last.id, last.run_id, namespace=where["namespace"])
                output: Any = (await handle.describe()).output
                told = cast("dict[str, Any]", output) if isinstance(output, dict) else {}
                if told.get("type") in ESCALATIONS:
                    continue
                if told.get("type") == "return":
                    output = told.get("data")
                assert last.completed_at is not None
                return Provider(output, where["workflow"], last.completed_at.isoformat())
            if (cursor := page.cursor) is None:
                return None

    async def _schedule_of(self, config: WorkflowConfig) -> Schedule | None:
        if not config.is_scheduled:
            return None
        try:
            return await self._client.schedules.get(_schedule_id(config.workflow_type))
        except errors.ScheduleNotFound:
            return None

    async def _row(self, workflow_id: str, namespace: str | None) -> RunRow:
        """Return the latest run of an id, of the client's namespace if none is named."""
        home = self._client.namespace
        if namespace is not None:
            home = payload.text(namespace, what="namespace") or home
        key = ids.check_workflow_id(workflow_id)
        row = await self._client.door.read(lambda store: store.find(key, namespace=home))
        if row is None or not sees(self._auth or self._client.acts_for, row.tenant):
            raise errors.NotFound(f"there is no workflow {workflow_id!r}")
        return row

    def _handle(self, row: RunRow) -> Handle[Any]:
        return self._client.get(row.workflow_id, namespace=row.namespace)

    async def _found(self, type: str) -> Found[WorkflowConfig]:
        found = await self._kept.find(payload.text(type, what="type"))
        if found is None:
            raise _no_config()
        return found

    async def _configs(self) -> dict[str, WorkflowConfig]:
        return {config.workflow_type: config for config in await self._kept.all()}

    def _now(self) -> str:
        return views.to_datetime(self._client.door.now()).isoformat()


def _acting(client: Client, acts: Principal, config: WorkflowConfig | None) -> Client:
    """Return the client that starts for somebody, with the role that the configuration names."""
    client = client.as_(acts)
    if config is None:
        return client
    return client.under(msgspec.structs.replace(client.granted, default_role=config.default_role))


def _no_config() -> errors.NotFound:
    return errors.NotFound("Workflow config not found")


def _mapping(given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Refused(400, "invalid", f"{what}: {given!r} is no mapping")
    return {**cast("Mapping[str, Any]", given)}


def _schedule_id(type: str) -> str:
    return f"{type}-cron"


def _unique(client: Client) -> str:
    return ids.uuid7(client.door.now() // 1000, client.door.chance(10))
