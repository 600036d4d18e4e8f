"""Seed 4's database layer on PostgreSQL, by the drivers that applications use there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from tests.engine.support import until
from tests.seed4.database import registry_of, until_is
from tests.seed4.steps import Approval, Expense, Flaky, Note, Payment, chain
from tests.seed4.test_models import choosing, compare

from perdure.contrib.sqlalchemy import (
    HumanTaskModel,
    HumanTaskRepository,
    PersistentExecutionEngine,
    StepExecutionRepository,
    WorkflowDefinitionRepository,
    WorkflowInstanceRepository,
)
from perdure.contrib.sqlalchemy.tables import metadata
from perdure.contrib.sqlalchemy.urls import store_url
from perdure.graph import (
    BaseMachineStep,
    InvalidTransitionError,
    StepStatus,
    WorkflowDefinition,
    WorkflowRegistry,
    WorkflowStatus,
)


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """The URL of an empty database, as an application gives it to SQLAlchemy."""
    return postgres_url.replace("postgresql://", f"postgresql+{request.param}://")


@asynccontextmanager
async def engine_on(
    url: str, *workflows: Any
) -> AsyncIterator[tuple[PersistentExecutionEngine, AsyncSession]]:
    database = create_async_engine(url)
    sessions = async_sessionmaker(database, expire_on_commit=False)
    try:
        async with sessions() as session:
            engine = PersistentExecutionEngine(registry_of(*workflows), session)
            async with engine:
                yield engine, session
    finally:
        await database.dispose()


async def test_the_example_of_the_page(url: str):
    class MyWorkflow:
        @classmethod
        def get_definition(cls) -> WorkflowDefinition:
            return WorkflowDefinition("my_workflow", "1.0.0", "", {"read": Read()}, [], "read")

    class Read(BaseMachineStep):
        name = "read"

        async def execute(self, context: Any) -> None:
            context.set("seen", context.get("key"))

    database = create_async_engine(url)
    session_factory = async_sessionmaker(database, expire_on_commit=False)
    registry = WorkflowRegistry()
    registry.register_definition(MyWorkflow.get_definition())
    registry.register_workflow_class(MyWorkflow)
    async with session_factory() as session:
        engine = PersistentExecutionEngine(registry=registry, session=session)
        instance = await engine.start_workflow(MyWorkflow, initial_data={"key": "value"})
        await until_is(instance, "completed")
        assert instance.context.data == {"key": "value", "seen": "value"}
        await engine.aclose()
    await database.dispose()


async def test_human_tasks_and_instances_go_on_after_a_restart(url: str):
    async with engine_on(url, Expense, Payment) as (engine, _):
        asked = await engine.start_workflow(Expense, {"amount": 7})
        paid = await engine.start_workflow(Payment)
        for one in (asked, paid):
            await until_is(one, "waiting")
    async with engine_on(url, Expense, Payment) as (engine, session):
        repository = HumanTaskRepository(session=session)
        [task] = await repository.find_pending()
        assert await repository.complete_task(task.id, "ada", {"approved": True}) is not None
        await engine.client.get(paid.id).send("paid", {"sum": 1})
        for one in (asked, paid):
            await until_is(await engine.get_instance(one.id), "completed")
        model = await WorkflowInstanceRepository(session=session).get(asked.id)
        assert model.context_data == {"amount": 7, "submit": True, "approved": True, "pay": True}


async def test_the_repositories_find_what_the_engine_wrote(url: str):
    class Late(Approval):
        due = "1us"

    Flaky.is_broken = True
    failing, late = chain(Flaky("print"), name="failing"), chain(Late(), name="late")
    async with engine_on(url, failing, late) as (engine, session):
        instances = WorkflowInstanceRepository(session=session)
        steps = StepExecutionRepository(session=session)
        people = HumanTaskRepository(session=session)
        broken = await engine.start_workflow("failing", tenant_id="acme", created_by="ada")
        await until_is(broken, "failed")
        [failed] = await steps.find_failed()
        assert (failed.instance_id, failed.status) == (broken.id, StepStatus.FAILED)
        Flaky.is_broken = False
        await engine.retry(broken.id)
        await until_is(broken, "completed")
        assert [it.id for it in await steps.find_failed()] != [failed.id]
        assert [it.error for it in await steps.find_failed()] == ["the printer is on fire"]
        found, total = await instances.find_by_tenant("acme")
        assert (total, found[0].status) == (1, WorkflowStatus.COMPLETED)
        assert [it.id for it in await instances.find_by_user("ada")] == [broken.id]

        waiting = await engine.start_workflow("late")
        await until_is(waiting, "waiting")

        async def is_late() -> bool:
            return len(await people.find_overdue()) == 1

        await until(is_late)
        assert [it.id for it in await instances.find_running()] == [waiting.id]
        assert await people.count(HumanTaskModel.status == "pending") == 1
        changed = await instances.update_status(waiting.id, WorkflowStatus.CANCELED, error="no")
        assert changed is not None and changed.status is WorkflowStatus.CANCELED
        [task] = await people.find_by_instance(waiting.id)
        assert task.status == "canceled"
        with pytest.raises(InvalidTransitionError):
            await people.cancel_task(task.id)

        definitions = WorkflowDefinitionRepository(session=session)
        assert await definitions.deactivate_version("late", "1.0.0")
        assert [it.name for it in await definitions.list_active()] == ["failing"]


async def test_what_the_rows_tell_is_what_the_run_says_of_itself(url: str):
    async with engine_on(url, choosing()) as (engine, session):
        instance = await engine.start_workflow("choosing", {"n": 1})
        await until_is(instance, "waiting")
        await compare(engine, session, instance.id)


async def test_a_session_that_has_written_is_no_hindrance(url: str):
    async with engine_on(url, Payment) as (engine, session):
        await session.execute(text("CREATE TABLE mine (id bigint)"))
        await session.execute(text("INSERT INTO mine VALUES (1)"))
        instance = await engine.start_workflow(Payment)
        await until_is(instance, "waiting")
        await session.rollback()
        assert (await engine.get_instance(instance.id)).status is WorkflowStatus.WAITING


async def test_a_plain_session_names_the_database_too(postgres_url: str):
    database = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(database) as session:
        async with PersistentExecutionEngine(registry_of(chain(Note("a"))), session) as engine:
            instance = await engine.start_workflow("chain")
            await until_is(instance, "completed")
    database.dispose()


def test_the_tables_are_what_the_migrations_make(postgres_tables_url: str):
    database = create_engine(postgres_tables_url.replace("://", "+psycopg://", 1))
    there = inspect(database)
    for name, table in metadata.tables.items():
        columns = {column["name"]: column for column in there.get_columns(name)}
        for column in table.columns:
            assert column.name in columns, f"{name} has no column {column.name}"
            if not column.primary_key:
                nullable = columns[column.name]["nullable"]
                assert nullable is column.nullable, f"{name}.{column.name}"
        assert there.get_pk_constraint(name)["constrained_columns"] == [
            column.name for column in table.primary_key
        ]
    database.dispose()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("postgresql+asyncpg://localhost/db", "postgresql://localhost/db"),
        ("postgresql://ada:p%40ss@h:5433/db", "postgresql://ada:p%40ss@h:5433/db"),
        ("postgresql+asyncpg://h/db?ssl=require", "postgresql://h/db?sslmode=require"),
        ("postgresql+asyncpg://h/db?ssl=True", "postgresql://h/db?sslmode=require"),
        (
            "postgresql+asyncpg://h/db?timeout=5&command_timeout=9&prepared_statement_cache_size=0",
            "postgresql://h/db?connect_timeout=5",
        ),
        (
            "postgresql+asyncpg:///db?host=/var/run/postgresql",
            "postgresql:///db?host=%2Fvar%2Frun%2Fpostgresql",
        ),
        (
            "postgresql+asyncpg:///db?host=a:1&host=b:2",
            "postgresql:///db?host=a%2Cb&port=1%2C2",
        ),
        ("postgresql+psycopg:///db?host=[::1]:7", "postgresql:///db?host=%3A%3A1&port=7"),
        ("postgresql+psycopg:///db?host=::1", "postgresql:///db?host=%3A%3A1"),
        ("postgresql+psycopg2://h/db?sslmode=require", "postgresql://h/db?sslmode=require"),
        ("mysql+aiomysql://h/db", "mysql://h/db"),
    ],
)
def test_the_url_of_a_session_is_told_in_perdures_words(given: str, wanted: str):
    assert store_url(make_url(given)) == wanted
