"""An instance: one execution of a graph, kept as it is now.

The object follows its run: each commit of this process's engine moves it on. What it shows is
committed. Of a run that another process carries it shows what was last read
(:meth:`WorkflowInstanceData.refresh`, or ``engine.get_instance``).
"""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from perdure import errors
from perdure.client import Client
from perdure.ends import closing_event
from perdure.engine.runs import Phase, Run
from perdure.executing.state import ENDED, QUERY, GraphState, read_state, shown, state_of
from perdure.graph.context import InstanceInfo, WorkflowContext
from perdure.graph.states import WorkflowStatus
from perdure.handle import Handle
from perdure.values import endings, payload
from perdure.values import events as ev
from perdure.views import Execution, to_datetime

_ENDED = (
    errors.WorkflowFailed,
    errors.WorkflowCancelled,
    errors.WorkflowTerminated,
    errors.WorkflowTimedOut,
)
_SILENT = (errors.NotFound, errors.Conflict, errors.Unavailable)
"""Why a run may not say how far it is: no graph, parked, or nobody here knows its definition."""


class WorkflowInstanceData:
    """See the module's text. Its attributes are those of seed 4; changing them changes no run.

    ``id``: run id of the execution's first run. ``workflow_id``: its workflow's name, as everywhere
    in seed 4's names. ``error``: why it failed or was cancelled. ``result``: its output.
    """

    def __init__(
        self,
        id: UUID,
        client: Client,
        handle: Handle[Any],
        name: str,
        version: str,
        started_at: datetime,
        *,
        input: Any = None,
        first_step: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
    ) -> None:
        self.id = id
        self._client = client
        self.handle = handle
        self.workflow_id = self.workflow_name = name
        self.workflow_version = version
        self.started_at = started_at
        self.completed_at: datetime | None = None
        self.status = WorkflowStatus.RUNNING
        self.error: str | None = None
        self.result: Any = None
        self.created_by, self.tenant_id = user_id, tenant_id
        self.is_told = False
        """Whether listeners have heard that it began."""
        self.told_as: WorkflowStatus | None = None
        """How it was when listeners heard of it last."""
        self._input = input
        given = {**cast("dict[str, Any]", input)} if isinstance(input, dict) else {}
        self._state = GraphState(current_steps=[first_step] if first_step else [], data=given)
        self._context: WorkflowContext | None = None
        self._run: Run | None = None
        self._answer: bytes | None = None
        self._commits = 0

    # -- what it shows ---------------------------------------------------------------------------

    @property
    def current_step(self) -> str | None:
        """The step it is at (the first, if it is at several); ``None`` once it has ended."""
        return next(iter(self.current_steps), None)

    @property
    def current_steps(self) -> list[str]:
        """The steps it is at."""
        return [] if self.is_ended else list(self._now().current_steps)

    @property
    def context(self) -> WorkflowContext:
        """Its data, metadata, outputs and history of steps: a copy."""
        state = self._now()
        if self._context is None:
            self._context = WorkflowContext(
                self._info(),
                input=self._input,
                steps=state.steps,
                metadata=state.metadata,
                data=state.data,
                current_step=self.current_step or "",
                step_history=state.step_history,
            )
        return self._context

    @property
    def progress(self) -> int:
        """How much of the graph is behind it, in percent."""
        return 100 if self.status is WorkflowStatus.COMPLETED else self._now().progress

    @property
    def is_ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    def __repr__(self) -> str:
        return f"<instance {self.id} of {self.workflow_name!r}: {self.status}>"

    # -- how it follows --------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read it anew.

        Raises:
            NotFound: it is gone.
        """
        while True:
            before = self._commits
            execution = await self.handle.describe(steps=False)
            closing = await self._closing(execution)
            state = await self._asked()
            if before == self._commits:
                self._take(execution, state, closing)
                return
            # A commit came in between: what was read first is older than what is shown.

    def still(self) -> WorkflowInstanceData:
        """Return it as it is now: a copy that follows its run only when it is refreshed."""
        if self._run is not None:
            self._look(self._run)
        found = copy.copy(self)
        found._run = None
        return found

    async def ended(self) -> None:
        """Wait until it has ended, however."""
        try:
            await self.handle.result()
        except _ENDED:
            pass
        await self.refresh()

    async def _closing(self, execution: Execution) -> ev.Event | None:
        if not execution.status.is_terminal:
            return None
        run_id, door, namespace = execution.run_id, self._client.door, execution.namespace
        row = await door.read(lambda store: store.find("", namespace=namespace, run_id=run_id))
        return None if row is None else await closing_event(door.read, row.run)

    async def _asked(self) -> GraphState:
        try:
            return state_of(await self.handle.query(QUERY))
        except _SILENT:
            return self._now()

    def committed(self, run: Run, closing: ev.Event | None) -> None:
        """Take note of a commit; the run's instance is at rest now."""
        self._commits += 1
        self._run = run if closing is None else None
        self._move(shown(run.status))
        if closing is not None:
            self._end(closing, to_datetime(run.time))
        if closing is not None or self.status is WorkflowStatus.WAITING:
            self._look(run)  # while it is at hand; else when somebody asks

    def _take(self, execution: Execution, state: GraphState, closing: ev.Event | None) -> None:
        self._put(state)
        self._move(shown(execution.status))
        self._input = execution.input
        self.workflow_version = execution.version
        self.started_at = execution.created_at
        self.created_by, self.tenant_id = execution.created_by, execution.tenant
        if closing is not None and execution.completed_at is not None:
            self._end(closing, execution.completed_at)

    def _move(self, status: WorkflowStatus) -> None:
        self.status = status
        if status not in ENDED:  # a retry may have brought it back
            self.completed_at = self.error = self.result = None

    def _end(self, closing: ev.Event, at: datetime) -> None:
        if self.status not in ENDED:
            return
        self.completed_at = at
        result, failure = endings.result_of(closing), endings.failure_of(closing)
        self.result = payload.decode(result) if result is not None else None
        self.error = failure.message if failure is not None else None
        if isinstance(closing, (ev.RunCancelled, ev.RunTerminated)):
            self.error = f"Canceled: {closing.reason}" if closing.reason else "Canceled"

    def _now(self) -> GraphState:
        """Return what the run has gathered, asked of the live instance if that is at rest here."""
        if self._run is not None:
            self._look(self._run)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self._put(read_state(answer))
        return self._state

    def _look(self, run: Run) -> None:
        instance = run.instance
        if instance is None or run.phase is not Phase.IDLE or run.is_queued:
            return
        try:
            answer = instance.query(QUERY, lambda handler: handler.answer(b"[]"))
        except errors.PerdureError:
            return
        self._answer, self._context = answer, None  # read when somebody asks

    def _put(self, state: GraphState) -> None:
        self._state, self._context, self._answer = state, None, None

    def _info(self) -> InstanceInfo:
        return InstanceInfo(
            id=self.handle.id,
            instance_id=str(self.id),
            workflow_name=self.workflow_name,
            version=self.workflow_version,
            started_at=self.started_at,
            user_id=self._state.user_id or self.created_by,
            tenant_id=self.tenant_id,
        )
