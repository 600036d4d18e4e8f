"""Models over tables whose data is sealed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError
from tests.engine.support import until
from tests.seed4.database import registry_of, sessions_on
from tests.seed4.steps import Note, chain
from tests.support.seals import Backwards

from perdure.contrib.sqlalchemy import (
    HumanTaskModel,
    HumanTaskRepository,
    PersistentExecutionEngine,
    WorkflowInstanceRepository,
    open_with,
)
from perdure.errors import Sealed
from perdure.graph import BaseHumanStep


class Ask(BaseHumanStep):
    name = "ask"
    title = "Shall we?"
    description = "The customer is Ada."
    form_schema = {"type": "object"}  # noqa: RUF012 - as users write it


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    open_with()


async def test_models_open_what_the_engine_of_their_process_seals(tmp_path: Path):
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        registry = registry_of(chain(Note("first"), Ask()))
        engine = PersistentExecutionEngine(registry, session, codec=Backwards())
        async with engine:
            instance = await engine.start_workflow("chain", {"name": "Ada"})
            await until(lambda: instance.status == "waiting")
            (task,) = (await session.execute(select(HumanTaskModel))).scalars().all()
            assert (task.description, task.title) == (Ask.description, Ask.title)
            assert task.form_schema == Ask.form_schema
            model = await WorkflowInstanceRepository(session=session).get(instance.id)
            assert model.context_data == {"name": "Ada", "first": True}


async def test_a_process_without_an_engine_is_told_the_codec(tmp_path: Path):
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        registry = registry_of(chain(Note("first"), Ask()))
        async with PersistentExecutionEngine(registry, session, codec=Backwards()) as engine:
            instance = await engine.start_workflow("chain", {"name": "Ada"})
            await until(lambda: instance.status == "waiting")
        open_with()
        session.expunge_all()
        model = await WorkflowInstanceRepository(session=session).get(instance.id)
        assert model.status == "waiting"
        with pytest.raises(Sealed, match="codec 'backwards'"):
            assert model.context_data
        with pytest.raises((Sealed, StatementError), match="codec 'backwards'"):
            (await session.execute(select(HumanTaskModel))).scalars().all()
        open_with(Backwards())
        session.expunge_all()
        model = await WorkflowInstanceRepository(session=session).get(instance.id)
        assert model.context_data["name"] == "Ada"
        (task,) = (await session.execute(select(HumanTaskModel))).scalars().all()
        id, repository = task.id, HumanTaskRepository(session=session)
        await session.rollback()
        assert await repository.complete_task(id, "ada", {}) is not None
