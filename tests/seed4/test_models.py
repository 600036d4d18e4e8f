"""Seed 4's models and repositories over Perdure's own tables."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.orm import selectinload
from tests.engine.support import until
from tests.seed4.database import engine_in, registry_of, sessions_on, until_is
from tests.seed4.steps import Flaky, Note, Payment, chain

from perdure import Engine, activity, workflow
from perdure.contrib.sqlalchemy import (
    HumanTaskModel,
    PersistentExecutionEngine,
    StepExecutionModel,
    StepExecutionRepository,
    WorkflowDefinitionModel,
    WorkflowDefinitionRepository,
    WorkflowInstanceModel,
    WorkflowInstanceRepository,
)
from perdure.contrib.sqlalchemy.tables import metadata
from perdure.errors import Conflict, UsageError, WorkflowFailed
from perdure.executing.state import QUERY
from perdure.graph import (
    ConditionalGroup,
    Edge,
    InvalidTransitionError,
    ParallelGateway,
    StepStatus,
    StepType,
    TimerStep,
    WebhookStep,
    WorkflowDefinition,
    WorkflowStatus,
    branch,
    flow,
)
from perdure.store.opening import open_store


@pytest.fixture(autouse=True)
def _anew() -> None:
    Flaky.is_broken, Flaky.count = True, 0


def test_the_tables_are_what_the_migrations_make(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path / 'app.db'}")
    store.migrate(1)
    store.close()
    database = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    there = inspect(database)
    for name, table in metadata.tables.items():
        columns = {column["name"]: column for column in there.get_columns(name)}
        assert columns, f"there is no table {name}"
        for column in table.columns:
            found = columns.get(column.name)
            assert found is not None, f"{name} has no column {column.name}"
            kind = column.type.compile(database.dialect).replace("BIGINT", "INTEGER")
            assert str(found["type"]) == kind, f"{name}.{column.name}"
            if not column.primary_key:
                assert found["nullable"] is column.nullable, f"{name}.{column.name}"
        key = there.get_pk_constraint(name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key]
    database.dispose()


def test_the_models_have_the_columns_of_the_page_and_ask_only_for_what_is_there(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path / 'app.db'}")
    store.migrate(1)
    store.close()
    database = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with database.connect() as connection:
        for model in (WorkflowDefinitionModel, WorkflowInstanceModel, HumanTaskModel):
            assert connection.execute(select(model)).all() == []
    database.dispose()
    for model, names in (
        (
            WorkflowDefinitionModel,
            "id name version description definition_json is_active instances created_at updated_at",
        ),
        (
            WorkflowInstanceModel,
            """id definition_id workflow_name workflow_version status current_step context_data
            metadata_ error started_at completed_at tenant_id created_by created_at updated_at""",
        ),
        (
            HumanTaskModel,
            """id instance_id step_execution_id step_name title description form_schema assignee_id
            assignee_group due_at reminder_at status completed_at completed_by created_at
            updated_at""",
        ),
        (
            StepExecutionModel,
            """id instance_id step_name step_type status input_data output_data error started_at
            completed_at assigned_to completed_by""",
        ),
    ):
        assert [name for name in names.split() if not hasattr(model, name)] == []


class Note2(Note):
    """Also writes metadata, and takes away what another has set."""

    async def execute(self, context: Any) -> Any:
        await context.set_metadata(self.name, len(context.step_history))
        context.data.pop("x", None)
        await asyncio.sleep(0)  # sleep: lets its neighbours in
        return {"by": await super().execute(context)}


class Skipped(Note):
    async def can_execute(self, context: Any) -> bool:
        return False


def side_by_side() -> WorkflowDefinition:
    steps = [
        Note("x"),
        ParallelGateway("all"),
        Note2("a"),
        Note2("b"),
        Skipped("never"),
        TimerStep("nap", "1ms"),
        WebhookStep("paid", callback_key="payment"),
        Note("end"),
    ]
    ways = ["x all", "all a", "all b", "all never", "a nap", "b nap", "never nap", "nap paid"]
    edges = [Edge(*way.split()) for way in [*ways, "paid end"]]
    return WorkflowDefinition("side_by_side", "1.0.0", "All kinds.", steps, edges)


def shaped() -> WorkflowDefinition:
    async def double(input: Any, ctx: Any) -> Any:
        ctx.set("doubled", True)
        return {"n": input["n"] * 2}

    return (
        flow("shaped")
        .task("double", double)
        .parallel(
            "both",
            [branch("one").task("first", double), branch("two").task("second", double)],
        )
        .pass_("shape", transform=lambda c: {"n": c.prev["one"]["n"], "paid": True})
        .webhook("paid")
        .build()
    )


def choosing() -> WorkflowDefinition:
    """A choice, and a group, that leave steps out."""
    group = ConditionalGroup(lambda _: "a", {"a": Note("in"), "b": Note("out")}, name="group")
    each = branch("each").choice("odd", [("context.prev % 2 == 1", "odds")], default="evens")
    each = each.pass_("odds", end=True).pass_("evens", end=True)
    return (
        flow("choosing")
        .choice("large", [("context.data.n > 1", "human")], default="group")
        .human("human", title="?", next="group")
        .add(group)
        .map("map", each, items=lambda _: [1, 2])
        .webhook("paid", end=True)
        .build()
    )


@pytest.mark.parametrize("make", [side_by_side, shaped, choosing])
async def test_what_the_rows_tell_is_what_the_run_says_of_itself(tmp_path: Path, make: Any):
    async with engine_in(tmp_path, make()) as (engine, session):
        instance = await engine.start_workflow(make().name, {"n": 1})

        async def is_at_the_webhook() -> bool:
            return (await engine.get_instance(instance.id)).current_step == "paid"

        await until(is_at_the_webhook)
        await compare(engine, session, instance.id)
        await instance.handle.send("paid", {"amount": 7})
        await until_is(instance, "completed")
        model = await compare(engine, session, instance.id)
        assert model.status is WorkflowStatus.COMPLETED
        assert model.completed_at == instance.completed_at
        assert model.current_step is None


async def compare(engine: Any, session: Any, id: UUID) -> WorkflowInstanceModel:
    session.expunge_all()
    model = await WorkflowInstanceRepository(session=session).get(id)
    said = await engine.client.get(id).query(QUERY)
    assert model.context_data == said["data"]
    assert model.metadata_ == said["metadata"]
    seen = [
        (it["step_name"], it["status"], it.get("error"))
        for it in said["step_history"]
        if it["step_name"] not in ("one", "two")
    ]
    assert [(it.step_name, it.status, it.error) for it in model.step_executions] == seen
    for execution, it in zip(model.step_executions, said["step_history"], strict=True):
        if execution.step_type is not StepType.GATEWAY:
            assert execution.output_data == it.get("output_data"), execution.step_name
        assert execution.started_at == datetime.fromisoformat(it["started_at"])
    return model


async def test_failures_retries_and_cancels_are_told_by_step(tmp_path: Path):
    definition = chain(Note("first"), Flaky("print"), WebhookStep("paid"))
    async with engine_in(tmp_path, definition) as (engine, session):
        steps = StepExecutionRepository(session=session)
        instances = WorkflowInstanceRepository(session=session)
        instance = await engine.start_workflow("chain")
        await until_is(instance, "failed")
        failed = await steps.find_failed(instance.id)
        assert [(it.step_name, it.error) for it in failed] == [("print", "the printer is on fire")]
        assert [it.id for it in await steps.find_failed()] == [it.id for it in failed]
        model = await instances.get(instance.id)
        assert (model.status, model.error) == (WorkflowStatus.FAILED, instance.error)
        Flaky.is_broken = False
        await engine.retry(instance.id)
        await until_is(instance, "waiting")
        await engine.cancel_workflow(instance.id, "enough")
        found = await steps.find_by_instance(instance.id)
        assert [(it.step_name, it.status) for it in found] == [
            ("first", StepStatus.SUCCEEDED),
            ("print", StepStatus.SUCCEEDED),
            ("paid", StepStatus.CANCELED),
        ]
        still = await steps.find_failed(instance.id)
        assert [(it.step_name, it.error) for it in still] == [("print", "the printer is on fire")]
        assert still[0].id not in {it.id for it in found}
        last = await steps.find_by_step_name(instance.id, "print")
        assert last is not None and last.output_data == {"count": 2}
        assert await steps.find_by_step_name(instance.id, "nobody") is None
        assert await steps.find_by_instance(uuid4()) == []
        again = (await instances.find_by_workflow("chain"))[0][0]
        assert (again.id, again.status) == (instance.id, WorkflowStatus.CANCELED)
        assert again.error == "Canceled: enough"


@pytest.mark.parametrize("page", [1, 100])
async def test_failed_visits_are_found_of_all_instances_whatever_became_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr("perdure.contrib.sqlalchemy.failures._PAGE", page)

    class Broken(Flaky):
        name = "broken"
        is_broken = True

    definition = chain(Note("first"), Broken(), WebhookStep("paid"))
    async with engine_in(tmp_path, definition) as (engine, session):
        steps = StepExecutionRepository(session=session)
        failed, waiting, completed = [await engine.start_workflow("chain") for _ in range(3)]
        for one in (failed, waiting, completed):
            await until_is(one, "failed")
        with pytest.raises(WorkflowFailed):
            await (await waiting.handle.retry())
        between = datetime.now(UTC)
        Broken.is_broken = False
        for one in (waiting, completed):
            await engine.retry(one.id)
            await until_is(one, "waiting")
        await completed.handle.send("paid", 1)
        await until_is(completed, "completed")

        found = await steps.find_failed()
        assert {it.status for it in found} == {StepStatus.FAILED}
        times = [it.started_at for it in found]
        assert times == sorted(times, reverse=True)
        by_instance = Counter(it.instance_id for it in found)
        assert by_instance == {failed.id: 1, waiting.id: 2, completed.id: 1}
        assert len({it.id for it in found}) == len(found)
        assert await steps.find_failed(since=between) == []
        assert len(await steps.find_failed(waiting.id)) == 2


async def test_what_a_terminated_instance_was_at_is_told_as_cancelled(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, session):
        instance = await engine.start_workflow(Payment)
        await until_is(instance, "waiting")
        await instance.handle.terminate("the end")
        await until_is(instance, "canceled")
        assert instance.error == "Canceled: the end"
        model = await WorkflowInstanceRepository(session=session).get(instance.id)
        assert (model.status, model.error, model.current_step) == (
            WorkflowStatus.CANCELED,
            "Canceled: the end",
            None,
        )
        last = model.step_executions[-1]
        assert (last.step_name, last.status) == ("paid", StepStatus.CANCELED)
        assert last.completed_at == model.completed_at


async def test_instances_are_found_by_workflow_status_user_and_tenant(tmp_path: Path):
    async with engine_in(tmp_path, Payment, chain(Note("only"))) as (engine, session):
        waiting = [
            await engine.start_workflow(Payment, tenant_id=tenant, created_by=by)
            for tenant, by in (("acme", "ada"), ("acme", "bob"), ("other", "ada"))
        ]
        done = await engine.start_workflow("chain", created_by="ada")
        await until_is(done, "completed")
        for one in waiting:
            await until_is(one, "waiting")
        repository = WorkflowInstanceRepository(session=session)
        ids = [one.id for one in waiting]

        found, total = await repository.find_by_workflow("payment", limit=2)
        assert ([one.id for one in found], total) == ([ids[2], ids[1]], 3)
        found, total = await repository.find_by_workflow("payment", limit=2, offset=2)
        assert ([one.id for one in found], total) == ([ids[0]], 3)
        assert (await repository.find_by_workflow("payment", WorkflowStatus.FAILED))[1] == 0
        assert [one.id for one in await repository.find_by_user("ada")] == [done.id, ids[2], ids[0]]
        by_status = await repository.find_by_user("ada", WorkflowStatus.COMPLETED)
        assert [one.id for one in by_status] == [done.id]
        found, total = await repository.find_by_tenant("acme", WorkflowStatus.WAITING)
        assert ([one.id for one in found], total) == ([ids[1], ids[0]], 2)
        assert [one.id for one in await repository.find_running()] == ids
        assert await repository.count() == 4
        assert (await repository.get(ids[0])).tenant_id == "acme"


async def test_a_status_is_changed_by_the_engine_or_not_at_all(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, session):
        repository = WorkflowInstanceRepository(session=session)
        instance = await engine.start_workflow(Payment)
        await until_is(instance, "waiting")
        same = await repository.update_status(instance.id, WorkflowStatus.WAITING)
        assert same is not None and same.status is WorkflowStatus.WAITING
        with pytest.raises(InvalidTransitionError, match="decide where it is, so not at 'ship'"):
            await repository.update_status(instance.id, WorkflowStatus.WAITING, current_step="ship")
        for status in (WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.RUNNING):
            says = f"Invalid transition from 'waiting' to '{status}'"
            with pytest.raises(InvalidTransitionError, match=says):
                await repository.update_status(instance.id, status, current_step="ship")
        ended = await repository.update_status(
            instance.id, WorkflowStatus.CANCELED, error="a change of mind"
        )
        assert ended is not None
        assert (ended.status, ended.error) == ("canceled", "Canceled: a change of mind")
        with pytest.raises(InvalidTransitionError, match="it has ended"):
            await repository.update_status(instance.id, WorkflowStatus.RUNNING)
        assert await repository.update_status(uuid4(), WorkflowStatus.CANCELED) is None


async def test_a_command_reaches_the_database_also_where_no_engine_runs(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, _):
        instance = await engine.start_workflow(Payment)
        await until_is(instance, "waiting")
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        repository = WorkflowInstanceRepository(session=session)
        await repository.update_status(instance.id, WorkflowStatus.CANCELED, error="later")
        await session.execute(text("CREATE TABLE orders (id INTEGER)"))
        await session.execute(text("INSERT INTO orders VALUES (1)"))
        with pytest.raises(Conflict, match="open transaction"):
            await WorkflowDefinitionRepository(session=session).deactivate_version("p", "1")
        await session.rollback()
        async with PersistentExecutionEngine(registry_of(Payment), session) as engine:
            found = await engine.get_instance(instance.id)
            await until_is(found, "canceled")


async def test_definitions_are_listed_by_semantic_version(tmp_path: Path):
    versions = [chain(Note("only"), version=version) for version in ("10.0.0", "9.0.0")]
    async with engine_in(tmp_path, *versions, side_by_side()) as (_, session):
        repository = WorkflowDefinitionRepository(session=session)
        latest = await repository.get_latest_version("chain")
        assert latest is not None and latest.version == "10.0.0"
        active = [(one.name, one.version) for one in await repository.list_active()]
        assert active == [("chain", "10.0.0"), ("chain", "9.0.0"), ("side_by_side", "1.0.0")]
        await repository.deactivate_version("chain", "10.0.0")
        latest = await repository.get_latest_version("chain")
        assert latest is not None and latest.version == "9.0.0"
        assert await repository.get_by_name("chain", "10.0.0") is None
        found = await repository.get_by_name("chain", "10.0.0", active_only=False)
        assert found is not None and found.is_active is False
        assert await repository.get_by_name("nobody") is None
        graph = await repository.get_by_name("side_by_side")
        assert graph is not None
        assert graph.description == "All kinds."
        assert graph.definition_json["steps"][:2] == ["x", "all"]
        assert graph.definition_json["edges"][0] == {
            "source": "x",
            "target": "all",
            "condition": None,
        }


async def test_an_instance_names_its_definition_and_a_definition_its_instances(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, session):
        instance = await engine.start_workflow(Payment)
        query = select(WorkflowInstanceModel).options(
            selectinload(WorkflowInstanceModel.definition)
        )
        model = (await session.execute(query)).scalars().one()
        assert model.definition is not None
        assert model.definition_id == model.definition.id
        again = await WorkflowDefinitionRepository(session=session).get_one(
            id=model.definition_id, load=[selectinload(WorkflowDefinitionModel.instances)]
        )
        assert [one.id for one in again.instances] == [instance.id]


@workflow.define
async def plain(n: int) -> int:
    return await double(n)


@activity.define
async def double(n: int) -> int:
    return n * 2


async def test_workflows_that_are_functions_are_instances_too(tmp_path: Path):
    async with Engine(f"sqlite:///{tmp_path / 'app.db'}", [plain, double]) as engine:
        await engine.client.execute(plain, 4, id="plain-4")
    async with sessions_on(tmp_path) as sessions, sessions() as session:
        [model], _ = await WorkflowInstanceRepository(session=session).find_by_workflow("plain")
        assert (model.execution_id, model.status) == ("plain-4", WorkflowStatus.COMPLETED)
        assert (model.context_data, model.shape) == ({}, {})
        [step] = model.step_executions
        assert (step.step_name, step.step_type) == ("double", StepType.MACHINE)
        assert (step.input_data, step.output_data) == (4, 8)


async def test_the_models_cannot_be_written(tmp_path: Path):
    async with engine_in(tmp_path, Payment) as (engine, session):
        instance = await engine.start_workflow(Payment)
        repository = WorkflowInstanceRepository(session=session)
        model = await repository.get(instance.id)
        model.tenant_id = "somebody else"
        with pytest.raises(UsageError, match="WorkflowInstanceModel shows what Perdure has"):
            await session.flush()
        await session.rollback()
        with pytest.raises(UsageError, match="cannot be written"):
            await repository.add(
                WorkflowInstanceModel(id=uuid4(), created_at=datetime.now(UTC), tenant_id="x")
            )
        await session.rollback()
        with pytest.raises(UsageError, match="use StepExecutionRepository"):
            await session.execute(select(StepExecutionModel))
