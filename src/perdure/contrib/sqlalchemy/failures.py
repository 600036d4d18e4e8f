"""Visits of steps that failed, in all runs of instances: also in those that were retried since."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import Select, and_, or_, select, type_coerce

from perdure.contrib.sqlalchemy.models import StepExecutionModel, of_users, story_of
from perdure.contrib.sqlalchemy.story import StepRecord, Story
from perdure.contrib.sqlalchemy.tables import definitions, runs, states
from perdure.contrib.sqlalchemy.types import Time, Told, Uuid
from perdure.graph.states import StepStatus

_PAGE = 100
"""Histories that are read at once."""


_Failure = tuple[str, datetime, datetime | None]


class _Run(NamedTuple):
    """A run of an instance, ``id``; ``is_latest``: its last one so far."""

    run: int
    run_id: str
    id: UUID
    is_latest: bool
    story: Story


async def failed_steps(
    session: Any, instance_id: UUID | None, since: datetime | None
) -> list[StepExecutionModel]:
    """Return the failed visits of an instance, or of all, newest first.

    ``since``: only of runs that were open then, or began after it. The histories of functions are
    left out, those of graphs are read page by page.
    """
    found: list[StepExecutionModel] = []
    seen: dict[UUID, set[_Failure]] = {}
    async for one in _runs(session, instance_id, since):  # the latest run of each comes first
        failed = [step for step in one.story.steps if step.status is StepStatus.FAILED]
        copied = seen.setdefault(one.id, set())
        found += [_model(one, step) for step in failed if _key(step) not in copied]
        copied.update(map(_key, failed))
    return sorted(found, key=lambda it: it.started_at, reverse=True)


def _key(step: StepRecord) -> _Failure:
    """Return what a failure is known by in a run that has begun with a copy of it."""
    return step.name, step.started_at, step.completed_at


def _model(run: _Run, step: StepRecord) -> StepExecutionModel:
    made = StepExecutionModel.of(run.id, step)
    if not run.is_latest:  # a visit of the latest run may have begun with the same event
        made.id = uuid5(run.id, f"{run.run_id}/{step.event}")
    return made


async def _runs(
    session: Any, instance_id: UUID | None, since: datetime | None
) -> AsyncIterator[_Run]:
    seen: set[UUID] = set()
    before = None
    while True:
        query = _select(instance_id, since, before).limit(_PAGE)
        page = (await session.execute(query)).all()
        for run, run_id, id, story in page:
            yield _Run(run, run_id, id, id not in seen, story)
            seen.add(id)
        if len(page) < _PAGE:
            return
        before = page[-1][0]


def _select(
    instance_id: UUID | None, since: datetime | None, before: int | None
) -> Select[Any, Any, UUID, Story]:
    """Return the query of runs and their histories, the newest first."""
    first, run, source = runs.alias("first"), runs.alias("run"), definitions.c.source
    closed_at = type_coerce(states.c.closed_at, Time)
    defined = and_(definitions.c.name == run.c.workflow, definitions.c.version == run.c.version)
    joined = run.join(first, first.c.run == run.c.execution).join(states, states.c.run == run.c.run)
    query = (
        select(
            run.c.run,
            run.c.run_id,
            type_coerce(first.c.run_id, Uuid),
            type_coerce(story_of(run), Told),
        )
        .select_from(joined.outerjoin(definitions, defined))
        .where(of_users(first))
        .where(or_(source.is_(None), source.like("{%")))  # a function's is no JSON
        .order_by(run.c.run.desc())
    )
    if instance_id is not None:
        query = query.where(type_coerce(first.c.run_id, Uuid) == instance_id)
    if since is not None:
        query = query.where(or_(closed_at.is_(None), closed_at >= since))
    return query if before is None else query.where(run.c.run < before)
