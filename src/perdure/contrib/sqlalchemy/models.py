"""Models over Perdure's own tables, to read: they say what is there, and a write is refused.

An instance is an execution: its facts are those of its first run, its state that of the latest one.
What the rows of the history say (data, steps, errors) is decoded when it is asked for.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, NoReturn
from uuid import UUID, uuid5

from sqlalchemy import (
    ColumnElement,
    FromClause,
    ScalarSelect,
    Text,
    and_,
    case,
    column,
    event,
    func,
    select,
    type_coerce,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, relationship
from sqlalchemy.sql.expression import TableClause
from sqlalchemy.sql.functions import FunctionElement

from perdure import errors
from perdure.contrib.sqlalchemy.story import StepRecord, Story
from perdure.contrib.sqlalchemy.tables import (
    definitions,
    human_tasks,
    metadata,
    runs,
    states,
    turns,
)
from perdure.contrib.sqlalchemy.types import Flag, Json, Said, Shape, Time, Told, Uuid, Word
from perdure.executing.state import shown
from perdure.graph.states import StepStatus, StepType, WorkflowStatus
from perdure.values import people
from perdure.values.states import CODES

NAMESPACE = "default"
"""The one whose executions are instances; others are read with a client of their own."""
_SYSTEM = "perdure.%"


class Model(DeclarativeBase):
    """Base of the models; apart from the application's own."""

    metadata = metadata


class _Hexadecimal(FunctionElement[str]):
    """Bytes as text."""

    inherit_cache = True
    type = Text()


@compiles(_Hexadecimal)
def _hexadecimal(element: _Hexadecimal, compiler: Any, **options: Any) -> str:
    return f"hex({compiler.process(element.clauses, **options)})"


@compiles(_Hexadecimal, "postgresql")
def _hexadecimal_of_postgresql(element: _Hexadecimal, compiler: Any, **options: Any) -> str:
    return f"encode({compiler.process(element.clauses, **options)}, 'hex')"


def _definitions() -> FromClause:
    d = definitions
    return (
        select(
            type_coerce(d.c.id, Uuid).label("id"),
            d.c.name,
            d.c.version,
            type_coerce(d.c.source, Shape).label("definition_json"),
            type_coerce(d.c.is_active, Flag).label("is_active"),
            type_coerce(d.c.registered_at, Time).label("created_at"),
            type_coerce(d.c.registered_at, Time).label("updated_at"),
        )
        .where(d.c.name.not_like(_SYSTEM))
        .subquery("workflow_definitions")
    )


def story_of(run: FromClause) -> ScalarSelect[str]:
    """Return the history of a run, as :class:`Story` reads it."""
    parts = [
        sql_cast(turns.c.first, Text),
        sql_cast(turns.c.time, Text),
        _Hexadecimal(turns.c.payload),
    ]
    row = parts[0] + ":" + parts[1] + ":" + parts[2]
    return (
        select(func.aggregate_strings(row, ",")).where(turns.c.run == run.c.run).scalar_subquery()
    )


def of_users(first: FromClause) -> ColumnElement[bool]:
    """Tell whether an execution, by its first run, is an instance."""
    return and_(
        first.c.run == first.c.execution,
        first.c.namespace == NAMESPACE,
        first.c.workflow.not_like(_SYSTEM),
    )


def _instances() -> FromClause:
    first, latest, state = runs.alias("first"), runs.alias("latest"), states.alias("state")
    newest = select(func.max(runs.c.run)).where(runs.c.execution == first.c.run).scalar_subquery()
    story = story_of(latest)
    words = {code: str(shown(status)) for status, code in CODES.items()}
    of_version = and_(
        definitions.c.name == latest.c.workflow, definitions.c.version == latest.c.version
    )
    joined = (
        first.join(latest, latest.c.run == newest)
        .join(state, state.c.run == latest.c.run)
        .outerjoin(definitions, of_version)
    )
    return (
        select(
            type_coerce(first.c.run_id, Uuid).label("id"),
            first.c.workflow_id.label("execution_id"),
            type_coerce(definitions.c.id, Uuid).label("definition_id"),
            first.c.workflow.label("workflow_name"),
            latest.c.version.label("workflow_version"),
            type_coerce(case(words, value=state.c.status), Word).label("status"),
            type_coerce(first.c.created_at, Time).label("started_at"),
            type_coerce(state.c.closed_at, Time).label("completed_at"),
            first.c.tenant.label("tenant_id"),
            first.c.created_by.label("created_by"),
            type_coerce(first.c.created_at, Time).label("created_at"),
            type_coerce(func.coalesce(state.c.closed_at, state.c.since), Time).label("updated_at"),
            type_coerce(definitions.c.source, Shape).label("shape"),
            type_coerce(story, Told).label("story"),
        )
        .select_from(joined)
        .where(of_users(first))
        .subquery("workflow_instances")
    )


def _same_definition() -> ColumnElement[bool]:
    return and_(
        foreign(WorkflowInstanceModel.workflow_name) == WorkflowDefinitionModel.name,
        foreign(WorkflowInstanceModel.workflow_version) == WorkflowDefinitionModel.version,
    )


class HumanTaskStatus(StrEnum):
    """Seed 4's words for where a human task stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELED = "canceled"


_HUMAN = {
    people.HumanTaskStatus.OPEN: HumanTaskStatus.PENDING,
    people.HumanTaskStatus.CLAIMED: HumanTaskStatus.PENDING,
    people.HumanTaskStatus.COMPLETED: HumanTaskStatus.COMPLETED,
    people.HumanTaskStatus.REJECTED: HumanTaskStatus.COMPLETED,
    people.HumanTaskStatus.CANCELLED: HumanTaskStatus.CANCELED,
    people.HumanTaskStatus.EXPIRED: HumanTaskStatus.CANCELED,
}


def _human_tasks() -> FromClause:
    t, first = human_tasks, runs.alias("first")
    words = {code: str(_HUMAN[status]) for status, code in people.CODES.items()}
    changed = func.coalesce(t.c.closed_at, t.c.claimed_at, t.c.created_at)
    return (
        select(
            type_coerce(t.c.id, Uuid).label("id"),
            type_coerce(first.c.run_id, Uuid).label("instance_id"),
            t.c.event.label("event"),
            t.c.name.label("step_name"),
            t.c.title,
            type_coerce(t.c.description, Said).label("description"),
            type_coerce(t.c.form, Json).label("form_schema"),
            t.c.assignee.label("assignee_id"),
            t.c.role.label("assignee_group"),
            type_coerce(t.c.due_at, Time).label("due_at"),
            type_coerce(t.c.remind_at, Time).label("reminder_at"),
            case(words, value=t.c.status).label("status"),
            type_coerce(t.c.closed_at, Time).label("completed_at"),
            t.c.closed_by.label("completed_by"),
            type_coerce(t.c.created_at, Time).label("created_at"),
            type_coerce(changed, Time).label("updated_at"),
        )
        .select_from(t.join(first, first.c.run == t.c.execution))
        .where(t.c.namespace == NAMESPACE)
        .subquery("workflow_human_tasks")
    )


class WorkflowDefinitionModel(Model):
    """A version of a definition that a worker has registered.

    ``definition_json`` has name, version, description, steps, edges, the first and the last steps;
    it is empty for a workflow that is a function. ``is_active``: whether new instances may begin.
    """

    __table__: ClassVar[FromClause] = _definitions()
    __mapper_args__ = {"primary_key": [__table__.c.name, __table__.c.version]}  # noqa: RUF012 - SQLAlchemy declares it so

    id: Mapped[UUID]
    name: Mapped[str]
    version: Mapped[str]
    definition_json: Mapped[dict[str, Any]]
    is_active: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    instances: Mapped[list[WorkflowInstanceModel]] = relationship(
        back_populates="definition",
        viewonly=True,
        primaryjoin=_same_definition,
        order_by="WorkflowInstanceModel.created_at",
    )

    @property
    def description(self) -> str | None:
        """What it is for, in words."""
        return self.definition_json.get("description") or None


class WorkflowInstanceModel(Model):
    """An execution. ``story`` is the history of its latest run; ``shape`` its definition's."""

    __table__: ClassVar[FromClause] = _instances()
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012 - SQLAlchemy declares it so

    id: Mapped[UUID]
    execution_id: Mapped[str]
    definition_id: Mapped[UUID | None]
    workflow_name: Mapped[str]
    workflow_version: Mapped[str]
    status: Mapped[WorkflowStatus]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    tenant_id: Mapped[str | None]
    created_by: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    shape: Mapped[dict[str, Any]]
    story: Mapped[Story]
    definition: Mapped[WorkflowDefinitionModel | None] = relationship(
        back_populates="instances",
        viewonly=True,
        primaryjoin=_same_definition,
    )

    @property
    def current_step(self) -> str | None:
        """The step it is at (the first, if it is at several)."""
        return self.story.current_step

    @property
    def context_data(self) -> dict[str, Any]:
        """What its steps have set, and what it was started with."""
        return self.story.gathered(self.shape.get("webhooks")).data

    @property
    def metadata_(self) -> dict[str, Any]:
        """What its steps have set as metadata."""
        return self.story.gathered(self.shape.get("webhooks")).metadata

    @property
    def error(self) -> str | None:
        """Why it failed or was cancelled."""
        return self.story.error

    @property
    def step_executions(self) -> list[StepExecutionModel]:
        """The visits of its steps, in the order in which they began."""
        return [StepExecutionModel.of(self.id, step) for step in self.story.steps]


class HumanTaskModel(Model):
    """What a person is or was asked for by an instance. ``status``: pending, completed or canceled;
    a rejected one is completed, one whose time is over canceled.
    """

    __table__: ClassVar[FromClause] = _human_tasks()
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012 - SQLAlchemy declares it so

    id: Mapped[UUID]
    instance_id: Mapped[UUID]
    event: Mapped[int]
    step_name: Mapped[str]
    title: Mapped[str]
    description: Mapped[str]
    form_schema: Mapped[dict[str, Any] | None]
    assignee_id: Mapped[str | None]
    assignee_group: Mapped[str | None]
    due_at: Mapped[datetime | None]
    reminder_at: Mapped[datetime | None]
    status: Mapped[str]
    completed_at: Mapped[datetime | None]
    completed_by: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def step_execution_id(self) -> UUID:
        """The visit of the step that asked."""
        return step_execution_id(self.instance_id, self.event)


class _Derived(TableClause):
    """Stands where a table would: what it has is read from histories."""

    inherit_cache = True


@compiles(_Derived)
def _derived(element: _Derived, compiler: Any, **options: Any) -> NoReturn:
    raise errors.UsageError(
        "step executions lie in the histories of their instances, which SQL cannot read: use "
        "StepExecutionRepository, or `step_executions` of an instance"
    )


class StepExecutionModel(Model):
    """A visit of a step. It is read from the history of its instance, by
    :class:`StepExecutionRepository` or ``instance.step_executions``: a SELECT of it is refused.
    """

    __table__: ClassVar[FromClause] = _Derived(
        "workflow_step_executions",
        column("id", Uuid()),
        *[
            column(name, Text())
            for name in (
                "instance_id",
                "step_name",
                "step_type",
                "status",
                "input_data",
                "output_data",
                "error",
                "started_at",
                "completed_at",
                "assigned_to",
                "completed_by",
            )
        ],
    )
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012 - SQLAlchemy declares it so

    id: Mapped[UUID]
    instance_id: Mapped[UUID]
    step_name: Mapped[str]
    step_type: Mapped[StepType]
    status: Mapped[StepStatus]
    input_data: Mapped[Any]
    output_data: Mapped[Any]
    error: Mapped[str | None]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    assigned_to: Mapped[str | None]
    completed_by: Mapped[str | None]

    @classmethod
    def of(cls, instance_id: UUID, step: StepRecord) -> StepExecutionModel:
        """Return the model of a visit of a step of an instance."""
        return cls(
            id=step_execution_id(instance_id, step.event),
            instance_id=instance_id,
            step_name=step.name,
            step_type=step.type,
            status=step.status,
            input_data=step.input,
            output_data=step.output,
            error=step.error,
            started_at=step.started_at,
            completed_at=step.completed_at,
            assigned_to=step.assigned_to,
            completed_by=step.completed_by,
        )


def step_execution_id(instance_id: UUID, event: int) -> UUID:
    """Return the id of the visit that began with an event of an instance's history."""
    return uuid5(instance_id, str(event))


@event.listens_for(Model, "before_insert", propagate=True)
@event.listens_for(Model, "before_update", propagate=True)
@event.listens_for(Model, "before_delete", propagate=True)
def _refuse(mapper: Any, connection: Any, target: Any) -> NoReturn:
    raise errors.UsageError(
        f"{type(target).__name__} shows what Perdure has recorded and cannot be written: start, "
        "cancel and complete by the engine or a repository"
    )
