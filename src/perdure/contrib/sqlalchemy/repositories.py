"""Repositories: they read through the session, and write by commands of the engine.

Beside the methods of seed 4 they have the reading ones of Advanced Alchemy's repositories (``get``,
``list``, ``count``, …); those that write are refused by the models.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import Select, func, or_, select

from perdure.client import Client
from perdure.contrib.sqlalchemy.database import at_hand, check_writable, url_of
from perdure.contrib.sqlalchemy.failures import failed_steps
from perdure.contrib.sqlalchemy.models import (
    HumanTaskModel,
    HumanTaskStatus,
    StepExecutionModel,
    WorkflowDefinitionModel,
    WorkflowInstanceModel,
)
from perdure.contrib.sqlalchemy.opening import client_options
from perdure.definition import version_key
from perdure.engine.clock import SystemClock
from perdure.executing.state import ENDED
from perdure.graph.exceptions import InvalidTransitionError, TaskAlreadyCompletedError
from perdure.graph.states import WorkflowStatus
from perdure.people import HumanTasks
from perdure.views import to_datetime

_RUNNING = (WorkflowStatus.RUNNING, WorkflowStatus.WAITING)


class _Commands:
    """The client that writes: the engine's of this process, or one for this call alone."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._own: Client | None = None

    async def __aenter__(self) -> Client:
        await check_writable(self._session)
        carrier = at_hand(self._session)
        if carrier is not None:
            return carrier.client
        self._own = Client(url_of(self._session), **client_options())
        await self._own.open()
        return self._own

    async def __aexit__(self, *_: object) -> None:
        if self._own is not None:
            await self._own.close()


class WorkflowDefinitionRepository(SQLAlchemyAsyncRepository[WorkflowDefinitionModel]):
    """The definitions that workers have registered."""

    model_type = WorkflowDefinitionModel

    async def get_by_name(
        self, name: str, version: str | None = None, *, active_only: bool = True
    ) -> WorkflowDefinitionModel | None:
        """Return a version, or the highest semantic one; ``None``: there is none."""
        query = select(WorkflowDefinitionModel).where(WorkflowDefinitionModel.name == name)
        if version is not None:
            query = query.where(WorkflowDefinitionModel.version == version)
        if active_only:
            query = query.where(WorkflowDefinitionModel.is_active == True)  # noqa: E712 - SQL
        found = await self._read(query)
        return max(found, key=lambda one: version_key(one.version), default=None)

    async def get_latest_version(self, name: str) -> WorkflowDefinitionModel | None:
        """Return the highest active version of a definition; ``None``: there is none."""
        return await self.get_by_name(name)

    async def list_active(self) -> Sequence[WorkflowDefinitionModel]:
        """Return the active definitions by name, the highest version first."""
        query = select(WorkflowDefinitionModel).where(
            WorkflowDefinitionModel.is_active == True  # noqa: E712 - SQL
        )
        found = sorted(
            await self._read(query), key=lambda one: version_key(one.version), reverse=True
        )
        return sorted(found, key=lambda one: one.name)

    async def deactivate_version(self, name: str, version: str) -> bool:
        """Let no new instance begin with a version; those that have it go on.

        ``False``: there is no such version.

        Raises:
            Conflict: the session holds SQLite's write lock.
        """
        return await self._activate(name, version, is_active=False)

    async def activate_version(self, name: str, version: str) -> bool:
        """Undo :meth:`deactivate_version`."""
        return await self._activate(name, version, is_active=True)

    async def _activate(self, name: str, version: str, *, is_active: bool) -> bool:
        async with _Commands(self.session) as client:
            return await client.door.write(
                lambda store: store.activate(name, version, is_active=is_active)
            )

    async def _read(self, query: Select[Any]) -> Sequence[WorkflowDefinitionModel]:
        return await _all(self.session, query)


class WorkflowInstanceRepository(SQLAlchemyAsyncRepository[WorkflowInstanceModel]):
    """The instances: all executions of the namespace ``default``.

    ``context_data``, ``metadata_``, ``error``, ``current_step`` and ``step_executions`` of an
    instance are decoded from its history, which comes with it.
    """

    model_type = WorkflowInstanceModel

    async def find_by_workflow(
        self,
        workflow_name: str,
        status: WorkflowStatus | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[Sequence[WorkflowInstanceModel], int]:
        """Return instances of a workflow, newest first, and how many there are in all."""
        where = [WorkflowInstanceModel.workflow_name == workflow_name]
        return await self._page(where, status, limit, offset)

    async def find_by_user(
        self, user_id: str, status: WorkflowStatus | None = None
    ) -> Sequence[WorkflowInstanceModel]:
        """Return the instances that somebody has started, newest first."""
        where = [WorkflowInstanceModel.created_by == user_id]
        return (await self._page(where, status, None, 0))[0]

    async def find_by_tenant(
        self,
        tenant_id: str,
        status: WorkflowStatus | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[Sequence[WorkflowInstanceModel], int]:
        """Return instances of a tenant, newest first, and how many there are in all."""
        where = [WorkflowInstanceModel.tenant_id == tenant_id]
        return await self._page(where, status, limit, offset)

    async def find_running(self) -> Sequence[WorkflowInstanceModel]:
        """Return the instances that run or wait, oldest first."""
        query = (
            select(WorkflowInstanceModel)
            .where(WorkflowInstanceModel.status.in_(_RUNNING))
            .order_by(WorkflowInstanceModel.started_at)
        )
        return await _all(self.session, query)

    async def update_status(
        self,
        instance_id: UUID,
        status: WorkflowStatus,
        *,
        current_step: str | None = None,
        error: str | None = None,
    ) -> WorkflowInstanceModel | None:
        """Ask the engine to bring an instance to a status, and return it; ``None``: there is none.

        ``CANCELED`` cancels it, with ``error`` as the reason, and waits for its end where an engine
        of this process carries it. The status it has is no change. All else is the engine's to
        say: an instance is completed or failed by its steps, and never by hand.

        Raises:
            InvalidTransitionError: to any other status or step, or of an instance that has ended.
            Conflict: the session holds SQLite's write lock.
        """
        found = await self._one(instance_id)
        wanted = WorkflowStatus(status)
        if found is None:
            return None
        if current_step is not None and current_step != found.current_step:
            said = f"its steps decide where it is, so not at {current_step!r}"
            raise InvalidTransitionError(found.status, wanted, said)
        if found.status is wanted:
            return found
        if found.status in ENDED:
            said = "it has ended; engine.retry() lets it go on"
            raise InvalidTransitionError(found.status, wanted, said)
        if wanted is not WorkflowStatus.CANCELED:
            said = "the steps of an instance decide that, not a caller"
            raise InvalidTransitionError(found.status, wanted, said)
        async with _Commands(self.session) as client:
            await client.get(instance_id).cancel(error or "", deadline="10s")
            carrier = at_hand(self.session)
            if carrier is not None:
                await (await carrier.find(instance_id)).ended()
        found = await self._one(instance_id)
        if found is not None and found.status in ENDED and found.status is not wanted:
            raise InvalidTransitionError(found.status, wanted, "it ended first")
        return found

    async def _page(
        self,
        where: list[Any],
        status: WorkflowStatus | None,
        limit: int | None,
        offset: int,
    ) -> tuple[Sequence[WorkflowInstanceModel], int]:
        if status is not None:
            where = [*where, WorkflowInstanceModel.status == status]
        newest = (WorkflowInstanceModel.created_at.desc(), WorkflowInstanceModel.id.desc())
        query = select(WorkflowInstanceModel).where(*where).order_by(*newest)
        query = query.limit(limit).offset(offset) if limit is not None else query
        count = select(func.count()).select_from(WorkflowInstanceModel).where(*where)
        found = await _all(self.session, query)
        total = (await cast("Any", self.session).execute(count)).scalar_one()
        return found, int(total)

    async def _one(self, instance_id: UUID) -> WorkflowInstanceModel | None:
        query = select(WorkflowInstanceModel).where(WorkflowInstanceModel.id == instance_id)
        return next(iter(await _all(self.session, query)), None)


class StepExecutionRepository(SQLAlchemyAsyncRepository[StepExecutionModel]):
    """The visits of steps, decoded from the histories of their instances.

    Their rows are no table's: the methods that SQL would answer (``list``, ``count``, …) are
    refused; ask for those of an instance.
    """

    model_type = StepExecutionModel

    async def find_by_instance(self, instance_id: UUID) -> Sequence[StepExecutionModel]:
        """Return the visits of an instance's steps, in the order in which they began: what its
        latest run has done, and kept of those before.
        """
        query = select(WorkflowInstanceModel).where(WorkflowInstanceModel.id == instance_id)
        found = await _all(self.session, query)
        return [step for one in found for step in one.step_executions]

    async def find_by_step_name(
        self, instance_id: UUID, step_name: str
    ) -> StepExecutionModel | None:
        """Return the latest visit of a step; ``None``: the instance was not there."""
        found = await self.find_by_instance(instance_id)
        return next((one for one in reversed(found) if one.step_name == step_name), None)

    async def find_failed(
        self, instance_id: UUID | None = None, *, since: datetime | None = None
    ) -> Sequence[StepExecutionModel]:
        """Return failed visits, newest first: of an instance, or of all, whatever became of them.

        Those of runs that were retried since are among them. A visit that succeeded at a later
        attempt did not fail. Without an instance the histories of all graphs are read, as long as
        they are kept; ``since`` leaves out the runs that had ended by then.
        """
        return await failed_steps(self.session, instance_id, since)


class HumanTaskRepository(SQLAlchemyAsyncRepository[HumanTaskModel]):
    """What people are and were asked for."""

    model_type = HumanTaskModel

    async def find_pending(
        self, assignee_id: str | None = None, assignee_group: str | None = None
    ) -> Sequence[HumanTaskModel]:
        """Return pending human tasks by when they are due (those without at last), then by age.

        Args:
            assignee_id: only those of this person, and those of nobody in particular.
            assignee_group: only those of this group, and those of no group.
        """
        query = select(HumanTaskModel).where(HumanTaskModel.status == HumanTaskStatus.PENDING)
        for column, wanted in (
            (HumanTaskModel.assignee_id, assignee_id),
            (HumanTaskModel.assignee_group, assignee_group),
        ):
            if wanted is not None:
                query = query.where(or_(column == wanted, column.is_(None)))
        by_due = HumanTaskModel.due_at.asc().nulls_last()
        return await _all(self.session, query.order_by(by_due, HumanTaskModel.created_at))

    async def find_by_instance(self, instance_id: UUID) -> Sequence[HumanTaskModel]:
        """Return all human tasks of an instance, oldest first."""
        query = select(HumanTaskModel).where(HumanTaskModel.instance_id == instance_id)
        return await _all(self.session, query.order_by(HumanTaskModel.created_at))

    async def find_overdue(self) -> Sequence[HumanTaskModel]:
        """Return the pending human tasks that are late, the latest first."""
        now = to_datetime(SystemClock().now())
        query = (
            select(HumanTaskModel)
            .where(HumanTaskModel.status == HumanTaskStatus.PENDING, HumanTaskModel.due_at < now)
            .order_by(HumanTaskModel.due_at)
        )
        return await _all(self.session, query)

    async def complete_task(
        self, task_id: UUID, completed_by: str, data: Any = None
    ) -> HumanTaskModel | None:
        """Complete a human task as a person, with what they enter; ``None``: there is none.

        Raises:
            InvalidTransitionError: it is closed.
            Invalid: the data does not fit its form; the message has the path.
            TaskClaimed, UnauthorizedTaskError: it is somebody else's.
            Conflict: the session holds SQLite's write lock.
        """

        async def complete(people: HumanTasks) -> None:
            await people.complete(str(task_id), data, by=completed_by)

        return await self._close(task_id, HumanTaskStatus.COMPLETED, complete)

    async def cancel_task(
        self, task_id: UUID, cancelled_by: str = "system", reason: str = ""
    ) -> HumanTaskModel | None:
        """Take a human task back; its instance hears of it. ``None``: there is none.

        Raises:
            InvalidTransitionError: it is closed.
            Conflict: the session holds SQLite's write lock.
        """

        async def cancel(people: HumanTasks) -> None:
            await people.cancel(str(task_id), reason, by=cancelled_by)

        return await self._close(task_id, HumanTaskStatus.CANCELED, cancel)

    async def _close(
        self,
        task_id: UUID,
        status: HumanTaskStatus,
        close: Callable[[HumanTasks], Awaitable[None]],
    ) -> HumanTaskModel | None:
        found = await self._one(task_id)
        if found is None:
            return None
        try:
            async with _Commands(self.session) as client:
                await close(client.human_tasks)
        except TaskAlreadyCompletedError as exc:
            raise InvalidTransitionError(found.status, status, exc.message) from exc
        return await self._one(task_id)

    async def _one(self, task_id: UUID) -> HumanTaskModel | None:
        query = select(HumanTaskModel).where(HumanTaskModel.id == task_id)
        return next(iter(await _all(self.session, query)), None)


async def _all(session: Any, query: Select[Any]) -> Sequence[Any]:
    """Read through the session, and anew: what it has read before may be older."""
    answer = await session.execute(query.execution_options(populate_existing=True))
    return answer.scalars().all()
