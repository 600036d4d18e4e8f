"""Carries the instances of a database in this process: one of Perdure's engines, and who follows.

Several of seed 4's engines may share a carrier. Instances that somebody holds follow their runs;
beside them the newest are kept, so that they can be listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from perdure import errors
from perdure.client import Client
from perdure.engine.engine import Engine
from perdure.engine.given import collect
from perdure.engine.runs import Run
from perdure.executing.again import retrying, schedule_step
from perdure.executing.instance import WorkflowInstanceData
from perdure.executing.state import shown
from perdure.executing.telling import Teller, event_of
from perdure.graph.definition import WorkflowDefinition
from perdure.graph.exceptions import WorkflowInstanceNotFoundError
from perdure.graph.protocols import EventBus, WorkflowPersistence
from perdure.graph.registry import WorkflowRegistry
from perdure.store.port import RunRow
from perdure.values import events as ev
from perdure.values import payload
from perdure.views import to_datetime

_log = logging.getLogger("perdure.graph")
KEPT = 10_000
"""How many instances that nobody holds can be listed: the newest."""


class Carrier:
    """See the module's text. Opened by :meth:`start`; all calls in one event loop."""

    not_found: type[WorkflowInstanceNotFoundError] = WorkflowInstanceNotFoundError
    """What is raised for an instance that is not there."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        self._engine: Engine | None = None
        self._definitions: dict[tuple[str, str], WorkflowDefinition] = {}
        self._tellers: dict[tuple[int, int], Teller] = {}
        self._starting = 0
        self._looking: set[str] = set()
        self._views: WeakValueDictionary[str, WorkflowInstanceData] = WeakValueDictionary()
        self._by_id: WeakValueDictionary[UUID, WorkflowInstanceData] = WeakValueDictionary()
        self._kept: OrderedDict[UUID, WorkflowInstanceData] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the database and begin to carry its runs."""
        given = {**self.options}
        others = collect(given.pop("definitions", ()))
        own = [*self._definitions.values(), schedule_step, retrying(self)]
        engine = Engine(self.url, [*own, *others], **given)
        await engine.start()
        engine.commits.watch(self._committed)
        self._engine = engine

    async def stop(self) -> None:
        """End; runs go on where somebody else carries them, or when this is started again."""
        for task in self._tasks:
            task.cancel()
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None

    @property
    def engine(self) -> Engine:
        """Perdure's engine.

        Raises:
            UsageError: this was not started, or has ended.
        """
        if self._engine is None:
            raise errors.UsageError("the engine is closed")
        return self._engine

    @property
    def client(self) -> Client:
        """Its client."""
        return self.engine.client

    # -- what it carries -------------------------------------------------------------------------

    def add(self, definition: WorkflowDefinition) -> WorkflowDefinition:
        """Carry a definition, and return the one that has its name and version here.

        Raises:
            DefinitionError: that is another one.
        """
        key = definition.name, definition.version
        definition.is_checked = True  # as in seed 4, its instances go as far as there is a way
        known = self._definitions.setdefault(key, definition)
        if known is definition:
            if self._engine is not None:
                self._engine.register(definition)
        elif known.code != definition.code:
            raise errors.DefinitionError(
                f"two workflows are named {definition.name!r} with version {definition.version}, "
                f"and they differ, in the engine of {self.url}"
            )
        return known

    def add_all(self, registry: WorkflowRegistry) -> None:
        """Carry every definition of a registry that is not carried yet."""
        for definition in registry.list_definitions(active_only=False):
            known = self._definitions.get((definition.name, definition.version))
            if known is not definition:
                self.add(definition)

    def definition(self, name: str, version: str) -> WorkflowDefinition | None:
        """Return a definition that is carried."""
        return self._definitions.get((name, version))

    def told(self, persistence: WorkflowPersistence | None, bus: EventBus | None) -> None:
        """Tell these of all instances from now on: once, however many engines ask it."""
        if persistence is not None or bus is not None:
            key = id(persistence), id(bus)
            self._tellers.setdefault(key, Teller(persistence, bus)).holders += 1

    async def untold(self, persistence: WorkflowPersistence | None, bus: EventBus | None) -> None:
        """An engine that asked to tell these is closed; the last lets what is left be told."""
        key = id(persistence), id(bus)
        teller = self._tellers.get(key)
        if teller is not None:
            teller.holders -= 1
            if not teller.holders:
                del self._tellers[key]
                await teller.close()

    # -- instances -------------------------------------------------------------------------------

    async def begin(
        self, definition: WorkflowDefinition, data: dict[str, Any] | None, **options: Any
    ) -> WorkflowInstanceData:
        """Start an instance."""
        self._starting += 1
        try:
            handle = await self.client.start(self.add(definition), data, **options)
        finally:
            self._starting -= 1
        found = self._views.get(handle.id)
        if found is None or found.is_ended:
            found = await self.find(handle.id)
        elif found.id == UUID(handle.run_id):  # event 1 does not say it
            found.created_by = options.get("created_by")
            found.tenant_id = options.get("tenant")
        for teller in () if found.is_told else self._tellers.values():
            teller.tell(found, "workflow.started")
        found.is_told = True
        return found

    async def find(self, id: UUID | str) -> WorkflowInstanceData:
        """Return an instance as it is now, by the id of its first run or of its execution.

        Raises:
            WorkflowInstanceNotFoundError: there is none.
        """
        key = str(id)
        client = self.client
        row = await client.door.read(lambda store: store.find(key, namespace=client.namespace))
        if row is None:
            raise self.not_found(id)
        first = await self._first_run(row)
        view = self._views.get(row.workflow_id)
        if view is None or str(view.id) != first:
            view = self._view_of_row(row, first)
        await view.refresh()
        return view

    def instances(self) -> list[WorkflowInstanceData]:
        """Return the instances that are at hand here, oldest first: those that somebody holds, and
        the newest 10,000.
        """
        found = {**dict(self._by_id.items()), **self._kept}
        return [found[id] for id in sorted(found)]

    async def _first_run(self, row: RunRow) -> str:
        if row.run == row.execution:
            return row.run_id
        first = await self.client.door.read(lambda store: store.rows([row.execution]))
        return first[0].run_id if first else row.run_id

    def _view_of_row(self, row: RunRow, first: str) -> WorkflowInstanceData:
        handle = self.client.get(row.workflow_id)
        view = WorkflowInstanceData(
            UUID(first),
            self.client,
            handle,
            row.workflow,
            row.version,
            to_datetime(row.created_at),
            user_id=row.created_by,
            tenant_id=row.tenant,
        )
        view.status = view.told_as = shown(row.status)
        view.is_told = True
        return self._keep(view)

    def _view_of_run(self, run: Run) -> WorkflowInstanceData | None:
        """Make the view of a run that begins; of any other it takes a read."""
        started, definition = run.started, run.definition
        if run.key != run.execution or started is None:
            return None
        assert isinstance(definition, WorkflowDefinition)
        view = WorkflowInstanceData(
            UUID(run.run_id),
            self.client,
            self.client.get(run.workflow_id),
            run.workflow,
            definition.version,
            to_datetime(started.started_at),
            input=payload.decode(started.input),
            first_step=definition.initial_step,
        )
        return self._keep(view)

    def _keep(self, view: WorkflowInstanceData) -> WorkflowInstanceData:
        self._views[view.handle.id] = self._by_id[view.id] = view
        self._kept[view.id] = view
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return view

    # -- what happens ----------------------------------------------------------------------------

    def _committed(self, run: Run, first: int, closing: ev.Event | None) -> None:
        if run.namespace != self.client.namespace:
            return
        view = self._views.get(run.workflow_id)
        is_new = first <= 2
        if view is None or (is_new and run.key == run.execution and str(view.id) != run.run_id):
            if not (self._tellers or self._starting):
                return
            if not isinstance(run.definition, WorkflowDefinition):
                return
            view = self._view_of_run(run) if is_new else None
            if view is None:
                if self._tellers:
                    self._look_later(run.workflow_id)
                return
        view.committed(run, closing)
        self._tell(view, begins=is_new)

    def _tell(self, view: WorkflowInstanceData, *, begins: bool = False) -> None:
        """Tell how an instance is now, and what is new of it."""
        if not self._tellers:
            return
        event, data = event_of(view.told_as, view)
        for teller in self._tellers.values():
            if begins and not view.is_told:
                teller.tell(view, "workflow.started")
            teller.tell(view, event, **data)
        view.is_told, view.told_as = True, view.status

    def _look_later(self, workflow_id: str) -> None:
        """A run goes on of which nothing is at hand: read it, and tell of it as it is then."""

        async def look() -> None:
            try:
                view = await self.find(workflow_id)
            except errors.PerdureError as error:
                _log.warning("nobody was told how %r goes on: %s", workflow_id, error)
            else:
                view.told_as = None  # what was read is what has just been committed, or later
                self._tell(view)
            finally:
                self._looking.discard(workflow_id)

        if workflow_id in self._looking:
            return  # from when its view is there, that hears of commits
        self._looking.add(workflow_id)
        task = asyncio.get_running_loop().create_task(look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
